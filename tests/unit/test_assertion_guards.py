"""The guards: each turns a run that cannot say into inconclusive, and none is ever a violation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saved_run import T0_MS, World

from assertions.base import Assertion, Finding
from assertions.clock_steady import ClockSteady
from assertions.drained import Drained
from assertions.faults_effective import FaultsEffective
from assertions.ledger_settled import LedgerSettled
from assertions.load_delivered import LoadDelivered
from assertions.machine_healthy import MachineHealthy
from assertions.registry import GUARDS
from assertions.services_alive import ServicesAlive
from assertions.taps_complete import TapsComplete
from faults.base import Evidence
from harness.store import NotObserved

# No World is made before a test runs: it starts Polars' threads, and mutation testing forks after importing this.


def check(guard: Assertion, world: World, tmp_path: Path) -> Finding:
    return guard.check(world.save(tmp_path))


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_healthy_run_passes_every_guard(tmp_path: Path, guard: Assertion) -> None:
    finding = check(guard, World(users=2), tmp_path)
    assert (finding.verdict, list(finding.examples)) == ("pass", [])
    assert (
        finding.summary
        == {
            "load_delivered": "2,000 of 2,000 planned events were acknowledged",
            "ledger_settled": "all 2,000 acknowledged events are in the source log",
            "taps_complete": "all 5 hops were seen whole",
            "faults_effective": "no fault was scheduled",
            "drained": "it drained in 13.0 s (drained)",
            "services_alive": "no service died that was not killed",
            "clock_steady": "the clock was steady within 0.4 ms",
            "machine_healthy": "neither memory nor disk ran out",
        }[guard.name]
    )


# ----------------------------------------------------------------------------------------------------- drained


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [("drained", "pass"), ("quiet", "pass"), ("stuck", "inconclusive"), ("crash-loop", "inconclusive"),
     ("cap", "inconclusive"), ("boredom", "inconclusive")],
)  # fmt: skip
def test_a_drain_that_was_broken_off_says_nothing_of_what_was_on_its_way(
    tmp_path: Path, reason: str, verdict: str
) -> None:
    world = World()
    world.drained = {"reason": reason, "waited_s": 60.0}
    finding = check(Drained(), world, tmp_path)
    assert finding.verdict == verdict
    assert (
        finding.summary
        == {
            "pass": f"it drained in 60.0 s ({reason})",
            "inconclusive": f"the drain was broken off after 60.0 s: {reason}",
        }[verdict]
    )


def test_a_drain_that_nobody_told_of_is_none(tmp_path: Path) -> None:
    world = World()
    world.silent = {"drain-end"}
    finding = check(Drained(), world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "does not say how the drain ended" in finding.summary


# --------------------------------------------------------------------------------------------- load_delivered


@pytest.mark.parametrize(("failed", "verdict"), [(100, "pass"), (101, "inconclusive")])
def test_95_percent_of_the_plan_must_be_acknowledged(tmp_path: Path, failed: int, verdict: str) -> None:
    world = World()
    world.outcome[-failed:] = "f"  # of 2,000
    for copies in world.copies.values():
        copies[-failed:] = 0
    finding = check(LoadDelivered(), world, tmp_path)
    assert finding.verdict == verdict
    assert finding.figures["planned"] == 2000
    assert (finding.figures["acked"], finding.figures["failed"]) == (2000 - failed, failed)


def test_load_that_broke_off_was_not_delivered(tmp_path: Path) -> None:
    world = World()
    world.outcome[1000:] = "-"  # never came to it
    for copies in world.copies.values():
        copies[1000:] = 0
    finding = check(LoadDelivered(), world, tmp_path)
    assert (finding.verdict, finding.figures["share"], finding.figures["behind_ms"]) == ("inconclusive", 0.5, 1.5)
    told = "1,000 of 2,000 planned events were acknowledged, at least 95% are needed"
    assert finding.summary == f"the load was not delivered: {told}"
    world.silent = {"load"}
    assert check(LoadDelivered(), world, tmp_path / "untold").figures["behind_ms"] is None


def test_ambiguous_is_not_acknowledged(tmp_path: Path) -> None:
    world = World()
    world.outcome[:200] = "?"
    finding = check(LoadDelivered(), world, tmp_path)
    assert (finding.verdict, finding.figures["sent"], finding.figures["ambiguous"]) == ("inconclusive", 2000, 200)


# --------------------------------------------------------------------------------------------- ledger_settled


def test_an_acknowledged_event_that_is_not_in_the_log(tmp_path: Path) -> None:
    world = World().lose("source", int(World().sound[4]))
    finding = check(LedgerSettled(), world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "a service lost data" in finding.summary
    assert [e["event"] for e in finding.examples] == [world.event_id(world.sound[4])]


def test_ambiguity_is_told_and_settled(tmp_path: Path) -> None:
    world = World()
    world.outcome[world.sound[:10]] = "e"
    world.outcome[world.sound[10:15]] = "?"
    world.lose("source", *(int(p) for p in world.sound[:3]))
    world.double("source", int(world.sound[30]))
    finding = check(LedgerSettled(), world, tmp_path)
    assert finding.verdict == "pass"
    told = ("ambiguous", "ambiguous_present", "ambiguous_absent", "acked_but_absent", "source_copies")
    assert [finding.figures[name] for name in told] == [15, 12, 3, 0, 1]
    assert finding.figures["must_arrive"] == len(world.sound) - 3


def test_what_surely_was_not_sent_and_is_there(tmp_path: Path) -> None:
    world = World()
    world.outcome[world.sound[4]] = "f"
    finding = check(LedgerSettled(), world, tmp_path)
    assert (finding.verdict, finding.figures["failed_but_present"]) == ("inconclusive", 1)


def test_an_uncertified_source_settles_nothing(tmp_path: Path) -> None:
    world = World()
    world.uncertified["source"] = "a gap"
    assert check(LedgerSettled(), world, tmp_path).verdict == "inconclusive"


# ---------------------------------------------------------------------------------------------- taps_complete


@pytest.mark.parametrize("hop", ["source", "intermediate", "dead-letters", "published", "aggregates"])
def test_each_tap_must_be_certified_and_stored(tmp_path: Path, hop: str) -> None:
    world = World()
    world.uncertified[hop] = "offsets 4 … 7 are missing"
    finding = check(TapsComplete(), world, tmp_path / "a")
    assert finding.verdict == "inconclusive"
    assert list(finding.examples) == [{"hop": hop, "reason": "offsets 4 … 7 are missing"}]
    world = World()
    world.without = {hop}
    assert check(TapsComplete(), world, tmp_path / "b").verdict == "inconclusive"
    world = World()
    world.silent = {"tap"}
    finding = check(TapsComplete(), world, tmp_path / "c")
    assert len(finding.examples) == 5
    assert not finding.figures["hops"][hop]["certified"]


def test_what_each_tap_says_of_itself_is_shown(tmp_path: Path) -> None:
    world = World()
    world.uncertified["source"] = "a gap"
    world.tap_figures = {"source": {"records": 7}, "published": {"messages": 9}}
    hops = check(TapsComplete(), world, tmp_path).figures["hops"]
    assert hops["source"] == {"certified": False, "reason": "a gap", "records": 7}
    assert hops["published"] == {"certified": True, "reason": "all was seen", "messages": 9}
    assert hops["aggregates"] == {"certified": True, "reason": "all was seen"}
    healthy = check(TapsComplete(), World(), tmp_path / "healthy")
    assert healthy.summary == "all 5 hops were seen whole"


# ------------------------------------------------------------------------------------------- faults_effective


def test_of_faults_that_nobody_watched_nothing_is_claimed(tmp_path: Path) -> None:
    world = World().fault("kill", "converter", 3.0, 4.0)
    assert check(FaultsEffective(), world, tmp_path / "watched").verdict == "inconclusive"
    finding = check(FaultsEffective(watched=False), world, tmp_path)
    assert (finding.verdict, finding.figures) == ("pass", {"scheduled": 1, "injected": 1, "bit": None})
    assert finding.summary == "nothing is claimed of 1 fault: the harness was killed meanwhile"


def _evidence(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def evidence_of(run: object, window: object) -> Evidence:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("faults.evidence.evidence_of", evidence_of)


def test_faults_that_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _evidence(monkeypatch, Evidence(True, "a new pid", {"pid": 3}))
    world = World().fault("kill", "converter", 3.0, 4.0).fault("kill", "converter", 6.0, 7.0)
    finding = check(FaultsEffective(), world, tmp_path)
    assert finding.verdict == "pass"
    assert finding.figures == {"scheduled": 2, "injected": 2, "bit": 2}
    assert finding.summary == "2 faults bit"


def test_a_run_without_faults(tmp_path: Path) -> None:
    finding = check(FaultsEffective(), World(), tmp_path)
    assert (finding.verdict, finding.summary) == ("pass", "no fault was scheduled")


def test_a_fault_that_did_not_bite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _evidence(monkeypatch, Evidence(False, "not proven: the link carried nothing", {"bytes": 0}))
    finding = check(FaultsEffective(), World().fault("partition", "a->b", 3.1234, 4.0), tmp_path)
    assert finding.verdict == "inconclusive"
    assert finding.summary == "partition a->b at 3.1 s did not bite: not proven: the link carried nothing"
    reason = "not proven: the link carried nothing"
    told = {"fault": "partition", "target": "a->b", "start_s": 3.123, "reason": reason, "figures": {"bytes": 0}}
    assert finding.examples == [told]


def test_a_fault_that_may_find_its_target_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told, and no less conclusive for it; but injected and healed it must have been, and only this one may."""
    _evidence(monkeypatch, Evidence(False, "not proven: it was idle", {}))
    world = World().fault("kill", "converter", 3.0, 4.0)
    world.schedule[0]["idle_allowed"] = True
    finding = check(FaultsEffective(), world, tmp_path / "a")
    assert (finding.verdict, finding.figures["bit"]) == ("pass", 0)
    assert finding.summary == "0 faults bit, 1 found nothing to bite, as the scenario allows"
    assert finding.examples[0]["allowed"] is True
    both = check(FaultsEffective(), world.fault("kill", "converter", 6.0, 7.0), tmp_path / "b")
    assert (both.verdict, both.summary) == (
        "inconclusive",
        "kill converter at 6.0 s did not bite: not proven: it was idle",
    )
    unhealed = World().fault("pause", "converter", 3.0, None)
    unhealed.schedule[0]["idle_allowed"] = True
    assert check(FaultsEffective(), unhealed, tmp_path / "c").verdict == "inconclusive"
    never = World()
    never.schedule.append({"fault": "kill", "target": "a", "at": 3.0, "seconds": 0.0, "idle_allowed": True})
    assert check(FaultsEffective(), never, tmp_path / "d").verdict == "inconclusive"


def test_a_fault_that_was_never_injected_or_never_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _evidence(monkeypatch, Evidence(True, "", {}))
    world = World()
    world.schedule.append({"fault": "kill", "target": "converter", "at": 30.0, "seconds": 0.0, "params": {}})
    finding = check(FaultsEffective(), world, tmp_path / "a")
    assert finding.verdict == "inconclusive"
    assert "kill converter at 30 s was never injected" in finding.summary
    finding = check(FaultsEffective(), World().fault("pause", "converter", 3.0, None), tmp_path / "b")
    assert (finding.verdict, finding.figures["bit"]) == ("inconclusive", 0)
    assert finding.examples[0]["reason"] == "not proven: it was never healed"


def test_a_proof_that_lacks_its_samples_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _evidence(monkeypatch, NotObserved("the samples of the links were not stored"))
    finding = check(FaultsEffective(), World().fault("kill", "converter", 3.0, 4.0), tmp_path)
    assert finding.verdict == "inconclusive"
    assert "samples of the links" in finding.summary


def test_the_real_proof_is_asked(tmp_path: Path) -> None:
    """A kill with nothing in the history that shows it: the fault's own evidence says no."""
    world = World().fault("kill", "converter", 3.0, 4.0, killed={"converter": {"pid": 1}})
    assert check(FaultsEffective(), world, tmp_path).verdict == "inconclusive"


# ----------------------------------------------------------------------- services, clock, machine


def test_a_service_that_died_by_itself(tmp_path: Path) -> None:
    world = World().happen("service-exit", service="kafka", pid=7, status=137, signal=9, asked=False)
    finding = check(ServicesAlive(), world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert finding.figures == {"deaths": {"kafka": 1}, "watched": {}}
    assert finding.summary == "the service kafka died 1 time without being killed"
    told = {"service": "kafka", "at_s": 5.0, "pid": 7, "status": 137, "signal": 9, "log": "logs/kafka.log"}
    assert finding.examples == [told]


def test_a_service_that_was_killed_on_purpose(tmp_path: Path) -> None:
    world = World().happen("service-exit", service="kafka", pid=7, status=137, signal=9, asked=True)
    assert check(ServicesAlive(), world, tmp_path).verdict == "pass"


def existing(*, asked: int, missed: int) -> World:
    world = World(services=[{"name": "kafka", "kind": "kafka", "existing": True}])
    return world.happen("service-watch", service="kafka", asked=asked, missed=missed)


def test_a_service_that_was_there_before_and_always_answered(tmp_path: Path) -> None:
    finding = check(ServicesAlive(), existing(asked=60, missed=0), tmp_path)
    assert (finding.verdict, finding.figures["watched"]) == ("pass", {"kafka": {"asked": 60, "missed": 0}})


def test_a_service_that_was_there_before_and_fell_silent(tmp_path: Path) -> None:
    world = existing(asked=60, missed=4)
    world.happen("service-away", t=T0_MS / 1000 + 3.1234, service="kafka")
    world.happen("service-back", t=T0_MS / 1000 + 5.4321, service="kafka")
    world.happen("service-away", t=T0_MS / 1000 + 7, service="kafka")
    finding = check(ServicesAlive(), world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert finding.summary == "the service kafka did not answer, 4 times of 60"
    assert finding.examples == [
        {"service": "kafka", "at_s": 3.123, "back_s": 5.432},
        {"service": "kafka", "at_s": 7.0, "back_s": None},
    ]


@pytest.mark.parametrize("told", [True, False])
def test_a_service_that_was_there_before_and_nobody_watched(tmp_path: Path, told: bool) -> None:
    world = existing(asked=0, missed=0)
    finding = check(ServicesAlive(), world if told else World(services=world.services), tmp_path)
    assert finding.verdict == "inconclusive"
    assert "nobody watched the service kafka" in finding.summary


def test_every_service_that_was_there_before_is_looked_at(tmp_path: Path) -> None:
    """Whatever stands before it in the list: one of ours, or one that nobody watched."""
    ours = {"name": "pubsub", "kind": "pubsub", "existing": False}
    kafka, bigtable = ({"name": name, "kind": name, "existing": True} for name in ("kafka", "bigtable"))
    for number, first in enumerate((ours, kafka)):
        world = World(services=[first, bigtable]).happen("service-watch", service="bigtable", asked=9, missed=1)
        finding = check(ServicesAlive(), world, tmp_path / str(number))
        assert finding.verdict == "inconclusive"
        assert "the service bigtable did not answer, 1 time of 9" in finding.summary


@pytest.mark.parametrize(
    ("drift", "verdict"), [(-249, "pass"), (250, "pass"), (251, "inconclusive"), (-3_600_000, "inconclusive")]
)
def test_a_clock_that_was_set(tmp_path: Path, drift: float, verdict: str) -> None:
    world = World().happen("clock", wall_minus_mono_ms_drift=drift)
    finding = check(ClockSteady(), world, tmp_path)
    assert (finding.verdict, finding.figures["drift_ms"]) == (verdict, drift)
    assert f"{drift if verdict == 'inconclusive' else abs(drift):.0f}" in finding.summary


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"oom_kills": 1, "disk_free_bytes": 10**10, "disk_full": False}, "1 process killed for want of memory"),
        ({"oom_kills": 2, "disk_free_bytes": 10**10, "disk_full": False}, "2 processes killed for want of memory"),
        ({"oom_kills": 0, "disk_free_bytes": 3 << 20, "disk_full": True}, "the disk was full (3 MiB left)"),
    ],
)
def test_a_machine_that_ran_out_of_something(tmp_path: Path, record: dict[str, Any], told: str) -> None:
    finding = check(MachineHealthy(), World().happen("machine", **record), tmp_path)
    assert (finding.verdict, finding.summary) == ("inconclusive", told)


def test_a_kill_for_want_of_memory_that_was_wanted_is_none_of_the_machine(tmp_path: Path) -> None:
    """And one that nobody wanted is, wherever it was counted."""
    healthy = {"disk_free_bytes": 10**10, "disk_full": False}
    end = {"worker": "w", "pid": 1, "status": -9, "signal": "SIGKILL", "oom_killed": True}
    wanted = World().happen("machine", oom_kills=1, **healthy).happen("worker-exit", **end, asked=True)
    assert check(MachineHealthy(), wanted, tmp_path / "a").verdict == "pass"
    one_more = World().happen("machine", oom_kills=2, **healthy).happen("worker-exit", **end, asked=True)
    assert check(MachineHealthy(), one_more, tmp_path / "b").verdict == "inconclusive"
    elsewhere = World().happen("machine", oom_kills=0, **healthy).happen("worker-exit", **end, asked=False)
    assert check(MachineHealthy(), elsewhere, tmp_path / "c").verdict == "inconclusive"


@pytest.mark.parametrize(("guard", "kind"), [(ClockSteady(), "clock"), (MachineHealthy(), "machine")])
def test_what_nobody_watched_is_no_pass(tmp_path: Path, guard: Assertion, kind: str) -> None:
    world = World()
    world.silent = {kind}
    finding = check(guard, world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert f"nobody watched the {kind}" in finding.summary
