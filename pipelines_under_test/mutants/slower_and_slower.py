"""Mutant: work that grows with all that ever came.

The bug: before it publishes a batch the worker looks through everything that it has published since the topic was made.
On the first day that takes no time. It grows with every event, a restart does not mend it, and nothing is lost or doubled:
the pipeline only gets slower, until it cannot keep up.

What is looked through is not there, only the time that it takes: it follows from the offsets, which grow for ever.

In the wild: a table without an index, a log that is read from its beginning, a list that is searched from end to end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from confluent_kafka import Message

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter

#: What looking at one old event takes: so long that a soak of minutes shows what a small one shows in weeks.
LOOK_S = 15e-6


class SearchingConverter(Converter):
    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[int, int] = {}

    def step(self, records: Sequence[Message]) -> None:
        for record in records:
            self.ends[record.partition() or 0] = (record.offset() or 0) + 1
        self.look_through(sum(self.ends.values()))
        super().step(records)

    def look_through(self, events: int) -> None:
        self.stop.wait(events * LOOK_S)


def main() -> int:
    return converter.main(SearchingConverter)


if __name__ == "__main__":
    sys.exit(main())
