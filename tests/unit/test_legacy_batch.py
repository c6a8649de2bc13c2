"""The batch job: which windows are ready, each counted once from closed logs, however the job is interrupted."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kappa_events import SOURCE

from pipelines_under_test.kappa.batch import aggregate, decode
from pipelines_under_test.kappa.worker import Progress
from pipelines_under_test.legacy import batch
from pipelines_under_test.legacy.batch import Batch, as_cells, covered_until
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.logs import LogFile, RawLogs
from pipelines_under_test.legacy.store import NOTHING, Store

LOG = logging.getLogger("test")
START_MS = 1_790_000_040_000  # the first moment of a minute
LATE_MS = 5000


def value(event_id: str, at_ms: int) -> bytes:
    fields = json.loads(SOURCE) | {"event_id": event_id, "event_time_ms": START_MS + at_ms, "weight": 5}
    return json.dumps(fields).encode()


def land(logs: RawLogs, happened: Sequence[tuple[str, int, int]], first: int = 0) -> None:
    """(event id, event time, CreateTime), in ms after START_MS; a file a log partition, of Kafka partition 0."""
    starts = sorted({created // 10_000 * 10_000 for _, _, created in happened})
    for start in starts:
        rows = [
            (first + i, START_MS + created, value(event_id, at))
            for i, (event_id, at, created) in enumerate(happened)
            if created // 10_000 * 10_000 == start
        ]
        file = LogFile(START_MS + start, 0, rows[0][0], rows[-1][0], max(created for _, created, _ in rows))
        logs.publish(file, pl.DataFrame(rows, schema=["offset", "created_ms", "value"], orient="row"))


class World:
    def __init__(self, folder: Path, replicas: int = 2) -> None:
        self.logs = RawLogs(str(folder / "raw"))
        self.store = Store([folder / name for name in ("a", "b")[:replicas]], LOG)

    def job(self, kind: type[Batch] = Batch) -> Batch:
        """One that has just started."""
        made = object.__new__(kind)
        made.__dict__.update(
            log=LOG, stop=threading.Event(), progress=Progress(LOG), logs=self.logs,
            late_after_ms=LATE_MS, length_ms=10_000, _decoded={},
        )  # fmt: skip
        return made

    def close(self, ms: int) -> None:
        self.logs.close_until(START_MS + ms)

    def counts(self, window_s: int = 10) -> dict[int, int]:
        """Window start after START_MS -> events in it, of the published version."""
        cells: dict[Cell, Count] = self.store.ask(lambda v: v.cells()) or {}
        found: dict[int, int] = {}
        for cell, count in cells.items():
            if cell.dimension == "tweet" and cell.window_s == window_s:
                start = cell.window_start_ms - START_MS
                found[start] = found.get(start, 0) + count.events
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("closed_ms", "until_ms"),
    [(0, 0), (25_000, 10_000), (25_001, 20_000), (30_000, 20_000), (35_000, 20_000), (40_000, 30_000)],
)
def test_a_window_is_ready_when_nothing_in_time_can_come_any_more(closed_ms: int, until_ms: int) -> None:
    """A window that ends at 20 s takes what is created at 25.000 s, so 25.000 s itself must be closed."""
    assert covered_until(closed_ms, LATE_MS) == until_ms


def test_windows_are_published_when_their_log_partitions_are_closed(world: World) -> None:
    land(world.logs, [("a", 1, 1), ("b", 9_000, 14_999), ("c", 11_000, 11_000), ("d", 21_000, 21_000)])
    assert not world.job().step(world.store)
    world.close(20_000)
    assert world.job().step(world.store)
    assert world.counts() == {0: 2}
    world.close(30_000)
    assert world.job().step(world.store)
    assert world.counts() == {0: 2, 10_000: 1}
    assert not world.job().step(world.store)


def test_what_is_late_is_discarded_for_the_windows_that_were_closed_and_kept_for_the_others(world: World) -> None:
    land(world.logs, [("a", 1, 1), ("in time", 9_000, 15_000), ("late", 9_000, 15_001)])
    world.close(80_000)
    world.job().step(world.store)
    assert world.counts() == {0: 2}
    assert world.counts(60) == {0: 3}


def test_what_is_no_event_is_dropped_and_an_event_that_comes_twice_counts_once(world: World) -> None:
    land(world.logs, [("a", 1, 1), ("a", 1, 1)])
    poison = pl.DataFrame([(9, START_MS, b"{")], schema=["offset", "created_ms", "value"], orient="row")
    world.logs.publish(LogFile(START_MS, 0, 9, 9, START_MS), poison)
    world.close(20_000)
    world.job().step(world.store)
    assert world.counts() == {0: 1}


def test_each_file_is_read_once_in_the_life_of_a_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    land(world.logs, [("a", 1, 1), ("b", 11_000, 11_000), ("c", 21_000, 21_000)])
    read: list[LogFile] = []
    real = world.logs.read
    monkeypatch.setattr(world.logs, "read", lambda file: read.append(file) or real(file))
    job = world.job()
    for closed_ms in (20_000, 30_000):
        world.close(closed_ms)
        job.step(world.store)
    assert len(read) == len(set(read)) == 3


def test_when_every_replica_is_lost_all_is_counted_again(world: World) -> None:
    land(world.logs, [("a", 1, 1), ("b", 11_000, 11_000)])
    world.close(30_000)
    world.job().step(world.store)
    for replica in world.store.replicas:
        (replica / "v1" / "CURRENT").unlink()
    assert world.job().step(Store(world.store.replicas, LOG))
    assert world.counts() == {0: 1, 10_000: 1}


def test_a_version_is_never_put_together_from_one_that_covers_less_than_it_seems(world: World) -> None:
    """The newest replica can be opened but not read whole: the job must go on from where the other one stands."""
    land(world.logs, [("a", 1, 1), ("b", 11_000, 11_000), ("c", 21_000, 21_000)])
    world.close(20_000)
    world.job().step(world.store)
    world.close(30_000)
    world.job().step(Store(world.store.replicas[:1], LOG))  # the other one is behind now
    (table,) = (world.store.replicas[0] / "v2").glob("*.sst")
    raw = bytearray(table.read_bytes())
    raw[5:15] = bytes(10)
    table.write_bytes(raw)
    world.close(40_000)
    world.job().step(world.store)
    assert world.counts() == {0: 1, 10_000: 1, 20_000: 1}


def test_the_truth_of_a_closed_source_is_counted_over_all_logs(world: World, tmp_path: Path) -> None:
    land(world.logs, [("a", 1, 1), ("late", 1, 15_001), ("c", 21_000, 21_000)])
    output = tmp_path / "truth.parquet"
    world.job().write_all(str(output))
    cells = as_cells(pl.read_parquet(output))
    assert sum(count.events for cell, count in cells.items() if (cell.dimension, cell.window_s) == ("tweet", 10)) == 2
    assert sum(count.events for cell, count in cells.items() if (cell.dimension, cell.window_s) == ("tweet", 60)) == 3


moments = st.integers(0, 150_000)


@settings(max_examples=12)
@given(st.lists(st.tuples(moments, st.integers(0, 80_000)), max_size=30), st.lists(st.integers(1, 20), max_size=4))
def test_versions_add_up_to_what_one_job_over_everything_counts(
    happened: list[tuple[int, int]], closings: list[int]
) -> None:
    """Whenever log partitions are closed, and a new job each time."""
    rows = [(f"e{i}", at, at + delay) for i, (at, delay) in enumerate(happened)]
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), replicas=1)
        land(world.logs, rows)
        for closed in sorted(closings):
            world.close(closed * 10_000)
            world.job().step(world.store)
        covered_ms: Any = world.store.ask(lambda v: v.covers_until_ms) or 0
        decoded = [decode(value(event_id, at), START_MS + created) for event_id, at, created in rows]
        whole = as_cells(aggregate(pl.DataFrame(decoded, schema=batch.SCHEMA, orient="row"), LATE_MS / 1000))
        expected = {cell: count for cell, count in whole.items() if cell.end_ms <= covered_ms}
        assert (world.store.ask(lambda v: v.cells()) or {}) == expected
        assert world.store.newest() is NOTHING or covered_ms > 0
