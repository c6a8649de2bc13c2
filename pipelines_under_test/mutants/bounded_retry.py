"""Mutant: retries are bounded, and what is left is dropped.

The bug: a publish is tried five times within a second; after that a line in the log says that its messages were given
up, and their offsets are committed. An outage that is shorter than the retries loses nothing, a longer one everything.

In the wild: Fluentd and Logstash outputs that drop a chunk after `retry_limit`; `delivery.timeout.ms` of a Kafka
producer whose error callback only logs; a message queue's "max retries" without a dead-letter queue.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import grpc

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter, Outgoing, Publisher

ATTEMPTS = 5
PAUSE_S = 0.2


class ResignedPublisher(Publisher):
    def publish(self, messages: Sequence[Outgoing]) -> None:
        def attempted(channel: grpc.Channel) -> bool:
            self.attempt(messages, channel)
            return True

        for _ in range(ATTEMPTS):
            if self._connection.try_once("publish", attempted):
                return
            time.sleep(PAUSE_S)


class ResignedConverter(Converter):
    def make_publisher(self, topic: str) -> Publisher:
        return ResignedPublisher(self.connection, topic)


def main() -> int:
    return converter.main(ResignedConverter)


if __name__ == "__main__":
    sys.exit(main())
