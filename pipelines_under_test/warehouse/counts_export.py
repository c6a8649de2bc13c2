"""Counts export: what the pipeline has made durable in Bigtable -> BigQuery table `counts`, every second.

    BIGTABLE TABLE BIGQUERY DATASET GAUNTLET_WORKER

It reads the rows that were written since the last reading (the first time: all), adds them up to cells, and appends each
cell that changed as it is now, with a version that only grows. The state of a cell is its row of the highest version, so
a repeated append, or one that lands late, changes nothing; and a restart, which appends everything again, neither.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from pipelines_under_test.kappa import rows, rpc
from pipelines_under_test.kappa.table import RawChunks, RawRead, StoredRow, Table, assemble
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals
from pipelines_under_test.warehouse.bigquery import CELL, Dataset

EVERY_S = 1.0
#: Bigtable's clock may be so far behind ours.
SKEW_S = 1.0
#: Rows this old do not change any more: twice the deduplication horizon of the reference pipeline.
FORGET_AFTER_S = 7200.0

#: dimension, key, window in seconds, start of the window in epoch ms
Cell = tuple[str, str, int, int]
#: (count, sum of weights)
Sum = tuple[int, int]


class Counts:
    """What the rows that were read so far add up to."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Mapping[Cell, Sum]] = {}
        self.totals: dict[Cell, Sum] = {}

    def take(self, read: Iterable[rows.RowLike]) -> set[Cell]:
        """Takes rows as they are now, in place of what was known of them; returns the cells that changed."""
        changed = set()
        for row in read:
            before, now = self._rows.get(row.key, {}), _cells_of(row)
            self._rows[row.key] = now
            for cell in before.keys() | now.keys():
                (had, had_weight), (has, has_weight) = before.get(cell, (0, 0)), now.get(cell, (0, 0))
                if (had, had_weight) != (has, has_weight):
                    count, weight = self.totals.get(cell, (0, 0))
                    self.totals[cell] = count + has - had, weight + has_weight - had_weight
                    changed.add(cell)
        return changed

    def forget(self, before_s: float) -> None:
        """Drops what began before that moment, in epoch seconds, so that the export does not grow for ever."""
        self._rows = {key: cells for key, cells in self._rows.items() if rows.parse_key(key).start_s >= before_s}
        self.totals = {cell: total for cell, total in self.totals.items() if cell[3] >= before_s * 1000}


def _cells_of(row: rows.RowLike) -> Mapping[Cell, Sum]:
    return {
        (c.dimension, f"{c.key}|{c.engagement}", c.window_s, c.window_start_ms): (c.count, c.weight)
        for c in rows.cells_of_row(row)
    }


def written_since(table: Table, since_s: float) -> list[StoredRow]:
    """The whole rows in which any cell was written at or after that moment, in epoch seconds. Raises as Table.write."""
    request = RawRead(table_name=table.name)
    condition = request.filter.condition
    condition.predicate_filter.timestamp_range_filter.start_timestamp_micros = int(max(0.0, since_s) * 1000) * 1000
    condition.true_filter.pass_all_filter = True
    raw = request.SerializeToString()

    def attempt(channel: grpc.Channel) -> list[StoredRow]:
        call = channel.unary_stream("/google.bigtable.v2.Bigtable/ReadRows", None, RawChunks.FromString)
        return assemble(call(raw, timeout=10 * rpc.ATTEMPT_S))

    return table.connection.insist("read what was written", attempt)


def rows_of(cells: Iterable[Cell], totals: Mapping[Cell, Sum], version: int) -> list[dict[str, Any]]:
    """Rows of `counts`."""
    found = []
    for cell in cells:
        count, weight = totals[cell]
        found.append({**dict(zip(CELL, cell, strict=True)), "count": count, "weight": weight, "version": version})
    return found


def export(table: Table, dataset: Dataset, wait: Callable[[float], bool], progress: Progress) -> None:
    """Goes on until `wait` says that it is to stop."""
    counts, since_s, version = Counts(), 0.0, 0
    while True:
        begin = time.time()
        changed = counts.take(written_since(table, since_s))
        version = max(version + 1, int(begin * 1000))
        dataset.append("counts", rows_of(sorted(changed), counts.totals, version))
        progress.add(exported=len(changed))
        since_s = begin - SKEW_S
        counts.forget(begin - FORGET_AFTER_S)
        if wait(max(0.0, EVERY_S - (time.time() - begin))):
            return


def main() -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    log = open_log(setting("GAUNTLET_WORKER", "counts-export"))
    stop, progress = stop_on_signals(), Progress(log)
    dataset = Dataset(setting("BIGQUERY"), setting("DATASET"), stop, log)
    table = Table(setting("BIGTABLE"), setting("TABLE"), stop, log)
    log.info("starts: %s at %s -> %s", table.name, setting("BIGTABLE"), dataset.name)
    try:
        dataset.make_tables()
        export(table, dataset, stop.wait, progress)
    except Stopped as stopped:
        log.warning("stopped while it exported, which the next start repeats: %s", stopped)
    except Fatal as fatal:
        log.error("%s", fatal)
        return 1
    log.info("ends: %s", progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
