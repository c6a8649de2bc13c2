"""Mutant: acknowledge before the durable write.

The bug: messages are acknowledged as they are pulled; a worker that dies takes with it what it held. A run without
faults loses nothing.

In the wild: Beam's `ReadFromPubSub` on the Python DirectRunner acknowledges before it processes; subscriber callbacks
that call `message.ack()` first and hand the message to a queue; JMS consumers in AUTO_ACKNOWLEDGE with a thread pool.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.pulling import Received, Subscription


class EagerSubscription(Subscription):
    def received(self, messages: Sequence[Received]) -> None:
        self.acknowledge([message.ack_id for message in messages])

    def settle(self, ack_ids: Sequence[str]) -> None:
        self.release(ack_ids)


def main() -> int:
    return aggregator.main(messages=EagerSubscription)


if __name__ == "__main__":
    sys.exit(main())
