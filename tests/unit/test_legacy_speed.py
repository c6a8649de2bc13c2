"""The speed layer: at most once, back-pressure, a manager that dies of lag; and what one event adds to."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kappa_events import EVENT, SOURCE
from test_kappa_workers import Diary, FakeRecord

from pipelines_under_test.kappa import batch, events, rows
from pipelines_under_test.kappa.events import Event
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped
from pipelines_under_test.legacy import rollup
from pipelines_under_test.legacy.batch import as_cells
from pipelines_under_test.legacy.bolts import Bolt, Manager, Queue
from pipelines_under_test.legacy.cache import Lost
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.speed import Speed

LOG = logging.getLogger("test")
LEGACY = Path(rollup.__file__).parent


class Memory:
    """Stands for the cache. `broken`: how many of the next batches are lost; `slow_s`: how long each takes."""

    def __init__(self, broken: int = 0, slow_s: float = 0) -> None:
        self.counts: dict[Cell, Count] = {}
        self.batches: list[list[str]] = []
        self.broken, self.slow_s, self.waited = broken, slow_s, 0

    def add(self, counts: dict[Cell, Count], event_ids: Sequence[str]) -> None:
        time.sleep(self.slow_s)
        if self.broken:
            self.broken -= 1
            raise Lost("cut off")
        self.batches.append(list(event_ids))
        for cell, count in counts.items():
            before = self.counts.get(cell, Count(0, 0))
            self.counts[cell] = Count(before.events + count.events, before.weight + count.weight)

    def wait(self, stop: threading.Event) -> None:
        self.waited += 1


def bolt(memory: Memory, depth: int = 100, per_trip: int = 10, every_s: float = 0.0) -> Bolt:
    return Bolt("count-1", memory, depth, per_trip, every_s, LOG, Progress(LOG))


def fill(made: Bolt, number: int) -> None:
    for _ in range(number):
        assert made.queue.put(EVENT, 0)


# ---------------------------------------------------------------------------------------------------------- bolts


def test_a_full_queue_keeps_whoever_fills_it_waiting_until_there_is_room() -> None:
    queue = Queue(2)
    assert queue.put(EVENT, 0)
    assert queue.put(EVENT, 0)
    assert not queue.put(EVENT, 0.01)
    threading.Timer(0.05, lambda: queue.take(1, 1)).start()
    assert queue.put(EVENT, 5)
    assert len(queue) == 3  # one is in hand


def test_the_lag_is_that_of_the_oldest_tuple_and_ends_when_it_is_done() -> None:
    queue = Queue(10)
    assert queue.lag_s() == 0
    queue.put(EVENT, 0)
    time.sleep(0.05)
    queue.put(EVENT, 0)
    assert queue.lag_s() >= 0.05
    assert len(queue.take(1, 0)) == 1
    assert queue.lag_s() >= 0.05
    queue.done()
    assert queue.lag_s() < 0.05
    assert queue.take(5, 0) == [EVENT]
    queue.done()
    assert (queue.lag_s(), len(queue), queue.take(5, 0)) == (0, 0, [])


def test_a_bolt_makes_one_trip_for_what_waits_and_no_more_than_it_can_carry() -> None:
    memory = Memory()
    made = bolt(memory)
    fill(made, 25)
    made.start()
    wait_until(lambda: len(made.queue) == 0)
    made.abandon()
    assert [len(some) for some in memory.batches] == [10, 10, 5]


def test_a_bolts_capacity_is_what_it_carries_by_how_often_it_goes() -> None:
    memory = Memory()
    made = bolt(memory, per_trip=5, every_s=0.1)
    fill(made, 100)
    began = time.monotonic()
    made.start()
    wait_until(lambda: len(memory.batches) >= 8)
    made.abandon()
    assert 0.65 <= time.monotonic() - began <= 2


def test_a_batch_that_is_lost_is_not_tried_again_and_the_next_waits_for_the_cache() -> None:
    memory = Memory(broken=1)
    made = bolt(memory)
    fill(made, 25)
    made.start()
    wait_until(lambda: len(made.queue) == 0)
    made.abandon()
    assert [len(some) for some in memory.batches] == [10, 5]
    assert memory.waited == 1
    assert made._progress.total() == "10 lost, 15 counted"


def test_the_manager_dies_of_a_bolt_that_lags_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    died: list[bool] = []
    slow, quick = bolt(Memory()), bolt(Memory())
    manager = Manager([quick, slow], 0.05, LOG, lambda: died.append(True))
    fill(slow, 7)
    fill(quick, 2)
    assert manager.check()
    time.sleep(0.06)
    quick.queue.take(2, 0)
    quick.queue.done()
    assert not manager.check()
    assert died == [True]
    assert "bolt count-1 lags" in caplog.text
    assert "7 tuples in the queues are lost" in caplog.text


def test_a_bolt_that_does_not_come_back_from_a_trip_lags_too() -> None:
    made = bolt(Memory(slow_s=1))
    fill(made, 1)
    made.start()
    wait_until(lambda: made.queue.lag_s() > 0.1)
    made.abandon()


def wait_until(what: Any, within_s: float = 5) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


# ---------------------------------------------------------------------------------------------------------- spout


class DiaryBolt(Bolt):
    def __init__(self, diary: Diary) -> None:
        super().__init__("count-1", Memory(), 1000, 10, 0, LOG, Progress(LOG))
        self.queue = self  # type: ignore[assignment]
        self.diary = diary

    def put(self, event: Event, wait_s: float) -> bool:
        self.diary._note("put", event.event_id)
        return True


class Commits(Diary):
    answer = True

    def commit(self, records: Any) -> bool:
        super().commit(records)
        return self.answer


def speed(diary: Diary, bolts: Sequence[Bolt]) -> Speed:
    worker = object.__new__(Speed)
    worker.__dict__.update(
        name="speed", log=LOG, stop=threading.Event(), progress=Progress(LOG),
        source=diary, sink=diary, dead_letters="dead", bolts=bolts,
    )  # fmt: skip
    return worker


def test_the_offset_is_committed_before_anything_is_handed_on() -> None:
    diary = Commits()
    speed(diary, [DiaryBolt(diary)]).step([FakeRecord(SOURCE, 4), FakeRecord(b"{", 5), FakeRecord(SOURCE, 6)])
    assert diary.said() == ["commit", "put", "write", "put"]
    assert diary.entries[0][1] == [4, 5, 6]
    assert diary.entries[2][1:3] == ("dead", b"{")


def test_what_is_not_committed_is_not_handed_on() -> None:
    diary = Commits("commit")
    with pytest.raises(Fatal):
        speed(diary, [DiaryBolt(diary)]).step([FakeRecord(SOURCE)])
    assert diary.said() == []
    other = Commits()
    other.answer = False  # the partitions have another owner by now
    speed(other, [DiaryBolt(other)]).step([FakeRecord(SOURCE)])
    assert other.said() == ["commit"]


def test_a_full_bolt_stops_the_spout_until_it_is_told_to_stop() -> None:
    diary = Commits()
    full = bolt(Memory(), depth=1)
    worker = speed(diary, [full])
    threading.Timer(0.1, worker.stop.set).start()
    with pytest.raises(Stopped, match="no room"):
        worker.step([FakeRecord(SOURCE)] * 2)
    assert len(full.queue) == 1


# -------------------------------------------------------------------------------------------------------- roll-ups


happenings = st.lists(
    st.builds(
        lambda tweet, author, kind, weight, at: Event("e", tweet, author, 1, kind, weight, at, "ios", "US"),
        st.integers(0, 3), st.integers(0, 2), st.sampled_from(["like", "click"]),
        st.integers(0, 10**9), st.integers(1_790_000_000_000, 1_790_000_200_000),
    ),
    max_size=30,
)  # fmt: skip


@given(happenings)
def test_both_layers_count_the_same_when_nothing_is_late(happened: list[Event]) -> None:
    """They share no code, so only a test can hold them together."""
    frame = pl.DataFrame(
        [
            (str(i), e.tweet_id, e.author_id, e.engagement, e.weight, e.event_time_ms, e.event_time_ms)
            for i, e in enumerate(happened)
        ],
        schema=batch.SCHEMA,
        orient="row",
    )
    assert rollup.rolled_up(happened) == as_cells(batch.aggregate(frame, 5))


def test_granularities_and_dimensions_are_those_of_the_other_pipeline() -> None:
    assert rollup.GRANULARITIES_S == rows.WINDOWS_S == batch.WINDOWS_S
    assert rollup.DIMENSIONS == batch.DIMENSIONS


# ------------------------------------------------------------------------------------------------ who may import whom

WORKERS = ("landing", "batch", "speed", "query")
SPEED_SIDE = {"speed", "bolts", "cache", "rollup"}
BATCH_SIDE = {"landing", "logs", "batch", "store"}


@pytest.mark.parametrize("module", WORKERS)
def test_a_worker_imports_nothing_of_the_harness(module: str) -> None:
    code = (
        f"import sys, pipelines_under_test.legacy.{module}\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('harness', 'load', 'assertions', 'faults')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def imports_of(module: str) -> set[str]:
    tree = ast.parse((LEGACY / f"{module}.py").read_text())
    found = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    return found | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}


@pytest.mark.parametrize("module", sorted(BATCH_SIDE))
def test_the_batch_side_shares_no_counting_with_any_stream(module: str) -> None:
    streams = {f"pipelines_under_test.legacy.{name}" for name in SPEED_SIDE}
    streams |= {f"pipelines_under_test.kappa.{name}" for name in ("events", "rows", "table", "aggregator")}
    assert not imports_of(module) & streams


@pytest.mark.parametrize("module", sorted(SPEED_SIDE))
def test_the_speed_side_shares_no_counting_with_the_batch_job(module: str) -> None:
    batch_side = {f"pipelines_under_test.legacy.{name}" for name in BATCH_SIDE} | {"pipelines_under_test.kappa.batch"}
    assert not imports_of(module) & batch_side


def test_poison_is_the_same_to_both_pipelines() -> None:
    with pytest.raises(events.Poison):
        events.from_source(SOURCE[:50])
    assert batch.decode(SOURCE[:50], 0) is None
