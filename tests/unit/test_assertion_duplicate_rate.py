"""duplicate_rate: exact at 0, an interval elsewhere, and inconclusive where deduplication had nothing to do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from saved_run import World

from assertions.duplicate_rate import DuplicateRate
from harness.topology import UsageError
from load.profiles import Steady

HOPS_WITH_IDS = ["source", "intermediate", "published"]


@pytest.mark.parametrize("hop", [*HOPS_WITH_IDS, "aggregates"])
def test_a_healthy_run(tmp_path: Path, hop: str) -> None:
    finding = DuplicateRate(hop).check(World().save(tmp_path))
    assert (finding.verdict, list(finding.examples)) == ("pass", [])
    assert (finding.figures["extra"], finding.figures["rate"]) == (0, 0.0)
    assert finding.figures["events"] > 1900


@pytest.mark.parametrize("hop", HOPS_WITH_IDS)
def test_a_single_duplicate_breaks_a_bound_of_zero_and_is_named(tmp_path: Path, hop: str) -> None:
    world = World()
    place = int(world.sound[77])
    run = world.double(hop, place).save(tmp_path)
    finding = DuplicateRate(hop).check(run)
    assert finding.verdict == "violation"
    assert [e["event"] for e in finding.examples] == [world.event_id(place)]
    assert finding.examples[0]["copies"] == 2
    assert len(finding.examples[0]["seen_s"]) == 2
    assert finding.figures["rate"] == pytest.approx(1 / finding.figures["events"], abs=1e-6)
    for other in {*HOPS_WITH_IDS, "aggregates"} - {hop}:
        assert DuplicateRate(other).check(run).verdict == "pass"


def test_when_its_copies_were_seen_is_told_to_the_millisecond(tmp_path: Path) -> None:
    world = World()
    place = int(world.sound[77])
    world.double("published", place)
    world.again["published"][place] = 2.5
    finding = DuplicateRate("published").check(world.save(tmp_path))
    first = world.due_s[place] - world.due_s[0] + world.delay["published"][place]
    assert finding.examples[0]["seen_s"] == pytest.approx([first, first + 2.5], abs=6e-4)


@pytest.mark.parametrize("most", [0.0, 0.5])
def test_messages_of_no_event_of_the_load_are_neither_events_nor_duplicates(tmp_path: Path, most: float) -> None:
    """Nor are they taken for the last event of all, to which a place of -1 would lead."""
    world = World()
    world.double("published", len(world.index) - 1, int(world.sound[5]))
    healthy = DuplicateRate("published", most=most).check(world.save(tmp_path)).figures
    world.strange["published"] = [(-1, -1, b"?"), (9, 9, None)]
    (tmp_path / "strange").mkdir()
    finding = DuplicateRate("published", most=most).check(world.save(tmp_path / "strange"))
    for name in ("messages", "events", "extra", "bursts", "doubled", "low", "high"):
        assert finding.figures[name] == healthy[name]


def test_the_most_copied_event_comes_first(tmp_path: Path) -> None:
    world = World()
    world.double("published", *(int(p) for p in world.sound[:100]))
    world.copies["published"][world.sound[50]] = 7
    finding = DuplicateRate("published").check(world.save(tmp_path))
    assert finding.examples[0]["event"] == world.event_id(world.sound[50])
    assert finding.examples[0]["copies"] == finding.figures["copies"] == 7
    assert (finding.figures["extra"], finding.figures["doubled"]) == (99 + 6, 100)
    assert len(finding.examples) == 32


def test_a_doubled_count_at_the_sink_is_named_by_its_weight(tmp_path: Path) -> None:
    world = World()
    place = int(world.sound[77])
    finding = DuplicateRate("aggregates").check(world.double("aggregates", place).save(tmp_path))
    assert finding.verdict == "violation"
    assert {e["likely_event"] for e in finding.examples} == {world.event_id(place)}
    assert finding.figures["extra"] == 1
    assert finding.figures["cells_too_high"] == 4


def test_a_cell_that_holds_too_little_does_not_make_up_for_another(tmp_path: Path) -> None:
    world = World()
    gone = [int(p) for p in world.sound[:5]]
    world.double("aggregates", world.apart_from(*gone)).lose("aggregates", *gone)
    finding = DuplicateRate("aggregates").check(world.save(tmp_path))
    assert (finding.verdict, finding.figures["extra"]) == ("violation", 1)


def test_a_cell_that_nothing_should_be_in_holds_too_much(tmp_path: Path) -> None:
    world = World()
    strange = (
        world.counted()
        .tail(1)
        .with_columns(key=pl.lit("42|like"), count=pl.lit(3, dtype=pl.Int64), weight=pl.lit(5 * 10**8, dtype=pl.Int64))
    )
    world.edit_cells = lambda frame: pl.concat([frame, strange])
    finding = DuplicateRate("aggregates").check(world.save(tmp_path))
    assert (finding.verdict, finding.figures["extra"]) == ("violation", 3)
    assert finding.examples[0]["key"] == "42|like"
    assert finding.examples[0]["expected"] == 0


def test_what_a_tap_was_shown_twice_is_no_duplicate(tmp_path: Path) -> None:
    world = World()
    world.tap_twice = {"intermediate", "published"}
    run = world.save(tmp_path)
    assert DuplicateRate("intermediate").check(run).verdict == "pass"
    assert DuplicateRate("published").check(run).verdict == "pass"


def test_poison_that_is_counted_holds_too_much(tmp_path: Path) -> None:
    world = World()
    place = int(np.flatnonzero(world.poison)[0])
    # The generator leaves poison out of every cell, so it is counted here as a sound event in its place would be.
    like = world.content.row(place, named=True)
    row = {"dimension": "tweet", "key": f"{like['tweet_id']}|{like['engagement']}", "window_s": 10}
    start = like["event_time_ms"] // 10_000 * 10_000
    cell = pl.DataFrame({**row, "window_start_ms": start, "count": 1, "weight": like["weight"]})
    world.edit_cells = lambda frame: pl.concat([frame, cell.cast(frame.schema)])  # type: ignore[arg-type]
    finding = DuplicateRate("aggregates").check(world.save(tmp_path))
    assert finding.verdict == "violation"
    assert finding.examples[0]["likely_event"] == world.event_id(place)


# ----------------------------------------------------------------------------------------------------- bounds


def _doubled(*groups: range, copies: int = 1) -> World:
    """Events doubled at `published`, each group of places of sound events in a burst of its own (the load is 200/s)."""
    world = World()
    for group in groups:
        world.copies["published"][world.sound[group.start : group.stop : group.step]] += copies
    return world


#: 99 single duplicates, one each 0.1 s of the load: ten bursts.
SPREAD = range(0, 1970, 20)


def test_below_the_lower_bound_deduplication_was_not_exercised(tmp_path: Path) -> None:
    finding = DuplicateRate("published", least=0.02, most=1.0).check(_doubled(range(20)).save(tmp_path))
    assert finding.verdict == "inconclusive"
    assert "deduplication was not exercised" in finding.summary


def test_a_rate_at_the_lower_bound_exercised_deduplication(tmp_path: Path) -> None:
    finding = DuplicateRate("published", least=20 / 1970, most=1.0).check(_doubled(range(20)).save(tmp_path))
    assert finding.verdict == "pass"


@pytest.mark.parametrize(("most", "verdict"), [(98 / 1970, "violation"), (99 / 1970, "pass"), (100 / 1970, "pass")])
def test_without_a_confidence_the_rate_of_the_run_itself_is_compared(tmp_path: Path, most: float, verdict: str) -> None:
    finding = DuplicateRate("published", least=0.02, most=most).check(_doubled(SPREAD).save(tmp_path))
    assert (finding.verdict, finding.figures["confidence"]) == (verdict, None)
    assert finding.figures["extra"] == 99
    assert finding.figures["low"] < finding.figures["rate"] < finding.figures["high"]
    assert f"allowed are {most:.3%}" in finding.summary


def test_with_a_confidence_the_whole_interval_within_is_a_pass(tmp_path: Path) -> None:
    finding = DuplicateRate("published", least=0.02, most=0.12, confidence=0.95).check(_doubled(SPREAD).save(tmp_path))
    assert finding.verdict == "pass"
    assert (finding.figures["bursts"], finding.figures["largest_burst"]) == (10, 11)
    assert finding.figures["low"] < 99 / 1970 < finding.figures["high"] <= 0.12
    assert "by 10 bursts" in finding.summary
    assert "events_needed" not in finding.figures


def test_with_a_confidence_the_whole_interval_above_is_a_violation(tmp_path: Path) -> None:
    finding = DuplicateRate("published", most=0.02, confidence=0.95).check(_doubled(SPREAD).save(tmp_path))
    assert finding.verdict == "violation"
    assert finding.figures["low"] > 0.02
    assert "allowed are 2.000%" in finding.summary


@pytest.mark.parametrize("most", [0.03, 0.07])
def test_an_interval_that_straddles_the_bound_says_what_would_decide(tmp_path: Path, most: float) -> None:
    finding = DuplicateRate("published", most=most, confidence=0.95).check(_doubled(SPREAD).save(tmp_path))
    assert finding.verdict == "inconclusive"
    needed, bursts = finding.figures["events_needed"], finding.figures["bursts_needed"]
    assert needed > 1970
    assert bursts == math.ceil(needed / 1970 * 10)
    assert f"about {needed:,} events would decide, with {bursts} bursts among them" in finding.summary


def test_a_rate_at_the_very_bound_is_never_decided(tmp_path: Path) -> None:
    finding = DuplicateRate("published", most=99 / 1970, confidence=0.95).check(_doubled(SPREAD).save(tmp_path))
    assert finding.verdict == "inconclusive"
    assert (finding.figures["events_needed"], finding.figures["bursts_needed"]) == (None, None)
    assert "no number of events would decide" in finding.summary


def test_as_many_duplicates_in_fewer_bursts_prove_less(tmp_path: Path) -> None:
    """A hundred events of one retried request are one accident, and not a hundred."""
    bound = DuplicateRate("published", most=0.12, confidence=0.95)
    spread = bound.check(_doubled(SPREAD).save(tmp_path / "spread"))
    one = bound.check(_doubled(range(500, 599)).save(tmp_path / "one"))
    assert spread.figures["extra"] == one.figures["extra"] == 99
    assert (one.figures["bursts"], one.figures["largest_burst"]) == (1, 99)
    assert (spread.verdict, one.verdict) == ("pass", "inconclusive")
    assert one.figures["low"] < spread.figures["low"] < spread.figures["high"] < one.figures["high"]


def test_no_duplicate_at_all_says_little_of_a_rate(tmp_path: Path) -> None:
    """One burst could have doubled a second's worth, 200 of 1970 events, and may have failed to happen by chance."""
    run = World().save(tmp_path)
    finding = DuplicateRate("published", most=0.1, confidence=0.95).check(run)
    assert (finding.verdict, finding.figures["bursts"], finding.figures["bursts_needed"]) == ("inconclusive", 0, 0)
    assert finding.figures["high"] == pytest.approx(3.689 * 200 / 1970, rel=0.02)
    assert finding.figures["events_needed"] == pytest.approx(1970 * finding.figures["high"] / 0.1, rel=0.002)
    assert "among them" not in finding.summary
    assert DuplicateRate("published", most=0.1).check(run).verdict == "pass"  # of this very run


@pytest.mark.parametrize(("most", "verdict"), [(0.0, "violation"), (1.0, "pass")])
def test_bounds_of_zero_and_one_are_exact_whatever_the_confidence(tmp_path: Path, most: float, verdict: str) -> None:
    finding = DuplicateRate("published", most=most, confidence=0.95).check(_doubled(range(1)).save(tmp_path))
    assert (finding.verdict, finding.figures["low"], finding.figures["high"]) == (verdict, None, None)


def test_more_than_one_copy_an_event_is_a_rate_above_one(tmp_path: Path) -> None:
    world = World()
    world.copies["published"] *= 3
    finding = DuplicateRate("published", most=1.5).check(world.save(tmp_path))
    assert finding.verdict == "violation"
    assert finding.figures["rate"] == 2.0


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.95, math.nan])
def test_a_confidence_that_cannot_be(confidence: float) -> None:
    with pytest.raises(UsageError, match="a share between 0 and 1, such as 0.95"):
        DuplicateRate("published", most=0.1, confidence=confidence)


@pytest.mark.parametrize("wrong", [{"least": -0.1}, {"least": 0.2, "most": 0.1}, {"most": -1.0}])
def test_bounds_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="0 <= least <= most"):
        DuplicateRate("published", **wrong)


# --------------------------------------------------------------------------------------------- bursts at the sink


def test_bursts_at_the_sink_are_told_by_when_events_were_counted_again(tmp_path: Path) -> None:
    world = World()
    for i in (100, 101, 102, 900, 901):
        world.double("aggregates", int(world.sound[i]))
    world.show_every_count = True
    finding = DuplicateRate("aggregates", most=0.5, confidence=0.95).check(world.save(tmp_path))
    assert (finding.figures["extra"], finding.figures["bursts"], finding.figures["largest_burst"]) == (5, 2, 3)


@pytest.mark.parametrize("shown", [True, False])
def test_bursts_at_a_sink_that_does_not_show_them_are_windows(tmp_path: Path, shown: bool) -> None:
    """Also where single events are shown, but not each time that one was counted."""
    world = World(profile=Steady(rate=100, seconds=30, tweets=40, share_late=0.0))
    starts = world.content["event_time_ms"].to_numpy() // 10_000
    chosen = [[int(p) for p in world.sound if starts[p] == start][:3] for start in sorted(set(starts))[1:3]]
    world.double("aggregates", *chosen[0], *chosen[1][:2])
    world.show_sightings = shown
    finding = DuplicateRate("aggregates", most=0.9, confidence=0.95).check(world.save(tmp_path))
    assert (finding.figures["extra"], finding.figures["bursts"], finding.figures["largest_burst"]) == (5, 2, 3)
    # Two windows do not show how large bursts are: a whole window, a third of the run, may be doubled at once.
    assert finding.figures["high"] > 0.5


# ---------------------------------------------------------------------------------------------- inconclusive


@pytest.mark.parametrize("hop", ["published", "aggregates"])
def test_an_uncertified_hop_is_inconclusive_whatever_was_found(tmp_path: Path, hop: str) -> None:
    world = World().double(hop, int(World().sound[3]))
    world.uncertified[hop] = "two readings differ"
    finding = DuplicateRate(hop).check(world.save(tmp_path))
    assert finding.verdict == "inconclusive"
    assert "two readings differ" in finding.summary


def test_a_hop_that_was_not_stored(tmp_path: Path) -> None:
    world = World()
    world.without = {"published"}
    assert DuplicateRate("published").check(world.save(tmp_path)).verdict == "inconclusive"


def test_no_events_at_the_hop(tmp_path: Path) -> None:
    world = World()
    world.copies["published"][:] = 0
    assert DuplicateRate("published").check(world.save(tmp_path)).verdict == "inconclusive"


def test_an_unknown_hop_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'aggregates'"):
        DuplicateRate("aggregate").check(World().save(tmp_path))


def test_a_surplus_that_may_be_an_event_which_a_service_lost_is_undecided(tmp_path: Path) -> None:
    world = World()
    world.copies["source"][world.sound[0]] = 0  # acknowledged, read by the pipeline, and then lost by the log
    finding = DuplicateRate("aggregates").check(world.save(tmp_path))
    assert (finding.verdict, finding.figures["undecided_cells"]) == ("inconclusive", 4)
    world.double("aggregates", world.apart_from(int(world.sound[0])))
    finding = DuplicateRate("aggregates").check(world.save(tmp_path / "more"))
    assert (finding.verdict, finding.figures["extra"]) == ("violation", 1)  # another cell is wrong beyond doubt


def test_an_ambiguous_event_that_is_not_in_the_log_must_not_be_counted(tmp_path: Path) -> None:
    world = World()
    world.outcome[world.sound[0]] = "e"
    world.copies["source"][world.sound[0]] = 0
    finding = DuplicateRate("aggregates").check(world.save(tmp_path))
    assert finding.verdict == "violation"
    assert {e["likely_event"] for e in finding.examples} == {world.event_id(world.sound[0])}
