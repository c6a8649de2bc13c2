"""Mutant: poison is dropped in silence.

The bug: a record that cannot be read is skipped, and its offset committed with the others. Nobody will know that it
was there.

In the wild: `except JSONDecodeError: continue`; Kafka Streams' LogAndContinueExceptionHandler; Flink's
`json.ignore-parse-errors`.
"""

from __future__ import annotations

import sys

from confluent_kafka import Message

from pipelines_under_test.kappa import preprocessor
from pipelines_under_test.kappa.preprocessor import Preprocessor


class CarelessPreprocessor(Preprocessor):
    def refuse(self, record: Message, reason: str) -> None:
        pass


def main() -> int:
    return preprocessor.main(CarelessPreprocessor)


if __name__ == "__main__":
    sys.exit(main())
