"""The query service: which store answers which window, and what it says when it cannot answer."""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines_under_test.kappa import rows
from pipelines_under_test.kappa.table import StoredRow
from pipelines_under_test.legacy.cache import Away
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.query import Server, answer, handler
from pipelines_under_test.legacy.store import Store, Unreadable
from pipelines_under_test.legacy.views import Kappa, Lambda, Unavailable

LOG = logging.getLogger("test")
START_MS = 1_790_000_040_000
EARLY = Cell("tweet", "7|like", 10, START_MS)
LATER = Cell("tweet", "7|like", 10, START_MS + 10_000)
LONG = Cell("tweet", "7|like", 60, START_MS)


class Memory:
    """Stands for Redis."""

    def __init__(self, counts: dict[Cell, Count]) -> None:
        self.counts, self.away = counts, False

    def ping(self) -> None:
        if self.away:
            raise Away("Redis: refused")

    def cells(self, after_ms: int) -> Iterable[tuple[Cell, Count]]:
        self.ping()
        return [(cell, count) for cell, count in self.counts.items() if cell.end_ms > after_ms]

    def get(self, cell: Cell) -> Count | None:
        self.ping()
        return self.counts.get(cell)

    def sightings(self) -> Iterable[tuple[str, float]]:
        self.ping()
        return [("e", 5.0)]


class Fixed:
    """Stands for the batch store: one version."""

    def __init__(self, covers_until_ms: int, counts: dict[Cell, Count]) -> None:
        self.number, self.covers_until_ms, self.counts, self.broken = 3, covers_until_ms, counts, False

    def ask(self, question: Any) -> Any:
        if self.broken:
            raise Unreadable("v3: damaged")
        return question(self)

    def cells(self) -> dict[Cell, Count]:
        return self.counts

    def get(self, cell: Cell) -> Count | None:
        return self.counts.get(cell)


def both() -> tuple[Fixed, Memory, Lambda]:
    store = Fixed(START_MS + 10_000, {EARLY: Count(5, 50)})
    memory = Memory({EARLY: Count(4, 40), LATER: Count(2, 20), LONG: Count(6, 60)})
    return store, memory, Lambda(store, memory)  # type: ignore[arg-type]


def test_a_covered_window_is_the_batch_stores_alone_and_any_other_redis_alone() -> None:
    _, _, view = both()
    assert dict(view.cells()) == {EARLY: Count(5, 50), LATER: Count(2, 20), LONG: Count(6, 60)}
    assert [view.cell(cell) for cell in (EARLY, LATER, LONG)] == [Count(5, 50), Count(2, 20), Count(6, 60)]


def test_a_covered_window_without_a_cell_in_the_batch_store_is_zero_whatever_redis_says() -> None:
    store, _, view = both()
    store.counts = {}
    assert EARLY not in dict(view.cells())
    assert view.cell(EARLY) == Count(0, 0)


def test_before_the_first_version_redis_answers_all(tmp_path: Path) -> None:
    _, memory, _ = both()
    view = Lambda(Store([tmp_path / "a"], LOG), memory)  # type: ignore[arg-type]
    assert dict(view.cells()) == memory.counts
    assert view.cell(EARLY) == Count(4, 40)
    assert view.state() == {"backend": "lambda", "version": 0, "covers_until_ms": 0}


def test_without_one_of_the_stores_there_is_no_answer() -> None:
    store, memory, view = both()
    memory.away = True
    assert view.cell(EARLY) == Count(5, 50)  # this one needs no Redis
    for ask in (view.cells, view.state, view.sightings, lambda: view.cell(LATER)):
        with pytest.raises(Unavailable, match="refused"):
            ask()
    memory.away, store.broken = False, True
    for ask in (view.cells, view.state, lambda: view.cell(EARLY)):
        with pytest.raises(Unavailable, match="damaged"):
            ask()


windows = st.sampled_from([10, 60]).flatmap(
    lambda s: st.builds(Cell, st.just("tweet"), st.sampled_from(["7|like", "8|like"]), st.just(s),
                        st.integers(0, 12).map(lambda n: n * s * 1000))
)  # fmt: skip


@given(st.sets(windows), st.sets(windows), st.integers(0, 130).map(lambda n: n * 1000))
def test_no_window_is_taken_from_both_layers_and_none_from_neither(
    in_batch: set[Cell], in_speed: set[Cell], covered_ms: int
) -> None:
    """Whatever is in the stores; a version holds only what it covers."""
    batch = {cell: Count(1, 1) for cell in in_batch if cell.end_ms <= covered_ms}
    speed = {cell: Count(2, 2) for cell in in_speed}
    view = Lambda(Fixed(covered_ms, batch), Memory(speed))  # type: ignore[arg-type]
    found = list(view.cells())
    assert len(found) == len(dict(found))
    assert dict(found) == batch | {cell: count for cell, count in speed.items() if cell.end_ms > covered_ms}
    for cell in in_batch | in_speed:
        assert view.cell(cell) == dict(found).get(cell, Count(0, 0))


# ----------------------------------------------------------------------------------------------------------- Kappa


class Table:
    """Stands for Bigtable, with these rows; None when it does not answer."""

    address = "bigtable:1"

    def __init__(self, stored: list[StoredRow] | None) -> None:
        self.stored = stored

    def try_once(self, what: str, attempt: Any) -> list[StoredRow] | None:
        return self.stored


def stored(dimension: str, at_ms: int, *event_ids: str) -> StoredRow:
    row = StoredRow(rows.row_key(dimension, "7", at_ms))
    for event_id in event_ids:
        cell = (rows.SEEN, rows.seen_qualifier("like", event_id))
        row.cells[cell] = [(9_000, rows.seen_value(10, event_id)), (5_000, rows.seen_value(10, event_id))]
    return row


def test_kappas_rows_are_summed_to_windows() -> None:
    table = [
        stored("tweet", START_MS, "a", "b"),
        stored("tweet", START_MS + 2_000, "c"),
        stored("author", START_MS, "a"),
    ]
    view = Kappa(Table(table), "table")  # type: ignore[arg-type]
    found = dict(view.cells())
    assert (found[EARLY], found[LONG]) == (Count(3, 30), Count(3, 30))
    assert found[Cell("author", "7|like", 10, START_MS)] == Count(1, 10)
    assert dict(view.sightings()) == {"a": 5.0, "b": 5.0, "c": 5.0}
    assert view.state() == {"backend": "kappa"}


def test_kappa_without_bigtable_has_no_answer() -> None:
    view = Kappa(Table(None), "table")  # type: ignore[arg-type]
    for ask in (view.cells, view.state, view.sightings, lambda: view.cell(EARLY)):
        with pytest.raises(Unavailable, match="bigtable:1 does not answer"):
            ask()


# ------------------------------------------------------------------------------------------------------------ HTTP


def test_cells_are_lines_of_the_agreed_form() -> None:
    status, kind, body = answer(both()[2], "/cells")
    assert (status, kind) == (200, "application/x-ndjson")
    assert json.loads(body.splitlines()[0]) == {
        "dimension": "tweet", "key": "7|like", "window_s": 10, "window_start_ms": START_MS, "count": 5, "weight": 50,
    }  # fmt: skip
    assert len(body.splitlines()) == 3


def test_one_cell_can_be_asked_for() -> None:
    status, _, body = answer(both()[2], f"/cell?dimension=tweet&key=7%7Clike&window_s=10&window_start_ms={START_MS}")
    assert (status, json.loads(body)["count"]) == (200, 5)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/cell", 400, "parameters missing: dimension, key, window_s, window_start_ms"),
        ("/cell?dimension=tweet&key=7%7Clike&window_s=x&window_start_ms=0", 400, "whole numbers"),
        ("/cell?dimension=tweet&key=7&window_s=10&window_start_ms=0", 400, "<id>|<engagement>"),
        ("/rows", 404, "/cells"),
    ],
)
def test_what_is_no_question_is_told_what_one_would_be(path: str, status: int, says: str) -> None:
    got, _, body = answer(both()[2], path)
    assert (got, says in json.loads(body)["error"]) == (status, True)


@pytest.mark.parametrize("path", ["/cells", "/healthz", "/sightings"])
def test_the_service_answers_over_http_and_says_503_with_the_reason_while_it_cannot(path: str) -> None:
    _, memory, view = both()
    server = Server(("127.0.0.1", 0), handler(view, LOG.warning))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as got:
            assert got.read().decode() == answer(view, path)[2]
        memory.away = True
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=5)
        assert refused.value.code == 503
        assert "refused" in json.loads(refused.value.read())["error"]
    finally:
        server.shutdown()
        server.server_close()
