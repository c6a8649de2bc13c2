"""Converter with its publisher: intermediate topic -> Pub/Sub messages, each with the UUID that deduplication goes by.

    KAFKA INTERMEDIATE_TOPIC DEAD_LETTER_TOPIC CONVERTER_GROUP PUBSUB PUBLISHED_TOPIC BATCH RELEASE GAUNTLET_WORKER

Loop: take a batch, publish all of it, commit once every publish was acknowledged. A lost acknowledgement makes the
publisher repeat a request that had arrived: duplicates in Pub/Sub, with the same UUID. Requests are small and few are
in flight, so that one lost answer doubles tens of messages and not thousands.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import grpc
from confluent_kafka import Message
from google.api_core.timeout import ConstantTimeout
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports.grpc import PublisherGrpcTransport
from google.pubsub_v1.types import PublishRequest, PubsubMessage

from pipelines_under_test.kappa import events, kafka, rpc
from pipelines_under_test.kappa.preprocessor import dead_letter_headers
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals

BATCH = 1000
WAIT_S = 0.025
PER_REQUEST = 50
IN_FLIGHT = 4

RawMessage: Any = PubsubMessage.pb()
RawRequest: Any = PublishRequest.pb()
#: A RawMessage. (The classes of protobuf are made at run time.)
Outgoing = Any


class Publisher:
    """Publishes to one topic until it is acknowledged, however often that takes."""

    def __init__(self, connection: rpc.Connection, topic: str) -> None:
        self.topic = topic
        self._connection = connection
        self._clients: dict[grpc.Channel, PublisherClient] = {}

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when Pub/Sub has acknowledged all of them. Raises Fatal or Stopped."""
        self._connection.insist("publish", partial(self.attempt, messages))

    def attempt(self, messages: Sequence[Outgoing], channel: grpc.Channel) -> None:
        request = PublishRequest.wrap(RawRequest(topic=self.topic, messages=messages))
        # No retry of the client's own: `insist` is the one that counts attempts and replaces a dead connection.
        self._client(channel).publish(request=request, retry=None, timeout=ConstantTimeout(rpc.ATTEMPT_S))

    def _client(self, channel: grpc.Channel) -> PublisherClient:
        client = self._clients.get(channel)
        if client is None:
            client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
            self._clients = {channel: client}
        return client


class Converter:
    source_kind: ClassVar[type[kafka.Source]] = kafka.Source

    def __init__(self) -> None:
        self.name = setting("GAUNTLET_WORKER", "converter")
        self.dead_letters = setting("DEAD_LETTER_TOPIC")
        self.batch = int(setting("BATCH", str(BATCH)))
        self.log = open_log(self.name)
        self.stop = stop_on_signals()
        self.progress = Progress(self.log)
        address, topic = setting("KAFKA"), setting("INTERMEDIATE_TOPIC")
        pubsub, published = setting("PUBSUB"), setting("PUBLISHED_TOPIC")
        self.log.info("starts: %s at %s -> %s at %s", topic, address, published, pubsub)
        self.connection = rpc.Connection(pubsub, self.stop, self.log)
        self.publisher = self.make_publisher(published)
        self.pool = ThreadPoolExecutor(IN_FLIGHT, "publish")
        self.sink = kafka.Sink(address, self.name, self.stop, self.log)
        self.source = self.source_kind(
            address, topic, setting("CONVERTER_GROUP", "converter"), self.name, self.stop, self.log
        )

    def make_publisher(self, topic: str) -> Publisher:
        return Publisher(self.connection, topic)

    def run(self) -> None:
        while not self.stop.is_set():
            records = self.source.take(self.batch, WAIT_S)
            if records:
                self.step(records)
        self.source.close()

    def step(self, records: Sequence[Message]) -> None:
        """One batch, in the order that makes it safe: publish, be acknowledged, commit."""
        self.publish(self.convert(records))
        self.source.commit(records)
        self.progress.add(read=len(records))

    def convert(self, records: Sequence[Message]) -> list[Outgoing]:
        now_ms = int(time.time() * 1000)
        messages = []
        for record in records:
            try:
                messages.append(self.message(record, now_ms))
            except events.Poison as poison:
                headers = dead_letter_headers(record, str(poison), self.name)
                self.sink.write(self.dead_letters, record.value(), record.key(), headers)
                self.progress.add(refused=1)
        self.sink.settle()
        return messages

    def message(self, record: Message, now_ms: int) -> Outgoing:
        """Raises Poison."""
        event = events.from_intermediate(record.value())
        return RawMessage(
            data=events.to_message(event),
            attributes={
                "uuid": self.uuid(event),
                "source": f"{record.topic()}/{record.partition()}/{record.offset()}",
                "created_at_ms": str(record.timestamp()[1]),
                "converter": self.name,
                "converted_at_ms": str(now_ms),
            },
        )

    def uuid(self, event: events.Event) -> str:
        return events.uuid_of(event.event_id)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all of them are acknowledged."""
        requests = [messages[i : i + PER_REQUEST] for i in range(0, len(messages), PER_REQUEST)]
        waiting = [self.pool.submit(self.publisher.publish, request) for request in requests]
        for future in waiting:
            future.result()
        self.progress.add(published=len(messages))


def main(kind: type[Converter] = Converter) -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    worker = kind()
    try:
        worker.run()
    except Stopped as stopped:
        worker.log.warning("stopped in mid-batch, which will be replayed: %s", stopped)
    except Fatal as fatal:
        worker.log.error("%s", fatal)
        return 1
    finally:
        worker.pool.shutdown(wait=False, cancel_futures=True)
    worker.log.info("ends: %s", worker.progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
