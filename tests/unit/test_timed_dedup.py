"""Deduplication in a window of time: what comes again within it counts once, what comes after it again."""

from __future__ import annotations

import pytest

from harness import catalog
from harness.topology import BigtableHop, Row
from pipelines_under_test.kappa import rows
from pipelines_under_test.kappa.table import StoredRow
from pipelines_under_test.timed_dedup import aggregator
from pipelines_under_test.timed_dedup.aggregator import Pass, Window
from pipelines_under_test.timed_dedup.pipeline import WINDOW_S, kappa_timed_dedup, timed_dedup

T = 1_790_000_000_000.0


def stored(*cells: tuple[str, list[int]]) -> StoredRow:
    """A row with these uuids, and the times in ms at which each was written."""
    row = StoredRow(rows.row_key("tweet", "7", int(T)))
    for uuid, times in cells:
        versions = [(ms * 1000, rows.seen_value(5, "e")) for ms in times]
        row.cells[(rows.SEEN, rows.seen_qualifier("like", uuid))] = versions
    return row


def test_within_the_window_an_event_stays_in_its_pass_and_beyond_it_begins_the_next() -> None:
    window = Window()
    assert window.pass_of("u", T, 4).number == 1
    assert window.pass_of("u", T + 4000, 4) == Pass(1, T)
    assert window.pass_of("u", T + 4001, 4) == Pass(2, T + 4001)
    assert window.pass_of("u", T + 8001, 4).number == 2  # the window of the second pass
    assert window.pass_of("other", T + 8001, 4).number == 1


def test_the_first_pass_is_written_as_the_reference_writes_it_and_later_ones_beside_it() -> None:
    assert Pass(1, T).uuid("u") == "u"
    assert Pass(2, T).uuid("u") == "u~2"


def test_what_the_table_holds_outlives_the_worker() -> None:
    """The oldest version says when a pass began: a repeated write makes a younger one."""
    window = Window()
    window.learn([b"row"], [stored(("u", [int(T) + 900, int(T)]), ("v", [int(T)]), ("v~2", [int(T) + 6000]))])
    assert window.pass_of("u", T + 3000, 4) == Pass(1, T)
    assert window.pass_of("u", T + 4100, 4).number == 2
    assert window.pass_of("v", T + 9000, 4) == Pass(2, T + 6000)
    assert window.pass_of("v", T + 10_100, 4).number == 3


def test_what_is_remembered_is_newer_than_what_the_table_held() -> None:
    window = Window()
    window.pass_of("u", T, 4)
    window.pass_of("u", T + 5000, 4)
    window.learn([b"row"], [stored(("u", [int(T)]))])
    assert window.pass_of("u", T + 6000, 4).number == 2


def test_each_row_is_looked_up_once_until_all_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window()
    assert window.unknown([b"b", b"a", b"b"]) == [b"a", b"b"]
    window.learn([b"a", b"b"], [stored(("u", [int(T)]))])
    assert window.unknown([b"a", b"b", b"c"]) == [b"c"]
    monkeypatch.setattr(aggregator, "MOST_EVENTS_REMEMBERED", 0)
    assert window.unknown([b"a"]) == [b"a"]
    window.learn([b"a"], [stored(("u", [int(T)]))])
    assert window.pass_of("u", T + 1, 4) == Pass(1, T)


def test_the_sink_counts_and_shows_an_event_once_for_each_pass() -> None:
    row = stored(("u", [int(T)]), ("u~2", [int(T) + 5000]))
    sink = kappa_timed_dedup.sink
    assert isinstance(sink, BigtableHop)
    assert sink.cells is not None
    assert sink.sightings is not None
    declared = Row(row.key, row.cells)
    assert {(c.window_s, c.count, c.weight) for c in sink.cells(declared)} == {(10, 2, 10), (60, 2, 10)}
    assert [(s.event_id, s.seen_ms) for s in sink.sightings(declared)] == [("e", T), ("e", T + 5000)]


def test_the_pipeline_declares_its_window() -> None:
    def env(window_s: float) -> dict[str, str]:
        return dict(timed_dedup(window_s).worker("aggregator").env)

    assert env(0.5)["DEDUP_WINDOW_S"] == "0.5"
    assert env(WINDOW_S) == dict(kappa_timed_dedup.worker("aggregator").env)


def test_the_scenario_bounds_a_rate_that_must_not_be_nothing() -> None:
    scenario = catalog.scenario("nearly-once")
    assert scenario.pipeline is kappa_timed_dedup
    (bound,) = [a for a in scenario.assertions if a.params().get("hop") == "aggregates"]
    assert 0 < bound.params()["least"] < bound.params()["most"] < 1
    assert bound.params()["confidence"] == 0.95
    assert "batch_parity" not in {a.name for a in scenario.assertions}
