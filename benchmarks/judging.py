"""How fast a saved run is judged: every assertion that the reference pipeline is held to, over columns on the disk.

The run is made, not observed: the generator's own events at every hop of the reference pipeline (the source, two hops on
the way, the cells of the sink, the batch truth), with all that a run stores beside them. The peer is the least that says
whether one hop lost or doubled anything: its ids read, numbered and counted in numpy, and nothing else. The limit is what
it takes to have every column of every hop in memory once, which no judgement of all of them can do without. What is told
is processor time: events a second of one core.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assertions.judge import judge
from benchmarks.measure import Benchmark, Side
from harness.catalog import claims
from harness.errors import HarnessFault
from harness.store import SavedRun
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

OURS = "Gauntlet: a whole run, four hops, every assertion"
SMALLER = "the same of a tenth as many events"
PEER = "numpy: the ids of one hop, counted"
LIMIT = "polars: every hop read once, nothing judged"
EVENTS = 1_000_000
#: The tests' maker of runs, which is no part of what is installed.
_MAKER = Path(__file__).parent.parent / "tests" / "unit" / "saved_run.py"


def benchmark() -> Benchmark:
    return Benchmark(
        "judging",
        "Events a second that one core judges",
        "/s",
        [Side(OURS, ours), Side(SMALLER, lambda: ours(EVENTS // 10)), Side(LIMIT, read), Side(PEER, peer)],
        PEER,
        notes=[
            f"{EVENTS:,} events. A rate no higher for a tenth of them shows that the cost grows no faster than their number"
        ],
    )


@cache
def _made(events: int = EVENTS) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    spec = importlib.util.spec_from_file_location("saved_run", _MAKER)
    assert spec is not None
    assert spec.loader is not None
    maker: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = maker  # its dataclasses look themselves up there
    spec.loader.exec_module(maker)
    folder = tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-")
    asked = [{"assertion": a.name, "params": a.params()} for a in claims(kappa, parity=0.5)]
    world = maker.World(profile=Steady(rate=events // 50, seconds=50), assertions=asked)
    return folder, Path(world.save(Path(folder.name)).path)


def ours(events: int = EVENTS) -> float:
    _, path = _made(events)
    verdict, took = _measured(lambda: judge(SavedRun.open_unsealed(path)))
    if verdict["verdict"] != "pass":
        raise HarnessFault(f"a sound run was judged {verdict['verdict']}")
    return events / took


def read() -> float:
    _, path = _made()
    frames, took = _measured(lambda: [pl.read_parquet(hop) for hop in sorted((path / "hops").glob("*.parquet"))])
    if sum(map(len, frames)) < 3 * EVENTS:
        raise HarnessFault("the hops do not hold the run's events")
    return EVENTS / took


def peer() -> float:
    _, path = _made()

    def count() -> int:
        ids = pl.read_parquet(path / "hops" / "intermediate.parquet", columns=["producer", "sequence"])
        return int((np.bincount(ids.filter(pl.col("producer") > 0)["sequence"].to_numpy()) == 1).sum())

    _, took = _measured(count)
    return EVENTS / took


def _measured(do: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.process_time()
    done = do()
    return done, time.process_time() - begin
