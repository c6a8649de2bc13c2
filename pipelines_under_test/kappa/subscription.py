"""A Pub/Sub subscription as an unbounded source of Beam that acknowledges only what is durable.

Beam's own `ReadFromPubSub` on the DirectRunner acknowledges before it processes. Here the acknowledgement happens in
`CheckpointMark.finalize_checkpoint`, which the runner calls after the bundle, so after `finish_bundle` of the DoFn
that is fused to this source has written. One element is a *batch* of messages, and one bundle is one element: a
bundle costs some milliseconds whatever is in it. `pulling.py` pulls.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from apache_beam import coders
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from pipelines_under_test.kappa.pulling import Received, Subscription


class PubsubRecord(NamedTuple):
    """A message on its way through the pipeline; plain, because Beam pickles samples of what passes."""

    data: bytes
    attributes: dict[str, str]
    message_id: str


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
