"""What a soak keeps, in which order cycles come, and what they come to together."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from saved_run import World

from assertions.judge import judge
from harness.backends.base import Child, Footprint
from harness.backends.outlived import OutlivedProcesses
from harness.catalog import claims
from harness.report.soak import sentence
from harness.run import Deployed, Outcome
from harness.run_folder import DamagedRun, under_way
from harness.soak.books import ENOUGH_CYCLES, drifts, summary
from harness.soak.cycles import Soak, _lags, _longest_recovery, _of_events, _on_disk, scenario_of, seed_of
from harness.soak.outlived import Deployment, forget
from harness.soak.state import Asked, Cut, Cycle, State
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa

ASKED = Asked("soak", "kappa", "process", 7, 1.0, 60.0, 2_000)


def cycle(number: int, verdict: str = "pass", attempt: int = 1, **figures: float | None) -> Cycle:
    events = {"sent": 1_000, "acked": 990, "ambiguous": 10, "failed": 0}
    violated = ["no_loss"] if verdict == "violation" else []
    run = f"/runs/{number}" if attempt == 1 else f"/runs/{number}-{attempt}"
    return Cycle(number, attempt, seed_of(7, number), verdict, run, events, 3, dict(figures), violated, {}, 990)


def state(*cycles: Cycle, spent_s: float = 3_600.0) -> State:
    return State(ASKED, list(cycles), spent_s)


def growing(cycles: int, a_cycle: float) -> State:
    name = "memory of aggregator (MiB)"
    return state(*(cycle(n, **{name: 200.0 + a_cycle * n + n % 3}) for n in range(1, cycles + 1)))


def test_each_cycle_has_a_seed_of_its_own_and_always_the_same() -> None:
    seeds = [seed_of(7, n) for n in range(1, 1_000)]
    assert len(set(seeds)) == len(seeds)
    assert seed_of(7, 5) == seed_of(7, 5) != seed_of(8, 5)
    assert all(0 <= seed < 2**48 for seed in seeds)


def test_a_cycle_that_could_not_say_is_tried_once_more_and_a_violation_never() -> None:
    assert state().next() == (1, 1)
    assert state(cycle(1)).next() == (2, 1)
    assert state(cycle(1), cycle(2, "inconclusive")).next() == (2, 2)
    assert state(cycle(1), cycle(2, "inconclusive"), cycle(2, "inconclusive", 2)).next() == (3, 1)
    for drain, then in (
        ("drained", (2, 2)),
        ("quiet", (2, 2)),
        ("stuck", (3, 1)),
        ("crash-loop", (3, 1)),
        ("cap", (3, 1)),
    ):
        left = dataclasses.replace(cycle(2, "inconclusive"), drain=drain)
        assert state(cycle(1), left).next() == then, "another pipeline would not show what this one was in"
    assert state(cycle(1), cycle(2, "violation")).next() == (3, 1)


def test_it_is_over_when_its_time_is_but_not_in_the_middle_of_an_attempt() -> None:
    assert not state().over()
    assert not state(cycle(1), spent_s=3_599).over()
    assert state(cycle(1)).over()
    assert not state(cycle(1, "inconclusive")).over()


def test_it_stops_at_a_violation_if_it_was_asked_to() -> None:
    stops = dataclasses.replace(ASKED, stop=True)
    assert State(stops, [cycle(1, "violation")], 10).over()
    assert not State(stops, [cycle(1)], 10).over()
    assert not state(cycle(1, "violation"), spent_s=10).over()


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    saved = state(cycle(1, **{"latency p99 (s)": None}), cycle(2, "violation"))
    saved.cut.append(Cut("/runs/cut", {"sent": 3, "acked": 2, "ambiguous": 1, "failed": 0}))
    saved.save(tmp_path)
    assert State.load(tmp_path) == saved
    assert [path.name for path in tmp_path.iterdir()] == ["soak.json"]


def test_a_folder_without_a_soak_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no soak: it has no soak.json"):
        State.load(tmp_path)
    (tmp_path / "soak.json").write_text('{"asked": {')
    with pytest.raises(DamagedRun, match="is not JSON"):
        State.load(tmp_path)
    for strange in ("{}", "[]", '{"asked": {"colour": 3}, "cycles": [], "cut": [], "spent_s": 0}'):
        (tmp_path / "soak.json").write_text(strange)
        with pytest.raises(DamagedRun, match="is not what a soak writes|is not a JSON object"):
            State.load(tmp_path)


def test_what_cannot_be_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="longer than 0 hours"):
        dataclasses.replace(ASKED, hours=0).check()
    with pytest.raises(UsageError, match="no room for faults"):
        dataclasses.replace(ASKED, cycle_s=5).check()


def test_the_verdict_is_the_worst_of_the_last_attempts() -> None:
    passed = summary(state(cycle(1), cycle(2, "inconclusive"), cycle(2, attempt=2)), Path("/soak"))
    assert passed["verdict"] == "pass"
    assert passed["counts"] == {"pass": 2, "violation": 0, "inconclusive": 0}
    assert passed["events"] == {"sent": 2_000, "acked": 1_980, "ambiguous": 20, "failed": 0}
    unsure = summary(state(cycle(1), cycle(2, "inconclusive"), cycle(2, "inconclusive", 2)), Path("/soak"))
    assert unsure["verdict"] == "inconclusive"
    assert summary(state(cycle(1, "violation"), cycle(2)), Path("/soak"))["verdict"] == "violation"
    assert summary(state(), Path("/soak"))["verdict"] == "inconclusive"
    json.dumps(passed)


def test_a_measure_that_grows_is_a_violation() -> None:
    found = summary(growing(30, 4.0), Path("/soak"))
    assert found["verdict"] == found["findings"][0]["verdict"] == "violation"
    assert "memory of aggregator (MiB) grows by 4" in found["findings"][0]["summary"]
    steady = summary(growing(30, 0.0), Path("/soak"))
    assert steady["verdict"] == "pass"
    assert "no trend in 1 measures over 30 cycles" in steady["findings"][0]["summary"]


def test_a_short_soak_claims_nothing_of_trends() -> None:
    found = summary(growing(ENOUGH_CYCLES - 1, 50.0), Path("/soak"))
    assert found["verdict"] == "pass"
    assert not found["findings"][0]["figures"]["claimed"]
    assert "nothing is claimed of trends" in found["findings"][0]["summary"]
    assert summary(growing(ENOUGH_CYCLES, 50.0), Path("/soak"))["verdict"] == "violation"


def test_what_could_not_be_measured_is_no_pass() -> None:
    name = "memory of aggregator (MiB)"
    found = summary(state(*(cycle(n, **{name: None}) for n in range(1, 31))), Path("/soak"))
    assert found["verdict"] == found["findings"][0]["verdict"] == "inconclusive"
    assert f"{name} could not be measured" in found["findings"][0]["summary"]
    no_latency = {"latency p99 (s)": None, name: 200.0}
    assert summary(state(*(cycle(n, **no_latency) for n in range(1, 31))), Path("/soak"))["verdict"] == "pass"


def test_every_kind_of_measure_has_a_grain() -> None:
    figures = {
        "latency p99 (s)": 1.0,
        "longest recovery (s)": None,
        "memory of the harness (MiB)": 100.0,
        "open files of converter-1": 20.0,
    }
    assert [d.verdict for d in drifts([cycle(n, **figures) for n in range(1, 20)])] == [
        "steady",
        "too few",
        "steady",
        "steady",
    ]


def test_what_was_acknowledged_and_not_judged_is_told() -> None:
    one = state(cycle(1), cycle(2, "inconclusive"), cycle(2, attempt=2))
    one.cut.append(Cut("/runs/cut", {"sent": 300, "acked": 290, "ambiguous": 10, "failed": 0}))
    told = summary(one, Path("/soak"))
    assert told["events"]["acked"] == 2 * 990
    assert told["unjudged"] == {"tried_again": 990, "cut_off": 290}


def accounted(one: State) -> dict[str, Any]:
    (found,) = [f for f in summary(one, Path("/soak"))["findings"] if f["assertion"] == "accounted"]
    return dict(found)


def test_every_acknowledged_event_is_accounted_for() -> None:
    one = state(cycle(1), cycle(2, "inconclusive"), cycle(2, "inconclusive", 2), cycle(3, "violation"))
    one.cut.append(Cut("/runs/cut", {"sent": 300, "acked": 290, "ambiguous": 10, "failed": 0}))
    found = accounted(one)
    figures = found["figures"]
    assert figures == {"acked": 4_250, "judged": 1_980, "could_not_say": 990, "tried_again": 990, "cut_off": 290}
    assert figures.pop("acked") == sum(figures.values())
    assert found["verdict"] == "pass"
    assert "of 2,270 more nothing is claimed (290 were cut off with the harness)" in found["summary"]


def cut_off(verdict: str, judged: int | None) -> Cut:
    events = {"sent": 300, "acked": 290, "ambiguous": 10, "failed": 0}
    return Cut("/runs/cut", events, verdict, ["no_loss"] if verdict == "violation" else [], judged)


def test_what_was_cut_off_and_judged_is_claimed_like_a_cycle() -> None:
    one = state(cycle(1), cycle(2))
    one.cut.append(cut_off("pass", 290))
    found = summary(one, Path("/soak"))
    assert (found["verdict"], found["events"]["acked"]) == ("pass", 2 * 990 + 290)
    assert found["unjudged"] == {"tried_again": 0, "cut_off": 0}
    assert accounted(one)["summary"] == "each of 2,270 acknowledged events was judged once"
    one.cut[0] = cut_off("pass", 289)
    assert summary(one, Path("/soak"))["verdict"] == "inconclusive"
    assert "what was cut off in cut 290 events were acknowledged, and 289 judged" in accounted(one)["summary"]


def test_a_violation_in_what_was_cut_off_is_one_of_the_soak_and_ends_it_if_that_was_asked_for() -> None:
    one = state(cycle(1), cycle(2), spent_s=60)
    one.cut.append(cut_off("violation", 290))
    assert summary(one, Path("/soak"))["verdict"] == "violation"
    assert not one.over()
    one.asked = dataclasses.replace(one.asked, stop=True)
    assert one.over()


@pytest.mark.parametrize("judged", [989, 991, None])
def test_an_event_that_was_acknowledged_and_not_judged_is_no_pass(judged: int | None) -> None:
    one = state(cycle(1), cycle(2))
    one.cycles[1].judged = judged
    assert accounted(one)["verdict"] == summary(one, Path("/soak"))["verdict"] == "inconclusive"
    assert f"of cycle 2 990 events were acknowledged, and {judged or 0} judged" in accounted(one)["summary"]


def test_a_run_that_was_judged_twice_is_no_pass() -> None:
    one = state(cycle(1), cycle(2))
    one.cycles[1].run = one.cycles[0].run
    assert accounted(one)["verdict"] == "inconclusive"
    assert "1 stands there 2 times" in accounted(one)["summary"]


def test_a_recovery_that_nobody_saw_is_not_a_short_one() -> None:
    assert _longest_recovery([{"recovered_s": 2.0}, {"recovered_s": 3.5}]) == 3.5
    assert _longest_recovery([{"recovered_s": 2.0}, {"recovered_s": None}]) is None
    assert _longest_recovery([]) is None


def test_the_lag_is_what_was_left_when_the_load_was_over(tmp_path: Path) -> None:
    lines = [{"kind": "lag", "group": "g", "lag": 40}, {"kind": "lag", "group": "h", "lag": None},
             {"kind": "lag", "group": "g", "lag": 0}, {"kind": "stage", "stage": "collect"}]  # fmt: skip
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _lags(tmp_path / "history.jsonl") == {"lag of g after the load": 40, "lag of h after the load": None}


def test_a_pipeline_that_no_longer_works_ends_the_soak_with_a_violation(tmp_path: Path) -> None:
    idle = state(cycle(1), spent_s=10)
    assert summary(idle, tmp_path)["findings"][2]["verdict"] == "pass"
    idle.idle = "cycle 2 did not begin: No event was seen at the hop 'published' within 60 s of the first one sent."
    idle.cut.append(Cut("/runs/2", {"sent": 0, "acked": 0, "ambiguous": 0, "failed": 0}, why=idle.idle))
    idle.save(tmp_path)
    assert State.load(tmp_path).over()
    found = summary(State.load(tmp_path), tmp_path)
    assert found["verdict"] == "violation"
    at_work = found["findings"][2]
    assert (at_work["assertion"], at_work["verdict"]) == ("at_work", "violation")
    assert at_work["summary"] == idle.idle
    assert at_work["examples"] == [{"run": "/runs/2"}]
    assert f"; {idle.idle}; nothing is claimed of trends" in sentence(found)


def test_what_is_kept_of_a_cycle_is_what_its_run_shows(tmp_path: Path) -> None:
    named = [{"assertion": a.name, "params": a.params()} for a in claims(kappa)]
    world = World(assertions=named).fault("kill", "converter", 2.0, 3.0)
    world.happen("lag", at=11.0, group="converter", lag=40)
    run = world.save(tmp_path / "cycles")
    child = Child(pid=os.getpid(), started=12.5)
    supervisor = SimpleNamespace(child=lambda name: None if name == "aggregator" else child, process=str)
    site = SimpleNamespace(folder=tmp_path, footprint=lambda name, child: Footprint(memory=50 << 20))
    verdict = judge(run)
    scenario = scenario_of(ASKED, kappa)
    soak = Soak(scenario, state(), tmp_path, None, print)  # type: ignore[arg-type]
    deployed = Deployed({}, supervisor)  # type: ignore[arg-type]
    kept = soak._kept(3, 1, Outcome(verdict, run.path), "quiet", SimpleNamespace(site=site), deployed)  # type: ignore[arg-type]
    found = {f["assertion"]: f["figures"] for f in verdict["findings"]}
    assert (kept.number, kept.verdict, kept.run, kept.events) == (
        3,
        verdict["verdict"],
        str(run.path),
        verdict["events"],
    )
    assert kept.lives == {"preprocessor": 12.5, "converter": 12.5}
    assert kept.figures["latency p50 (s)"] == found["latency"]["p50_s"] is not None
    assert kept.figures["latency p99 while nothing is broken (s)"] == found["latency"]["steady"]["p99_s"] is not None
    assert kept.figures["longest recovery (s)"] == found["recovery"]["faults"][0]["recovered_s"] is not None
    assert kept.figures["time to drain (s)"] == found["recovery"]["drain"]["waited_s"] is not None
    assert kept.figures["lag of converter after the load"] == 40
    assert kept.figures["memory of aggregator (MiB)"] is None
    assert kept.drain == "quiet"
    assert kept.figures["memory of converter (MiB)"] == 50
    assert kept.figures["open files of converter"] is None
    assert kept.judged == kept.events["acked"] > 0
    assert drifts([kept] * 12), "every measure has a grain"


def test_a_leak_between_kills_is_a_violation_that_names_the_worker() -> None:
    name = "memory of converter (MiB)"
    cycles = [cycle(n, **{name: 200.0 + 10 * (n % 6)}) for n in range(1, 31)]
    for one in cycles:
        one.lives = {"converter": float(one.number // 6), "aggregator": 1.0}
    found = summary(state(*cycles), Path("/soak"))
    assert found["verdict"] == "violation"
    assert found["findings"][0]["summary"].startswith(f"growth within a life: {name} grows by 10 a cycle")
    assert [e["measure"] for e in found["findings"][0]["examples"]] == [f"growth within a life: {name}"]


def test_disk_is_what_files_take_and_not_how_long_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "full").write_bytes(bytes(range(256)) * 4096)
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(1 << 30)
    assert 1 << 20 <= _on_disk(tmp_path) < 2 << 20


def test_a_soak_that_was_moved_knows_its_runs_and_tells_only_what_was_cut_off(tmp_path: Path) -> None:
    for name in ("judged", "cut"):
        (tmp_path / "cycles" / name).mkdir(parents=True)
    judged = state(dataclasses.replace(cycle(1), run="/where/it/was/cycles/judged"))
    Soak(None, judged, tmp_path, None, print)._note_cut("")  # type: ignore[arg-type]
    assert [Path(cut.run).name for cut in judged.cut] == ["cut"]
    assert State.load(tmp_path).cut == judged.cut


def test_a_run_that_was_judged_and_not_written_down_stands_as_it_was_judged(tmp_path: Path) -> None:
    """The harness was killed between the two."""
    run = World().save(tmp_path / "cycles")
    verdict = judge(run)
    (run.path / "verdict.json").write_text(json.dumps(verdict))
    one = state()
    Soak(None, one, tmp_path, None, print)._note_cut("its pipeline had ended")  # type: ignore[arg-type]
    (cut,) = one.cut
    assert (cut.verdict, cut.events, cut.judged) == ("pass", verdict["events"], verdict["events"]["acked"])
    (run.path / "verdict.json").write_text(json.dumps({**verdict, "verdict": "inconclusive"}))
    two = state()
    Soak(None, two, tmp_path, None, print)._note_cut("its pipeline had ended")  # type: ignore[arg-type]
    assert (two.cut[0].verdict, two.cut[0].judged) == ("", None)
    assert two.cut[0].why == "its pipeline had ended"


def test_of_what_nobody_watched_only_events_are_claimed() -> None:
    scenario = scenario_of(ASKED, kappa)
    found = [(a.name, a.params()) for a in _of_events(scenario)]
    names = [name for name, _ in found]
    assert names == ["no_loss", "content", "duplicate_rate", "batch_parity", "load_delivered", "faults_effective"]
    assert dict(found)["duplicate_rate"]["hop"] == "aggregates"
    assert dict(found)["faults_effective"] == {"watched": False}


def test_where_a_deployment_is_can_be_read_again(tmp_path: Path) -> None:
    assert Deployment.left_in(tmp_path) is None
    site = OutlivedProcesses("/tmp/site", {"load->kafka": 20000}, 20001, [["kafka", "direct", 20002]])  # type: ignore[list-item]
    left = Deployment("/tmp/temp", "/tmp/run", "process", site)
    left.keep(tmp_path)
    assert Deployment.left_in(tmp_path) == left
    forget(tmp_path)
    assert Deployment.left_in(tmp_path) is None
    (tmp_path / "deployment.json").write_text('{"temp": "/tmp"}')
    with pytest.raises(DamagedRun, match=r"deployment\.json: is of no use"):
        Deployment.left_in(tmp_path)


def test_nobody_goes_on_with_a_soak_that_is_under_way(tmp_path: Path) -> None:
    soak = Soak(None, state(), tmp_path, None, print)  # type: ignore[arg-type]
    with under_way(tmp_path, "soak"), pytest.raises(UsageError, match="is under way already"):
        soak.run()
    with under_way(tmp_path, "soak"):
        pass


def test_measures_that_could_not_be_told_are_no_proof_that_nothing_grows() -> None:
    cycles = [cycle(n, **{"disk (MiB)": 900.0, "latency p99 (s)": None}) for n in range(1, 31)]
    told = summary(state(*cycles), Path("/soak"))["findings"][0]["summary"]
    assert (
        told == "no trend in 1 measures over 30 cycles; nothing is claimed of latency p99 (s): too few cycles show it"
    )
