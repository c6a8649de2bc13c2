"""Pulling from a Pub/Sub subscription and acknowledging what is settled, as a worker does it that must not lose anything.

Threads pull ahead, but never hold more than `MOST_LEASED` messages, and what has waited longer than `STALE_S` is let go
unread: it is about to be redelivered anyway.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
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
