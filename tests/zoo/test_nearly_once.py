"""Deduplication in a window of time: a rate of duplicates that is neither nothing nor too much, and one that is."""

from __future__ import annotations

import pytest

from harness.pytest_plugin import Gauntlet, Violation
from pipelines_under_test.timed_dedup.pipeline import timed_dedup

pytestmark = pytest.mark.chaos


def test_what_comes_again_beyond_the_window_is_doubled_and_within_the_bound(gauntlet: Gauntlet) -> None:
    run = gauntlet.scenario("nearly-once").check()
    figures = run.finding("duplicate_rate", "aggregates")["figures"]
    assert 0 < figures["low"] < figures["rate"] < figures["high"] <= figures["most"]
    assert figures["bursts"] >= 8  # there were eleven causes, seconds apart; on a slow machine some fall together
    assert run.finding("duplicate_rate", "published")["figures"]["extra"] > 0  # and within the window counted once


def test_a_window_far_too_short_breaks_the_bound_and_nothing_else(gauntlet: Gauntlet) -> None:
    run = gauntlet.scenario("nearly-once", timed_dedup(window_s=0.5, name="kappa-hasty-dedup"))
    with pytest.raises(Violation, match="duplicate_rate"):
        run.check()
    assert [f["assertion"] for f in run.verdict["findings"] if f["verdict"] == "violation"] == ["duplicate_rate"]
    figures = run.finding("duplicate_rate", "aggregates")["figures"]
    assert figures["most"] < figures["low"] < figures["rate"]
