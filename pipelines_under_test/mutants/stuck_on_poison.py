"""Mutant: a poison record that nobody gets past.

The bug: a record that cannot be read ends the worker. It is started again, reads the same record from the same offset,
and ends again.

In the wild: "poison pills": Spring Kafka's and Vert.x's consumers without an error-handling deserializer; Kafka
Streams' default LogAndFailExceptionHandler under an orchestrator.
"""

from __future__ import annotations

import sys

from confluent_kafka import Message

from pipelines_under_test.kappa import preprocessor
from pipelines_under_test.kappa.preprocessor import Preprocessor
from pipelines_under_test.kappa.worker import Fatal


class BrittlePreprocessor(Preprocessor):
    def refuse(self, record: Message, reason: str) -> None:
        raise Fatal(f"{record.topic()}/{record.partition()}/{record.offset()}: {reason}")


def main() -> int:
    return preprocessor.main(BrittlePreprocessor)


if __name__ == "__main__":
    sys.exit(main())
