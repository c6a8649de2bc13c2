"""The life of a run: deploy, warm up, load with faults, heal, drain, collect, check, store.

`execute` at the end is the main line; the class above it holds a method a stage, in the order in which they happen.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from assertions import attribution
from assertions.base import Assertion
from assertions.judge import judge
from harness import draining, versions, warehouse
from harness.backends.base import Child, Exit, Launch, OnExit
from harness.backends.process import Processes
from harness.compare.versions import second_name, version_of, worker_in
from harness.errors import BackendGone, HarnessFault, NothingArrives, last_lines
from harness.history import History, Listener
from harness.injection import Injection, InVersion, LiveSystem
from harness.run_folder import read_json
from harness.sampling import AskCommitted, Sampler
from harness.scenario import Scenario
from harness.services.base import SinkResult, SinkTap, Tap, TapResult
from harness.services.kafka import KafkaTap
from harness.services.pubsub import PubSubTap
from harness.stack import Stack
from harness.store import RunFolder, SavedRun
from harness.supervisor import Supervisor
from harness.topology import Hop, Pipeline, Worker
from harness.watching import Watch

#: How long the first event may take to the last hop.
WARM_UP_WITHIN_S = 60.0
#: The load starts this long after it was told to, so that its process is awake at its first due time.
LEAD_S = 0.2
#: Messages that are read again are asked for from this long before the first one was sent: the clock of a server is another one.
BEFORE_WARM_UP_S = 5.0
#: How long the load may go on after its last event was due, before the run goes on without it.
LOAD_GRACE_S = 90.0
BATCH_WITHIN_S = 300.0


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the object of the contract, and where all of it is kept."""

    verdict: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Deployed:
    """A pipeline at work: its names of everything that it uses, and who starts its workers again. `held`: what each sink
    held when the run before had drained, as far as that is known, less what was dropped since."""

    names: Mapping[str, str]
    supervisor: Supervisor
    held: Mapping[str, pl.DataFrame] = field(default_factory=dict)


class Run:
    """One execution of a scenario on a stack. Use `execute`."""

    def __init__(
        self,
        scenario: Scenario,
        stack: Stack,
        processes: Processes,
        folder: RunFolder,
        history: History,
        deployed: Deployed | None = None,
    ) -> None:
        """`deployed`: a pipeline that is at work already, and goes on when this run is over."""
        self.scenario, self.pipeline = scenario, scenario.pipeline
        self.stack, self.processes, self.folder, self.history = stack, processes, folder, history
        self.tag = folder.tag
        self.deployed = deployed
        if deployed is None:
            self.names = resource_names(self.pipeline, stack, self.tag)
            self.supervisor = Supervisor(stack.site.children, history)
        else:
            self.names, self.supervisor = dict(deployed.names), deployed.supervisor
            self.supervisor.tell(history)
        self.taps: dict[str, Tap] = {}
        self.system = LiveSystem(self.pipeline, stack, self.supervisor, history, self.names)
        self.sampler = Sampler(
            stack.site.meter(), self.taps, history, self._groups(), self.system.activity, self._unlinked()
        )
        self.system.before_return = self.sampler.before_return
        self.system.in_version = self._in_version
        existing = {s: partial(stack.ask, s) for s in stack.site.existing if s in stack.servers}
        serving = {h.worker: partial(stack.ask_worker, h) for h in self.pipeline.hops_of_workers()}
        self.watch = Watch(existing, history, serving)
        self.injection = Injection(scenario.faults, self.system, self.pipeline, history)
        self.load_child: Child | None = None
        self.load_exit: Exit | None = None
        self.timing: dict[str, float] = {}
        self.log_offsets = {name: path.stat().st_size for name, path in stack.logs().items()}
        self.warmup_t0_ms = int(history.clock.now() * 1000)
        self.meta = self._meta()

    def carry_out(self, begin: float) -> Outcome:
        """From deploy to store; `begin`: when its deployment began, of the monotonic clock."""
        self.deploy()
        self.timing["deploy"] = round(time.monotonic() - begin, 3)
        with self.stage("warm-up"):
            self.warm_up()
        with self.stage("load"):
            self.load()
        with self.stage("heal"):
            self.heal()
        return self._drain_to_store()

    def _drain_to_store(self) -> Outcome:
        with self.stage("drain"):
            self.drain()
        with self.stage("collect"):
            self.collect()
        with self.stage("check"):
            verdict = self.check()
        with self.stage("store"):
            self.store(verdict)
        return Outcome(verdict, self.folder.path)

    def carry_on(self, assertions: Sequence[Assertion], load: Child | None) -> Outcome:
        """Of a run whose harness was killed in the middle of it, and whose pipeline and load went on: from the load's end to
        store. Nobody watched what happened meanwhile, so nothing but events can be judged. `load`: its process, if it has not
        ended. Raises HarnessFault where a hop cannot be read again."""
        named = [{"assertion": a.name, "params": a.params()} for a in assertions]
        note = "the harness was killed in the middle of this run; the next one judged the events that were acknowledged"
        self.meta = read_json(self.folder.run_json)
        self.meta |= {"assertions": named, "notes": [*self.meta["notes"], note]}
        self.folder.write_json("run.json", self.meta)
        self.log_offsets = {}
        with self.stage("load"):
            for hop in self.pipeline.hops:
                self._start_tap_again(hop)
            self.sampler.start()
            self.watch.start()
            self._wait_for_the_end_of(load)
        return self._drain_to_store()

    def _wait_for_the_end_of(self, load: Child | None) -> None:
        end = time.monotonic() + self.scenario.load.seconds + LOAD_GRACE_S
        while load is not None and self.processes.ended(load.pid) is None:
            self.stack.check()
            if time.monotonic() > end:
                self.history.add("error", text="the load did not end; it is stopped")
                self.processes.stop([load.pid], 10)
            time.sleep(0.05)
        status = self.folder.path / "load" / "status.jsonl"
        told = SavedRun.open_unsealed(self.folder.path).of_kind("load")
        self._tell_load(status, _lines_until(status, told[-1]["t"] if told else 0.0))

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.history.add("stage", stage=name)
        start = time.monotonic()
        try:
            yield
        finally:
            self.timing[name.replace("-", "_")] = round(time.monotonic() - start, 3)

    def _groups(self) -> dict[tuple[str, str], AskCommitted]:
        """How to ask what each worker's consumer group has committed at the hop that it reads."""
        found: dict[tuple[str, str], AskCommitted] = {}
        for worker, hop in self.pipeline.group_readers():
            server: Any = self.stack.servers[hop.service]
            group, topic = self.names[worker.group], self.names[hop.topic]
            found[worker.name, hop.name] = partial(_ask_committed, server, group, topic)
        return found

    def _unlinked(self) -> dict[str, Callable[[], int | None]]:
        """Workers without a link: how to ask for the pid of each."""
        linked = {link.worker for link in self.pipeline.links()}

        def pid(instance: str) -> int | None:
            child = self.supervisor.child(instance)
            return child.pid if child is not None else None

        return {i: partial(pid, i) for i in self.pipeline.instances() if i not in linked}

    def _meta(self) -> dict[str, Any]:
        """What was asked: all that `check` needs beside what was observed."""
        p, s, existing = self.pipeline, self.scenario, self.stack.site.existing
        return {
            "format": 1,
            "run": self.tag,
            "started": self.folder.started.isoformat(timespec="milliseconds"),
            "scenario": s.name,
            "backend": self.stack.site.name,
            "seed": s.seed,
            "pipeline": {
                "name": p.name,
                "ref": s.ref,
                "max_quiet_s": p.max_quiet_s,
                "late_after_s": p.late_after_s,
                "services": [
                    {
                        "name": x.name,
                        "kind": x.kind,
                        "durable": x.durable,
                        "existing": x.name in existing,
                        "processes": x.processes(),
                    }
                    for x in p.services
                ],
                "workers": [
                    {"name": instance, "worker": w.name, "reads": w.reads, "writes": list(w.writes)}
                    | ({"serves": True} if any(h.worker == instance for h in p.hops_of_workers()) else {})
                    for instance, w in p.instances().items()
                ],
                "links": [{"name": x.name, "worker": x.worker, "service": x.service} for x in p.links()],
                "hops": [
                    {"name": h.name, "kind": h.kind, "role": h.role, "service": h.service}
                    | ({"counts": True} if h.role == "export" and getattr(h, "counts", False) else {})
                    for h in p.hops
                ],
                **({"warehouse": dataclasses.asdict(p.warehouse)} if p.warehouse is not None else {}),
                "cells": [
                    {"dimension": c.dimension, "key": list(c.key), "windows_s": list(c.windows_s)} for c in p.cells
                ],
                "batch": p.batch is not None,
                "leaves_out_late": p.leaves_out_late,
                "encode": p.encode,
            },
            "load": {
                "profile": s.load.as_dict(),
                "users": s.users,
                "processes": s.processes,
                "t0_ms": None,
                "warmup_t0_ms": self.warmup_t0_ms,
                "warmup_events": 0,
            },
            "schedule": [f.as_dict() for f in s.faults],
            "schedule_seed": s.schedule_seed,
            "assertions": [{"assertion": a.name, "params": a.params()} for a in s.assertions],
            "expected": dict(s.expected),
            "versions": self.stack.site.versions() | versions.of_packages(),
            "notes": [],
        }

    # -- deploy --------------------------------------------------------------------------------------------------

    def deploy(self) -> None:
        """Makes what the run needs fresh, then starts each tap and worker as soon as all that it uses is there."""
        if self.deployed is not None:
            for hop in self.pipeline.hops:
                self._start_tap(hop)
        else:
            self.deploy_workers(self._start_tap)
        self._start_load()
        self.sampler.start()
        self.watch.start()

    def deploy_workers(self, ready: Callable[[Hop], None]) -> None:
        """Makes what the pipeline needs, and starts it. `ready` is called for each hop, before anything can come to it."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = {pool.submit(self.stack.make, s.name, self.tag): s.name for s in self.pipeline.services}
            there: set[str] = set()
            waiting = dict(self.pipeline.instances())
            for future in concurrent.futures.as_completed(made, timeout=180):
                future.result()
                there.add(made[future])
                for hop in self.pipeline.hops:
                    if hop.service == made[future]:
                        ready(hop)
                for instance in [i for i, w in waiting.items() if self.pipeline.needs(w) <= there]:
                    self._start_worker(instance, waiting.pop(instance))
        for hop in self.pipeline.hops_of_workers():
            ready(hop)

    def _start_tap(self, hop: Hop) -> None:
        tap = self.stack.tap(self.pipeline, hop, self.names, self.tag, self.history.clock.now)
        if self.deployed is not None:
            if isinstance(tap, SinkTap):
                tap.pass_over(self.deployed.held.get(hop.name))
                tap.before.write_parquet(self.folder.before(hop.name))
            else:
                tap.pass_over()
        tap.start()
        self.taps[hop.name] = tap

    def _start_tap_again(self, hop: Hop) -> None:
        """Of a run whose harness was killed: it reads once more all that came since the run began."""
        tap = self.stack.tap(self.pipeline, hop, self.names, self.tag, self.history.clock.now)
        if isinstance(tap, SinkTap):
            tap.pass_over(pl.read_parquet(self.folder.before(hop.name)))
        elif isinstance(tap, KafkaTap | PubSubTap):
            tap.go_back(self.meta["load"]["warmup_t0_ms"] / 1000 - BEFORE_WARM_UP_S)
        tap.start()
        self.taps[hop.name] = tap

    def _start_worker(self, instance: str, worker: Worker) -> None:
        self.supervisor.start(instance, *self._launch(instance, worker, instance))

    def take_over_workers(self) -> None:
        """Becomes the supervisor of workers that outlived another harness, in its deployment's folder; those that have ended
        are started again."""
        for instance, worker in self.pipeline.instances().items():
            launch, command, log = self._launch(instance, worker, instance)
            self.supervisor.start(
                instance, _joining(partial(self.stack.site.join, instance, log), launch), command, log
            )

    def _in_version(self, instance: str, to: Mapping[str, Any] | None) -> InVersion:
        """A process of a worker beside the one that it has. That of another version has a name of its own, or it would take
        the place of the first wherever one is known by its name (a static member of a consumer group)."""
        declared = self.pipeline.instances()[instance]
        if to is None:
            return InVersion(*self._launch(instance, declared, instance), instance, "")
        process = second_name(instance)
        version = version_of(declared.name, to).pinned()
        copy = self.processes.temp / "versions" / f"{process}-{version.commit}"
        worker = worker_in(version, self.pipeline, declared, copy)
        return InVersion(*self._launch(instance, worker, process), process, version.described() or "anew")

    def _launch(self, instance: str, worker: Worker, process: str) -> tuple[Launch, str, Path]:
        """What starts a process of a worker, its command and its log. `process`: its name, which is the instance's, or that of
        a second process of it, which shares its links."""
        env = {
            variable: self.stack.address(instance, service)
            for variable, service in worker.uses.items()
            if any(link.name == f"{instance}->{service}" for link in self.stack.links)
        }
        env |= self._resolved(worker.env) | {"GAUNTLET_WORKER": process, "PYTHONUNBUFFERED": "1"}
        if worker.serves:
            env[worker.serves] = self.stack.served[instance][0]
        log = self.folder.worker_log(process)
        launch, command = self.stack.site.launch(process, worker, env, log)
        return launch, command, log

    def _resolved(self, env: Mapping[str, str]) -> dict[str, str]:
        """`{name}` in a value becomes the run's own name of what it names (see `topology.RESOURCES`)."""
        resolved = {}
        for variable, value in env.items():
            for name, own in self.names.items():
                value = value.replace(f"{{{name}}}", own)
            resolved[variable] = value
        return resolved

    def _start_load(self) -> None:
        """Starts the load's process, which connects and then waits for the word to go."""
        load = self.folder.path / "load"
        load.mkdir()
        spec = {
            "bootstrap": self.stack.address("load", self.pipeline.source.service),
            "topic": self.names[self.pipeline.source.topic],  # type: ignore[attr-defined]
            "run": self.tag,
            "seed": self.scenario.seed,
            "profile": self.scenario.load.as_dict(),
            "users": self.scenario.users,
            "processes": self.scenario.processes,
            "ledger": str(self.folder.ledger),
            "status": str(load / "status.jsonl"),
            "go": str(load / "go.json"),
            "stop": str(load / "stop"),
            "encode": self.pipeline.encode,
            "keyed": self.pipeline.source.keyed,  # type: ignore[attr-defined]
        }
        (load / "spec.json").write_text(json.dumps(spec, indent=2))

        def ended(how: Exit) -> None:
            self.load_exit = how

        self.load_child = self.processes.spawn(
            [sys.executable, "-m", "load.main", str(load / "spec.json")],
            self.folder.load_log,
            {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"},
            on_exit=ended,
        )

    # -- warm up -------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Sends events of producer 0 until one is seen at the last hop: then every part has connected and works."""
        from load.events import Plan
        from load.warmup import send_warmup

        plan = Plan(self.scenario.load, self.scenario.seed, self.scenario.users, self.warmup_t0_ms, self.tag)
        way = [h.name for h in self.pipeline.hops if h.role != "dead-letter"]
        bootstrap = self.stack.address("load", self.pipeline.source.service)
        topic = self.names[self.pipeline.source.topic]  # type: ignore[attr-defined]
        begin = time.monotonic()
        sent, next_send = 0, begin
        while not all(self.taps[hop].warm() for hop in way):
            self.stack.check()
            self.supervisor.check_started()
            waited = time.monotonic() - begin
            if waited > WARM_UP_WITHIN_S:
                raise self._cold(way, waited)
            if time.monotonic() >= next_send:
                send_warmup(
                    bootstrap,
                    topic,
                    plan,
                    10,
                    self.folder.warmup_ledger,
                    lo=sent,
                    encoder=self.pipeline.encode,
                    keyed=self.pipeline.source.keyed,  # type: ignore[attr-defined]
                )
                sent += 10
                next_send = time.monotonic() + 2.0
            time.sleep(0.01)
        self.meta["load"]["warmup_events"] = sent
        self.history.add(
            "note", text=f"the first event was seen at the last hop {waited_since(self.history):.2f} s after the start"
        )

    def _cold(self, way: Sequence[str], waited: float) -> Exception:
        missing = next(hop for hop in way if not self.taps[hop].warm())
        guilty = [i for i, w in self.pipeline.instances().items() if missing in w.writes] or list(
            self.pipeline.instances()
        )
        logs = "\n".join(f"  the log of {i} ends:\n{last_lines(self.folder.worker_log(i))}" for i in guilty)
        told = f"No event was seen at the hop {missing!r} within {waited:.0f} s of the first one sent."
        tap = self.taps[missing]
        trouble = tap.broken() or tap.trouble()
        said = f"{told}{f' {trouble}' if trouble else ''}\n{logs}"
        # Of a pipeline that has worked the harness may be the reason: it could not look, not send, or not start a worker.
        ours = tap.broken() or missing == self.pipeline.source.name or self.supervisor.unstartable()
        return HarnessFault(said) if self.deployed is not None and ours else NothingArrives(said)

    # -- load with faults ----------------------------------------------------------------------------------------

    def load(self) -> None:
        """Gives the word, injects the schedule, and waits for the load's end and the last fault's healing."""
        status = self.folder.path / "load" / "status.jsonl"
        self._wait_for_load(lambda: _last_state(status) is not None, 30, "get ready")
        t0_ms = int((self.history.clock.now() + LEAD_S) * 1000)
        self.meta["load"]["t0_ms"] = t0_ms
        self.folder.write_json("run.json", self.meta)
        go = self.folder.path / "load" / "go.json"
        go.with_suffix(".tmp").write_text(json.dumps({"t0_ms": t0_ms}))
        go.with_suffix(".tmp").rename(go)
        self.injection.start(t0_ms / 1000)
        end = time.monotonic() + LEAD_S + self.scenario.load.seconds + LOAD_GRACE_S
        told = 0
        while (self.load_exit is None and time.monotonic() < end) or self.injection.under_way():
            told = self._tell_load(status, told)
            self.stack.check()
            time.sleep(0.05)
        if self.load_exit is None:
            assert self.load_child is not None
            self.history.add(
                "error", text=f"the load did not end within {LOAD_GRACE_S:g} s of its last event; it is stopped"
            )
            self.processes.stop([self.load_child.pid], 10)
        self._tell_load(status, told)
        assert self.load_exit is not None
        self.history.add("load-end", t=self.load_exit.t, status=self.load_exit.status, signal=self.load_exit.signal)

    def _wait_for_load(self, check: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not check():
            if self.load_exit is not None or time.monotonic() > end:
                raise HarnessFault(f"The load did not {what}; its log ends:\n{last_lines(self.folder.load_log)}")
            time.sleep(0.01)

    def _tell_load(self, status: Path, told: int) -> int:
        """Copies what the load says of itself into the history; returns how many lines were told so far."""
        lines = status.read_text().splitlines() if status.exists() else []
        for line in lines[told:]:
            with contextlib.suppress(json.JSONDecodeError):
                said = json.loads(line)
                if said.get("state") in ("loading", "done"):
                    fields = {k: said[k] for k in ("sent", "acked", "failed", "ambiguous", "behind_ms") if k in said}
                    self.history.add("load", t=said.get("t"), **fields)
        return len(lines)

    # -- heal, drain, collect ------------------------------------------------------------------------------------

    def heal(self) -> None:
        self.injection.finish()
        self.stack.toxiproxy.reset()

    def drain(self) -> None:
        draining.until_drained(
            self.pipeline, self.stack, self.supervisor, self.taps, self.names, self.history, self._plan()
        )

    def collect(self) -> None:
        """Stops the workers, then brings the taps home while the batch truth reads the closed source log.

        A worker that answers for a hop is stopped last: its tap asks it once everything else stands still. A pipeline that
        goes on is not stopped: it has nothing left to do.
        """
        self.stack.check()
        if self.deployed is None:
            self.supervisor.stop_all(but={hop.worker for hop in self.pipeline.hops_of_workers()})
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            batch = pool.submit(self._truths)
            results = {hop: pool.submit(tap.finish) for hop, tap in self.taps.items()}
            for hop, future in results.items():
                self._save(hop, future.result())
            batch.result()
        if self.deployed is None:
            self.supervisor.stop_all()
        self.sampler.finish(self.folder)
        self.watch.stop()

    def _save(self, hop: str, result: TapResult) -> None:
        result.frame.write_parquet(self.folder.hop(hop))
        if isinstance(result, SinkResult):
            sightings = result.sightings(self.tag)
            if sightings is not None:
                sightings.write_parquet(self.folder.sightings(hop))
            if result.appearances is not None:
                result.appearances.write_parquet(self.folder.appearances(hop))
        self.history.add("tap", hop=hop, certified=result.certified, reason=result.reason, figures=result.figures)

    def _truths(self) -> None:
        """The batch truth, and what the warehouse makes of it."""
        self._batch()
        house = self.pipeline.warehouse
        if house is not None:
            server: Any = next(s for s in self.stack.servers.values() if house.dataset in s.names(self.tag))

            def trouble(text: str) -> None:
                self.history.add("error", text=text)

            name, late_after_s = self.names[house.dataset], self.pipeline.late_after_s
            warehouse.collect(house, server, name, late_after_s, self.folder, trouble)

    def _batch(self) -> None:
        batch = self.pipeline.batch
        if batch is None:
            return
        site = self.stack.site
        env = {variable: self.stack.servers[service].inside for variable, service in batch.uses.items()}
        env |= self._resolved(batch.env) | {"LATE_AFTER_S": str(self.pipeline.late_after_s), "PYTHONUNBUFFERED": "1"}
        log = self.folder.worker_log("batch")
        launch, command = site.launch("batch", batch, env, log, self.folder.batch)
        ended: Future[Exit] = Future()
        try:
            child = launch(ended.set_result)
        except BackendGone:
            raise
        except HarnessFault as error:
            self.history.add("error", text=f"the batch truth could not be started: {error}")
            return
        deadline = time.monotonic() + BATCH_WITHIN_S
        while not ended.done() and time.monotonic() < deadline:
            self.stack.check()
            concurrent.futures.wait([ended], 0.5)
        how = ended.result() if ended.done() else None
        if how is None:
            site.children.stop_now(child.pid)
        if how is None or how.status != 0:
            self.folder.batch.unlink(missing_ok=True)
            said = f"did not end within {BATCH_WITHIN_S:g} s" if how is None else how.told
            self.history.add(
                "error", text=f"the batch truth {said}\n  its command: {command}\n  its log ends:\n{last_lines(log)}"
            )

    def held(self) -> dict[str, pl.DataFrame]:
        """What each sink held at last, if the run had drained: whatever it holds more later on was counted too late."""
        taps = {hop: tap for hop, tap in self.taps.items() if isinstance(tap, SinkTap)}
        drained = self.drain_ended() == "drained"
        return {hop: tap.held for hop, tap in taps.items() if drained and tap.held is not None}

    def drain_ended(self) -> str:
        """Why (see `draining`)."""
        return next((str(r["reason"]) for r in reversed(self.history.records) if r["kind"] == "drain-end"), "")

    # -- check and store -----------------------------------------------------------------------------------------

    def check(self) -> dict[str, Any]:
        self.sampler.record_machine(self.folder.path)
        self.save_logs()
        run = SavedRun.open_unsealed(self.folder.path)
        verdict = judge(run)
        attribution.keep(run)
        return verdict

    def store(self, verdict: dict[str, Any]) -> None:
        verdict["timing"] = {
            "deploy": self.timing.get("deploy", 0.0),
            "warm_up": self.timing.get("warm_up", 0.0),
            "load": self.timing.get("load", 0.0),
            "drain": self.timing.get("drain", 0.0),
            "collect": self.timing.get("collect", 0.0),
            "check": self.timing.get("check", 0.0),
        }
        self.history.close()
        _write_answers(self.folder, verdict)
        self.folder.seal()

    def _plan(self) -> Any:
        from load.events import Plan

        t0_ms = self.meta["load"]["t0_ms"]
        return Plan(self.scenario.load, self.scenario.seed, self.scenario.users, t0_ms, self.tag)

    def save_logs(self) -> None:
        """The part of each service's log that belongs to this run (a stack serves many)."""
        for name, path in self.stack.logs().items():
            with contextlib.suppress(OSError), open(path, "rb") as log:
                log.seek(self.log_offsets.get(name, 0))
                self.folder.worker_log(name).write_bytes(log.read())

    def clean_up(self) -> None:
        """Whatever way the run ends: nothing of it goes on, and the stack is as it was. Never raises an Exception."""
        ends: list[Callable[[], object]] = []
        removes: list[Callable[[], object]] = []
        if self.deployed is None:
            ends, removes = [lambda: self.supervisor.stop_all(grace_s=1.0)], [lambda: self.stack.remove(self.tag)]
        each(
            lambda: self.injection.finish(at_once=True),
            *ends,
            self._stop_load,
            self.sampler.stop,
            self.watch.stop,
            self.stack.toxiproxy.reset,
            *(tap.abandon for tap in self.taps.values()),
            *removes,
        )

    def _stop_load(self) -> None:
        if self.load_child is not None and self.load_exit is None:
            self.processes.stop([self.load_child.pid], 3)


def _joining(join: Callable[[OnExit], Child | None], launch: Launch) -> Launch:
    """What starts a worker that may run already: the first time it only joins it then."""
    first = [join]

    def start(on_exit: OnExit) -> Child:
        return (first.pop()(on_exit) if first else None) or launch(on_exit)

    return start


def each(*steps: Callable[[], object]) -> None:
    """Does one after the other; what fails must not keep the rest from being done."""
    for step in steps:
        with contextlib.suppress(Exception):
            step()


def resource_names(pipeline: Pipeline, stack: Stack, tag: str) -> dict[str, str]:
    """The run's own name of everything that a pipeline names."""
    return stack.names(tag) | {w.group: f"{w.group}-{tag}" for w in pipeline.workers if w.group}


def _ask_committed(server: Any, group: str, topic: str, who: str, within_s: float) -> Mapping[int, int] | None:
    return server.committed(who, group, topic, within_s)  # type: ignore[no-any-return]


def waited_since(history: History) -> float:
    return history.clock.now() - history.records[0]["t"]


def _last_state(status: Path) -> str | None:
    with contextlib.suppress(OSError, json.JSONDecodeError, IndexError):
        return str(json.loads(status.read_text().splitlines()[-1])["state"])
    return None


def _lines_until(status: Path, t: float) -> int:
    """How many lines of the load's status were written until then."""
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(json.loads(line).get("t", 0.0) <= t for line in lines)


def execute(
    scenario: Scenario,
    stack_for: Callable[[Pipeline, Callable[..., Any]], Stack],
    processes: Processes,
    out: Path,
    listeners: Sequence[Listener] = (),
    notes: Sequence[str] = (),
    backend: str = "process",
    where: str = "",
) -> Outcome:
    """Runs a scenario from deploy to verdict. Raises UsageError, HarnessFault or KeyboardInterrupt.

    Whatever happens, the faults are healed, the workers ended, and the folder holds what there is; without a manifest
    it is readable as a run that was not finished.
    """
    scenario.validate()
    folder = RunFolder.create(out, scenario.name)
    history = History(folder.history)
    for listener in listeners:
        history.listen(listener)
    run: Run | None = None
    try:
        history.show({**_introduction(scenario, folder, history), "backend": backend, "where": where})
        history.add("stage", stage="deploy")
        begin = time.monotonic()
        stack = stack_for(scenario.pipeline, history.add)
        run = Run(scenario, stack, processes, folder, history)
        run.meta["notes"] += notes
        folder.write_json("run.json", run.meta)
        return run.carry_out(begin)
    except KeyboardInterrupt:
        history.add("error", text="interrupted by the person who ran it")
        raise
    except Exception as error:
        history.add("error", text=str(error))
        raise
    finally:
        if run is not None:
            run.clean_up()
            if not folder.manifest.exists():
                keep_what_there_is(run, folder)
        history.close()


def _write_answers(folder: RunFolder, verdict: dict[str, Any]) -> None:
    from harness.report.html import write_html
    from harness.report.junit import write_junit

    folder.write_json("verdict.json", verdict)
    write_html(SavedRun.open_unsealed(folder.path), verdict, folder.report)
    write_junit(verdict, folder.junit)


def judge_again(path: Path, assertions: Sequence[Assertion], expected: Mapping[str, str]) -> Outcome:
    """Judges a finished run by other assertions, and keeps them in it, so that `gauntlet check` answers the same."""
    saved = SavedRun.load(path)
    folder = RunFolder(path, saved.tag)
    folder.manifest.unlink()
    named = [{"assertion": a.name, "params": a.params()} for a in assertions]
    folder.write_json("run.json", {**saved.meta, "assertions": named, "expected": dict(expected)})
    run = SavedRun.open_unsealed(path)
    verdict = judge(run)
    attribution.keep(run)
    verdict["timing"] = json.loads(folder.verdict.read_text())["timing"]
    _write_answers(folder, verdict)
    folder.seal()
    return Outcome(verdict, path)


def keep_what_there_is(run: Run, folder: RunFolder) -> None:
    """For a run that was broken off: logs and samples, and a page that says that it is incomplete."""
    with contextlib.suppress(Exception):
        run.save_logs()
    with contextlib.suppress(Exception):
        run.sampler.finish(folder)
    with contextlib.suppress(Exception):
        from harness.report.html import write_html

        write_html(SavedRun.open_unsealed(folder.path), {}, folder.report)


def _introduction(scenario: Scenario, folder: RunFolder, history: History) -> dict[str, Any]:
    p = scenario.pipeline
    return {
        "t": history.clock.now(),
        "kind": "run",
        "scenario": scenario.name,
        "pipeline": p.name,
        "seed": scenario.seed,
        "run": folder.tag,
        "folder": str(folder.path),
        "schedule": [f.as_dict() for f in scenario.faults],
        "schedule_seed": scenario.schedule_seed,
        "hops": [h.name for h in p.hops],
        "workers": list(p.instances()),
        "load": scenario.load.as_dict(),
    }
