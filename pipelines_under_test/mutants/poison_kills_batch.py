"""Mutant: a poison record takes the rest of its batch with it.

The bug: the loop over a batch stands inside the `try`, not the `try` inside the loop. The poison record itself becomes
a dead letter, as it should; the records behind it in the batch are skipped, and the whole batch is committed.

In the wild: bulk loaders that refuse a batch for one bad row; a consumer that catches around `for record in records`;
BigQuery's `insertAll` without `skipInvalidRows`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from confluent_kafka import Message

from pipelines_under_test.kappa import preprocessor
from pipelines_under_test.kappa.preprocessor import Preprocessor


class Unreadable(Exception):
    """A record of the batch was poison."""


class HastyPreprocessor(Preprocessor):
    def step(self, records: Sequence[Message]) -> None:
        try:
            super().step(records)
        except Unreadable as error:
            self.log.warning("skipping the batch: %s", error)
            self.sink.settle()
            self.source.commit(records)

    def refuse(self, record: Message, reason: str) -> None:
        super().refuse(record, reason)
        raise Unreadable(reason)


def main() -> int:
    return preprocessor.main(HastyPreprocessor)


if __name__ == "__main__":
    sys.exit(main())
