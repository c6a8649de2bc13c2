"""A Pub/Sub subscription as an unbounded source of Beam that acknowledges only what is durable.

Beam's own `ReadFromPubSub` on the DirectRunner acknowledges before it processes. Here the acknowledgement happens in
`CheckpointMark.finalize_checkpoint`, which the runner calls after the bundle, so after `finish_bundle` of the DoFn
that is fused to this source has written. One element is a *batch* of messages, and one bundle is one element: a
bundle costs some milliseconds whatever is in it.

Threads pull ahead of the pipeline, but never hold more than `MOST_LEASED` messages, and what has waited longer than
`STALE_S` is let go unread: it is about to be redelivered anyway.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import grpc
from apache_beam import coders
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from google.pubsub_v1.types import AcknowledgeRequest, PullRequest, PullResponse

from pipelines_under_test.kappa import rpc
from pipelines_under_test.kappa.worker import Fatal

RawPull: Any = PullRequest.pb()
RawPulled: Any = PullResponse.pb()
RawAck: Any = AcknowledgeRequest.pb()

MOST_LEASED = 4000
PULL = 1000
PULLERS = 2
IDLE_S = 0.02
#: Messages in a batch at most, and how long the first of a batch waits for more.
BATCH = 1500
LINGER_S = 0.06
#: An empty source gives the runner back its thread this often.
EMPTY_S = 0.25
#: Shorter than the shortest acknowledgement deadline of Pub/Sub, 10 s.
STALE_S = 7.0
ACK_ATTEMPTS = 3
ACK_ATTEMPT_S = 2.0
ACK_IDS = 1000

#: A received message of Pub/Sub as it was pulled: `.ack_id` and `.message`.
Received = Any


class PubsubRecord(NamedTuple):
    """A message on its way through the pipeline; plain, because Beam pickles samples of what passes."""

    data: bytes
    attributes: dict[str, str]
    message_id: str


class Subscription:
    """Pulls and acknowledges. One a process, whatever number of readers the runner makes."""

    def __init__(self, address: str, name: str, stop: threading.Event, log: logging.Logger) -> None:
        self.name, self.stop, self.log = name, stop, log
        self._connection = rpc.Connection(address, stop, log)
        self._batches: queue.SimpleQueue[tuple[float, Sequence[Received]]] = queue.SimpleQueue()
        self._leased = 0
        self._room = threading.Condition()
        self._broken: Fatal | None = None
        for i in range(PULLERS):
            threading.Thread(target=self._pull_on, name=f"pull-{i}", daemon=True).start()

    def take(self) -> list[Received]:
        """A batch; empty when there is none for a while. Raises Fatal if pulling can never succeed."""
        taken: list[Received] = []
        until = time.monotonic() + EMPTY_S
        while len(taken) < BATCH:
            try:
                pulled_at, messages = self._batches.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if time.monotonic() - pulled_at > STALE_S:
                self.release(len(messages))
                continue
            if not taken:
                until = time.monotonic() + LINGER_S
            taken.extend(messages)
        if self._broken is not None:
            raise self._broken
        return taken

    def pull(self, request: bytes) -> Any:
        """One answer of Pub/Sub; None when it failed for a reason that may pass. Raises Fatal for any other."""
        return self._connection.try_once("pull", partial(pull_once, request))

    def received(self, messages: Sequence[Received]) -> None:
        """Called when messages have been pulled, before anything is done with them."""

    def settle(self, ack_ids: Sequence[str]) -> None:
        """Called when what these messages led to is durable."""
        self.acknowledge(ack_ids)
        self.release(len(ack_ids))

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Best effort: what cannot be acknowledged now is redelivered, and counted already."""
        for i in range(0, len(ack_ids), ACK_IDS):
            request = RawAck(subscription=self.name, ack_ids=ack_ids[i : i + ACK_IDS]).SerializeToString()
            for _ in range(ACK_ATTEMPTS):
                if self._connection.try_once("acknowledge", partial(_acknowledge, request)) is not None:
                    break
                self.stop.wait(0.1)

    def release(self, count: int) -> None:
        """These messages are no longer held here."""
        with self._room:
            self._leased -= count
            self._room.notify_all()

    def _pull_on(self) -> None:
        request = RawPull(subscription=self.name, max_messages=PULL, return_immediately=True).SerializeToString()
        try:
            while not self.stop.is_set():
                with self._room:
                    if self._leased >= MOST_LEASED:
                        self._room.wait(0.5)
                        continue
                started = time.monotonic()
                pulled = self.pull(request)
                if pulled is None:
                    self.stop.wait(0.2)
                    continue
                messages = pulled.received_messages
                if messages:
                    self.received(messages)
                    with self._room:
                        self._leased += len(messages)
                    self._batches.put((started, messages))
                if len(messages) < 50:
                    self.stop.wait(IDLE_S)
        except Fatal as fatal:
            self._broken = fatal


def pull_once(request: bytes, channel: grpc.Channel) -> Any:
    call = channel.unary_unary("/google.pubsub.v1.Subscriber/Pull", None, RawPulled.FromString)
    return call(request, timeout=rpc.ATTEMPT_S)


def _acknowledge(request: bytes, channel: grpc.Channel) -> bytes:
    call = channel.unary_unary("/google.pubsub.v1.Subscriber/Acknowledge", None, None)
    return call(request, timeout=ACK_ATTEMPT_S)


# ---------------------------------------------------------------------------------------------------- for Beam

_subscriptions: dict[tuple[str, str], Subscription] = {}
_lock = threading.Lock()


def open_subscription(
    address: str,
    name: str,
    stop: threading.Event | None = None,
    log: logging.Logger | None = None,
    kind: type[Subscription] = Subscription,
) -> Subscription:
    """This process's only Subscription of that name; what it is made with counts the first time."""
    with _lock:
        found = _subscriptions.get((address, name))
        if found is None:
            found = kind(address, name, stop or threading.Event(), log or logging.getLogger(__name__))
            _subscriptions[address, name] = found
        return found


class Mark(CheckpointMark):
    """What to acknowledge once the bundle is durable. It never leaves the process that made it (see `MarkCoder`)."""

    def __init__(self, subscription: Subscription | None, ack_ids: Sequence[str]) -> None:
        self.subscription, self.ack_ids = subscription, ack_ids

    def finalize_checkpoint(self) -> None:
        if self.subscription is not None and self.ack_ids:
            self.subscription.settle(self.ack_ids)


class MarkCoder(coders.Coder):  # type: ignore[misc]
    """Encodes a mark to nothing. The subscription itself is the position, so a mark is needed for nothing but its
    finalization, and the runner would keep the acknowledgement ids of every bundle in its state."""

    def encode(self, value: Mark) -> bytes:
        return b""

    def decode(self, encoded: bytes) -> Mark:
        return Mark(None, ())

    def is_deterministic(self) -> bool:
        return True


class Reader(UnboundedReader):
    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.ack_ids: list[str] = []
        self.current: list[Received] = []

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        self.current = self.subscription.take()
        self.ack_ids.extend(received.ack_id for received in self.current)
        return bool(self.current)

    def get_current(self) -> list[PubsubRecord]:
        messages = [received.message for received in self.current]
        return [PubsubRecord(m.data, dict(m.attributes), m.message_id) for m in messages]

    def get_current_timestamp(self) -> Timestamp:
        # Event time is a part of the rows' keys; to the runner a batch is as old as its arrival.
        return Timestamp.of(time.time())

    def get_watermark(self) -> Timestamp:
        return MAX_TIMESTAMP if self.subscription.stop.is_set() else Timestamp.of(time.time())

    def get_checkpoint_mark(self) -> Mark:
        mark = Mark(self.subscription, self.ack_ids)
        self.ack_ids = []
        return mark


@dataclass(frozen=True)
class SubscriptionSource(UnboundedSource):
    """`ReadFromUnboundedSource(SubscriptionSource(...), max_records_per_bundle=1)`."""

    address: str
    name: str

    def split(self, desired_num_splits: int, options: object = None) -> list[SubscriptionSource]:
        return [self]

    def create_reader(self, options: object, checkpoint_mark: CheckpointMark | None) -> Reader:
        return Reader(open_subscription(self.address, self.name))

    def get_checkpoint_mark_coder(self) -> MarkCoder:
        return MarkCoder()
