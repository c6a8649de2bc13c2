"""Mutant: publish, and never look at what came of it.

The bug: a request is sent once, and nobody asks the future whether it was acknowledged; the offsets are committed
however it went. While Pub/Sub answers, every message arrives; while it does not, every message is lost.

In the wild: `publisher.publish(...)` whose future is dropped; Kafka's `producer.send(record)` without a callback;
confluent-kafka's `produce` without `on_delivery`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import PER_REQUEST, Converter, Outgoing, Publisher


class CarefreePublisher(Publisher):
    def publish(self, messages: Sequence[Outgoing]) -> None:
        self._connection.try_once("publish", partial(self.attempt, messages))


class CarefreeConverter(Converter):
    def make_publisher(self, topic: str) -> Publisher:
        return CarefreePublisher(self.connection, topic)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        for i in range(0, len(messages), PER_REQUEST):
            self.pool.submit(self.publisher.publish, messages[i : i + PER_REQUEST])
        self.progress.add(published=len(messages))


def main() -> int:
    return converter.main(CarefreeConverter)


if __name__ == "__main__":
    sys.exit(main())
