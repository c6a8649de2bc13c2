"""Draining ends for the right reason: all there and quiet; quiet but incomplete; stuck; crashing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import draining
from harness.history import History
from harness.services.base import SinkReading, SinkTap
from harness.topology import CountedCell, Pipeline
from load.events import Plan
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.warehouse.pipeline import kappa_warehouse

PLAN = Plan(Steady(rate=100, seconds=1, share_poison=0.0), 7, 1, 1_790_000_000_000, "1a2b3c4d")


class Tap:
    """A hop that has seen so many events, the last of them when the test began or `moving` all the time."""

    def __init__(self, seen: int, moving: bool = False) -> None:
        self.seen, self.moving, self.began = seen, moving, time.monotonic()

    def distinct(self) -> int:
        return self.seen

    def last_moved(self) -> float:
        return time.monotonic() if self.moving else self.began

    def hurry(self) -> None: ...

    def events_by_producer(self) -> dict[int, list[int]]:
        return {0: [0, 1], 1: list(range(self.seen))}


def drained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    aggregates: int = 102,
    lag: int | None = 0,
    crashing: str | None = None,
    down: tuple[str, ...] = (),
    moving: bool = False,
    quiet: float = 0.3,
    sink: SinkTap | None = None,
    stuck: float = 1.2,
    check: Callable[[], bool] = lambda: False,
) -> tuple[str, dict[str, Any], float]:
    """The reason, its record, and how long it took; time-outs a hundredth of the real ones."""
    monkeypatch.setattr(draining, "STUCK_AFTER_S", stuck)
    monkeypatch.setattr(draining, "CAP_S", stuck + 0.8)
    pipeline: Pipeline = kappa.__class__(**{**vars(kappa), "max_quiet_s": quiet})
    taps: Any = {h.name: Tap(100) for h in kappa.hops} | {"aggregates": sink or Tap(aggregates, moving)}
    stack: Any = SimpleNamespace(servers={"kafka": SimpleNamespace(lag=lambda group, topic: lag)}, check=check)
    supervisor: Any = SimpleNamespace(crash_loop=lambda since: crashing, down=lambda: list(down), unstartable=list)
    names = {n: n for n in pipeline.resources()}
    history = History(tmp_path / "history.jsonl")
    begin = time.monotonic()
    reason = draining.until_drained(pipeline, stack, supervisor, taps, names, history, PLAN)
    record = next(r for r in history.records if r["kind"] == "drain-end")
    assert record["reason"] == reason
    return reason, record, time.monotonic() - begin


def test_it_waits_out_the_quiet_although_all_has_been_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending at once would pass a pipeline without deduplication."""
    reason, record, took = drained(tmp_path, monkeypatch, quiet=0.8)
    assert (reason, record["missing"]) == ("drained", {})
    assert took >= 0.8


def test_an_export_that_is_behind_is_waited_for(tmp_path: Path) -> None:
    class Export(SinkTap):
        def distinct(self) -> int:
            return 101

        count = distinct

    cells = kappa_warehouse.cells
    taps: Any = {h.name: Tap(100) for h in kappa_warehouse.hops} | {"aggregates": Tap(102), "raw": Tap(97)}
    taps["counts"] = Export("counts", lambda: SinkReading([], None), cells, time.time)
    assert draining._missing(kappa_warehouse, taps, PLAN) == {
        "intermediate": 0,
        "published": 0,
        "aggregates": 0,
        "raw": 3,  # of the load
        "counts": 1,  # the warm-up is among them
    }


def test_what_is_missing_after_twice_the_quiet_is_not_coming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason, record, took = drained(tmp_path, monkeypatch, aggregates=99)
    assert (reason, record["missing"]) == ("quiet", {"aggregates": 3})
    assert took >= 0.6


@pytest.mark.parametrize("lag", [5, None])
def test_a_lag_that_is_left_or_not_known_is_never_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: int | None
) -> None:
    assert drained(tmp_path, monkeypatch, lag=lag)[0] == "stuck"


def test_a_crash_loop_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason, record, _ = drained(tmp_path, monkeypatch, aggregates=50, crashing="aggregator")
    assert (reason, record["crashing"]) == ("crash-loop", "aggregator")


def test_a_worker_that_is_not_running_keeps_it_from_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it held may be delivered again, to be counted twice by the one that is started in its place."""
    reason, record, _ = drained(tmp_path, monkeypatch, down=("aggregator",))
    assert (reason, record["down"]) == ("stuck", ["aggregator"])


def test_a_sink_that_is_slow_to_read_is_no_sink_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts all the time; each reading takes longer than the quiet that is asked for."""
    cells = kappa.cells
    begin = time.monotonic()

    def read() -> SinkReading:
        now = time.monotonic() - begin
        time.sleep(0.5)
        counted = min(102, int(now * 50))
        dimension, window = cells[0].dimension, cells[0].windows_s[0]
        return SinkReading([CountedCell(dimension, ("x",), window, 0, counted, counted)], None)

    sink = SinkTap("aggregates", read, cells, time.time)
    sink.start()
    monkeypatch.setattr(draining, "_missing", lambda pipeline, taps, plan: {"aggregates": 102 - sink.distinct()})
    try:
        reason, record, _ = drained(tmp_path, monkeypatch, sink=sink, stuck=20.0)
    finally:
        sink.abandon()
    assert (reason, record["missing"], sink.distinct()) == ("drained", {}, 102)


def test_a_rest_that_has_begun_ends_when_somebody_waits_for_the_sink() -> None:
    """After a slow reading the tap rests eight times as long, which may be longer than a drain waits for news."""
    begun: list[float] = []

    def read() -> SinkReading:
        begun.append(time.monotonic())
        time.sleep(1.0)
        dimension, window = kappa.cells[0].dimension, kappa.cells[0].windows_s[0]
        return SinkReading([CountedCell(dimension, ("x",), window, 0, 1, 1)], None)

    tap = SinkTap("aggregates", read, kappa.cells, time.time)
    tap.start()
    try:
        while not tap.distinct():
            time.sleep(0.01)
        hurried = time.monotonic()
        tap.hurry()
        while len(begun) < 3 and time.monotonic() < hurried + 7:
            time.sleep(0.01)
    finally:
        tap.abandon()
    assert len(begun) >= 3
    assert begun[1] - hurried < 0.5
    assert begun[2] - begun[1] >= 1.9  # still as long as the reading itself took


def test_when_only_a_reading_is_missing_the_sink_is_read_without_a_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each drain waits for the end of a rest, which is as long as a reading."""
    begun: list[float] = []
    ended: list[float] = []

    def read() -> SinkReading:
        begun.append(time.monotonic())
        time.sleep(1.5)
        ended.append(time.monotonic())
        dimension, window = kappa.cells[0].dimension, kappa.cells[0].windows_s[0]
        return SinkReading([CountedCell(dimension, ("x",), window, 0, 102, 1)], None)

    sink = SinkTap("aggregates", read, kappa.cells, time.time)
    sink.hurry()
    sink.start()
    try:
        while len(begun) < 2:
            time.sleep(0.01)
        reason, _, _ = drained(tmp_path, monkeypatch, sink=sink, quiet=1.6, stuck=20.0)
    finally:
        sink.abandon()
    assert reason == "drained"
    assert begun[2] - ended[1] < 1.3


@pytest.mark.parametrize(("lag", "at_once"), [(0, True), (5, False)])
def test_a_sink_is_read_in_haste_only_when_nothing_else_is_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: int, at_once: bool
) -> None:
    """Or when nothing moves any more, whatever is left: else a sink that is slow to read is taken for one that is stuck."""
    dimension, window = kappa.cells[0].dimension, kappa.cells[0].windows_s[0]
    cell = CountedCell(dimension, ("x",), window, 0, 102, 1)
    sink = SinkTap("aggregates", lambda: SinkReading([cell], None), kappa.cells, time.time)
    hurried: list[float] = []
    monkeypatch.setattr(sink, "hurry", lambda: hurried.append(time.monotonic() - begin))
    begin = time.monotonic()
    drained(tmp_path, monkeypatch, sink=sink, lag=lag, quiet=0.5, stuck=2.5)
    assert hurried
    assert (hurried[0] < draining.AT_REST_S) is at_once


def test_while_a_backlog_is_worked_off_what_is_left_is_asked_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer takes a broker's time from those who work it off. And the cap holds, whatever moves."""
    asked: list[float] = []

    def lags(*_: Any) -> dict[str, int]:
        asked.append(time.monotonic())
        return {"group": 100 - len(asked)}

    monkeypatch.setattr(draining, "_lags", lags)
    reason, _, took = drained(tmp_path, monkeypatch, moving=True, stuck=2.2)
    assert reason == "cap"
    assert len(asked) <= 4, "of some thirty times round"
    assert took < 4


def test_groups_that_are_shared_have_a_lag_for_each_topic() -> None:
    """Else the last worker's would be taken for all."""
    first, second = (w for w in kappa.workers if w.group)
    shared = dataclasses.replace(second, group=first.group)
    pipeline = dataclasses.replace(kappa, workers=[first, shared])
    lag = {"source": 7, "intermediate": 0}
    stack: Any = SimpleNamespace(servers={"kafka": SimpleNamespace(lag=lambda group, topic: lag[topic])})
    names = {n: n for n in kappa.resources()}
    assert sorted(draining._lags(pipeline, stack, names).values()) == [0, 7]


def test_what_never_comes_to_rest_ends_at_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(tmp_path, monkeypatch, moving=True)[0] == "cap"


def test_while_ends_were_not_known_it_was_not_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may have died then, and what it held is yet to come: the quiet starts over."""
    begin = time.monotonic()
    away = [True]

    def check() -> bool:
        if away and time.monotonic() - begin > 0.4:
            time.sleep(0.4)  # the daemon is away, and then back
            return away.pop()
        return False

    reason, _, took = drained(tmp_path, monkeypatch, quiet=0.6, stuck=20.0, check=check)
    assert reason == "drained"
    assert took >= 0.4 + 0.4 + 0.6
