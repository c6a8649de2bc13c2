"""Mutant: read, add, write, with nothing to hold the row meanwhile.

The bug: the worker reads a row, adds to its totals and writes them. One worker does that exactly, whatever is killed or
cut. Two that have read the same row both write, and what one of them added is gone.

In the wild: `value = cache.get(key); cache.set(key, value + 1)`; ORM objects that are loaded, changed and saved; a
second replica of a service that was written for one. CheckAndMutateRow and compare-and-set exist for it.
"""

from __future__ import annotations

import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.mutants import totals_writer
from pipelines_under_test.mutants.totals import Held
from pipelines_under_test.mutants.totals_writer import WriteTotals


class ReadModifyWrite(WriteTotals):
    def held(self, keys: set[bytes]) -> dict[bytes, Held]:
        return totals_writer.read(self.table, keys)


def main() -> int:
    return aggregator.main(write=ReadModifyWrite)


if __name__ == "__main__":
    from pipelines_under_test.mutants import read_modify_write

    sys.exit(read_modify_write.main())
