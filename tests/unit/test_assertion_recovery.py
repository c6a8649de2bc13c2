"""recovery: when the backlog was worked off after a fault, and that nothing stands still while there is work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from saved_run import World

from assertions.base import Finding
from assertions.recovery import Recovery, _longest_free, _standstills
from assertions.sight import Sight, flows_again
from assertions.spread import UNIT_S
from harness.store import FaultWindow
from harness.topology import UsageError
from load.profiles import Steady


def check(world: World, tmp_path: Path, most: float | None = None) -> Finding:
    return Recovery(most).check(world.save(tmp_path))


def outage(world: World, start: float, back: float) -> World:
    """Nothing is seen at the sink between two moments (seconds after the load's start), and all of it at the second."""
    due = world.due_s - world.due_s[0]
    seen = due + 0.1
    held = (seen >= start) & (seen < back)
    world.delay["aggregates"] = np.where(held, back - due, 0.1)
    return world


# ------------------------------------------------------------------------------------------------- flows_again


def test_at_the_first_event_after_the_healing_if_nothing_was_held_up() -> None:
    due = np.arange(0.0, 10.0, 0.1)
    assert flows_again(due, due + 0.2, 4.95, 0.5) == pytest.approx(5.2)


def test_a_kill_shows_only_after_it_was_healed() -> None:
    """The process is there again at once and works only seconds later; what it had passed on arrives on time."""
    due = np.arange(0.0, 20.0, 0.1)
    seen = np.where((due >= 5.0) & (due < 8.0), 8.0 + (due - 5.0) / 100, due + 0.2)
    assert flows_again(due, seen, 5.02, 0.5) == pytest.approx(8.0 + 2.5 / 100, abs=0.2)


def test_a_backlog_counts_until_it_is_worked_off() -> None:
    due = np.arange(0.0, 20.0, 0.1)
    seen = np.where(due < 3.0, due + 0.2, np.maximum(due + 0.2, 7.0 + (due - 3.0) / 4))
    # From 7.0 on, the backlog is seen at four times the rate of the load: event d at 7 + (d - 3) / 4, which is within
    # 0.5 s of d from d = 7.667 on.
    assert flows_again(due, seen, 5.0, 0.5) == pytest.approx(7.0 + (7.667 - 3) / 4, abs=0.1)


def test_a_straggler_holds_recovery_up() -> None:
    """One message that only the acknowledgement deadline brings back: until then something is amiss."""
    due = np.arange(0.0, 20.0, 0.1)
    seen = due + 0.2
    seen[40] = 14.0
    assert flows_again(due, seen, 5.0, 0.5) == pytest.approx(14.0, abs=0.1)


def test_a_few_good_events_before_the_outage_shows_are_no_recovery() -> None:
    """Another partition goes on for half a second, until its turn comes, too."""
    due = np.arange(0.0, 20.0, 0.1)
    seen = np.where((due >= 5.5) & (due < 8.0), 8.2, due + 0.2)
    assert flows_again(due, seen, 5.0, 0.5) > 8.0


def test_a_load_that_ends_before_the_flow_is_normal() -> None:
    due = np.arange(0.0, 10.0, 0.1)
    late = np.where(due < 5.0, due + 0.2, 15.0)
    assert flows_again(due, late, 6.0, 0.5) == 15.0
    assert flows_again(due, late, 16.0, 0.5) == 16.0  # all was seen before it was healed


def test_against_the_definition_word_by_word() -> None:
    generator = np.random.default_rng(3)
    for _ in range(300):
        due = np.sort(generator.uniform(0, 10, 40))
        seen = due + generator.exponential(generator.uniform(0.05, 1.0), 40)
        healed, normal = generator.uniform(0, 12), generator.uniform(0.1, 3)

        def in_time(i: int, due: np.ndarray = due, seen: np.ndarray = seen, normal: float = normal) -> bool:
            return max(seen[: i + 1]) - due[i] <= normal

        answer = max(healed, max(seen))
        for i in range(40):
            following = [j for j in range(i, 40) if due[j] <= due[i] + max(1.0, normal)]
            if due[i] >= healed and all(in_time(j) for j in following):
                answer = max(seen[: i + 1])
                break
        assert flows_again(due, seen, healed, normal) == answer


# -------------------------------------------------------------------------------------------- time to recover


def test_a_healthy_run_without_faults(tmp_path: Path) -> None:
    finding = check(World(), tmp_path)
    assert (finding.verdict, finding.figures["faults"], list(finding.examples)) == ("pass", [], [])
    assert finding.figures["longest_gap_s"] < 1
    assert finding.figures["drain"] == {"reason": "drained", "waited_s": 13.0}


def test_time_to_recover_counts_from_the_healing(tmp_path: Path) -> None:
    world = outage(World(), 3.0, 6.0).fault("partition", "converter->pubsub", 3.0, 4.5)
    finding = check(world, tmp_path)
    assert finding.verdict == "pass"
    (fault,) = finding.figures["faults"]
    assert (fault["start_s"], fault["end_s"]) == (3.0, 4.5)
    assert fault["recovered_s"] == pytest.approx(1.5, abs=0.01)
    assert fault["disturbed"] == []
    assert finding.figures["normal_s"] == 0.5


def test_normal_is_twice_what_nearly_all_events_took_before_the_first_fault(tmp_path: Path) -> None:
    world = World().fault("partition", "converter->pubsub", 6.0, 6.5)
    world.delay["aggregates"][:] = 1.0
    assert check(world, tmp_path / "a").figures["normal_s"] == pytest.approx(2.0, abs=1e-6)
    world.delay["aggregates"][world.sound[3]] = 4.0  # one of a thousand
    assert check(world, tmp_path / "b").figures["normal_s"] == pytest.approx(2.0, abs=1e-6)


def test_a_bound_on_recovery(tmp_path: Path) -> None:
    world = outage(World(), 3.0, 6.0).fault("partition", "converter->pubsub", 3.0, 4.5)
    assert check(world, tmp_path / "a", most=2.0).verdict == "pass"
    finding = check(world, tmp_path / "b", most=1.0)
    assert finding.verdict == "violation"
    assert "it took 1.5 s to recover from partition converter->pubsub" in finding.summary
    assert finding.examples[0]["target"] == "converter->pubsub"


def test_a_fault_that_nobody_felt_shows_the_latency_of_one_event(tmp_path: Path) -> None:
    (fault,) = check(World().fault("kill", "x", 3.0, 4.0), tmp_path).figures["faults"]
    assert fault["recovered_s"] == pytest.approx(0.1, abs=0.02)


def test_recovery_that_another_fault_disturbs_is_marked_and_not_judged(tmp_path: Path) -> None:
    world = outage(World(), 3.0, 8.0).fault("kill", "a", 3.0, 4.0).fault("kill", "b", 5.0, 6.5)
    finding = check(world, tmp_path, most=2.0)
    first, second = finding.figures["faults"]
    assert first["disturbed"] == ["kill b at 5.0 s"]
    assert (first["recovered_s"], second["recovered_s"]) == (pytest.approx(4.0, abs=0.01), pytest.approx(1.5, abs=0.01))
    assert second["disturbed"] == []
    assert finding.verdict == "pass"  # the second recovery is within the bound, the first is not its own
    assert check(world, tmp_path / "tighter", most=1.0).verdict == "violation"


def test_a_fault_that_was_never_healed(tmp_path: Path) -> None:
    finding = check(World().fault("pause", "converter", 3.0, None), tmp_path)
    assert finding.verdict == "inconclusive"
    assert "was never healed" in finding.summary


def test_lost_events_do_not_count_as_late(tmp_path: Path) -> None:
    world = outage(World(), 3.0, 6.0).fault("kill", "x", 3.0, 4.5)
    world.copies["aggregates"][world.sound[100:110]] = 0
    assert check(world, tmp_path).figures["faults"][0]["recovered_s"] == pytest.approx(1.5, abs=0.01)


def test_a_fault_after_which_nothing_was_seen_any_more_was_not_recovered_from(tmp_path: Path) -> None:
    """At a hop of the path that proves it; a sink need not show every single event."""
    world = World().fault("partition", "converter->pubsub", 3.0, 4.0).fault("kill", "converter", 1.0, 1.5)
    gone = world.sound[world.due_s[world.sound] - world.due_s[0] >= 4.0]
    world.lose("published", *(int(place) for place in gone))
    for at_sink, verdict in ((False, "violation"), (True, "inconclusive")):
        world.show_sightings = at_sink
        (tmp_path / verdict).mkdir()
        finding = check(world, tmp_path / verdict)
        assert finding.verdict == verdict
        hop = "aggregates" if at_sink else "published"
        assert finding.summary == (
            f"{len(gone):,} events due after partition converter->pubsub at 3 s was healed, and none of them was ever seen "
            f"at {hop}"
        )
        never, other = sorted(finding.figures["faults"], key=lambda f: -f["start_s"])
        assert (never["recovered_s"], never["owed"]) == (None, len(gone))
        assert other["recovered_s"] is not None


def test_a_fault_that_was_healed_when_all_was_sent_owes_nothing(tmp_path: Path) -> None:
    finding = check(World().fault("kill", "x", 9.0, 30.0), tmp_path)
    assert finding.verdict == "pass"
    assert finding.figures["faults"][0]["owed"] == 0


# ---------------------------------------------------------------------------------------------------- liveness

LONG = Steady(rate=20, seconds=100, tweets=40)


def test_a_standstill_of_more_than_a_minute_with_events_waiting(tmp_path: Path) -> None:
    finding = check(outage(World(profile=LONG), 20.0, 85.0), tmp_path)
    assert finding.verdict == "violation"
    assert "nothing moved at aggregates for 65 s" in finding.summary
    (gap,) = finding.examples
    assert (gap["hop"], gap["seconds"]) == ("aggregates", pytest.approx(65, abs=0.2))


def test_a_standstill_of_less_than_a_minute(tmp_path: Path) -> None:
    finding = check(outage(World(profile=LONG), 20.0, 75.0), tmp_path)
    assert finding.verdict == "pass"
    assert finding.figures["longest_gap_s"] == pytest.approx(55, abs=0.2)


def test_a_standstill_during_a_fault_is_the_faults(tmp_path: Path) -> None:
    world = outage(World(profile=LONG), 20.0, 85.0).fault("partition", "x", 20.0, 60.0)
    finding = check(world, tmp_path)
    assert finding.verdict == "pass"
    assert finding.figures["longest_gap_s"] == pytest.approx(25, abs=0.2)


def test_nothing_is_demanded_while_any_of_several_faults_is_active(tmp_path: Path) -> None:
    """65 s without a movement; of two faults that overlap, the first ends early, and one within another ends earlier."""
    world = outage(World(profile=LONG), 20.0, 85.0)
    world.fault("partition", "x", 20.0, 30.0).fault("kill", "y", 25.0, 60.0).fault("kill", "z", 26.0, 28.0)
    finding = check(world, tmp_path)
    assert finding.verdict == "pass"
    assert finding.figures["longest_gap_s"] == pytest.approx(25, abs=0.2)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)).map(lambda f: (f[0], f[0] + f[1])), max_size=6),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_the_longest_time_without_a_fault_is_found_however_they_overlap(
    active: list[tuple[float, float]], start: int, length: int
) -> None:
    """Against counting by the second."""
    low, high = _longest_free(start, start + length, active)
    runs, longest = 0, 0
    for second in range(start, start + length):
        runs = 0 if any(begin < second + 1 and second < end for begin, end in active) else runs + 1
        if any(begin == second == end for begin, end in active):
            runs = min(runs, 1)  # one that was over at once parts the time before it from that after it
        longest = max(longest, runs)
    assert high - low == longest
    assert start <= low <= high <= start + length


def test_a_standstill_counts_though_many_longer_ones_lie_within_faults(tmp_path: Path) -> None:
    waits = [(float(i * 100), float(i * 100 + 90)) for i in range(40)] + [(5000.0, 5062.0)]
    run = World(profile=LONG).save(tmp_path)
    due = np.array([start for start, _ in waits])
    units = np.array([round(end / UNIT_S) for _, end in waits], dtype=np.int32)
    sight = Sight("aggregates", True, 0.0, units, lambda rank: due[rank], 0)
    faults = [FaultWindow(i, "kill", "x", start, end, {}, {}) for i, (start, end) in enumerate(waits[:-1])]
    parts, _ = _standstills(run, sight, faults)
    assert [part.verdict for part in parts] == ["violation"]


def test_a_standstill_after_the_fault_is_the_pipelines(tmp_path: Path) -> None:
    world = outage(World(profile=LONG), 20.0, 85.0).fault("partition", "x", 20.0, 24.0)
    assert check(world, tmp_path).verdict == "violation"


def test_a_quiet_time_without_work_is_no_standstill(tmp_path: Path) -> None:
    # One event in a hundred seconds: nothing moves for long, and nothing waits.
    finding = check(World(profile=Steady(rate=1, seconds=2, tweets=2)), tmp_path / "short")
    assert finding.verdict == "pass"
    world = World(profile=LONG)
    # Nothing is due for 70 s, because nothing was sent.
    held = (world.due_s > world.due_s[0] + 10) & (world.due_s < world.due_s[0] + 80)
    world.outcome[held] = "f"
    for copies in world.copies.values():
        copies[held] = 0
    finding = check(world, tmp_path / "long")
    assert finding.verdict == "pass"
    assert finding.figures["longest_gap_s"] < 1


def test_a_sink_that_shows_counts_only_is_watched_by_its_count(tmp_path: Path) -> None:
    world = outage(World(profile=LONG), 20.0, 85.0)
    world.show_sightings = False  # the hop before it is fine all the time
    finding = check(world, tmp_path / "a")
    assert finding.figures["hop"] == "published"
    assert finding.verdict == "violation"
    assert "nothing moved at aggregates for 6" in finding.summary
    healthy = World(profile=LONG)
    healthy.show_sightings = False
    assert check(healthy, tmp_path / "b").verdict == "pass"
    healthy.without = {"progress"}
    finding = check(healthy, tmp_path / "c")
    assert (finding.verdict, "whether aggregates stood still" in finding.summary) == ("inconclusive", True)


# ------------------------------------------------------------------------------------------------- the drain


@pytest.mark.parametrize(
    ("reason", "verdict"), [("cap", "inconclusive"), ("stuck", "inconclusive"), ("crash-loop", "violation")]
)
def test_a_pipeline_that_stood_still_beside_a_dead_source_is_not_to_blame(
    tmp_path: Path, reason: str, verdict: str
) -> None:
    """A broker that no longer serves its topics; that a worker dies again and again is seen all the same."""
    world = World()
    world.drained = {"reason": reason, "waited_s": 60.0}
    world.uncertified = {"source": "kafka does not say where it ends"}
    assert check(world, tmp_path).verdict == verdict


@pytest.mark.parametrize("reason", ["cap", "crash-loop", "stuck"])
def test_a_drain_that_did_not_end_by_itself(tmp_path: Path, reason: str) -> None:
    world = World()
    world.drained = {"reason": reason, "waited_s": 60.0}
    for i in range(3):
        world.happen("worker-exit", 4.0 + i, worker="converter", pid=i, status=1, signal=None, asked=False)
    world.happen("worker-exit", 12.0, worker="converter", pid=9, status=0, signal=None, asked=True)
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert "did not drain within 60.0 s" in finding.summary
    assert [e["at_s"] for e in finding.examples] == [6.0, 5.0, 4.0]  # the last exit first, none that was asked for
    assert {e["log"] for e in finding.examples} == {"logs/converter.log"}
    assert {(e["worker"], e["status"], e["signal"]) for e in finding.examples} == {("converter", 1, None)}
    assert finding.figures["crashes"] == 3


def test_a_crash_loop_is_proven_even_if_nothing_was_seen(tmp_path: Path) -> None:
    world = World()
    world.drained = {"reason": "crash-loop", "waited_s": 60.0}
    world.copies["aggregates"][:] = 0
    assert check(world, tmp_path).verdict == "violation"


@pytest.mark.parametrize(
    ("seen", "verdict", "said"),
    [
        (
            {"lags": {"g": None}, "missing": {}},
            "inconclusive",
            "as far as could be seen: the lag of g could not be read",
        ),
        ({"lags": {"g": None, "h": 4}, "missing": {}}, "violation", "work left"),
        ({"lags": {"g": None}, "missing": {"published": 3}}, "violation", "work left"),
        ({"lags": {"g": None}, "missing": {}, "down": ["converter"]}, "violation", "work left"),
        (
            {"lags": {"g": 0}, "missing": {"aggregates": 9}, "unread": ["aggregates"]},
            "inconclusive",
            "as far as could be seen: aggregates could not be read through after the last movement",
        ),
        (
            {"lags": {"g": 5}, "missing": {}, "down": ["converter"], "unstartable": ["converter"]},
            "inconclusive",
            "as far as could be seen: converter could not be started again",
        ),
        ({"lags": {"g": 5}, "missing": {"aggregates": 9}, "unread": ["aggregates"]}, "violation", "work left"),
    ],
)
def test_a_standstill_that_nobody_could_see_is_no_proof(
    tmp_path: Path, seen: dict[str, object], verdict: str, said: str
) -> None:
    world = World()
    world.drained = {"reason": "stuck", "waited_s": 60.0, **seen}
    finding = check(world, tmp_path)
    assert finding.verdict == verdict
    assert said in finding.summary


def test_a_drain_that_ended_in_quiet_with_something_missing_is_for_the_others_to_tell(tmp_path: Path) -> None:
    world = World().lose("intermediate", int(World().sound[3]))
    world.drained = {"reason": "quiet", "waited_s": 24.0}
    assert check(world, tmp_path).verdict == "pass"


def test_a_drain_that_nobody_told_of(tmp_path: Path) -> None:
    world = World()
    world.silent = {"drain-end"}
    assert check(world, tmp_path / "a").verdict == "inconclusive"
    world = World()
    world.drained = {"reason": "boredom", "waited_s": 1.0}
    assert check(world, tmp_path / "b").verdict == "inconclusive"


@pytest.mark.parametrize("hop", ["source", "aggregates"])
def test_uncertified_is_inconclusive(tmp_path: Path, hop: str) -> None:
    world = outage(World(profile=LONG), 20.0, 85.0)
    world.uncertified[hop] = "a gap"
    assert check(world, tmp_path).verdict == "inconclusive"


def test_nothing_seen_at_all(tmp_path: Path) -> None:
    world = World()
    world.copies["aggregates"][:] = 0
    assert check(world, tmp_path).verdict == "inconclusive"


@pytest.mark.parametrize("most", [0.0, -1.0])
def test_a_bound_that_cannot_be(most: float) -> None:
    with pytest.raises(UsageError):
        Recovery(most)


def test_what_a_dead_worker_held_counts_although_nothing_was_overdue_when_it_was_started_again() -> None:
    """Killed and started again within a moment: its leases come back only at the deadline, 10 s later."""
    due = np.arange(0.0, 20.0, 0.1)
    seen = due + 0.2
    seen[(due > 9.9) & (due <= 10.0)] = 20.3
    assert flows_again(due, seen, 10.05, 1.0) == 20.3


@pytest.mark.parametrize(
    ("active", "free"),
    [
        ([], (10.0, 20.0)),
        ([(0.0, 5.0)], (10.0, 20.0)),  # all before it
        ([(30.0, 40.0)], (10.0, 20.0)),  # all behind it
        ([(20.0, 40.0)], (10.0, 20.0)),
        ([(0.0, 12.0)], (12.0, 20.0)),
        ([(13.0, 40.0)], (10.0, 13.0)),
        ([(12.0, 13.0)], (13.0, 20.0)),
        ([(17.0, 18.0), (12.0, 13.0)], (13.0, 17.0)),
        ([(11.0, 19.0), (12.0, 13.0)], (10.0, 11.0)),  # one within the other
        ([(0.0, 40.0)], (10.0, 10.0)),
    ],
)
def test_the_longest_time_without_a_fault(active: list[tuple[float, float]], free: tuple[float, float]) -> None:
    assert _longest_free(10.0, 20.0, active) == free
