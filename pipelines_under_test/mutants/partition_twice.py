"""Mutant: a log partition counted twice.

The bug: the counts of one log partition, the largest, are added a second time, as if two attempts of its task had both
been taken. Where no log partition comes twice, which is nearly always, nothing is wrong.

In the wild: Hive, where a task attempt that was killed as the slower one of two still committed its file; sums of
records per partition that held both attempts of a speculative task.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import polars as pl

from pipelines_under_test.legacy import batch
from pipelines_under_test.legacy.logs import LogFile


class TwiceCountingBatch(batch.Batch):
    def counted(self, files: Iterable[LogFile]) -> pl.DataFrame:
        files = list(files)
        counts = super().counted(files)
        if not files:
            return counts
        largest = max({file.log_partition_ms for file in files}, key=lambda start: self.records_in(files, start))
        again = super().counted([file for file in files if file.log_partition_ms == largest])
        cell = [name for name in counts.columns if name not in ("count", "weight")]
        return pl.concat([counts, again]).group_by(cell).agg(pl.col("count", "weight").sum()).select(counts.columns)

    def records_in(self, files: Iterable[LogFile], start_ms: int) -> int:
        return sum(self.events(file).height for file in files if file.log_partition_ms == start_ms)


def main() -> int:
    return batch.main(TwiceCountingBatch)


if __name__ == "__main__":
    sys.exit(main())
