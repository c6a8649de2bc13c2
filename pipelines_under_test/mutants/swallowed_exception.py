"""Mutant: an exception is logged and forgotten.

The bug: a write to the sink that fails raises, as it should, and is caught by an `except Exception` that writes a line
into the log. The bundle ends as if all were well, so its messages are acknowledged. While the sink answers nothing
shows.

In the wild: `except Exception: logger.exception(...)` around the body of a loop; sink connectors that commit their
offsets whether or not the other side took the records.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.aggregator import Process, Update
from pipelines_under_test.kappa.table import ROWS_PER_REQUEST, Entry, Table


class ImpatientTable(Table):
    """Raises what the first attempt raises."""

    def write(self, entries: Sequence[Entry], too_late: Callable[[], bool] = lambda: False) -> None:
        for i in range(0, len(entries), ROWS_PER_REQUEST):
            self.attempt(list(entries[i : i + ROWS_PER_REQUEST]), too_late, self.connection.channel)


class SwallowingWrite(aggregator.Write):
    table_kind = ImpatientTable

    def count(self, updates: list[Update]) -> None:
        try:
            super().count(updates)
        except Exception:
            Process.log.exception("could not write %d updates", len(updates))


def main() -> int:
    return aggregator.main(write=SwallowingWrite)


if __name__ == "__main__":
    from pipelines_under_test.mutants import swallowed_exception

    sys.exit(swallowed_exception.main())
