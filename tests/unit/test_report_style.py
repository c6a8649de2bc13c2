"""The page's colours can be read: WCAG 2 contrast of every text colour on every ground it stands on, light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import harness.report

CSS = (Path(harness.report.__path__[0]) / "page.css").read_text()
VERDICTS = ("pass", "violation", "inconclusive", "none")


def palette(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, flags=re.S)[:2]
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})\b", light))
    return found | dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})\b", dark)) if scheme == "dark" else found


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_what_wcag_says_it_is() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_its_ground(scheme: str) -> None:
    colours = palette(scheme)
    pairs = [(text, ground) for text in ("ink", "dim", "link", "fault", *VERDICTS) for ground in ("bg", "panel")]
    pairs += [(text, f"{verdict}-bg") for verdict in VERDICTS for text in ("ink", verdict)]
    poor = {f"{t} on {g}": round(contrast(colours[t], colours[g]), 2) for t, g in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_bars_stand_out_from_the_ground(scheme: str) -> None:
    colours = palette(scheme)
    assert {
        c: contrast(colours[c], colours["bg"])
        for c in ("data", "service", "fault")
        if contrast(colours[c], colours["bg"]) < 3
    } == {}
