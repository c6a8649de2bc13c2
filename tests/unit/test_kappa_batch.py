"""The batch truth: what it drops, what it discards as late, what it counts."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_kappa_events import SOURCE, damaged

from pipelines_under_test.kappa import batch, events

START_MS = 1_790_000_040_000  # the first moment of a minute


def log(*happened: tuple[str, int, int]) -> pl.DataFrame:
    """A log of likes of tweet 7 by author 9 with weight 5: (event id, event time, CreateTime), ms after START_MS."""
    rows = [(e, 7, 9, "like", 5, START_MS + at, START_MS + created) for e, at, created in happened]
    return pl.DataFrame(rows, schema=batch.SCHEMA, orient="row")


def counts(frame: pl.DataFrame, late_after_s: float = 5) -> dict[tuple[str, str, int, int], tuple[int, int]]:
    cells = batch.aggregate(frame, late_after_s)
    return {(d, k, w, s - START_MS): (n, weight) for d, k, w, s, n, weight in cells.iter_rows()}


def test_both_dimensions_and_windows_are_counted() -> None:
    assert counts(log(("a", 0, 0), ("b", 9_999, 9_999), ("c", 10_000, 10_000))) == {
        ("tweet", "7|like", 10, 0): (2, 10),
        ("tweet", "7|like", 10, 10_000): (1, 5),
        ("tweet", "7|like", 60, 0): (3, 15),
        ("author", "9|like", 10, 0): (2, 10),
        ("author", "9|like", 10, 10_000): (1, 5),
        ("author", "9|like", 60, 0): (3, 15),
    }


def test_the_columns_are_those_of_the_contract() -> None:
    assert dict(batch.aggregate(log(("a", 0, 0)), 5).schema) == {
        "dimension": pl.String,
        "key": pl.String,
        "window_s": pl.Int32,
        "window_start_ms": pl.Int64,
        "count": pl.Int64,
        "weight": pl.Int64,
    }


def test_an_empty_log_has_no_cells_and_the_same_columns() -> None:
    cells = batch.aggregate(log(), 5)
    assert cells.height == 0
    assert cells.schema == batch.aggregate(log(("a", 0, 0)), 5).schema


def test_an_event_id_that_comes_twice_counts_once() -> None:
    assert counts(log(("a", 0, 0), ("a", 0, 0)))["tweet", "7|like", 60, 0] == (1, 5)


def test_an_event_is_discarded_for_the_windows_that_were_closed_and_kept_for_the_others() -> None:
    cells = counts(log(("late", 1_000, 30_000)))
    assert ("tweet", "7|like", 10, 0) not in cells
    assert cells["tweet", "7|like", 60, 0] == (1, 5)


@pytest.mark.parametrize(("created", "kept"), [(15_000, True), (15_001, False)])
def test_late_is_more_than_the_limit_after_the_end_of_the_window(created: int, kept: bool) -> None:
    assert (("tweet", "7|like", 10, 0) in counts(log(("e", 9_999, created)))) is kept


def test_of_two_records_with_one_id_the_earlier_decides_whether_it_is_late() -> None:
    assert ("tweet", "7|like", 10, 0) in counts(log(("a", 0, 90_000), ("a", 0, 100)))


def decodes(raw: bytes) -> bool:
    return batch.decode(raw, 0) is not None


def accepted(raw: bytes) -> bool:
    try:
        events.from_source(raw)
    except events.Poison:
        return False
    return True


def test_a_record_is_decoded() -> None:
    assert batch.decode(SOURCE, 123) == (
        "1a2b3c4d-0001-0000000042",
        1_234_567_890_123_456_789,
        1_000_000_007,
        "profile_click",
        987_654_321,
        1_790_000_012_345,
        123,
    )


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(2**62, 2**66),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from(
        ["like", "LIKE", "US", "253402300799999", 253_402_300_799_999, 253_402_300_800_000, "x" * 200, "x" * 201, ...]
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(json.loads(SOURCE))), values, max_size=3))
def test_batch_and_preprocessor_agree_on_what_is_an_event(changes: dict[str, Any]) -> None:
    """They share no code, so only a test can hold them together: else parity would blame the stream for poison."""
    raw = damaged(**changes)
    assert decodes(raw) == accepted(raw)


@given(st.integers(0, len(SOURCE)))
def test_batch_and_preprocessor_agree_on_records_that_are_cut_off(length: int) -> None:
    assert decodes(SOURCE[:length]) == accepted(SOURCE[:length]) == (length == len(SOURCE))
