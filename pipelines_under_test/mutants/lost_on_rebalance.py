"""Mutant: a rebalance forgets what was read and not yet written.

The bug: records are held for up to half a second, then published and committed together, which is safe. But when the
group rebalances, one half of the code commits the position up to which it has *read*, so that the next owner need not
do it again, and the other half throws away what it holds, because the next owner will do it. Members are dynamic, so
each stop and start of one is a rebalance of the others. Alone, or undisturbed, the worker loses nothing.

In the wild: buffers inside consumers that are cleared in `onPartitionsRevoked`; Camel's Kafka consumer before
CAMEL-13339, which committed on revocation what it had not processed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import ClassVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from pipelines_under_test.kappa import converter, kafka
from pipelines_under_test.kappa.converter import BATCH, WAIT_S, Converter

HELD_S = 0.5


class EagerlyCommittingSource(kafka.Source):
    overrides: ClassVar[Mapping[str, object]] = {"group.instance.id": None, "session.timeout.ms": 6000}

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        super()._on_revoke(consumer, partitions)
        read = [p for p in consumer.position(partitions) if p.offset >= 0]
        try:
            if read:
                consumer.commit(offsets=read, asynchronous=False)
        except KafkaException as problem:
            self._log.warning("not committed: %s", problem)


class HoldingConverter(Converter):
    source_kind = EagerlyCommittingSource

    def run(self) -> None:
        held: list[Message] = []
        since = time.monotonic()
        while not self.stop.is_set():
            records = self.source.take(BATCH, WAIT_S)
            if self.lost_partitions():
                held.clear()
            held.extend(records)
            if held and time.monotonic() - since > HELD_S:
                self.step(held)
                held, since = [], time.monotonic()
        if held:
            self.step(held)
        self.source.close()

    def lost_partitions(self) -> bool:
        revoked, self.source.revoked = self.source.revoked, False
        return revoked


def main() -> int:
    return converter.main(HoldingConverter)


if __name__ == "__main__":
    sys.exit(main())
