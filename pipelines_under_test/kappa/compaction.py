"""Compaction: rows past the deduplication horizon keep their counts and lose their `seen` cells.

Events are refused once the 60 s window they belong to ended more than `horizon_s` ago, so nothing is added to such a
row any more; what was written just before that has `grace_s` to land. After both, one atomic mutation a row deletes
the `seen` cells and sets the absolute count and weight of each engagement in `agg`, with the count as the cell's
version. Two replicas that compact the same row at once write the same; one that read the row earlier and
writes later wrote a count that is no greater, and never wins.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from pipelines_under_test.kappa import rows
from pipelines_under_test.kappa.table import Entry, RawEntry, StoredRow, Table
from pipelines_under_test.kappa.worker import Fatal, Stopped

ROWS_AT_ONCE = 500
LONGEST_S = max(rows.WINDOWS_S)


@dataclass(frozen=True)
class Horizon:
    """How long, in seconds after the end of its 60 s window, an event is still taken; and the grace for its write."""

    horizon_s: float = 3600.0
    grace_s: float = 600.0

    def refuses(self, event_time_ms: int, now_ms: float) -> bool:
        return now_ms - window_end_ms(event_time_ms) > self.horizon_s * 1000

    def too_late_to_write(self, event_time_ms: int, now_ms: float) -> bool:
        """Half of the grace is over: a write sent now could land on a row that is being compacted."""
        return now_ms - window_end_ms(event_time_ms) > (self.horizon_s + self.grace_s / 2) * 1000

    def first_open_s(self, now_ms: float) -> int:
        """Rows that start before this second of event time may be compacted: the start of a longest window."""
        return int((now_ms / 1000 - self.horizon_s - self.grace_s) // LONGEST_S * LONGEST_S)


def window_end_ms(event_time_ms: int) -> int:
    """The end of the longest window that the event belongs to."""
    return (event_time_ms // 1000 // LONGEST_S + 1) * LONGEST_S * 1000


def compacted(row: StoredRow) -> Entry | None:
    """The mutation that compacts a row; None if there is nothing to compact."""
    seen = [qualifier for family, qualifier in row.cells if family == rows.SEEN]
    if not seen:
        return None
    entry = RawEntry(row_key=row.key)
    for engagement, (count, weight) in rows.totals_of_row(row).items():
        cell = entry.mutations.add().set_cell
        cell.family_name = rows.AGG
        cell.column_qualifier = rows.agg_qualifier(engagement)
        cell.timestamp_micros = rows.agg_timestamp(count)
        cell.value = rows.agg_value(count, weight)
    entry.mutations.add().delete_from_family.family_name = rows.SEEN
    return entry


class Compactor:
    """Compacts what is due, salt by salt; remembers up to which second it has, so that a pass costs what is new."""

    def __init__(self, table: Table, horizon: Horizon) -> None:
        self.table, self.horizon = table, horizon
        self._done = dict.fromkeys(range(rows.SALTS), 0)

    def run_once(self, now_ms: float | None = None) -> int:
        """One pass over all salts; the number of rows that it compacted. Raises Fatal or Stopped."""
        before = self.horizon.first_open_s(time.time() * 1000 if now_ms is None else now_ms)
        count = 0
        for salt, done in self._done.items():
            if before > done:
                start, end = rows.first_key(salt, done), rows.first_key(salt, before)
                entries = [entry for row in self.table.read(start, end, rows.SEEN) if (entry := compacted(row))]
                for i in range(0, len(entries), ROWS_AT_ONCE):
                    self.table.write(entries[i : i + ROWS_AT_ONCE])
                count += len(entries)
                self._done[salt] = before
        return count

    def run_on(self, stop: threading.Event, every_s: float) -> None:
        """A pass every so often, until asked to stop; a failure is logged and the next pass tries again."""
        while not stop.wait(every_s):
            try:
                if count := self.run_once():
                    self.table.log.info("compacted %d rows", count)
            except Stopped:
                return
            except Fatal as fatal:
                self.table.log.error("compaction: %s", fatal)
