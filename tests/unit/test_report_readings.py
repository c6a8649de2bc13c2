"""What the page counts and draws is what the saved run holds: each figure against one that was planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_run import T0_MS, WARMUP_EVENTS, World

from assertions.judge import judge
from harness.report import readings
from harness.report.html import page_of
from harness.report.readings import Absent
from harness.store import SavedRun
from load.profiles import Steady

T0 = T0_MS / 1000


def hops_of(run: SavedRun) -> list[dict[str, Any]]:
    return run.pipeline["hops"]


def counted(run: SavedRun, name: str) -> list[readings.Counted]:
    return [c for c in readings.counts(run, hops_of(run)) if c.name == name]


# ------------------------------------------------------------------------------------------------------------- counts


def test_counts_of_a_healthy_run(tmp_path: Path) -> None:
    world = World()
    run = world.save(tmp_path)
    sound = len(world.sound)
    (published,) = counted(run, "published")
    assert (published.messages, published.events, published.duplicates, published.missing) == (sound, sound, 0, 0)
    (dead,) = counted(run, "dead-letters")
    assert (dead.messages, dead.missing, dead.of) == (world.poison.sum(), 0, world.poison.sum())
    sink = counted(run, "aggregates")
    assert {c.part for c in sink} == {f"by {d}, windows of {w} s" for d in ("tweet", "author") for w in (10, 60)}
    assert all((c.messages, c.events, c.duplicates, c.missing) == (sound, sound, 0, 0) for c in sink)
    assert all(c.certified for c in readings.counts(run, hops_of(run)))


def test_lost_and_doubled_events_are_counted_where_they_are(tmp_path: Path) -> None:
    world = World()
    world.lose("published", *world.sound[:3])
    world.double("intermediate", *world.sound[10:15])
    world.double("aggregates", *world.sound[-2:])
    run = world.save(tmp_path)
    sound = len(world.sound)
    (intermediate,) = counted(run, "intermediate")
    assert (intermediate.messages, intermediate.events, intermediate.duplicates) == (sound + 5, sound, 5)
    (published,) = counted(run, "published")
    assert (published.missing, published.of) == (3, sound)
    for line in counted(run, "aggregates"):
        if line.part.endswith("10 s"):  # in a window of 60 s, they may share a cell
            assert (line.duplicates, line.missing) == (2, 3)


def test_a_cell_whose_count_is_right_by_two_wrongs_is_told(tmp_path: Path) -> None:
    world = World(profile=Steady(rate=200, seconds=10, tweets=4, share_poison=0, share_late=0))
    seen: dict[tuple[Any, ...], int] = {}
    for place, row in enumerate(world.content.iter_rows(named=True)):
        cell = (row["tweet_id"], row["author_id"], row["engagement"], row["event_time_ms"] // 10_000)
        if cell in seen:
            break
        seen[cell] = place
    world.lose("aggregates", seen[cell]).double("aggregates", place)
    sink = counted(world.save(tmp_path), "aggregates")
    assert all((line.duplicates, line.missing) == (0, 0) for line in sink)
    assert any("not of the right events" in note for note in sink[0].notes)


def test_what_a_tap_read_twice_counts_once(tmp_path: Path) -> None:
    world = World()
    world.tap_twice.add("published")
    (published,) = counted(world.save(tmp_path), "published")
    assert published.duplicates == 0


def test_an_uncertified_tap_is_told_with_its_reason(tmp_path: Path) -> None:
    world = World()
    world.uncertified["published"] = "it ended before the sentinel"
    run = world.save(tmp_path)
    (published,) = counted(run, "published")
    assert not published.certified
    assert any("before the sentinel" in note for note in published.notes)
    shown = page_of(run, judge(run))
    tiles = shown[shown.index('class="tiles"') : shown.index("Findings at a glance")]
    assert "not known" in tiles, "what an uncertified tap missed is not nothing"


def test_strays_among_the_dead_letters_are_told(tmp_path: Path) -> None:
    world = World()
    world.copies["dead-letters"][world.sound[0]] = 1
    (dead,) = counted(world.save(tmp_path), "dead-letters")
    assert any("1 event here that is no poison" in note for note in dead.notes)


# -------------------------------------------------------------------------------------------------------------- rates


def rates_of(run: SavedRun) -> readings.Rates:
    return readings.rates(run, hops_of(run), run.history, run.t0, 200.0)


def test_every_message_of_the_load_is_in_one_bin(tmp_path: Path) -> None:
    world = World()
    rates = rates_of(world.save(tmp_path))
    by_name = {r.name: r for r in rates.rates}
    assert list(by_name) == ["load", *(h["name"] for h in world.hops)]
    for name in ("source", "intermediate", "published", "aggregates", "dead-letters"):
        seen = by_name[name].values.sum() * rates.axis.width
        assert seen == pytest.approx(by_name[name].total)
        assert by_name[name].total == (world.copies[name] > 0).sum(), "the warm-up is left out"


def test_the_rate_is_that_of_the_load_and_none_while_nothing_arrives(tmp_path: Path) -> None:
    world = World(profile=Steady(rate=200, seconds=10, share_poison=0))
    due = world.due_s - T0
    held = (due >= 4) & (due < 6)
    world.delay["published"][held] = 6.01 - due[held]  # all of them at once, at 6.01 s
    rates = rates_of(world.save(tmp_path))
    published = next(r for r in rates.rates if r.name == "published")
    middle = rates.axis.edges[:-1] + rates.axis.width / 2
    assert published.values[(middle > 1) & (middle < 3.5)].mean() == pytest.approx(200, rel=0.05)
    assert published.values[(middle > 4.5) & (middle < 5.9)].sum() == 0
    assert published.values.max() >= 400 / rates.axis.width


def test_a_sink_without_sightings_is_drawn_from_its_samples(tmp_path: Path) -> None:
    world = World()
    world.show_sightings = False
    sink = next(r for r in rates_of(world.save(tmp_path)).rates if r.name == "aggregates")
    assert "samples" in sink.how
    assert sink.total == len(world.sound) + WARMUP_EVENTS
    assert sink.values.max() > 0


def test_a_hop_that_was_not_collected_is_named_not_drawn_as_zero(tmp_path: Path) -> None:
    world = World()
    world.without.add("published")
    rates = rates_of(world.save(tmp_path))
    assert "published" not in [r.name for r in rates.rates]
    assert "not stored" in rates.missing["published"]


def test_bins_stay_few_for_a_long_run() -> None:
    history = [{"t": 0.0, "kind": "load", "acked": 0}, {"t": 36_000.0, "kind": "load", "acked": 72_000_000}]
    rates = readings.rates(None, [], history, 0.0)  # type: ignore[arg-type]
    assert len(rates.axis.edges) <= readings.MOST_BINS + 10
    assert rates.rates[0].values[10] == pytest.approx(2000, rel=0.01)


# ------------------------------------------------------------------------------------------------------------ latency


def test_latency_counts_from_when_an_event_was_due(tmp_path: Path) -> None:
    world = World()
    world.delay["aggregates"][:] = 0.5
    slow = (world.due_s - T0 >= 5) & (world.due_s - T0 < 5.25)
    world.delay["aggregates"][slow] = 3.0
    run = world.save(tmp_path)
    latency = readings.latency(run, hops_of(run), rates_of(run).axis)
    assert latency.hop == "aggregates"
    whole = next(x for x in latency.all if x.name == "aggregates")
    assert whole.p50 == pytest.approx(500, abs=1.5)
    assert whole.most == pytest.approx(3000, abs=1.5)
    place = int((5.0 - latency.axis.start) / latency.axis.width)
    assert latency.most[place] == pytest.approx(3000, abs=1.5), "drawn where it was due, not where it arrived"
    assert np.isnan(latency.p50[-1]), "no event was due there, which is not a latency of 0"


def test_without_sightings_the_latency_is_that_of_the_last_hop_that_shows_events(tmp_path: Path) -> None:
    world = World()
    world.show_sightings = False
    run = world.save(tmp_path)
    latency = readings.latency(run, hops_of(run), rates_of(run).axis)
    assert latency.hop == "published"
    assert "aggregates" in latency.missing


# ----------------------------------------------------------------------------------------------------- faults, lives


def test_faults_are_those_of_the_verdict_or_else_of_the_history(tmp_path: Path) -> None:
    world = World().fault("kill", "converter", 3.0, 3.2, pid=5).fault("partition", "converter->pubsub", 1.0, None)
    world.schedule.append({"fault": "pause", "target": "aggregator", "at": 9.0, "seconds": 1.0, "params": {}})
    run = world.save(tmp_path)
    partition, kill, pause = readings.faults_of({}, run.history, run.meta, run.t0)
    assert (partition.number, partition.title, partition.end, partition.bit) == (
        1,
        "partition converter->pubsub",
        None,
        None,
    )
    assert (kill.start, kill.end) == (pytest.approx(3.0), pytest.approx(3.2))
    assert kill.evidence["pid"] == 5
    assert pause.start is None
    judged = readings.faults_of(
        {"faults": [{"fault": "kill", "target": "w", "start": 1.0, "end": 2.0, "bit": False}]},
        run.history,
        run.meta,
        run.t0,
    )
    assert [(f.title, f.bit) for f in judged] == [("kill w", False)]


def test_a_fault_that_did_not_bite_is_told_by_a_word(tmp_path: Path) -> None:
    run = World().fault("kill", "converter", 3.0, 3.2).save(tmp_path)
    found = judge(run)
    for bit, word in ((False, "did not bite"), (True, "bit")):
        found["faults"][0]["bit"] = bit
        evidence = page_of(run, found).partition('<section id="faults">')[2].partition("</section>")[0]
        assert f"<span>{word}</span>" in evidence


def test_lives_of_a_worker_that_was_killed_and_started_again() -> None:
    history = [
        {"t": T0 - 2, "kind": "worker-start", "worker": "converter", "pid": 10, "started": T0 - 2.4},
        {"t": T0 - 2, "kind": "service-start", "service": "kafka", "pid": 5, "started": T0 - 90},
        {"t": T0 + 3, "kind": "worker-exit", "worker": "converter", "pid": 10, "status": -9, "signal": "SIGKILL", "asked": True},
        {"t": T0 + 3.5, "kind": "worker-start", "worker": "converter", "pid": 11},
        {"t": T0 + 4, "kind": "worker-exit", "worker": "converter", "pid": 11, "status": 1, "signal": None, "asked": False},
    ]  # fmt: skip
    kafka, converter = readings.lanes(history, {"converter": "worker"}, T0)
    assert kafka.lives[0].start == pytest.approx(-90), "a service that has been running since an earlier run"
    first, second = converter.lives
    assert (first.start, first.end, first.how) == (pytest.approx(-2), pytest.approx(3), "SIGKILL, asked for")
    assert (second.how, second.asked) == ("status 1, not asked for", False)


def test_time_zero_is_the_start_of_the_load_or_says_what_else() -> None:
    assert readings.time_zero({"load": {"t0_ms": 5000}}, []) == (5.0, "the load's start")
    stage = {"t": 7.0, "kind": "stage", "stage": "load"}
    assert readings.time_zero({"load": {"t0_ms": None}}, [{"t": 1.0, "kind": "note"}, stage])[0] == 7.0
    with pytest.raises(Absent):
        readings.time_zero({}, [])


# --------------------------------------------------------------------------------------------------------------- size


def test_the_page_of_forty_thousand_events_stays_below_a_megabyte(tmp_path: Path) -> None:
    world = World(profile=Steady())
    for n in range(10):
        world.fault("kill", "converter", 1.0 + n, 1.2 + n)
    for place in world.sound[:2000]:
        world.copies["published"][place] += 1
    run = world.save(tmp_path)
    assert len(world.index) == 40_000
    assert len(page_of(run, judge(run)).encode()) < 1_000_000


def test_a_soak_of_thousands_of_faults_and_notes_stays_readable(tmp_path: Path) -> None:
    world = World()
    for n in range(2000):
        world.fault("kill", "converter", n * 0.004, n * 0.004 + 0.002)
        world.happen("error", text="x" * 5000)
        world.happen("worker-start", at=n * 0.004, worker="converter", pid=n)
    text = page_of(world.save(tmp_path), {})
    assert len(text.encode()) < 4_000_000
    assert "further faults" in text
    assert "further rows" in text
