"""How figures are spelt, what is taken out of texts, and what a verdict is said to mean."""

from __future__ import annotations

from typing import Any

import pytest

from assertions.registry import GUARDS
from harness.report import words


def finding(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {"assertion": name, "verdict": verdict, "summary": "…", "figures": {}, "examples": [], **more}


def test_the_guards_are_those_of_every_run() -> None:
    assert set(words.GUARDS) == {guard.name for guard in GUARDS}


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1, "100%"), (0.0573, "5.73%"), (0.97885, "97.885%"), (0.000001, "0.0001%"), (0.9999999, "99.99999%")],
)
def test_a_share_is_never_rounded_to_none_or_all(share: float, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("events", 39960, "39,960"),
        ("tweet_id", 1800000000000000001, "1800000000000000001"),
        ("window_start_ms", 1790000000000, "1790000000000"),
        ("p99_s", 2.3812, "2.381 s"),
        ("bytes_per_s", 798993, "798,993"),
        ("duplicate_rate", 0.04004, "4.004%"),
        ("certified", True, "yes"),
        ("most_s", None, "none"),
        ("missing", {"published": 3}, "published 3"),
        ("key", ["a", "b"], "a, b"),
    ],
)
def test_a_figure_is_spelt_by_what_its_key_says(key: str, value: Any, text: str) -> None:
    assert words.scalar(key, value) == text


@pytest.mark.parametrize(
    ("dirty", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x00b\x08", "a\\x00b\\x08"),
        ("\ud800", "\\ud800"),
        ("safe\u202eexe.txt", "safe\\u202eexe.txt"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("grüße 東京", "grüße 東京"),
    ],
)
def test_what_cannot_be_shown_becomes_visible(dirty: str, shown: str) -> None:
    assert words.clean(dirty) == shown


def test_an_expected_violation_counts_as_a_pass_and_its_absence_as_a_violation() -> None:
    assert words.standing(finding("no_loss", "violation", expected="violation")) == "pass"
    assert words.standing(finding("no_loss", "pass", expected="violation")) == "violation"
    assert words.standing(finding("no_loss", "inconclusive", expected="violation")) == "inconclusive"
    assert words.standing(finding("no_loss", "violation")) == "violation"
    assert words.told(finding("no_loss", "violation", expected="violation")) == "Violation, as expected"


def test_the_sentence_names_what_decided() -> None:
    found = [finding("no_loss", "violation"), finding("content", "pass"), finding("clock_steady", "inconclusive")]
    assert words.sentence({"verdict": "violation", "findings": found}) == "The pipeline is proven wrong by no_loss."
    assert "clock_steady" in words.sentence({"verdict": "inconclusive", "findings": found[1:]})
    missed = [finding("no_loss", "pass", expected="violation")]
    assert "did not show it" in words.sentence({"verdict": "violation", "findings": missed})


@pytest.mark.parametrize("verdict", [None, {}, {"verdict": "good"}, {"verdict": "pass "}])
def test_what_is_no_verdict_is_never_told_as_a_pass(verdict: Any) -> None:
    assert words.word((verdict or {}).get("verdict")) == "No verdict"
    assert words.sentence(verdict) == "This run was not judged."
    assert "pass" in words.meaning(verdict)  # "nothing … may be read as a pass"
    assert "Nothing on this page" in words.meaning(verdict)


def test_a_guard_that_could_not_look_is_not_told_as_what_it_looks_for() -> None:
    unseen = finding("clock_steady", "inconclusive") | {"summary": "cannot say: nobody watched the clock"}
    steps = words.next_steps({"verdict": "inconclusive", "findings": [unseen]})
    assert not any("clock was set" in step for step in steps)
    assert any("clock_steady" in step for step in steps)


def test_the_command_repeats_what_was_asked() -> None:
    meta = {
        "scenario": "kappa-under-fire",
        "pipeline": {"name": "kappa"},
        "backend": "process",
        "seed": 7,
        "load": {"profile": {"rate": 2000, "seconds": 20.0}},
        "schedule": [],
    }
    assert words.repeat_command(meta) == (
        "gauntlet run kappa-under-fire --pipeline kappa --backend process --seed 7 --rate 2000 --seconds 20 --schedule none"
    )
    drawn = words.repeat_command({**meta, "schedule": [{"fault": "kill"}], "schedule_seed": 7})
    assert drawn.endswith("--seed 7 --rate 2000 --seconds 20 --schedule random")
    of_ones_own = words.repeat_command({**meta, "pipeline": {"name": "orders", "ref": "shop.pipeline:orders"}})
    assert "--pipeline shop.pipeline:orders" in of_ones_own
    of_a_test = words.repeat_command({**meta, "scenario": "test_a_killed_worker[converter]"}, named=False)
    assert of_a_test == (
        "pytest -m chaos -k 'test_a_killed_worker[converter]' --gauntlet-backend process --gauntlet-seed 7"
    )
    assert words.check_command("out/a b") == "gauntlet check 'out/a b'"
