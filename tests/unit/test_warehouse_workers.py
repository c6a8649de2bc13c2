"""The exports' own arithmetic: what a message, a row and a repeated reading become in BigQuery."""

from __future__ import annotations

import ast
import dataclasses
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from google.pubsub_v1.types import PubsubMessage
from test_kappa_events import EVENT

from harness.topology import UsageError
from harness.topology import Warehouse as Declared
from pipelines_under_test import warehouse
from pipelines_under_test.kappa import events, rows
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.kappa.table import StoredRow
from pipelines_under_test.kappa.worker import Fatal
from pipelines_under_test.warehouse.bigquery import SQL, TABLES, Dataset
from pipelines_under_test.warehouse.counts_export import Counts, rows_of
from pipelines_under_test.warehouse.pipeline import kappa_warehouse
from pipelines_under_test.warehouse.raw_export import row_of

START_S = 1_790_000_000


def message(data: bytes, **attributes: str) -> Any:
    made = PubsubMessage.pb()(data=data, message_id="17", attributes=attributes)
    made.publish_time.FromMilliseconds(START_S * 1000 + 5)
    return made


def test_a_message_is_a_row_with_its_own_id_and_the_times_of_it_and_of_its_source() -> None:
    row = row_of(message(events.to_message(EVENT), created_at_ms="1790000000123"), 7)
    assert row == {
        "message_id": "17",
        "publish_ms": START_S * 1000 + 5,
        "exported_ms": 7,
        "event_id": EVENT.event_id,
        "created_ms": 1_790_000_000_123,
        "event_time_ms": EVENT.event_time_ms,
        "tweet_id": EVENT.tweet_id,
        "author_id": EVENT.author_id,
        "engagement": EVENT.engagement,
        "weight": EVENT.weight,
        "country": EVENT.country,
    }
    assert set(row) == set(TABLES["raw"])


@pytest.mark.parametrize(
    "strange",
    [
        message(b"{", created_at_ms="1"),
        message(events.to_message(EVENT)),
        message(events.to_message(EVENT), created_at_ms="noon"),
    ],
)
def test_a_message_that_shows_no_event_is_exported_all_the_same(strange: Any) -> None:
    assert row_of(strange, 7) == {"message_id": "17", "publish_ms": START_S * 1000 + 5, "exported_ms": 7}


def stored(start_s: int, *seen: tuple[str, int]) -> StoredRow:
    """A row of one tweet that holds events: (uuid, weight)."""
    row = StoredRow(rows.row_key("tweet", "7", start_s * 1000))
    for uuid, weight in seen:
        row.cells[rows.SEEN, rows.seen_qualifier("like", uuid)] = [(1, rows.seen_value(weight, uuid))]
    return row


TEN, SIXTY = (("tweet", "7|like", w, START_S // w * w * 1000) for w in (10, 60))


def test_rows_add_up_to_the_cells_of_their_windows() -> None:
    counts = Counts()
    changed = counts.take([stored(START_S, ("a", 5), ("b", 6)), stored(START_S + 2, ("c", 7))])
    assert changed == {TEN, SIXTY}
    assert counts.totals == {TEN: (3, 18), SIXTY: (3, 18)}


def test_a_row_that_is_read_again_counts_once_and_as_it_is_now() -> None:
    counts = Counts()
    counts.take([stored(START_S, ("a", 5))])
    assert counts.take([stored(START_S, ("a", 5))]) == set()
    assert counts.take([stored(START_S, ("a", 5), ("b", 6))]) == {TEN, SIXTY}
    assert counts.totals[TEN] == (2, 11)
    assert counts.take([stored(START_S, ("b", 6))]) == {TEN, SIXTY}  # never the reference's; a mutant's
    assert counts.totals[TEN] == (1, 6)


def test_a_weight_alone_is_a_change() -> None:
    counts = Counts()
    counts.take([stored(START_S, ("a", 5))])
    assert counts.take([stored(START_S, ("a", 6))]) == {TEN, SIXTY}


def test_what_is_forgotten_is_what_does_not_change_any_more() -> None:
    counts = Counts()
    counts.take([stored(START_S, ("a", 5)), stored(START_S + 100, ("b", 6))])
    counts.forget(START_S + 50)
    assert {cell[3] for cell in counts.totals} == {(START_S + 100) // w * w * 1000 for w in (10, 60)}
    assert counts.take([stored(START_S + 100, ("b", 6))]) == set()


def test_a_cell_is_exported_with_its_version() -> None:
    [row] = rows_of([TEN], {TEN: (3, 18)}, 42)
    assert row == {
        "dimension": "tweet",
        "key": "7|like",
        "window_s": 10,
        "window_start_ms": TEN[3],
        "count": 3,
        "weight": 18,
        "version": 42,
    }
    assert set(row) == set(TABLES["counts"])


def test_rows_that_are_not_taken_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator takes or fails whatever comes; the real BigQuery answers with the rows that it does not take."""
    dataset = Dataset("127.0.0.1:1", "gauntlet.w", threading.Event(), logging.getLogger("test"))
    monkeypatch.setattr(
        dataset._client, "insert_rows_json", lambda *_, **__: [{"index": 0, "errors": ["no such field"]}]
    )
    with pytest.raises(Fatal, match="raw does not take a row: .*no such field"):
        dataset.append("raw", [{"message_id": "1"}])


def test_the_workers_import_nothing_of_the_harness() -> None:
    for file in Path(warehouse.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text())
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        ours = {m.split(".")[0] for m in imported if m} & {"harness", "load", "assertions", "faults"}
        assert ours == ({"harness"} if file.name == "pipeline.py" else set()), file


# -------------------------------------------------------------------------------------------------- declaration


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dataset": "warehous"}, "Did you mean 'warehouse'"),
        ({"messages": ("publishd", "raw")}, "Did you mean 'published'"),
        ({"messages": ("published", "intermediate")}, "needs an export for a copy of 'published', not 'intermediate'"),
        ({"counts": ("published", "counts")}, "the warehouse's counts must be the sink"),
        ({"counts": ("aggregates", "raw")}, "the warehouse's counts must be the sink, and a copy of counts"),
        ({"parity": "/nowhere/parity.sql"}, "there is no file /nowhere/parity.sql"),
    ],
)
def test_a_warehouse_that_cannot_be(changes: dict[str, Any], told: str) -> None:
    house = kappa_warehouse.warehouse
    assert house is not None
    with pytest.raises(UsageError, match=told):
        dataclasses.replace(kappa_warehouse, warehouse=dataclasses.replace(house, **changes)).validate()


def test_without_bigquery_there_is_no_dataset() -> None:
    house = Declared("warehouse", ("published", "raw"), ("aggregates", "counts"), "a", "b")
    with pytest.raises(UsageError, match="There is no dataset 'warehouse'"):
        dataclasses.replace(kappa, warehouse=house).validate()


def test_the_declared_one_can_be() -> None:
    assert kappa_warehouse.validate() is kappa_warehouse
    assert {"raw-export->bigquery", "counts-export->bigquery", "monitor->bigquery"} <= {
        link.name for link in kappa_warehouse.links()
    }
    assert all("@" not in line.partition("--")[2] for f in SQL.glob("*.sql") for line in f.read_text().splitlines())
