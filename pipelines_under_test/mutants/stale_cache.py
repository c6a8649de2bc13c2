"""Mutant: a cache that nobody invalidates.

The bug: a row is read when it is first touched, and from then on the worker's copy of it is believed. It is right as
long as this worker is the only one that writes, also after a restart. With a second replica each writes totals that
lack what the other has added since.

In the wild: a local cache in front of a shared store (GemFire's and Nebulex's near caches, Hibernate's second level)
with more than one instance of the application.
"""

from __future__ import annotations

import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.mutants import totals_writer
from pipelines_under_test.mutants.totals import Held
from pipelines_under_test.mutants.totals_writer import WriteTotals

MOST_ROWS_CACHED = 100_000

_cache: dict[bytes, Held] = {}


class WriteFromCache(WriteTotals):
    def held(self, keys: set[bytes]) -> dict[bytes, Held]:
        if len(_cache) > MOST_ROWS_CACHED:
            _cache.clear()
        missing = keys - _cache.keys()
        if missing:
            _cache.update(totals_writer.read(self.table, missing))
        return {key: _cache[key] for key in keys}


def main() -> int:
    return aggregator.main(write=WriteFromCache)


if __name__ == "__main__":
    from pipelines_under_test.mutants import stale_cache

    sys.exit(stale_cache.main())
