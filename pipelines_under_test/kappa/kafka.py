"""Kafka as this pipeline uses it: read a batch, write what follows from it, then commit. At least once.

The consumer is a static member (`group.instance.id`), so a worker that is killed and comes back takes its partitions
at once, without waiting for the session of its former self to end, and without a rebalance of the others. One that is
asked to end leaves the group: its successor may have another name, as the next version of it has that is started beside
it, and its partitions would be nobody's until the session ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import ClassVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipelines_under_test.kappa.worker import Fatal, Stopped

#: Both clients: reconnect soon, notice a peer that does not answer, and keep the address that was given. (With
#: librdkafka's default a client whose only broker is away bootstraps anew, which takes seconds longer.)
PATIENCE: Mapping[str, object] = {
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 1000,
    "socket.timeout.ms": 10_000,
    "socket.connection.setup.timeout.ms": 3000,
    "socket.keepalive.enable": True,
    "metadata.recovery.strategy": "none",
    "log_level": 4,
}

#: How long a worker that ends waits until its partitions are given up; it has none if it has only just joined.
LEAVE_WITHIN_S = 1.0

Headers = dict[str, str | bytes | None]

#: Errors of a commit after which another member has, or will get, the partitions: it replays, we must not insist.
NOT_OURS = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._NO_OFFSET,
        KafkaError._STATE,
    }
)


def is_fatal(error: KafkaError) -> bool:
    """The client is of no more use. (What a consumer returns in place of a record has the code, but not the flag.)"""
    return error.fatal() or error.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)


class Source:
    """A topic read in batches, with offsets committed by hand."""

    #: Settings of the client in place of those below, for whoever derives another source.
    overrides: ClassVar[Mapping[str, object]] = {}

    def __init__(
        self, address: str, topic: str, group: str, instance: str, stop: threading.Event, log: logging.Logger
    ) -> None:
        self._topic, self._stop, self._log = topic, stop, log
        self._fatal: KafkaError | None = None
        #: Whether partitions were given up since this was last set back.
        self.revoked = False
        config: dict[str, object] = {
            **PATIENCE,
            "bootstrap.servers": address,
            "group.id": group,
            "group.instance.id": instance,
            "client.id": instance,
            # Longer than a broker takes to come back: librdkafka gives a session up by itself when it gets no heartbeat
            # through, joins again, and may then be fenced by its own new self, which is fatal. A dead worker need not
            # be noticed soon; it is started again and, being a static member, takes its partitions back.
            "session.timeout.ms": 30_000,
            "heartbeat.interval.ms": 1000,
            # A batch is held as long as its output cannot be written; leaving the group meanwhile helps nobody.
            "max.poll.interval.ms": 3_600_000,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 32_768,
            "error_cb": self._on_error,
            **self.overrides,
        }
        self._consumer = Consumer(config)
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def take(self, most: int, wait_s: float) -> list[Message]:
        """At most that many records, fewer when the wait is over. Raises Fatal."""
        records = []
        for message in self._consumer.consume(most, wait_s):
            error = message.error()
            if error is None:
                records.append(message)
            elif is_fatal(error):
                self._fatal = error
            elif error.code() != KafkaError._PARTITION_EOF:
                self._log.warning("reading %s: %s", self._topic, error)
        if self._fatal is not None:
            raise Fatal(f"reading {self._topic}: {self._fatal}")
        return records

    def commit(self, records: Iterable[Message]) -> bool:
        """Commits everything up to these records. False: the partitions are no longer ours, the next owner replays.

        Insists while the broker is away. Raises Fatal, and Stopped when asked to stop meanwhile.
        """
        after: dict[tuple[str, int], int] = {}
        for record in records:
            place = (str(record.topic()), int(record.partition() or 0))
            after[place] = max(after.get(place, 0), int(record.offset() or 0) + 1)
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in after.items()]
        delay = 0.05
        while offsets:
            try:
                answer = self._consumer.commit(offsets=offsets, asynchronous=False)
                failed = {(o.topic, o.partition): o.error for o in answer or [] if o.error is not None}
                if not failed:
                    return True
                error = next(iter(failed.values()))
                offsets = [TopicPartition(*place, after[place]) for place in failed]
            except KafkaException as problem:
                error = problem.args[0]
            if error.code() in NOT_OURS:
                self._log.warning("not committed, the partitions are no longer ours: %s", error)
                return False
            if is_fatal(error) or self._fatal is not None:
                raise Fatal(f"committing {self._topic}: {self._fatal or error}")
            self._log.warning("commit failed, trying again: %s", error)
            if self._stop.wait(delay):
                raise Stopped(f"not committed: {error}")
            delay = min(delay * 2, 1.0)
        return True

    def close(self) -> None:
        """Leaves the group, which closing alone does not do for a static member."""
        self.revoked = False
        self._consumer.unsubscribe()
        until = time.monotonic() + LEAVE_WITHIN_S
        while not self.revoked and time.monotonic() < until:
            self._consumer.poll(0.05)
        self._consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._fatal = error
        self._log.warning("kafka: %s", error)

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._log.info("reads %s, partitions %s", self._topic, sorted(p.partition for p in partitions))

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.revoked = True
        self._log.info("gives up %s, partitions %s", self._topic, sorted(p.partition for p in partitions))


class Sink:
    """Writes records and says when all of them are acknowledged by every replica. Retries for ever."""

    #: Settings of the client in place of those below, for whoever derives another sink.
    overrides: ClassVar[Mapping[str, object]] = {}

    def __init__(self, address: str, client: str, stop: threading.Event, log: logging.Logger) -> None:
        self._stop, self._log = stop, log
        self._refused: KafkaError | None = None
        config: dict[str, object] = {
            **PATIENCE,
            "bootstrap.servers": address,
            "client.id": client,
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "request.timeout.ms": 5000,
            "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 1000,
            "linger.ms": 5,
            "queue.buffering.max.messages": 100_000,
            "allow.auto.create.topics": False,
            "error_cb": self._on_error,
            **self.overrides,
        }
        self._producer = Producer(config)

    def write(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        created_ms: int = 0,
    ) -> None:
        """Queues one record (0: created now); `settle` says whether it arrived. Raises Fatal."""
        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=headers, timestamp=created_ms, on_delivery=self._on_delivery
                )
                return
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as problem:
                raise Fatal(f"writing to {topic}: {problem.args[0]}") from problem

    def settle(self) -> None:
        """Returns when everything written so far is acknowledged. Raises Fatal, and Stopped when asked to stop."""
        said = time.monotonic()
        while (waiting := self._producer.flush(0.2)) and self._refused is None:
            if self._stop.is_set() and time.monotonic() - said > 3:
                raise Stopped(f"{waiting} records not acknowledged")
            if time.monotonic() - said > 5:
                self._log.warning("%d records wait for their acknowledgement", waiting)
                said = time.monotonic()
        if self._refused is not None:
            raise Fatal(f"a record was not accepted: {self._refused}")

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._refused = error

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._refused = error
        self._log.warning("kafka: %s", error)
