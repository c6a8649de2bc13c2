"""Mutant: one failed request, and the whole batch again.

The bug: when one of a batch's requests is not acknowledged, all of the batch is converted and published anew, those
that were acknowledged too; and the UUIDs are made while converting, so the second time they are others. A batch of
which every request succeeds at once, or none, is counted once.

In the wild: Kafka Connect's BigQuery sink, which rewrote every row of a flush when some had failed; bulk requests to
Elasticsearch that are repeated whole.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence

import grpc
from confluent_kafka import Message

from pipelines_under_test.kappa import converter, events
from pipelines_under_test.kappa.converter import PER_REQUEST, Converter, Outgoing
from pipelines_under_test.kappa.worker import Stopped

PAUSE_S = 0.1


class WholesaleConverter(Converter):
    def step(self, records: Sequence[Message]) -> None:
        while not self.published(self.convert(records)):
            if self.stop.wait(PAUSE_S):
                raise Stopped("a batch was not published")
        self.source.commit(records)
        self.progress.add(read=len(records))

    def published(self, messages: Sequence[Outgoing]) -> bool:
        """Whether every request was acknowledged."""

        def sent(request: Sequence[Outgoing]) -> bool:
            def attempted(channel: grpc.Channel) -> bool:
                self.publisher.attempt(request, channel)
                return True

            return bool(self.connection.try_once("publish", attempted))

        requests = [messages[i : i + PER_REQUEST] for i in range(0, len(messages), PER_REQUEST)]
        return all(list(self.pool.map(sent, requests)))

    def uuid(self, event: events.Event) -> str:
        return str(uuid.uuid4())


def main() -> int:
    return converter.main(WholesaleConverter)


if __name__ == "__main__":
    sys.exit(main())
