"""The rows of the aggregates: a set that only grows, and what is counted from it."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines_under_test.kappa import rows
from pipelines_under_test.kappa.compaction import Horizon, compacted, window_end_ms
from pipelines_under_test.kappa.events import ENGAGEMENTS, uuid_of
from pipelines_under_test.kappa.table import StoredRow, seen_entry

Cells = dict[tuple[str, bytes], list[tuple[int, bytes]]]


@dataclass
class FakeTable:
    """Bigtable's semantics as far as the rows use them: versions of a cell by timestamp, atomic mutations of a row."""

    rows: dict[bytes, Cells] = field(default_factory=lambda: defaultdict(dict))
    now_micros: int = 1_000_000

    def apply(self, entry) -> None:  # type: ignore[no-untyped-def]
        cells = self.rows[entry.row_key]
        for mutation in entry.mutations:
            if mutation.HasField("delete_from_family"):
                for name in [n for n in cells if n[0] == mutation.delete_from_family.family_name]:
                    del cells[name]
                continue
            set_cell = mutation.set_cell
            at = self.now_micros if set_cell.timestamp_micros == -1 else set_cell.timestamp_micros
            name = (set_cell.family_name, set_cell.column_qualifier)
            versions = [v for v in cells.get(name, []) if v[0] != at] + [(at, set_cell.value)]
            cells[name] = sorted(versions, reverse=True)
        self.now_micros += 1000

    def row(self, key: bytes) -> StoredRow:
        row = StoredRow(key)
        row.cells = {name: list(versions) for name, versions in self.rows[key].items()}
        return row

    def counts(self) -> dict[tuple[str, str, str, int, int], tuple[int, int]]:
        found: dict[tuple[str, str, str, int, int], tuple[int, int]] = {}
        for key in self.rows:
            for c in rows.cells_of_row(self.row(key)):
                name = (c.dimension, c.key, c.engagement, c.window_s, c.window_start_ms)
                before = found.get(name, (0, 0))
                found[name] = (before[0] + c.count, before[1] + c.weight)
        return found


def add(table: FakeTable, tweet: str, at_ms: int, engagement: str, weight: int, event_id: str) -> bytes:
    key = rows.row_key("tweet", tweet, at_ms)
    cell = (rows.seen_qualifier(engagement, uuid_of(event_id)), rows.seen_value(weight, event_id))
    table.apply(seen_entry(key, [cell]))
    return key


def test_the_key_shows_time_dimension_and_key() -> None:
    key = rows.row_key("tweet", "1234567890123456789", 1_790_000_013_999)
    assert key[2:] == b"#1790000012#tweet#1234567890123456789"
    parsed = rows.parse_key(key)
    assert (parsed.start_s, parsed.dimension, parsed.key) == (1_790_000_012, "tweet", "1234567890123456789")
    assert 0 <= parsed.salt < rows.SALTS


def test_a_key_of_one_tweet_always_has_the_same_salt_and_many_tweets_have_all() -> None:
    salts = {rows.parse_key(rows.row_key("tweet", str(i), 0)).salt for i in range(500)}
    assert salts == set(range(rows.SALTS))


@pytest.mark.parametrize("key", [b"", b"00#1", b"xx#0000000001#tweet#1", b"00#when#tweet#1"])
def test_a_foreign_key_is_an_error_and_not_a_count(key: bytes) -> None:
    with pytest.raises(ValueError):
        rows.parse_key(key)


@pytest.mark.parametrize(
    ("at_ms", "window_10", "window_60"),
    [
        (1_790_000_040_000, 1_790_000_040_000, 1_790_000_040_000),  # a minute's and a window's first moment
        (1_790_000_039_999, 1_790_000_030_000, 1_789_999_980_000),  # the last moment before
        (1_790_000_049_999, 1_790_000_040_000, 1_790_000_040_000),
        (1_790_000_050_000, 1_790_000_050_000, 1_790_000_040_000),
        (0, 0, 0),
    ],
)
def test_windows_begin_at_multiples_of_their_length(at_ms: int, window_10: int, window_60: int) -> None:
    table = FakeTable()
    add(table, "7", at_ms, "like", 5, "e")
    assert table.counts() == {
        ("tweet", "7", "like", 10, window_10): (1, 5),
        ("tweet", "7", "like", 60, window_60): (1, 5),
    }


def test_every_window_is_made_of_whole_rows() -> None:
    assert all(window % rows.ROW_S == 0 for window in rows.WINDOWS_S)


happenings = st.lists(
    st.tuples(
        st.sampled_from(["7", "8"]),
        st.integers(1_790_000_000_000, 1_790_000_125_000),
        st.sampled_from(sorted(ENGAGEMENTS)),
        st.integers(0, 10**9),
    ),
    max_size=30,
)


@given(happenings, st.integers(0, 2**32))
def test_replays_in_any_order_change_no_count(happened: list[tuple[str, int, str, int]], seed: int) -> None:
    table = FakeTable()
    deliveries = [(i, h) for i, h in enumerate(happened)] * 3
    random.Random(seed).shuffle(deliveries)
    for i, (tweet, at_ms, engagement, weight) in deliveries:
        add(table, tweet, at_ms, engagement, weight, f"event-{i}")
    count: Counter[tuple[str, str, str, int, int]] = Counter()
    weights: Counter[tuple[str, str, str, int, int]] = Counter()
    for tweet, at_ms, engagement, weight in happened:
        for window in (10, 60):
            cell = ("tweet", tweet, engagement, window, at_ms // (window * 1000) * window * 1000)
            count[cell] += 1
            weights[cell] += weight
    assert table.counts() == {cell: (count[cell], weights[cell]) for cell in count}


def test_equal_events_with_different_ids_are_two() -> None:
    table = FakeTable()
    add(table, "7", 1_790_000_000_000, "like", 5, "one")
    add(table, "7", 1_790_000_000_000, "like", 5, "its twin")
    assert table.counts()["tweet", "7", "like", 60, 1_789_999_980_000] == (2, 10)


def test_an_event_was_first_seen_when_its_oldest_version_was_written() -> None:
    table = FakeTable(now_micros=5_000_000)
    key = add(table, "7", 0, "like", 5, "e")
    add(table, "7", 0, "like", 5, "e")
    assert [(s.event_id, s.seen_ms) for s in rows.sightings_of_row(table.row(key))] == [("e", 5000.0)]


# --------------------------------------------------------------------------------------------------- compaction


@given(happenings)
def test_compaction_keeps_every_count_and_leaves_no_seen_cell(happened: list[tuple[str, int, str, int]]) -> None:
    table = FakeTable()
    for i, (tweet, at_ms, engagement, weight) in enumerate(happened):
        add(table, tweet, at_ms, engagement, weight, f"event-{i}")
    before = table.counts()
    for key in list(table.rows):
        table.apply(compacted(table.row(key)))
    assert table.counts() == before
    assert not [name for cells in table.rows.values() for name in cells if name[0] == rows.SEEN]


def test_a_compacted_row_has_nothing_more_to_compact() -> None:
    table = FakeTable()
    key = add(table, "7", 0, "like", 5, "e")
    table.apply(compacted(table.row(key)))
    assert compacted(table.row(key)) is None


def test_two_replicas_may_compact_the_same_row() -> None:
    table = FakeTable()
    key = add(table, "7", 0, "like", 5, "e")
    one, other = compacted(table.row(key)), compacted(table.row(key))
    table.apply(one)
    table.apply(other)
    assert table.counts()["tweet", "7", "like", 60, 0] == (1, 5)


def test_a_stale_compaction_that_lands_late_never_wins() -> None:
    table = FakeTable()
    key = add(table, "7", 0, "like", 5, "one")
    stale = compacted(table.row(key))
    add(table, "7", 0, "like", 6, "two")
    table.apply(compacted(table.row(key)))
    table.apply(stale)
    assert table.counts()["tweet", "7", "like", 60, 0] == (2, 11)


horizons = st.builds(Horizon, horizon_s=st.floats(0, 7200), grace_s=st.floats(0.1, 1200))


@given(horizons, st.integers(1_700_000_000_000, 1_800_000_000_000), st.floats(0, 20_000))
def test_what_may_be_compacted_is_refused_and_too_late_to_write(horizon: Horizon, at_ms: int, age_s: float) -> None:
    now_ms = at_ms + age_s * 1000
    start_s = rows.parse_key(rows.row_key("tweet", "7", at_ms)).start_s
    if start_s < horizon.first_open_s(now_ms):
        assert horizon.refuses(at_ms, now_ms)
        assert horizon.too_late_to_write(at_ms, now_ms)


@given(horizons, st.integers(1_700_000_000_000, 1_800_000_000_000))
def test_rows_past_horizon_and_grace_are_due_for_compaction(horizon: Horizon, at_ms: int) -> None:
    now_ms = window_end_ms(at_ms) + (horizon.horizon_s + horizon.grace_s) * 1000 + 1
    assert rows.parse_key(rows.row_key("tweet", "7", at_ms)).start_s < horizon.first_open_s(now_ms)


def test_the_horizon_begins_at_the_end_of_the_longest_window() -> None:
    horizon = Horizon(horizon_s=5, grace_s=2)
    at_ms = 1_790_000_041_000  # its minute ends at 1_790_000_100_000
    assert not horizon.refuses(at_ms, 1_790_000_105_000)
    assert horizon.refuses(at_ms, 1_790_000_105_001)
    assert not horizon.too_late_to_write(at_ms, 1_790_000_106_000)
    assert horizon.too_late_to_write(at_ms, 1_790_000_106_001)
