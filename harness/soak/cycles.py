"""A soak: one pipeline that is not redeployed as long as it works, and cycle after cycle of load under random faults, each judged.

A cycle is a run in everything but its pipeline, which it finds at work and leaves at work: its own events, taps, history
and verdict. It ends when the pipeline has drained, so that what a sink gained since the cycle's beginning is what the cycle's
events made of it, and whatever is counted later of an older event shows as too much. What is behind a cycle is dropped:
the records of the topics, old rows of the sink, and the run folders of cycles that passed, but for their line in
soak.json and the last few. So memory and disk are the same after a night as after an hour.

`soak.json` is written whole after every cycle. A soak that was killed goes on with the cycle that was cut off, from its
beginning. As processes its pipeline and load outlive it for a while (`outlived`): then they are taken over, and the events of
the cut attempt are judged first. Else the pipeline is deployed anew, because the emulators keep nothing, and of the events of
the cut attempt nothing is claimed. Either way the cut attempt keeps its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from assertions.base import Assertion
from assertions.faults_effective import FaultsEffective
from assertions.load_delivered import LoadDelivered
from assertions.registry import from_json
from faults import random_schedule
from harness.backends import Backend
from harness.backends.base import Footprint
from harness.backends.outlived import Outlived
from harness.catalog import claims
from harness.errors import HarnessFault, NothingArrives, WorkerDied
from harness.history import History, Listener
from harness.ledger import Ledger, ledgers
from harness.run import Deployed, Outcome, Run, each, keep_what_there_is
from harness.run_folder import RunFolder, read_json, under_way
from harness.sampling import DISK_FULL_BYTES
from harness.scenario import Scenario
from harness.services.base import less, summed
from harness.session import Session
from harness.soak.books import summary
from harness.soak.outlived import LINGERS_S, Deployment, forget
from harness.soak.state import NO_EVENTS, SETTLED, Asked, Cut, Cycle, State
from harness.stack import Stack
from harness.topology import Pipeline
from load.profiles import Steady

#: Run folders of cycles that passed are kept until so many newer ones have passed, too.
KEPT = 2
#: Rows of a sink are dropped, between two cycles, when their window ended so long ago: no event that is still to come is
#: older than 75 s (`load.plan`). Whatever is there is read again and again by the sink's tap.
ROWS_FOR_S = 90.0


def scenario_of(asked: Asked, pipeline: Pipeline) -> Scenario:
    """What every cycle is, but for its seed and the faults that are drawn from it."""
    load = Steady(rate=asked.rate, seconds=asked.cycle_s)
    claimed = [from_json(one) for one in asked.claims] or claims(pipeline)
    return Scenario(
        asked.scenario, pipeline, load, (), claimed, random=random_schedule(), seed=asked.seed, ref=asked.pipeline
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
        #: when it began, were it in one piece, by the monotonic clock
        self._begin = 0.0
        self._stack: Stack | None = None

    def run(self) -> dict[str, Any]:
        """Cycles until the time is over; the soak's verdict. What was done is in soak.json, whatever way it ends. Raises UsageError
        where it is under way already."""
        with under_way(self.folder, "soak"):
            return self._run()

    def _run(self) -> dict[str, Any]:
        deployment = Deployment.left_in(self.folder)
        taken = self._take_over(deployment) if deployment is not None else None
        self._note_cut("its pipeline had ended" if taken is None else "")
        self._begin = time.monotonic() - self.state.spent_s
        worked = taken is not None
        while taken is not None or not self.state.over():
            cycles = len(self.state.cycles)
            try:
                with self._deployed(taken) as (stack, deployed):
                    self._cycles(stack, deployed)
            except (WorkerDied, NothingArrives) as error:
                if not worked and len(self.state.cycles) == cycles:
                    raise  # it never did: bad input
                self._end_idle(error)
            taken, worked = None, True
        return summary(self.state, self.folder)

    def _cycles(self, stack: Stack, deployed: Deployed) -> None:
        """Until the soak is over, or a cycle has left something that would count in the next one."""
        backend = self.session.prepare(self.scenario.pipeline)
        while not self.state.over():
            number, attempt = self.state.next()
            outcome, drain = self._cycle(number, attempt, backend, stack, deployed)
            self.state.cycles.append(self._kept(number, attempt, outcome, drain, stack, deployed))
            self._save()
            self.tell(_line(self.state.cycles[-1]))
            if leaves_something(drain, outcome.verdict["verdict"]):
                if not self.state.over():
                    self.tell(f"the pipeline is deployed anew: {outcome.folder.name} has left something on its way")
                return
            self._drop_what_is_behind(stack, deployed)

    def _end_idle(self, error: Exception) -> None:
        """A pipeline that has worked does so no more, though nothing is broken. Raises HarnessFault if a service or the machine
        is."""
        assert self._stack is not None
        services = self._stack.alive() | {s: self._stack.ask(s) is not None for s in self._stack.site.existing}
        if silent := [name for name, alive in services.items() if not alive]:
            raise HarnessFault(f"{', '.join(silent)} ended or fell silent. {error}") from error
        if shutil.disk_usage(self.folder).free < DISK_FULL_BYTES:
            raise HarnessFault(f"The disk is full. {error}") from error
        self.state.idle = f"cycle {self.state.next()[0]} did not begin: {str(error).splitlines()[0]}"
        self._save()
        self._note_cut(self.state.idle)
        self.tell(self.state.idle)

    def _save(self) -> None:
        self.state.spent_s = round(time.monotonic() - self._begin, 1)
        self.state.save(self.folder)

    def _unknown(self) -> list[Path]:
        """Run folders of which soak.json does not tell: an earlier harness left them unfinished, or had no time to write them
        down."""
        # By their names: a soak's folder may have been moved.
        known = {Path(one).name for one in self.state.runs()}
        return [path for path in sorted((self.folder / "cycles").glob("*")) if path.name not in known]

    def _note_cut(self, why: str) -> None:
        """Cycles that an earlier harness left behind. One that it had judged stands as it was judged."""
        for path in self._unknown():
            cut = _cut_off(path)
            if not cut.verdict:
                cut.why = cut.why or why
            self.state.cut.append(cut)
        self.state.save(self.folder)

    @contextlib.contextmanager
    def _deployed(self, taken: tuple[Stack, Run] | None) -> Any:
        """The pipeline at work, which ends with this: `taken`, or one that is deployed now."""
        stack, base = taken or self._deploy()
        self._stack = stack
        try:
            if taken is None:
                base.deploy_workers(lambda hop: None)
            if (left := stack.site.to_be_outlived()) is not None:
                self._let_it_outlive(base, left)
            yield stack, Deployed(base.names, base.supervisor)
        finally:
            forget(self.folder)
            each(*(partial(outlive, 0) for outlive in self._outliving(base)), base.clean_up, base.history.close)

    def _let_it_outlive(self, base: Run, left: Outlived) -> None:
        temp, site = self.session.processes.temp, base.stack.site
        Deployment(str(temp), str(base.folder.path), site.name, left).keep(self.folder)
        try:
            for outlive in self._outliving(base):
                outlive(LINGERS_S)
        except HarnessFault as error:
            forget(self.folder)
            each(*(partial(outlive, 0) for outlive in self._outliving(base)))
            self.tell(f"should this process be killed, nothing can be judged of the cycle under way: {error}")

    def _outliving(self, base: Run) -> list[Callable[[float], None]]:
        """What lets processes outlive this one, the load among them always, and then containers."""
        processes, site = self.session.processes, base.stack.site
        of_processes = partial(processes.outlive, toxiproxy=f"{site.toxiproxy.host}:{site.toxiproxy.port}")
        return [of_processes, *([site.children.outlive] if site.children is not processes else [])]

    def _deploy(self) -> tuple[Stack, Run]:
        self.session.prepare(self.scenario.pipeline)
        return self._base(
            self.session.stack(self.scenario.pipeline), RunFolder.create(self.folder / "deployments", "soak")
        )

    def _base(self, stack: Stack, folder: RunFolder) -> tuple[Stack, Run]:
        """The run that is no run: it has the workers, and no load."""
        scenario = self.scenario.with_(faults=(), random=None)
        return stack, Run(scenario, stack, self.session.processes, folder, History(folder.history))

    def _take_over(self, left: Deployment) -> tuple[Stack, Run] | None:
        """The pipeline that outlived another harness, with the cycle judged that was cut off; None where that cannot be, and
        nothing of it is left then."""
        base: Run | None = None
        try:
            stack = self.session.take_over(self.scenario.pipeline, Path(left.temp), left.site)
            cut = [path for path in self._unknown() if _began(path)]
            if len(cut) != 1:
                raise HarnessFault("no load was under way")
            self.tell(f"the pipeline is still at work; what was cut off is judged: {cut[0].name}")
            folder = Path(left.run)
            stack, base = self._base(stack, RunFolder(folder, folder.name.rpartition("-")[2]))
            base.take_over_workers()
            self._judge_cut(cut[0], stack, base)
            return stack, base
        except Exception as error:  # whatever it is, the soak goes on: of those events nothing is claimed then
            why, self._held = str(error), {}
            self.tell(f"the pipeline is deployed anew: {why}")
        if base is not None:
            each(base.clean_up, base.history.close)
        self.session.close()
        forget(self.folder)
        self._note_cut(why)
        return None

    def _judge_cut(self, path: Path, stack: Stack, base: Run) -> None:
        """Judges the events of a cycle in the middle of which its harness was killed."""
        backend = self.session.prepare(self.scenario.pipeline)
        scenario, meta = self._scenario(self.state.next()[0], backend), read_json(path / "run.json")
        if (meta["seed"], meta["run"]) != (scenario.seed, path.name.rpartition("-")[2]):
            raise HarnessFault(f"{path.name} is not the cycle that comes next")
        folder = RunFolder(path, meta["run"])
        history = self._history(folder)
        stack.listen(history.add)
        deployed = Deployed(base.names, base.supervisor)
        run = Run(scenario, stack, self.session.processes, folder, history, deployed)
        try:
            of_cycle = {log: child for log, child in self.session.processes.living() if log.parent == folder.logs}
            load = of_cycle.pop(folder.load_log, None)
            self.session.processes.stop([child.pid for child in of_cycle.values()])  # its batch truth, say
            outcome = run.carry_on(_of_events(scenario), load)
            self._held, drain = run.held(), run.drain_ended()
        finally:
            run.clean_up()
            history.close()
        self.state.cut.append(_cut_off(path))
        self.state.save(self.folder)
        self.tell(_line_of_cut(self.state.cut[-1]))
        if leaves_something(drain, outcome.verdict["verdict"]):
            raise HarnessFault(f"{path.name} has left something on its way")
        self._drop_what_is_behind(stack, deployed)

    def _scenario(self, number: int, backend: Backend) -> Scenario:
        pipeline = self.scenario.pipeline
        scenario = self.scenario.with_(name=f"cycle-{number:05d}", seed=seed_of(self.state.asked.seed, number))
        return scenario.drawn(backend.name, lambda fault: backend.refuses(fault, pipeline)).validate()

    def _cycle(
        self, number: int, attempt: int, backend: Backend, stack: Stack, deployed: Deployed
    ) -> tuple[Outcome, str]:
        """What it came to, and why its drain ended."""
        scenario = self._scenario(number, backend)
        folder = RunFolder.create(self.folder / "cycles", scenario.name)
        history = self._history(folder)
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
            return outcome, run.drain_ended()
        except Exception as error:
            history.add("error", text=str(error))
            raise
        finally:
            if run is not None:
                run.clean_up()
                if not folder.manifest.exists():
                    keep_what_there_is(run, folder)
            history.close()

    def _history(self, folder: RunFolder) -> History:
        history = History(folder.history)
        for listener in self._listeners:
            history.listen(listener)
        return history

    def _kept(self, number: int, attempt: int, outcome: Outcome, drain: str, stack: Stack, deployed: Deployed) -> Cycle:
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
            "disk (MiB)": sum(map(_on_disk, (self.folder, stack.site.folder))) / 2**20,
        }
        lives = {}
        for instance in self.scenario.pipeline.instances():
            child, takes = deployed.supervisor.child(instance), Footprint()
            if child is not None:
                lives[instance] = child.started
                takes = stack.site.footprint(deployed.supervisor.process(instance), child)
            # Names that are there in every cycle, so that what cannot be measured shows as missing.
            memory, files = takes.memory, takes.files
            figures[f"memory of {instance} (MiB)"] = None if memory is None else memory / 2**20
            figures[f"open files of {instance}"] = None if files is None else float(files)
        return Cycle(
            number,
            attempt,
            seed_of(self.state.asked.seed, number),
            verdict["verdict"],
            str(outcome.folder),
            dict(verdict["events"]),
            sum(bool(fault["bit"]) for fault in verdict["faults"]),
            figures,
            _violated(verdict),
            lives,
            _judged(found.get("ledger_settled", {})),
            drain,
        )

    def _drop_what_is_behind(self, stack: Stack, deployed: Deployed) -> None:
        passed = [cycle for cycle in self.state.cycles if cycle.verdict == "pass"]
        for cycle in passed[:-KEPT]:
            # Where it is now: a soak's folder may have been moved, or copied.
            shutil.rmtree(self.folder / "cycles" / Path(cycle.run).name, ignore_errors=True)
        deleted = stack.trim(self.scenario.pipeline, deployed.names, (time.time() - ROWS_FOR_S) * 1000)
        # Not as it is now: what was counted since the cycle had drained must show in the next one.
        self._held = {hop: less(held, summed(deleted.get(hop, ()))) for hop, held in self._held.items()}
        logs = [*stack.logs().values(), *(self.folder / "deployments").glob("*/logs/*.log")]
        # Whoever writes to them appends, so that they begin anew; what belongs to a cycle is in its folder.
        each(*(partial(os.truncate, log, 0) for log in logs))


def leaves_something(drain: str, verdict: str) -> bool:
    """Whether events of a cycle may come after it. Those that were missing in a long quiet may be on their way where nobody can
    say how much a worker has left to read: if the cycle passed or is a violation already, it does not matter."""
    return drain not in SETTLED or (drain == "quiet" and verdict == "inconclusive")


def _began(path: Path) -> bool:
    """Whether the load of a run had begun that its harness did not end."""
    return (path / "load" / "go.json").is_file() and not (path / "manifest.json").exists()


def _cut_off(path: Path) -> Cut:
    """What is known of a run that a harness left behind: its verdict too, where it was judged as far as one can say."""
    found = ledgers(RunFolder(path).ledger)
    cut = Cut(str(path), Ledger.read(*found).totals() if found else dict(NO_EVENTS))
    if (path / "manifest.json").is_file():
        verdict = read_json(path / "verdict.json")
        if verdict["verdict"] == "inconclusive":
            cut.why = "; ".join(f["summary"] for f in verdict["findings"] if f["verdict"] == "inconclusive")
        else:
            settled: dict[str, Any] = next(
                (f["figures"] for f in verdict["findings"] if f["assertion"] == "ledger_settled"), {}
            )
            cut.verdict, cut.judged = verdict["verdict"], _judged(settled)
            cut.violated = _violated(verdict)
    return cut


def _of_events(scenario: Scenario) -> list[Assertion]:
    """Of what is claimed of a scenario, what is true of its events whoever watched: nothing of times, of faults, or of how much
    more is done while a fault is not healed for minutes."""
    sink = scenario.pipeline.sink

    def whoever_watched(a: Assertion) -> bool:
        if a.name == "duplicate_rate":
            return sink is not None and a.params()["hop"] == sink.name
        return a.name not in ("latency", "recovery")

    return [*filter(whoever_watched, scenario.assertions), LoadDelivered(least=0.0), FaultsEffective(watched=False)]


def _violated(verdict: Mapping[str, Any]) -> list[str]:
    return [f["assertion"] for f in verdict["findings"] if f["verdict"] == "violation"]


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


def _line_of_cut(cut: Cut) -> str:
    said = cut.verdict or f"cannot say ({cut.why})"
    return f"cut off and judged: {said}, {cut.events['acked']:,} events" + (
        f": {', '.join(cut.violated)}; kept in {cut.run}" if cut.violated else ""
    )
