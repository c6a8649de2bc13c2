"""Mutant: a message lingers before it is published.

The bug: the worker holds each message until it is a second old, so that more of them go together. Nothing is lost or
doubled, as much is carried as before, and each run for itself passes: only beside the version before it is it seen that
every event comes a second later.

In the wild: a setting of one client library that was "at most" and is "each time" in the next one, and a second that
nobody pays while there is enough to send.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from confluent_kafka import Message

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter

LINGER_S = 1.0


class LingeringConverter(Converter):
    def step(self, records: Sequence[Message]) -> None:
        due_s = records[-1].timestamp()[1] / 1000 + LINGER_S
        self.stop.wait(max(0.0, due_s - time.time()))
        super().step(records)


def main() -> int:
    return converter.main(LingeringConverter)


if __name__ == "__main__":
    sys.exit(main())
