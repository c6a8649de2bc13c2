"""A soak: one pipeline that is never redeployed, and cycle after cycle of load under random faults, each judged.

A cycle is a run in everything but its pipeline, which it finds at work and leaves at work: its own events, taps, history
and verdict. It ends when the pipeline has drained, so that what a sink gained since the cycle's beginning is what the cycle's
events made of it, and whatever is counted later of an older event shows as too much. What is behind a cycle is dropped:
the records of the topics, old rows of the sink, and the run folders of cycles that passed, but for their line in
soak.json and the last few. So memory and disk are the same after a night as after an hour.

`soak.json` is written whole after every cycle. A soak that was killed goes on (`go_on`) with the cycle that was cut off, from
its beginning, on a pipeline that is deployed anew, because the emulators keep nothing; the cut attempt keeps its folder.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from assertions.base import Assertion, worst
from faults import random_schedule
from harness.backends import Backend
from harness.history import History, Listener
from harness.ledger import Ledger, ledgers
from harness.run import Deployed, Outcome, Run, each
from harness.run_folder import RunFolder, read_json, write_whole
from harness.scenario import Scenario
from harness.services.base import less, summed
from harness.session import Session
from harness.soak.drift import LEAST_CYCLES, Drift, drift, drift_in_a_life
from harness.stack import Stack
from harness.topology import Pipeline, UsageError
from load.profiles import Steady

#: Run folders of cycles that passed are kept until so many newer ones have passed, too.
KEPT = 2
#: A cycle that could not say is tried so often in all.
ATTEMPTS = 2
#: Rows of a sink are dropped, between two cycles, when their window ended so long ago: no event that is still to come is
#: older than 75 s (`load.plan`). Whatever is there is read again and again by the sink's tap.
ROWS_FOR_S = 90.0
#: Drift is judged in a soak of so many cycles or more.
ENOUGH_CYCLES = math.ceil(LEAST_CYCLES / 0.75)


@dataclass(frozen=True)
class Asked:
    """What was asked for. `hours` of cycles of `cycle_s` seconds of load each; `stop`: at the first violation."""

    scenario: str
    pipeline: str
    backend: str
    seed: int
    hours: float
    cycle_s: float
    rate: int
    stop: bool = False

    def check(self) -> Asked:
        if not self.hours > 0:
            raise UsageError(f"A soak lasts longer than {self.hours:g} hours.")
        if not self.cycle_s >= 10:
            raise UsageError(f"A cycle of {self.cycle_s:g} s has no room for faults: take 10 s or more.")
        return self


@dataclass
class Cycle:
    """What is kept of a cycle. `figures`: of the run, for the trends; None where it was not measured. `lives`: when the process
    of each worker that was there at the end had begun, epoch seconds. `judged`: how many of its acknowledged events were found in
    the source log, and judged; None where that could not be settled."""

    number: int
    attempt: int
    seed: int
    verdict: str
    run: str
    events: dict[str, int]
    faults: int
    figures: dict[str, float | None]
    violated: list[str] = field(default_factory=list)
    lives: dict[str, float] = field(default_factory=dict)
    judged: int | None = None


@dataclass
class Cut:
    """A cycle that was cut off when the harness ended: its run folder, and its events, of which nothing is claimed."""

    run: str
    events: dict[str, int]


@dataclass
class State:
    """All that a soak knows of itself; `soak.json`. `spent_s`: how long it has run so far, over all attempts."""

    asked: Asked
    cycles: list[Cycle] = field(default_factory=list)
    spent_s: float = 0.0
    cut: list[Cut] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        write_whole(folder / "soak.json", (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> State:
        """Raises UsageError where there is no soak, DamagedRun where it cannot be read."""
        if not (folder / "soak.json").is_file():
            raise UsageError(f"{folder} is no soak: it has no soak.json.")
        saved = read_json(folder / "soak.json")
        cycles = [Cycle(**cycle) for cycle in saved["cycles"]]
        cut = [Cut(**cut) for cut in saved["cut"]]
        return cls(Asked(**saved["asked"]), cycles, saved["spent_s"], cut)

    @property
    def judged(self) -> list[Cycle]:
        """The last attempt of each cycle."""
        return list({cycle.number: cycle for cycle in self.cycles}.values())

    def runs(self) -> list[str]:
        """The run folders of all attempts, those that were cut off too."""
        return [cycle.run for cycle in self.cycles] + [cut.run for cut in self.cut]

    def next(self) -> tuple[int, int]:
        """(number, attempt) of the cycle that comes next."""
        last = self.cycles[-1] if self.cycles else None
        if last is None:
            return 1, 1
        if last.verdict == "inconclusive" and last.attempt < ATTEMPTS:
            return last.number, last.attempt + 1
        return last.number + 1, 1

    def over(self) -> bool:
        if self.asked.stop and any(cycle.verdict == "violation" for cycle in self.cycles):
            return True
        return bool(self.cycles) and self.spent_s >= self.asked.hours * 3600 and self.next()[1] == 1


def scenario_of(asked: Asked, pipeline: Pipeline, claims: Sequence[Assertion]) -> Scenario:
    """What every cycle is, but for its seed and the faults that are drawn from it."""
    load = Steady(rate=asked.rate, seconds=asked.cycle_s)
    return Scenario(
        asked.scenario, pipeline, load, (), claims, random=random_schedule(), seed=asked.seed, ref=asked.pipeline
    ).validate()


def seed_of(seed: int, cycle: int) -> int:
    """The seed of a cycle's events and faults, drawn from that of the soak and its number."""
    return random.Random(f"gauntlet soak {seed} {cycle}").getrandbits(48)


class Soak:
    """Use `run`. `tell` gets a line for a person after each cycle, and `listeners` what happens in it meanwhile."""

    def __init__(
        self,
        scenario: Scenario,
        state: State,
        folder: Path,
        session: Session,
        tell: Callable[[str], None],
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.scenario, self.state, self.folder, self.session, self.tell = scenario, state, folder, session, tell
        self._listeners = listeners
        self._harness = psutil.Process()
        self._held: dict[str, pl.DataFrame] = {}

    def run(self) -> dict[str, Any]:
        """Cycles until the time is over; the soak's verdict. What was done is in soak.json, whatever way it ends."""
        backend = self.session.prepare(self.scenario.pipeline)
        self._note_cut()
        begin, before = time.monotonic(), self.state.spent_s
        with self._deployed(backend) as (stack, deployed):
            while not self.state.over():
                number, attempt = self.state.next()
                outcome = self._cycle(number, attempt, backend, stack, deployed)
                self.state.cycles.append(self._kept(number, attempt, outcome, deployed, stack.site.folder))
                self.state.spent_s = round(before + time.monotonic() - begin, 1)
                self.state.save(self.folder)
                self.tell(_line(self.state.cycles[-1]))
                self._drop_what_is_behind(stack, deployed)
        return summary(self.state, self.folder)

    def _note_cut(self) -> None:
        """Cycles that an earlier harness left unfinished, or finished and had no time to write down."""
        # By their names: a soak's folder may have been moved.
        known = {Path(one).name for one in self.state.runs()}
        for path in sorted((self.folder / "cycles").glob("*")):
            if path.name not in known:
                found = ledgers(RunFolder(path).ledger)
                self.state.cut.append(Cut(str(path), Ledger.read(*found).totals() if found else dict(_NO_EVENTS)))
        self.state.save(self.folder)

    @contextlib.contextmanager
    def _deployed(self, backend: Backend) -> Any:
        """The pipeline at work, and ended at last."""
        folder = RunFolder.create(self.folder / "deployments", "soak")
        history = History(folder.history)
        stack = self.session.stack(self.scenario.pipeline)
        base = Run(self.scenario.with_(faults=(), random=None), stack, self.session.processes, folder, history)
        try:
            base.deploy_workers(lambda hop: None)
            yield stack, Deployed(base.names, base.supervisor)
        finally:
            base.clean_up()
            history.close()

    def _cycle(self, number: int, attempt: int, backend: Backend, stack: Stack, deployed: Deployed) -> Outcome:
        pipeline = self.scenario.pipeline
        scenario = self.scenario.with_(name=f"cycle-{number:05d}", seed=seed_of(self.state.asked.seed, number))
        scenario = scenario.drawn(backend.name, lambda fault: backend.refuses(fault, pipeline)).validate()
        folder = RunFolder.create(self.folder / "cycles", scenario.name)
        history = History(folder.history)
        for listener in self._listeners:
            history.listen(listener)
        run: Run | None = None
        try:
            history.add("stage", stage="deploy")
            begin = time.monotonic()
            stack.listen(history.add)
            run = Run(scenario, stack, self.session.processes, folder, history, replace(deployed, held=self._held))
            self._held = {}
            run.meta["notes"] += [*backend.notes, f"cycle {number} of a soak, attempt {attempt}"]
            folder.write_json("run.json", run.meta)
            outcome = run.carry_out(begin)
            self._held = run.held()
            return outcome
        finally:
            if run is not None:
                run.clean_up()
            history.close()

    def _kept(self, number: int, attempt: int, outcome: Outcome, deployed: Deployed, folder_of_services: Path) -> Cycle:
        verdict = outcome.verdict
        found = {finding["assertion"]: finding["figures"] for finding in verdict["findings"]}
        latency, recovery = found.get("latency", {}), found.get("recovery", {})
        figures: dict[str, float | None] = {
            "latency p50 (s)": latency.get("p50_s"),
            "latency p99 (s)": latency.get("p99_s"),
            "latency p99 while nothing is broken (s)": (latency.get("steady") or {}).get("p99_s"),
            "longest recovery (s)": _longest_recovery(recovery.get("faults", [])),
            "time to drain (s)": (recovery.get("drain") or {}).get("waited_s"),
            **_lags(outcome.folder / "history.jsonl"),
            "memory of the harness (MiB)": self._harness.memory_info().rss / 2**20,
            "open files of the harness": float(self._harness.num_fds()),
            "disk (MiB)": sum(map(_on_disk, (self.folder, folder_of_services))) / 2**20,
        }
        lives = {}
        for instance in self.scenario.pipeline.instances():
            # Names that are there in every cycle, so that what cannot be measured shows as missing.
            figures |= {f"memory of {instance} (MiB)": None, f"open files of {instance}": None}
            child = deployed.supervisor.child(instance)
            with contextlib.suppress(psutil.Error):
                if child is not None:
                    lives[instance] = child.started
                    process = psutil.Process(child.pid)
                    figures[f"memory of {instance} (MiB)"] = process.memory_info().rss / 2**20
                    figures[f"open files of {instance}"] = float(process.num_fds())
        return Cycle(
            number,
            attempt,
            seed_of(self.state.asked.seed, number),
            verdict["verdict"],
            str(outcome.folder),
            dict(verdict["events"]),
            sum(bool(fault["bit"]) for fault in verdict["faults"]),
            figures,
            [f["assertion"] for f in verdict["findings"] if f["verdict"] == "violation"],
            lives,
            _judged(found.get("ledger_settled", {})),
        )

    def _drop_what_is_behind(self, stack: Stack, deployed: Deployed) -> None:
        passed = [cycle for cycle in self.state.cycles if cycle.verdict == "pass"]
        for cycle in passed[:-KEPT]:
            shutil.rmtree(cycle.run, ignore_errors=True)
        deleted = stack.trim(self.scenario.pipeline, deployed.names, (time.time() - ROWS_FOR_S) * 1000)
        # Not as it is now: what was counted since the cycle had drained must show in the next one.
        self._held = {hop: less(held, summed(deleted.get(hop, ()))) for hop, held in self._held.items()}
        logs = [*stack.logs().values(), *(self.folder / "deployments").glob("*/logs/*.log")]
        # Whoever writes to them appends, so that they begin anew; what belongs to a cycle is in its folder.
        each(*(partial(os.truncate, log, 0) for log in logs))


def _judged(settled: Mapping[str, Any]) -> int | None:
    """Of the acknowledged events those that are in the source log: what `no_loss` then follows from hop to hop."""
    return settled["acked"] - settled["acked_but_absent"] if "acked_but_absent" in settled else None


def _longest_recovery(faults: Sequence[Mapping[str, Any]]) -> float | None:
    """In seconds; None where there was no fault, or one from which nobody saw it recover."""
    took = [fault["recovered_s"] for fault in faults]
    return None if not took or None in took else float(max(took))


def _lags(history: Path) -> dict[str, float | None]:
    """What each consumer group had left to read when the load was over and everything healed; None where nobody could say."""
    found: dict[str, float | None] = {}
    for line in history.read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "lag":
            found.setdefault(f"lag of {record['group']} after the load", record["lag"])
    return found


def _on_disk(folder: Path) -> int:
    """The bytes that it takes, which is less than its files are long where they have holes."""
    taken = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # somebody has just removed it
            taken += path.lstat().st_blocks * 512
    return taken


def _line(cycle: Cycle) -> str:
    again = f", attempt {cycle.attempt}" if cycle.attempt > 1 else ""
    said = f"cycle {cycle.number}{again}: {cycle.verdict}, {cycle.events.get('acked', 0):,} events, {cycle.faults} faults bit"
    p99 = cycle.figures.get("latency p99 (s)")
    said += f", p99 {p99:.1f} s" if p99 is not None else ""
    return said + (f": {', '.join(cycle.violated)}; kept in {cycle.run}" if cycle.verdict != "pass" else "")


#: Below so much, in a measure's own unit, its growth is the machine's grain: by how its name begins.
_GRAIN = {
    "latency": 1.0,
    "longest recovery": 2.0,
    "time to drain": 5.0,
    "lag": 2_000.0,
    "memory": 20.0,
    "open files": 10.0,
    "disk": 500.0,
}


def drifts(cycles: Sequence[Cycle]) -> list[Drift]:
    """Every measure's trend over the cycles."""
    names = dict.fromkeys(name for cycle in cycles for name in cycle.figures)
    workers = {worker for cycle in cycles for worker in cycle.lives}
    found = []
    for name in names:
        values = [math.nan if (v := cycle.figures.get(name)) is None else v for cycle in cycles]
        least = next(grain for begins, grain in _GRAIN.items() if name.startswith(begins))
        found.append(drift(name, values, least))
        whose = name.rpartition(" (")[0] or name
        worker = next((w for w in workers if whose.endswith(f" of {w}")), None)
        if worker is not None:
            lives = [cycle.lives.get(worker) for cycle in cycles]
            found.append(drift_in_a_life(f"growth within a life: {name}", values, lives, least))
    return found


_NO_EVENTS = {"sent": 0, "acked": 0, "ambiguous": 0, "failed": 0}


def _summed(some: Sequence[Cycle | Cut]) -> dict[str, int]:
    return {key: sum(one.events.get(key, 0) for one in some) for key in _NO_EVENTS}


def _unjudged(state: State) -> dict[str, int]:
    """Events that were acknowledged and of which nothing is claimed: of attempts that were tried again, and of those that
    were cut off. With `events.acked` they are all that the soak has sent and seen acknowledged."""
    last = {id(cycle) for cycle in state.judged}
    again = [cycle for cycle in state.cycles if id(cycle) not in last]
    return {"tried_again": _summed(again)["acked"], "cut_off": _summed(state.cut)["acked"]}


def _accounted(state: State) -> dict[str, Any]:
    """Whether every event that was ever acknowledged was judged once, or is counted among those of which nothing is claimed.

    Events bear the tag of their run, so none belongs to two; a run that stood here twice would count its events twice.
    """
    said = [cycle for cycle in state.judged if cycle.verdict != "inconclusive"]
    unsaid = [cycle for cycle in state.judged if cycle.verdict == "inconclusive"]
    figures = {
        "acked": _summed([*state.cycles, *state.cut])["acked"],
        "judged": sum(cycle.judged or 0 for cycle in said),
        "could_not_say": _summed(unsaid)["acked"],
        **_unjudged(state),
    }
    runs = state.runs()
    wrong = [
        f"of cycle {c.number} {c.events.get('acked', 0):,} events were acknowledged, and {c.judged or 0:,} judged"
        for c in said
        if c.judged != c.events.get("acked", 0)
    ]
    wrong += [f"{run} stands there {runs.count(run)} times" for run in dict.fromkeys(runs) if runs.count(run) > 1]
    told = f"each of {figures['judged']:,} acknowledged events was judged once"
    rest = figures["could_not_say"] + figures["tried_again"] + figures["cut_off"]
    told += (
        f"; of {rest:,} more nothing is claimed ({figures['cut_off']:,} were cut off with the harness)" if rest else ""
    )
    return {
        "assertion": "accounted",
        "verdict": "inconclusive" if wrong else "pass",
        "summary": "; ".join(wrong[:5]) or told,
        "figures": figures,
        "examples": [],
    }


def summary(state: State, folder: Path) -> dict[str, Any]:
    """The soak's verdict: the worst of its cycles (of each the last attempt) and of the trends.

    A soak of fewer than `ENOUGH_CYCLES` claims nothing of trends.
    """
    judged = state.judged
    trends = drifts(judged)
    growing = [d for d in trends if d.verdict == "drifts"]
    verdicts: list[Any] = [cycle.verdict for cycle in judged]
    claimed = len(judged) >= ENOUGH_CYCLES
    # A pipeline may show no latency, and a soak may need no recovery; but every process has memory and files.
    blind = [d.measure for d in trends if d.verdict == "too few" and d.measure.startswith(("memory", "open files"))]
    drifting = "pass" if not claimed else "violation" if growing else "inconclusive" if blind else "pass"
    accounted = _accounted(state)
    verdicts += [drifting] if claimed else []
    verdicts += [accounted["verdict"]] if judged else []
    events = _summed(judged)
    count = {verdict: sum(c.verdict == verdict for c in judged) for verdict in ("pass", "violation", "inconclusive")}
    unsure = [d.measure for d in trends if d.verdict == "too few"]
    told = f"no trend in {len(trends) - len(unsure)} measures over {len(judged)} cycles"
    told += f"; {len(unsure)} more could not be told in enough of them" if unsure else ""
    if growing:
        told = "; ".join(
            f"{d.measure} grows by {d.a_cycle:.3g} a cycle, from {d.first:.4g} to {d.last:.4g}" for d in growing
        )
    elif claimed and blind:
        told = f"cannot say: {', '.join(blind)} could not be measured in enough cycles"
    elif not claimed:
        told = f"nothing is claimed of trends: {len(judged)} cycles, {ENOUGH_CYCLES} are needed"
    finding = {
        "assertion": "drift",
        "verdict": drifting,
        "summary": told,
        "figures": {"claimed": claimed, "measures": [d.to_json() for d in trends]},
        "examples": [d.to_json() for d in growing],
    }
    return {
        "verdict": worst(verdicts),
        "soak": str(folder),
        "pipeline": state.asked.pipeline,
        "scenario": state.asked.scenario,
        "seed": state.asked.seed,
        "hours": round(state.spent_s / 3600, 4),
        "events": events,
        "faults": sum(cycle.faults for cycle in judged),
        "counts": count,
        "findings": [finding, accounted],
        "cycles": [asdict(cycle) for cycle in state.cycles],
        "cut": [asdict(cut) for cut in state.cut],
        "unjudged": _unjudged(state),
    }
