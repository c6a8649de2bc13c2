"""duplicate_rate: exact at 0, an interval elsewhere, and inconclusive where deduplication had nothing to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from saved_run import World

from assertions.duplicate_rate import DuplicateRate, events_needed, rate_interval
from harness.topology import UsageError

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


def _with_rate(extra: int) -> World:
    world = World()
    return world.double("published", *(int(p) for p in world.sound[:extra]))


def test_below_the_lower_bound_deduplication_was_not_exercised(tmp_path: Path) -> None:
    finding = DuplicateRate("published", least=0.02, most=1.0).check(_with_rate(20).save(tmp_path))
    assert finding.verdict == "inconclusive"
    assert "deduplication was not exercised" in finding.summary


def test_between_the_bounds(tmp_path: Path) -> None:
    finding = DuplicateRate("published", least=0.02, most=0.2).check(_with_rate(100).save(tmp_path))
    assert finding.verdict == "pass"
    low, high = finding.figures["low"], finding.figures["high"]
    assert finding.figures["rate"] == pytest.approx(100 / 1970, abs=1e-6)
    assert low < 100 / 1970 < high < 0.2


def test_wholly_above_the_upper_bound(tmp_path: Path) -> None:
    finding = DuplicateRate("published", most=0.02).check(_with_rate(100).save(tmp_path))
    assert finding.verdict == "violation"
    assert finding.figures["low"] > 0.02


@pytest.mark.parametrize("extra", [95, 105])
def test_straddling_the_bound_says_how_many_events_would_decide(tmp_path: Path, extra: int) -> None:
    finding = DuplicateRate("published", most=100 / 1970).check(_with_rate(extra).save(tmp_path))
    assert finding.verdict == "inconclusive"
    needed = finding.figures["events_needed"]
    assert needed > 1970
    # With so many events at the same rate the interval does lie on one side.
    rate, bound = extra / 1970, 100 / 1970
    low, high = rate_interval(round(needed * rate), needed + round(needed * rate), 0.95)
    assert high < bound * 1.0005 if extra < 100 else low > bound * 0.9995


def test_a_rate_at_the_very_bound_is_never_decided(tmp_path: Path) -> None:
    finding = DuplicateRate("published", most=100 / 1970).check(_with_rate(100).save(tmp_path))
    assert finding.verdict == "inconclusive"
    assert finding.figures["events_needed"] is None


def test_more_than_one_copy_an_event_is_a_rate_above_one(tmp_path: Path) -> None:
    world = World()
    world.copies["published"] *= 3
    finding = DuplicateRate("published", most=1.5).check(world.save(tmp_path))
    assert finding.verdict == "violation"
    assert finding.figures["rate"] == 2.0


def test_wilsons_interval_against_known_values() -> None:
    # 10 of 100 at 95 %: 5.523 % … 17.437 % (Newcombe 1998 gives the formula; the digits are computed by hand).
    low, high = rate_interval(10, 100, 0.95)
    assert low / (1 + low) == pytest.approx(0.05523, abs=1e-5)
    assert high / (1 + high) == pytest.approx(0.17437, abs=1e-5)
    assert rate_interval(0, 50, 0.95)[0] == 0.0
    assert rate_interval(0, 50, 0.95)[1] > 0.05


def test_the_interval_holds_the_true_rate_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    n, rate = 5_000, 0.05
    hits = 0
    for _ in range(1000):
        extra = int(generator.binomial(n, rate / (1 + rate)))
        low, high = rate_interval(extra, n, 0.95)
        hits += low <= rate <= high
    assert 0.93 < hits / 1000 < 0.97


def test_events_needed_grows_as_the_bound_comes_near() -> None:
    near, far = events_needed(0.05, 0.051, 0.95), events_needed(0.05, 0.06, 0.95)
    assert near is not None
    assert far is not None
    assert near > far * 50
    assert events_needed(0.05, 0.05, 0.95) is None


@pytest.mark.parametrize(
    "wrong", [{"least": -0.1}, {"least": 0.2, "most": 0.1}, {"confidence": 0.0}, {"confidence": 1.0}]
)
def test_bounds_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        DuplicateRate("published", **wrong)


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
