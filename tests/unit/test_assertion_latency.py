"""latency: percentiles from when events were due, quiet and faulty times apart, and a bound where one is stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from saved_run import HOPS, World

from assertions.base import Finding
from assertions.latency import Latency
from harness.topology import UsageError


def check(world: World, tmp_path: Path, most: float | None = None) -> Finding:
    return Latency(most).check(world.save(tmp_path))


def _ramp(world: World, hop: str = "aggregates") -> np.ndarray:
    """Latencies 1 … n milliseconds over the events that arrive."""
    delays = np.zeros(len(world.index))
    delays[world.sound] = (np.arange(len(world.sound)) + 1) / 1000
    world.delay[hop] = delays
    return delays[world.sound]


def test_it_is_the_last_hop_of_the_path_however_long_that_is(tmp_path: Path) -> None:
    source, path, dead_letters = (
        next(h for h in HOPS if h["role"] == role) for role in ("source", "path", "dead-letter")
    )
    for names in (["a"], ["a", "b", "c"]):
        hops = (source, *({**path, "name": name} for name in names), dead_letters)
        world = World(hops=hops, batch=False)
        _ramp(world, names[-1])
        (tmp_path / names[-1]).mkdir()
        figures = check(world, tmp_path / names[-1]).figures
        assert (figures["hop"], figures["at_sink"]) == (names[-1], False)
        assert figures["max_s"] == pytest.approx(len(world.sound) / 1000, abs=2e-3)


def counts_alone(world: World) -> World:
    """With the source and a sink that shows only counts, whose cells are dated."""
    world.show_sightings, world.date_cells = False, True
    return world


def test_of_a_sink_that_shows_only_counts_it_is_that_of_the_events_that_are_alone_in_their_cell(tmp_path: Path) -> None:
    hops = tuple(h for h in HOPS if h["role"] in ("source", "sink"))
    world = counts_alone(World(hops=hops, batch=False))
    world.delay["aggregates"][:] = 0.5
    first = world.cells[0]
    length = first.windows_s[0] * 1000
    cells = world.content.with_row_index("place").filter(~pl.col("poison"))
    start = pl.col("event_time_ms") // length
    alone = cells.filter(pl.len().over(*first.key, start) == 1)["place"].to_list()
    shared = cells.filter(pl.len().over(*first.key, start) > 1)["place"].to_list()
    slow, lost = alone[len(alone) // 2], alone[len(alone) // 3]
    world.delay["aggregates"][slow] = 7.25
    world.delay["aggregates"][shared[:5]] = 99  # nobody could tell which of its cell's events came first
    world.lose("aggregates", lost)
    finding = check(world, tmp_path)
    assert finding.verdict == "pass", finding.summary
    assert 0 < len(alone) < len(cells)
    figures = finding.figures
    assert (figures["hop"], figures["at_sink"]) == ("aggregates", True)
    assert (figures["events"], figures["missing"]) == (len(alone) - 1, 1)
    assert (figures["p50_s"], figures["max_s"]) == (pytest.approx(0.5, abs=2e-3), pytest.approx(7.25, abs=2e-3))
    assert finding.examples[0]["event"] == world.event_id(slow)


def test_a_path_that_shows_single_events_is_preferred_to_dated_cells(tmp_path: Path) -> None:
    world = counts_alone(World())
    assert check(world, tmp_path).figures["at_sink"] is False


def test_percentiles_are_those_of_the_events(tmp_path: Path) -> None:
    world = World()
    delays = np.sort(_ramp(world))
    finding = check(world, tmp_path)
    assert finding.verdict == "pass"
    n = len(delays)
    for percent in (50, 95, 99):
        assert finding.figures[f"p{percent}_s"] == pytest.approx(delays[-(-percent * n // 100) - 1], abs=2e-4)
    assert finding.figures["max_s"] == pytest.approx(delays[-1], abs=2e-4)
    assert (finding.figures["hop"], finding.figures["at_sink"], finding.figures["events"]) == ("aggregates", True, n)
    assert finding.figures["under_fault"] is None
    slowest = [e["latency_s"] for e in finding.examples]
    assert slowest == sorted(slowest, reverse=True)
    worst = finding.examples[0]
    assert worst["event"] == world.event_id(world.sound[-1])
    assert worst["seen_s"] - worst["due_s"] == pytest.approx(worst["latency_s"], abs=2e-3)


def test_it_counts_from_when_an_event_was_due_not_from_when_it_was_sent(tmp_path: Path) -> None:
    world = World()
    for delay in world.delay.values():
        delay += 0.3  # load stalled for 300 ms: every tap saw everything so much later
    finding = check(world, tmp_path)
    assert finding.figures["p50_s"] == pytest.approx(0.4, abs=1e-3)


def test_without_sightings_the_last_hop_that_shows_events_is_used(tmp_path: Path) -> None:
    world = World()
    world.show_sightings = False
    finding = check(world, tmp_path)
    assert (finding.figures["hop"], finding.figures["at_sink"]) == ("published", False)
    assert finding.figures["p50_s"] == pytest.approx(0.08, abs=1e-3)
    none = World(hops=[hop for hop in world.hops if hop["role"] != "path"])
    none.show_sightings = False
    told = check(none, tmp_path / "none")
    assert (told.verdict, "no hop shows when single events arrived" in told.summary) == ("inconclusive", True)


def test_the_first_sighting_counts(tmp_path: Path) -> None:
    world = World()
    world.show_sightings = False
    world.tap_twice = {"published"}
    world.copies["published"] *= 2
    assert check(world, tmp_path).figures["max_s"] == pytest.approx(0.08, abs=1e-3)


def test_quiet_and_faulty_times_apart(tmp_path: Path) -> None:
    world = World()
    world.fault("kill", "converter", 4.0, 5.0)
    slow = (world.due_s >= world.due_s[0] + 3.99) & (world.due_s < world.due_s[0] + 5.0)
    world.delay["aggregates"][slow] = 2.0
    finding = check(world, tmp_path)
    steady, under = finding.figures["steady"], finding.figures["under_fault"]
    assert steady["max_s"] == pytest.approx(0.1, abs=1e-3)
    assert (under["p95_s"], under["max_s"]) == (pytest.approx(2.0, abs=1e-3), pytest.approx(2.0, abs=1e-3))
    assert 200 <= under["events"] < 650  # those that were held up, and those due until the last of them was seen
    assert steady["events"] + under["events"] == finding.figures["events"]
    assert finding.examples[0]["faults"] == ["kill converter"]


def test_what_a_fault_leaves_behind_is_not_quiet_time(tmp_path: Path) -> None:
    """A kill is healed in a moment, and the events due in the seconds after it are late because of it."""
    world = World()
    world.fault("kill", "converter", 4.0, 4.02)
    due = world.due_s - world.due_s[0]
    held = (due >= 4.0) & (due < 7.0)
    world.delay["aggregates"] = np.where(held, 7.0 - due, 0.1)
    finding = check(world, tmp_path)
    assert finding.figures["steady"]["max_s"] == pytest.approx(0.1, abs=1e-3)
    assert finding.figures["under_fault"]["max_s"] == pytest.approx(3.0, abs=0.02)


def test_a_bound(tmp_path: Path) -> None:
    world = World()
    world.delay["aggregates"][world.sound[:50]] = 3.0  # more than 1 %
    assert check(world, tmp_path / "a", most=2.0).verdict == "violation"
    assert check(world, tmp_path / "b", most=3.1).verdict == "pass"
    world.delay["aggregates"][world.sound[:50]] = 0.1
    world.delay["aggregates"][world.sound[:10]] = 3.0  # less than 1 %
    assert check(world, tmp_path / "c", most=2.0).verdict == "pass"


def test_a_bound_on_quiet_times_is_not_held_against_what_a_fault_delays(tmp_path: Path) -> None:
    world = World()
    world.fault("kill", "converter", 4.0, 5.0)
    due = world.due_s - world.due_s[0]
    world.delay["aggregates"][(due >= 4.0) & (due < 5.0)] = 2.0
    quiet = Latency(steady_p99_most_s=0.5)
    assert quiet.check(world.save(tmp_path / "a")).verdict == "pass"
    assert Latency(0.5).check(world.save(tmp_path / "b")).verdict == "violation"
    world.delay["aggregates"][due < 1.0] = 1.0  # a burst, say
    found = quiet.check(world.save(tmp_path / "c"))
    assert (found.verdict, found.figures["steady_p99_most_s"]) == ("violation", 0.5)
    assert found.summary == "p99 while nothing was broken is 1.00 s at aggregates, at most 0.5 s are allowed"
    world.copies["aggregates"][due < 1.0] = 0
    assert quiet.check(world.save(tmp_path / "d")).verdict == "inconclusive"


def test_without_a_quiet_time_a_bound_on_it_says_nothing(tmp_path: Path) -> None:
    world = World()
    world.fault("kill", "converter", 0.0, 100.0)
    found = Latency(steady_p99_most_s=0.5).check(world.save(tmp_path))
    assert (found.verdict, found.summary) == ("inconclusive", "no event tells p99 while nothing was broken")


def test_events_that_were_not_seen_may_decide(tmp_path: Path) -> None:
    world = World()
    world.copies["aggregates"][world.sound[:50]] = 0
    finding = check(world, tmp_path / "a", most=2.0)
    assert (finding.verdict, finding.figures["missing"]) == ("inconclusive", 50)
    assert check(world, tmp_path / "b").verdict == "pass"  # without a bound it is a figure
    world.copies["aggregates"][world.sound[5:50]] = 1
    assert check(world, tmp_path / "c", most=2.0).verdict == "pass"  # 5 of 1970 cannot move the 99th percentile
    world.delay["aggregates"][world.sound[100:]] = 3.0
    assert check(world, tmp_path / "d", most=2.0).verdict == "violation"


@pytest.mark.parametrize("hop", ["source", "aggregates"])
def test_uncertified_is_inconclusive_whatever_was_found(tmp_path: Path, hop: str) -> None:
    world = World()
    world.uncertified[hop] = "a gap"
    assert check(world, tmp_path, most=0.01).verdict == "inconclusive"


def test_nothing_seen(tmp_path: Path) -> None:
    world = World()
    world.copies["aggregates"][:] = 0
    finding = check(world, tmp_path / "a")
    assert (finding.verdict, finding.summary) == ("inconclusive", "no event was seen at aggregates")
    world = World(hops=tuple(hop for hop in HOPS if hop["role"] in ("source", "sink")))
    world.show_sightings = False
    assert check(world, tmp_path / "b").verdict == "inconclusive"


@pytest.mark.parametrize("most", [0.0, -1.0, float("nan")])
def test_a_bound_that_cannot_be(most: float) -> None:
    with pytest.raises(UsageError, match="p99_most_s must be more than 0 seconds"):
        Latency(most)
    with pytest.raises(UsageError, match="steady_p99_most_s must be more than 0 seconds"):
        Latency(steady_p99_most_s=most)


def test_only_events_that_must_arrive_count(tmp_path: Path) -> None:
    """One that is not in the source log has no place in a figure, wherever it turns up; `content` tells of it."""
    world = World()
    world.outcome[world.sound[4]] = "e"
    world.copies["source"][world.sound[4]] = 0
    world.delay["aggregates"][world.sound[4]] = 50.0
    finding = check(world, tmp_path)
    assert finding.figures["max_s"] == pytest.approx(0.1, abs=1e-3)
    assert (finding.figures["events"], finding.figures["missing"]) == (len(world.sound) - 1, 0)
