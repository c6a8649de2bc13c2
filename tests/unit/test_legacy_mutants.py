"""The mutants of the old world: each does what it says, where the pipeline itself does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from test_legacy_batch import World, land
from test_legacy_query import EARLY, LATER, both

from pipelines_under_test.legacy.batch import Batch
from pipelines_under_test.legacy.views import Lambda
from pipelines_under_test.mutants.both_layers import AddingLambda
from pipelines_under_test.mutants.lax_cutoff import TOO_LATE_MS, LaxBatch
from pipelines_under_test.mutants.partition_twice import TwiceCountingBatch

HAPPENED = [("a", 1, 1), ("b", 2, 2), ("late", 3_000, 16_000), ("c", 21_000, 21_000)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    land(made.logs, HAPPENED)
    made.close(20_000)
    return made


def published(world: World, kind: type[Batch]) -> dict[int, int]:
    """Window start -> events, of the version that the job publishes from the closed log partitions."""
    job = world.job(kind)
    if kind is LaxBatch:
        job.late_after_ms += TOO_LATE_MS  # as its constructor does, which the environment is needed for
    assert job.step(world.store)
    return world.counts()


def truth(world: World, kind: type[Batch], output: Path) -> int:
    """Events in 10 s windows, of all logs."""
    job = world.job(kind)
    if kind is LaxBatch:
        job.late_after_ms += TOO_LATE_MS
    job.write_all(str(output))
    cells = pl.read_parquet(output)
    return int(cells.filter(dimension="tweet", window_s=10)["count"].sum())


@pytest.mark.parametrize(("kind", "count"), [(Batch, 2), (LaxBatch, 3), (TwiceCountingBatch, 4)])
def test_a_batch_job_counts_the_first_window(kind: type[Batch], count: int, world: World) -> None:
    """Two events, and a late one that is in a log partition that is closed."""
    assert published(world, kind) == {0: count}


@pytest.mark.parametrize(("kind", "count"), [(Batch, 3), (LaxBatch, 4), (TwiceCountingBatch, 5)])
def test_a_batch_truth_counts_all_windows(kind: type[Batch], count: int, world: World, tmp_path: Path) -> None:
    assert truth(world, kind, tmp_path / "truth.parquet") == count


@pytest.mark.parametrize(("kind", "count"), [(Lambda, 5), (AddingLambda, 9)])
def test_a_merge_answers_a_covered_window(kind: type[Lambda], count: int) -> None:
    store, memory, _ = both()
    found = list(kind(store, memory).cells())  # type: ignore[arg-type]
    assert sum(c.events for cell, c in found if cell == EARLY) == count
    assert sum(c.events for cell, c in found if cell == LATER) == 2


@pytest.mark.parametrize("module", ["lax_cutoff", "partition_twice", "both_layers"])
def test_a_mutant_is_a_worker_like_the_one_that_it_replaces(module: str) -> None:
    argv = [sys.executable, "-m", f"pipelines_under_test.mutants.{module}"]
    done = subprocess.run(argv, env={"PATH": ""}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "is not set" in done.stderr
