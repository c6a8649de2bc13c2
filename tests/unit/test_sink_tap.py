"""What a sink of counts gained, held against what it held before: by a reading of its own, or by what is known of it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from harness.errors import HarnessFault
from harness.history import History
from harness.run import Run
from harness.services.base import SinkReading, SinkTap, less, summed
from harness.soak.cycles import Soak, scenario_of
from harness.soak.state import Asked, State
from harness.topology import Cells, CountedCell
from pipelines_under_test.kappa.pipeline import kappa

CELLS = [Cells("tweet", ("tweet_id",), (10,))]
Counts = dict[tuple[str, int], int]


def cells(counts: Counts) -> list[CountedCell]:
    """(key, window's start) -> count; the weight is ten times as much."""
    return [CountedCell("tweet", (key,), 10, start, n, n * 10) for (key, start), n in counts.items()]


class Sink:
    """A sink in memory. `then`: what it holds from the second reading on."""

    def __init__(self, counts: Counts, then: Counts | None = None) -> None:
        self.counts, self.then, self.readings = counts, then, 0

    def tap(self, dates: bool = False) -> SinkTap:
        return SinkTap("sink", self._read, CELLS, lambda: 7.0, dates=dates)

    def _read(self) -> SinkReading:
        self.readings += 1
        return SinkReading(cells(self.then if self.then is not None and self.readings > 1 else self.counts), None)


def gained(tap: SinkTap) -> list[tuple[Any, ...]]:
    tap.start()
    result = tap.finish()
    assert result.certified, result.reason
    return result.frame.select("key", "window_start_ms", "count", "weight").rows()


def test_what_was_there_is_left_out_by_a_reading_of_its_own() -> None:
    sink = Sink({("a", 0): 3, ("b", 0): 1})
    tap = sink.tap()
    tap.pass_over()
    sink.counts = {("a", 0): 5, ("b", 0): 1, ("a", 10): 2}
    assert gained(tap) == [("a", 0, 2, 20), ("a", 10, 2, 20)]
    assert tap.held is not None
    assert tap.held["count"].to_list() == [5, 2, 1]


def test_a_sink_that_does_not_stand_still_cannot_be_passed_over() -> None:
    with pytest.raises(HarnessFault, match="does not stand still"):
        Sink({("a", 0): 3}, then={("a", 0): 4}).tap().pass_over()


def test_what_is_known_is_not_read_again_and_whatever_came_since_shows() -> None:
    sink = Sink({("a", 0): 4, ("b", 0): 1})
    tap = sink.tap()
    tap.pass_over(summed(cells({("a", 0): 3, ("b", 0): 2})))
    assert sink.readings == 0
    assert gained(tap) == [("a", 0, 1, 10), ("b", 0, -1, -10)]


def test_an_old_event_that_is_counted_between_two_runs_is_too_much_in_the_second() -> None:
    """In a row that stays, and in one that is dropped before anybody looks."""
    before = Sink({("stays", 60): 2, ("goes", 0): 5})
    first = before.tap()
    gained(first)
    assert first.held is not None
    late = {("stays", 60): 3, ("goes", 0): 6}
    dropped = cells({("goes", 0): late["goes", 0]})
    second = Sink({("stays", 60): late["stays", 60]}).tap()
    second.pass_over(less(first.held, summed(dropped)))
    assert gained(second) == [("goes", 0, 1, 10), ("stays", 60, 1, 10)]


def test_what_is_counted_between_two_readings_at_the_end_is_too_late() -> None:
    """The run cannot be judged by it; but the next one must not take it for what was there."""
    sink = Sink({("a", 0): 3}, then={("a", 0): 4})
    tap = sink.tap()  # never started: the readings are those of its end
    tap._thread = SimpleNamespace(join=lambda seconds: None)  # type: ignore[assignment]
    assert not tap.finish().certified
    assert tap.held is not None
    assert tap.held["count"].to_list() == [3]


def test_a_sink_that_cannot_be_read_holds_nobody_knows_what() -> None:
    tap = SinkTap("sink", lambda: 1 / 0, CELLS, time.time)  # type: ignore[arg-type,return-value]
    tap.start()
    assert not tap.finish().certified
    assert tap.held is None


def test_a_sink_that_has_lost_what_it_held_is_no_sink_that_nothing_comes_to() -> None:
    sink = Sink({("a", 0): 2})
    tap = sink.tap()
    tap.pass_over(summed(cells({("a", 0): 5})))
    assert gained(tap) == [("a", 0, -3, -30)]
    assert tap.warm()


def test_a_sink_that_has_gained_nothing_is_not_strange_for_that() -> None:
    sink = Sink({("a", 0): 2})
    tap = sink.tap()
    tap.pass_over()
    assert gained(tap) == []
    assert tap.count() == 0
    assert tap.trouble() == ""


def test_cells_that_were_there_are_not_dated() -> None:
    sink = Sink({("a", 0): 1})
    tap = sink.tap(dates=True)
    tap.pass_over()
    sink.counts = {("a", 0): 2, ("b", 0): 1}
    tap.start()
    found = tap.finish().appearances
    assert found is not None
    assert found.select("key", "seen_ms").rows() == [("b", 7000.0)]


@pytest.mark.parametrize(
    ("reason", "known"), [("drained", True), ("quiet", False), ("stuck", False), ("crash-loop", False), ("cap", False)]
)
def test_only_a_run_that_has_drained_knows_what_its_sinks_hold(tmp_path: Path, reason: str, known: bool) -> None:
    tap = Sink({("a", 0): 1}).tap()
    gained(tap)
    history = History(tmp_path / "history.jsonl")
    run: Any = SimpleNamespace(history=history, taps={"aggregates": tap, "source": object()})
    run.drain_ended = lambda: Run.drain_ended(run)
    assert run.drain_ended() == ""
    history.add("drain-end", reason=reason)
    assert run.drain_ended() == reason
    assert list(Run.held(run)) == (["aggregates"] if known else [])
    history.close()


def test_a_soak_takes_what_it_drops_from_what_is_known(tmp_path: Path) -> None:
    asked = Asked("soak", "kappa", "process", 7, 1.0, 60.0, 2_000)
    soak = Soak(scenario_of(asked, kappa), State(asked), tmp_path, None, print)  # type: ignore[arg-type]
    soak._held = {"aggregates": summed(cells({("goes", 0): 5, ("stays", 60): 2}))}
    trim = {"aggregates": cells({("goes", 0): 5})}
    stack: Any = SimpleNamespace(trim=lambda *_: trim, logs=dict)
    soak._drop_what_is_behind(stack, SimpleNamespace(names={}))  # type: ignore[arg-type]
    left = soak._held["aggregates"]
    assert left.select("key", "count").rows() == [("stays", 2)]
    assert left.schema == {**summed([]).schema, "count": pl.Int64}
