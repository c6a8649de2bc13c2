"""Mutant: the last write wins, whatever it knows.

The bug: totals are kept in memory and written as they stand. While the worker lives that is exact, and a write that is
repeated changes nothing. After a restart it starts from nothing, and its first small total replaces the large one.

In the wild: gauges and session counters that are pushed by a process which begins at zero; state stores without a
changelog; "upsert" of a partial aggregate.
"""

from __future__ import annotations

import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.mutants.totals import Held
from pipelines_under_test.mutants.totals_writer import WriteTotals

_memory: dict[bytes, Held] = {}


class WriteFromMemory(WriteTotals):
    def held(self, keys: set[bytes]) -> dict[bytes, Held]:
        return {key: _memory.setdefault(key, Held()) for key in keys}


def main() -> int:
    return aggregator.main(write=WriteFromMemory)


if __name__ == "__main__":
    from pipelines_under_test.mutants import last_write_wins

    sys.exit(last_write_wins.main())
