"""Runs of any number of events, made and not observed: the generator's own events at every hop of the reference pipeline, a
block at a time, with all that a run stores beside them.

`python -m benchmarks.large_run FOLDER` judges one, in a process of its own whose memory and time can be told apart.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from assertions.judge import judge
from harness.catalog import claims
from harness.errors import HarnessFault
from harness.ledger import LedgerWriter
from harness.run_folder import FORMAT, RunFolder
from harness.store import CELL, SavedRun
from harness.topology import CONTENT_FIELDS
from load.events import Plan, expected_cells, expected_content
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

RUN, SEED, T0_MS = "1a2b3c4d", 7, 1_790_000_002_000
#: Events that are made at once.
_BLOCK = 1_000_000
_PARTITIONS = 4


@dataclass(frozen=True)
class Judged:
    """What it took: seconds of processor time, and the most memory that the process held, in MiB."""

    cpu_s: float
    memory_mib: float


def make(events: int, out: Path) -> Path:
    """The folder of a run of 100 s, with the load's default shares of late, doubled and poisoned events."""
    rate = max(1_000, events // 100)
    plan = Plan(Steady(rate=rate, seconds=events / rate), SEED, 1, T0_MS, RUN)
    folder = RunFolder.create(out, "large", RUN)
    with LedgerWriter(folder.ledger, RUN) as ledger:
        ledger.intent(1, 0, events)
        ledger.ack(1, 0, events)
    _write(folder.hop("source"), plan, lambda block: _kafka(block.with_columns(content_read=~pl.col("poison")), 20))
    _write(folder.hop("intermediate"), plan, lambda block: _kafka(_sound(block).drop("country"), 40))
    _write(folder.hop("published"), plan, lambda block: _pubsub(_sound(block).drop("country")))
    _write(folder.hop("dead_letter"), plan, lambda block: _kafka(block.filter("poison").drop(*CONTENT_FIELDS), 60))
    _write(folder.hop("refused"), plan, lambda block: _pubsub(block.clear().drop(*CONTENT_FIELDS)))
    _write(folder.sightings("aggregates"), plan, _sightings)
    cells = expected_cells(plan, kappa.cells, {1: np.ones(events, dtype=bool)}, kappa.late_after_s)
    cells.select([*CELL, "count", "weight"]).write_parquet(folder.hop("aggregates"))
    on_time = [(pl.col(name) - pl.col(f"late_{name}")).alias(name) for name in ("count", "weight")]
    cells.select([*CELL, *on_time]).filter(pl.col("count") > 0).write_parquet(folder.batch)
    folder.write_json("run.json", _meta(plan))
    folder.history.write_text("".join(json.dumps(record) + "\n" for record in _history(plan)))
    return folder.path


def _write(path: Path, plan: Plan, rows: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """By parts, which are put together a piece at a time."""
    parts = path.with_suffix(".parts")
    parts.mkdir(parents=True)
    for number, block in enumerate(_blocks(plan)):
        rows(block).write_parquet(parts / f"{number:06d}.parquet")
    pl.scan_parquet(parts / "*.parquet").sink_parquet(path, maintain_order=True)
    shutil.rmtree(parts)


def _blocks(plan: Plan) -> Iterator[pl.DataFrame]:
    for begin in range(0, plan.profile.events, _BLOCK):
        some = np.arange(begin, min(begin + _BLOCK, plan.profile.events), dtype=np.int64)
        yield expected_content(plan, 1, some).drop("twin").with_columns(due_us=plan.due_us(1, some))


def _sound(block: pl.DataFrame) -> pl.DataFrame:
    return block.filter(~pl.col("poison")).with_columns(content_read=pl.lit(True))


def _kafka(block: pl.DataFrame, after_ms: float) -> pl.DataFrame:
    place = pl.col("sequence")  # a gap in the offsets is what a tap looks for, and not what is judged
    keys = [(place % _PARTITIONS).cast(pl.Int32).alias("partition"), (place // _PARTITIONS).alias("offset")]
    return _seen(block.select(*keys, pl.all()), after_ms)


def _pubsub(block: pl.DataFrame) -> pl.DataFrame:
    return _seen(block.select((pl.col("sequence") + 1).cast(pl.String).alias("message_id"), pl.all()), 60)


def _seen(block: pl.DataFrame, after_ms: float) -> pl.DataFrame:
    raw = pl.lit(None, dtype=pl.Binary).alias("raw")
    return block.with_columns(seen_ms=pl.col("due_us") / 1000 + after_ms).with_columns(raw).drop("due_us", "poison")


def _sightings(block: pl.DataFrame) -> pl.DataFrame:
    """Between 80 and 180 ms after they were due, by an event's weight."""
    seen = pl.col("due_us") / 1000 + 80 + (pl.col("weight") % 100_000) / 1000
    return _sound(block).select("producer", "sequence", seen_ms=seen)


def _meta(plan: Plan) -> dict[str, object]:
    asked = claims(kappa, parity=0.1)
    return {
        "format": FORMAT,
        "run": RUN,
        "seed": SEED,
        "scenario": "large",
        "backend": "process",
        "pipeline": {
            "name": kappa.name,
            "max_quiet_s": kappa.max_quiet_s,
            "late_after_s": kappa.late_after_s,
            "services": [],
            "workers": [],
            "links": [],
            "hops": [{"name": h.name, "kind": h.kind, "role": h.role, "service": h.service} for h in kappa.hops],
            "cells": [
                {"dimension": c.dimension, "key": list(c.key), "windows_s": list(c.windows_s)} for c in kappa.cells
            ],
            "batch": True,
        },
        "load": {
            "profile": plan.profile.as_dict(),
            "users": plan.users,
            "t0_ms": plan.t0_ms,
            "warmup_t0_ms": plan.t0_ms,
        },
        "schedule": [],
        "assertions": [{"assertion": a.name, "params": a.params()} for a in asked],
        "expected": {},
        "versions": {},
        "notes": [],
    }


def _history(plan: Plan) -> Iterator[dict[str, object]]:
    t0, end = plan.t0_ms / 1000, plan.t0_ms / 1000 + plan.profile.seconds
    for t, stage in ((t0 - 5, "deploy"), (t0 - 2, "warm-up"), (t0, "load"), (end, "heal"), (end + 0.1, "drain")):
        yield {"t": t, "kind": "stage", "stage": stage}
    yield {"t": end, "kind": "load-end", "status": 0}
    yield {"t": end + 13, "kind": "drain-end", "reason": "drained", "waited_s": 13.0, "missing": {}}
    for hop in kappa.hops:
        yield {
            "t": end + 14,
            "kind": "tap",
            "hop": hop.name,
            "certified": True,
            "reason": "all was made",
            "figures": {},
        }
    yield {"t": end + 15, "kind": "clock", "wall_minus_mono_ms_drift": 0.0}
    yield {"t": end + 15, "kind": "machine", "oom_kills": 0, "disk_free_bytes": 10**10, "disk_full": False}


def judged(folder: Path) -> Judged:
    """Judges a run in a process of its own. Raises HarnessFault where the verdict is not a pass."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large_run", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise HarnessFault(f"judging {folder} failed: {done.stderr.strip()[-2000:]}")
    return Judged(**json.loads(done.stdout))


def main() -> None:
    begin = time.process_time()
    verdict = judge(SavedRun.open_unsealed(Path(sys.argv[1])))
    took = time.process_time() - begin
    if verdict["verdict"] != "pass":
        wrong = [f["summary"] for f in verdict["findings"] if f["verdict"] != "pass"]
        sys.exit(f"a sound run was judged {verdict['verdict']}: {'; '.join(wrong)}")
    print(json.dumps({"cpu_s": took, "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
