"""`python -m benchmarks.plot`: draws docs/growth.svg of what `growth` and `memory` measured: how the cost of judging grows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import SIZES
from benchmarks.measure import summary

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "growth.svg"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 250, 70, 50, 40, 40
_STYLE = (
    "text{font:12px sans-serif;fill:#444}.line{fill:none;stroke:#2a6fbb;stroke-width:2}.spread{stroke:#2a6fbb}"
    ".dot{fill:#2a6fbb}.grid{stroke:#8884;stroke-width:1}.title{font-weight:bold}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)


def draw(cost: Sequence[Sequence[float]], memory: Sequence[Sequence[float]], events: Sequence[int]) -> str:
    """The picture of the seconds and the MiB that runs of so many events took, several times each; both axes logarithmic."""
    seconds = [[us * n / 1e6 for us in runs] for n, runs in zip(events, cost, strict=True)]
    panels = [
        _panel("Processor time to judge a run (s)", events, seconds, 0),
        _panel("Most memory (MiB)", events, memory, _HEIGHT),
    ]
    return _picture("Time and memory to judge a run, by its events", panels)


def _picture(about: str, panels: Sequence[str]) -> str:
    """Panels one below the other."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {len(panels) * _HEIGHT}" role="img" '
        f'aria-label="{about}"><style>{_STYLE}</style>{"".join(panels)}</svg>\n'
    )


def _panel(title: str, events: Sequence[int], figures: Sequence[Sequence[float]], top: int) -> str:
    low, high = math.floor(math.log10(min(map(min, figures)))), math.ceil(math.log10(max(map(max, figures))))
    least, most = math.log10(min(events)), math.log10(max(events))

    def x(n: float) -> float:
        return _LEFT + (math.log10(n) - least) / (most - least) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return top + _HEIGHT - _BOTTOM - (math.log10(value) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text class="title" x="{_LEFT}" y="{top + 24}">{title}</text>']
    for power in range(low, high + 1):
        at = y(10**power)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10**power:g}</text>')
    points = [
        (x(n), *(y(v) for v in (summary(f).median, summary(f).least, summary(f).most)))
        for n, f in zip(events, figures, strict=True)
    ]
    parts.append('<path class="line" d="M' + "L".join(f"{at:.1f} {median:.1f}" for at, median, _, _ in points) + '"/>')
    for n, (at, median, lowest, highest) in zip(events, points, strict=True):
        parts.append(
            f'<path class="spread" d="M{at:.1f} {lowest:.1f}V{highest:.1f}"/><circle class="dot" cx="{at:.1f}" cy="{median:.1f}" r="3.5"/>'
        )
        parts.append(f'<text x="{at:.1f}" y="{top + _HEIGHT - 18}" text-anchor="middle">{n:,}</text>')
    return "".join(parts)


#: Colours that are told apart in the light and in the dark.
_COLOURS = ("#2a6fbb", "#c2571a", "#3a8f4d", "#9b4fb0", "#777")


def picture_of_a_soak(cycles: Sequence[Mapping[str, Any]]) -> str:
    """Memory of every process, and disk, at the end of each cycle of a soak; both axes linear and from 0."""
    names = list(dict.fromkeys(name for cycle in cycles for name in cycle["figures"]))
    memory = [name for name in names if name.startswith("memory of ")]
    disk = [name for name in names if name.startswith("disk")]
    panels = [
        _lines("Memory after each cycle (MiB)", cycles, memory, 0),
        _lines("Disk after each cycle (MiB)", cycles, disk, _HEIGHT),
    ]
    return _picture("Memory and disk of a soak, by its cycles", panels)


def _lines(title: str, cycles: Sequence[Mapping[str, Any]], names: Sequence[str], top: int) -> str:
    most = max((c["figures"][n] for c in cycles for n in names if c["figures"].get(n) is not None), default=1.0)
    step = 10 ** math.floor(math.log10(most))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if most / s <= 6)
    high = math.ceil(most / step) * step

    def x(at: int) -> float:
        return _LEFT + at / max(1, len(cycles) - 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return top + _HEIGHT - _BOTTOM - value / high * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text class="title" x="{_LEFT}" y="{top + 16}">{title}</text>']
    for i in range(round(high / step) + 1):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(i * step):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(i * step) + 4:.1f}" text-anchor="end">{i * step:g}</text>')
    for i in range(0, len(cycles), max(1, len(cycles) // 10)):
        parts.append(f'<text x="{x(i):.1f}" y="{top + _HEIGHT - 18}" text-anchor="middle">{cycles[i]["number"]}</text>')
    for number, name in enumerate(names):
        known = [(x(i), y(v)) for i, c in enumerate(cycles) if (v := c["figures"].get(name)) is not None]
        if not known:
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        where = "L".join(f"{at:.1f} {height:.1f}" for at, height in known)
        parts.append(f'<path fill="none" stroke="{colour}" stroke-width="2" d="M{where}"/>')
        words = name.removeprefix("memory of ").removesuffix(" (MiB)")
        parts.append(f'<text x="{_LEFT + number * 120}" y="{top + 34}" style="fill:{colour}">{words}</text>')
    return "".join(parts)


def main() -> None:
    cost, memory = (
        list(json.loads((HERE / "results" / f"{name}.json").read_text())["figures"].values())
        for name in ("growth", "memory")
    )
    PICTURE.write_text(draw(cost, memory, list(SIZES.values())))
    print(f"written to {PICTURE}")


if __name__ == "__main__":
    main()
