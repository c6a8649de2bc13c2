"""What being watched costs the reference pipeline: its throughput with every link proxied and every tap on, against the
same pipeline with its addresses straight to the services, no tap and no sampling.

Both are runs of the harness without faults that work off a backlog. When the last event was counted is read from the
sink's own timestamps after all has come to rest, so looking disturbs neither side.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from assertions import no_loss
from benchmarks.measure import Benchmark, Side
from harness.errors import HarnessFault
from harness.history import History
from harness.run import Run
from harness.run_folder import RunFolder
from harness.scenario import Scenario
from harness.services.base import SinkResult
from harness.session import Session
from harness.stack import Stack
from harness.topology import Hop, Pipeline
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

WATCHED = "watched: all links by Toxiproxy, all taps on, everything sampled"
PEER = "not watched: straight to the services, no tap, no samples"
EVENTS = 80_000
#: At rest: nothing was left unread for so long, in seconds. Longer than a batch takes from the last hop into the sink.
REST_S = 8.0
WITHIN_S = 180.0


def benchmark() -> Benchmark:
    return Benchmark(
        "watched",
        "Events a second through the Kappa pipeline",
        "/s",
        [Side(WATCHED, lambda: carried(Stack), least=0.9), Side(PEER, lambda: carried(Unwatched))],
        PEER,
        notes=[f"A backlog of {EVENTS:,} events; the services, and where they are watched the taps, on the same cores"],
    )


class Unwatched(Stack):
    """A stack whose workers find the services themselves, and in which nobody looks but at the sink."""

    def address(self, worker: str, service: str) -> str:
        return self.servers[service].direct

    def tap(self, pipeline: Pipeline, hop: Hop, names: Mapping[str, str], run: str, now: Callable[[], float]) -> Any:
        return super().tap(pipeline, hop, names, run, now) if hop.role == "sink" else _NoTap(hop.name)


class _NoTap:
    """Sees nothing, and keeps nobody waiting."""

    def __init__(self, hop: str) -> None:
        self.hop = hop

    def start(self) -> None: ...
    def abandon(self) -> None: ...
    def hurry(self) -> None: ...
    def trouble(self) -> str:
        return ""

    def warm(self) -> bool:
        return True

    def count(self) -> int:
        return 0

    distinct = count

    def last_moved(self) -> float:
        return 0.0

    def finish(self) -> Any:
        raise NotImplementedError


def carried(kind: type[Stack]) -> float:
    """Events a second, from when the first was due to when the last was counted. Raises HarnessFault if not all were."""
    scenario = Scenario("watched", kappa, Steady(rate=EVENTS, seconds=1, share_poison=0.0), (), [no_loss()])
    with tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-") as out, Session("process") as session:
        stack = kind(kappa, session.prepare(kappa).site(kappa))
        try:
            stack.start(lambda *_, **__: None)
            folder = RunFolder.create(Path(out), scenario.name)
            run = Run(scenario, stack, session.processes, folder, History(folder.history))
            try:
                run.deploy()
                run.warm_up()
                if kind is Unwatched:
                    run.sampler.stop()
                    run.taps["aggregates"].abandon()
                run.load()
                return EVENTS / (_last_counted(run) - run.meta["load"]["t0_ms"] / 1000)
            finally:
                run.clean_up()
        finally:
            stack.close()


def _last_counted(run: Run) -> float:
    """When the last of all events was counted in the sink, epoch seconds."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        _rest(run, until)
        assert kappa.sink is not None
        tap = Stack.tap(run.stack, kappa, kappa.sink, run.names, run.tag, time.time)
        tap.start()
        result = tap.finish()
        assert isinstance(result, SinkResult)
        seen = result.sightings(run.tag)
        assert seen is not None
        ours = seen.filter(pl.col("producer") > 0)
        if ours.select("producer", "sequence").n_unique() == EVENTS:
            return float(ours["seen_ms"].max()) / 1000  # type: ignore[arg-type]
    raise HarnessFault(f"not all of {EVENTS:,} events were counted within {WITHIN_S:g} s")


def _rest(run: Run, until: float) -> None:
    """Waits until every consumer group has read everything for `REST_S`."""
    since = time.monotonic()
    while time.monotonic() < until and time.monotonic() - since < REST_S:
        for worker, hop in kappa.group_readers():
            server: Any = run.stack.servers[hop.service]
            if server.lag(run.names[worker.group], run.names[hop.topic]) != 0:
                since = time.monotonic()
        time.sleep(0.5)
