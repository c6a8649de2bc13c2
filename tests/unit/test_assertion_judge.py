"""From findings to the verdict object: composition, expectations, failures of an assertion, determinism, speed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from saved_run import World

from assertions import registry
from assertions.base import Assertion, Finding, Part, finding, plain, share, worst
from assertions.judge import exit_status, judge
from assertions.latency import Latency
from assertions.no_loss import NoLoss
from assertions.verdict import check, counted, expecting, verdict_of
from faults.base import Evidence
from harness.errors import HarnessFault
from harness.store import DamagedRun, SavedRun
from harness.topology import UsageError
from load.profiles import Steady

EVERYTHING: list[dict[str, Any]] = [
    {"assertion": "no_loss", "params": {}},
    {"assertion": "duplicate_rate", "params": {"hop": "published", "least": 0.0, "most": 0.0}},
    {"assertion": "duplicate_rate", "params": {"hop": "aggregates", "least": 0.0, "most": 0.0}},
    {"assertion": "batch_parity", "params": {"least": 0.5}},
    {"assertion": "content", "params": {}},
    {"assertion": "latency", "params": {"p99_most_s": 5.0}},
    {"assertion": "recovery", "params": {"most_s": 30.0}},
]
GUARDS = ["load_delivered", "ledger_settled", "taps_complete", "faults_effective", "drained", "services_alive", "clock_steady",
          "machine_healthy"]  # fmt: skip


def judged(world: World, tmp_path: Path) -> dict[str, Any]:
    return judge(world.save(tmp_path))


# ------------------------------------------------------------------------------------------------- composition


def test_worst_of() -> None:
    for three in product(("pass", "inconclusive", "violation"), repeat=3):
        expected = "violation" if "violation" in three else "inconclusive" if "inconclusive" in three else "pass"
        assert worst(three) == expected  # type: ignore[arg-type]
    assert worst([]) == "inconclusive"


def test_a_finding_tells_the_worst_of_its_parts_and_only_that() -> None:
    parts = [
        Part("inconclusive", "not known"),
        Part("violation", "lost"),
        Part("violation", "lost"),
        Part("pass", "fine"),
    ]
    assert finding("a", parts, "all is well", {}).summary == "lost"
    assert finding("a", parts[:1], "all is well", {}).summary == "not known"
    assert finding("a", parts[3:], "all is well", {}).summary == "all is well"
    assert finding("a", [], "all is well", {}).verdict == "pass"


def test_a_share_of_nothing_is_none() -> None:
    assert (share(0, 0), share(1, 3), share(3, 3)) == (0.0, 0.333333, 1.0)


@pytest.mark.parametrize(
    ("own", "counts_as"), [("violation", "pass"), ("pass", "violation"), ("inconclusive", "inconclusive")]
)
def test_an_expected_violation(own: Any, counts_as: str) -> None:
    (finding,) = expecting([Finding("no_loss", own, "what was seen")], {"no_loss": "violation"})
    assert (finding.verdict, finding.expected) == (own, "violation")  # it keeps its own verdict
    assert counted(finding) == counts_as
    assert verdict_of([finding, Finding("content", "pass", "")]) == counts_as
    assert ("expected a violation and saw none" in finding.summary) == (own == "pass")
    assert finding.to_json()["expected"] == "violation"


def test_an_expectation_may_name_a_hop() -> None:
    two = [Finding("duplicate_rate", "violation", "", {"hop": hop}) for hop in ("published", "aggregates")]
    findings = expecting(two, {"duplicate_rate:published": "violation"})
    assert [counted(f) for f in findings] == ["pass", "violation"]


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({"no_los": "violation"}, "no assertion of this run 'no_los'"),
        ({"no_loss": "pass"}, "Of no_loss only a violation can be expected, not 'pass'"),
    ],
)
def test_an_expectation_that_nobody_could_meet(expected: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        expecting([Finding("no_loss", "pass", "")], expected)


# -------------------------------------------------------------------------------------------------- the object


def test_a_healthy_run_passes(tmp_path: Path) -> None:
    world = World(assertions=EVERYTHING)
    answer = judged(world, tmp_path)
    assert answer["verdict"] == "pass"
    assert exit_status(answer) == 0
    assert [f["assertion"] for f in answer["findings"]] == [a["assertion"] for a in EVERYTHING] + GUARDS
    assert answer["events"] == {"sent": 2000, "acked": 2000, "ambiguous": 0, "failed": 0}
    assert {k: answer[k] for k in ("pipeline", "scenario", "backend", "seed")} == {
        "pipeline": "kappa",
        "scenario": "synthetic",
        "backend": "process",
        "seed": 7,
    }
    assert answer["run"] == str(next(tmp_path.iterdir()))
    assert answer["timing"]["load"] == pytest.approx(10.3)
    assert answer["timing"]["warm_up"] == pytest.approx(1.8)
    assert answer["timing"]["drain"] == pytest.approx(13.1)
    assert 0 < answer["timing"]["check"] < 60
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_the_same_run_always_gets_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.evidence.evidence_of", lambda run, window: Evidence(True, "it did", {"n": np.int64(1)}))
    world = World(assertions=EVERYTHING, users=3).fault("kill", "converter", 3.0, 4.0)
    world.lose("published", *(int(p) for p in world.sound[::7])).double(
        "published", *(int(p) for p in world.sound[1::7])
    )
    folder = world.write(tmp_path)
    before = judge(SavedRun.open_unsealed(folder.path))  # as the run judges itself
    folder.seal()
    texts = set()
    for _ in range(3):
        again = judge(SavedRun.load(folder.path))
        assert {k: v for k, v in again.items() if k != "timing"} == {k: v for k, v in before.items() if k != "timing"}
        texts.add(json.dumps({k: v for k, v in again.items() if k != "timing"}))
    assert len(texts) == 1


def test_faults_are_told_from_the_loads_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.evidence.evidence_of", lambda run, window: Evidence(True, "a new pid", {"pid": 5}))
    world = World().fault("kill", "converter", 3.1234, 4.2567).fault("pause", "converter", 6.0, None)
    answer = judged(world, tmp_path)
    assert answer["faults"] == [
        {
            "fault": "kill",
            "target": "converter",
            "start": 3.123,
            "end": 4.257,
            "bit": True,
            "evidence": {"reason": "a new pid", "pid": 5},
        },
        {
            "fault": "pause",
            "target": "converter",
            "start": 6.0,
            "end": None,
            "bit": False,
            "evidence": {"reason": "not proven: it was never healed"},
        },
    ]


def test_a_violation_and_its_exit_status(tmp_path: Path) -> None:
    world = World(assertions=EVERYTHING).lose("intermediate", int(World().sound[3]))
    world.uncertified["published"] = "no sentinel"  # inconclusive as well; the violation is the worse
    answer = judged(world, tmp_path)
    assert (answer["verdict"], exit_status(answer)) == ("violation", 1)


def test_an_inconclusive_guard_and_its_exit_status(tmp_path: Path) -> None:
    world = World(assertions=EVERYTHING).happen("service-exit", service="kafka", pid=1, status=1, asked=False)
    answer = judged(world, tmp_path)
    assert (answer["verdict"], exit_status(answer)) == ("inconclusive", 3)
    assert [f["assertion"] for f in answer["findings"] if f["verdict"] != "pass"] == ["services_alive"]


def test_a_run_that_expects_a_violation(tmp_path: Path) -> None:
    world = World(assertions=EVERYTHING[:1], expected={"no_loss": "violation"})
    assert judged(world, tmp_path / "a")["verdict"] == "violation"  # it saw none
    world.lose("aggregates", int(world.sound[3]))
    answer = judged(world, tmp_path / "b")
    assert answer["verdict"] == "pass"
    assert (answer["findings"][0]["verdict"], answer["findings"][0]["expected"]) == ("violation", "violation")


@pytest.mark.parametrize(
    "wrong",
    [
        {"assertion": "no_los", "params": {}},
        {"assertion": "duplicate_rate", "params": {"hop": "aggregates", "mots": 1}},
        {"assertion": "duplicate_rate", "params": {}},
        {"assertion": "duplicate_rate", "params": {"hop": "agregates"}},
        {"assertion": "batch_parity", "params": {"least": 2}},
    ],
)
def test_an_assertion_that_cannot_be_is_a_usage_error(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        judged(World(assertions=[wrong]), tmp_path)


def test_a_missing_source_hop_is_inconclusive_throughout(tmp_path: Path) -> None:
    world = World(assertions=EVERYTHING)
    world.without = {"source"}
    answer = judged(world, tmp_path)
    assert answer["verdict"] == "inconclusive"
    assert not [f for f in answer["findings"][: len(EVERYTHING)] if f["verdict"] == "pass"]


def test_what_was_sent_is_not_known_without_a_ledger(tmp_path: Path) -> None:
    world = World()
    world.without = {"ledger"}
    answer = judge(SavedRun.open_unsealed(world.write(tmp_path).path))
    assert answer["verdict"] == "inconclusive"
    assert answer["events"] == {"sent": None, "acked": None, "ambiguous": None, "failed": None}


# --------------------------------------------------------------------------- an assertion that fails itself


@dataclass(frozen=True)
class _Raises:
    error: Exception
    name = "raises"

    def params(self) -> dict[str, Any]:
        return {}

    def check(self, run: SavedRun) -> Finding:
        raise self.error


def test_an_assertion_that_raises_is_a_failure_of_the_harness(tmp_path: Path) -> None:
    run = World().save(tmp_path)
    with pytest.raises(HarnessFault, match=r"The assertion raises failed to judge .*ZeroDivisionError"):
        check(_Raises(ZeroDivisionError("x")), run)
    for error in (UsageError("x"), HarnessFault("x"), DamagedRun("x")):
        with pytest.raises(type(error)):
            check(_Raises(error), run)


def test_a_raising_assertion_ends_the_judgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, run: SavedRun) -> Finding:
        raise KeyError("no such thing")

    monkeypatch.setattr(Latency, "check", fails)
    with pytest.raises(HarnessFault, match="latency failed to judge"):
        judged(World(assertions=EVERYTHING), tmp_path)


# ---------------------------------------------------------------------------------------------------- registry


@pytest.mark.parametrize("saved", [*EVERYTHING, *({"assertion": name, "params": {}} for name in GUARDS)])
def test_assertions_survive_being_saved(saved: dict[str, Any]) -> None:
    assertion = registry.from_json(saved)
    assert isinstance(assertion, Assertion)
    again = json.loads(json.dumps(registry.to_json(assertion)))
    assert registry.from_json(again) == assertion
    assert again["params"].items() >= saved["params"].items()


def test_a_guard_that_a_scenario_names_itself_is_not_judged_twice(tmp_path: Path) -> None:
    world = World(assertions=[{"assertion": "clock_steady", "params": {"most_ms": 0.1}}])
    found = [f for f in judged(world, tmp_path)["findings"] if f["assertion"] == "clock_steady"]
    assert [f["verdict"] for f in found] == ["inconclusive"]  # by its own bound


def test_every_assertion_says_what_its_figures_are() -> None:
    for name, kind in registry.ASSERTIONS.items():
        text = kind.__doc__ or ""
        assert "Figures" in text, name
        assert "Cost" in text, name


@pytest.mark.parametrize("name", [a["assertion"] for a in EVERYTHING] + GUARDS)
def test_every_figure_is_named_in_the_docstring(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.evidence.evidence_of", lambda run, window: Evidence(True, "", {}))
    world = World(assertions=EVERYTHING).fault("kill", "converter", 3.0, 4.0)
    for found in judged(world, tmp_path)["findings"]:
        if found["assertion"] == name:
            text = registry.ASSERTIONS[name].__doc__ or ""
            missing = [figure for figure in found["figures"] if figure not in text]
            assert not missing


def test_plain_values_only() -> None:
    value = {"a": np.float64("nan"), "b": (np.int32(3), {1}), 4: b"\xff", "c": np.array([True]), "d": Path("x")}
    assert plain(value) == {"a": None, "b": [3, [1]], "4": "\\xff", "c": [True], "d": "x"}


# ------------------------------------------------------------------------------------------------------- speed


def test_forty_thousand_events_are_judged_in_well_under_a_second(tmp_path: Path) -> None:
    world = World(profile=Steady(rate=2_000, seconds=20), assertions=EVERYTHING)
    world.lose("published", *(int(p) for p in world.sound[::100]))
    folder = world.write(tmp_path)
    folder.seal()
    begin = time.process_time()
    run = SavedRun.load(folder.path)
    assert judge(run)["verdict"] == "violation"
    taken = time.process_time() - begin
    assert taken < 2.0  # 0.3 s of both cores' time when nothing else runs; the rest is for busy machines
    assert NoLoss().check(run).figures["hops"]["published"]["missing"] == len(world.sound[::100])
    assert isinstance(run.expected(), pl.DataFrame)
