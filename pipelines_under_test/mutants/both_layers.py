"""Mutant: a merge that takes windows from both layers.

The bug: the query service adds to what the batch store says whatever the cache says, also of windows that the batch
store covers. Until the first version is published all is well, and again for every window after the last one.

In the wild: stores that answer from an offline and a real-time part, as Apache Pinot's hybrid tables do, and that have
to guess where the one ends and the other begins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from pipelines_under_test.legacy import query
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.views import Lambda


class AddingLambda(Lambda):
    def from_speed(self, covered_ms: int) -> Iterable[tuple[Cell, Count]]:
        return super().from_speed(0)


def main() -> int:
    return query.main(AddingLambda)


if __name__ == "__main__":
    sys.exit(main())
