"""Pulling from a Pub/Sub subscription and acknowledging what is settled, as a worker does it that must not lose anything.

Threads pull ahead, but stop when they hold `MOST_LEASED` messages.

Leases are short and kept alive. By itself Pub/Sub gives what a dead worker held to the next one after the subscription's
acknowledgement deadline, of which 10 s is the least. So each pull is followed by a ModifyAckDeadline to `LEASE_S` (a
variable, 3 by itself), which may be shorter, and whatever is held is leased anew every `RENEW_EVERY_S`: two renewals may
fail or be late, and what a killed worker held comes again 3 s later, when the next process is just at work. A worker that
is asked to end gives back at once what it has not settled. (Acknowledgement ids kept in a file, and given back by the next process, would save the
3 s too; but only where the file outlives the container, and another replica would still have to wait.)

A lease that has run out, because the process was paused or cut off for longer, is not renewed, as the message may be
another's by then. What was not yet begun is dropped here and comes again; what is in hand is written, and counted once
whoever else has it. What was handed out but is not yet leased anew when the worker dies, the messages of one pull at most
for each thread, still waits for the subscription's own deadline: why `max_quiet_s` is longer than that.

Measured (two cores): a message leased for 3 s comes again after 3.0 s, with Google's emulator as with `pstest_server`;
pulling and acknowledging alone go down from 57,000 to 43,000 messages a second with the emulator, which answers a hundred
a pull, and stay at 310,000 with the other; what the whole pipeline carries is the same within its noise.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import grpc
from google.pubsub_v1.types import AcknowledgeRequest, ModifyAckDeadlineRequest, PullRequest, PullResponse

from pipelines_under_test.kappa import rpc
from pipelines_under_test.kappa.worker import Fatal, setting

RawPull: Any = PullRequest.pb()
RawPulled: Any = PullResponse.pb()
RawAck: Any = AcknowledgeRequest.pb()
RawModify: Any = ModifyAckDeadlineRequest.pb()

MOST_LEASED = 4000
PULL = 1000
PULLERS = 2
IDLE_S = 0.02
#: Messages in a batch at most, and how long the first of a batch waits for more.
BATCH = 1500
LINGER_S = 0.06
#: An empty source gives the runner back its thread this often.
EMPTY_S = 0.25
LEASE_S = 3
RENEW_EVERY_S = 1.0
ACK_ATTEMPTS = 3
ACK_ATTEMPT_S = 2.0
#: Acknowledgement ids in one request; the service takes half a megabyte of them.
ACK_IDS = 1000

#: A received message of Pub/Sub as it was pulled: `.ack_id` and `.message`.
Received = Any


class Subscription:
    """Pulls and acknowledges. One a process, whatever number of readers the runner makes."""

    def __init__(self, address: str, name: str, stop: threading.Event, log: logging.Logger) -> None:
        self.name, self.stop, self.log = name, stop, log
        self.lease_s = int(setting("LEASE_S", str(LEASE_S)))
        self._connection = rpc.Connection(address, stop, log)
        self._batches: queue.SimpleQueue[Sequence[Received]] = queue.SimpleQueue()
        #: Acknowledgement id -> when its lease runs out, for all that is held.
        self._leases: dict[str, float] = {}
        self._room = threading.Condition()
        self._broken: Fatal | None = None
        for i in range(PULLERS):
            threading.Thread(target=self._pull_on, name=f"pull-{i}", daemon=True).start()
        threading.Thread(target=self._renew_on, name="renew", daemon=True).start()

    def take(self) -> list[Received]:
        """A batch; empty when there is none for a while. Raises Fatal if pulling can never succeed."""
        taken: list[Received] = []
        until = time.monotonic() + EMPTY_S
        while len(taken) < BATCH:
            try:
                messages = self._batches.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            held = set(self._held(message.ack_id for message in messages))
            self.release(message.ack_id for message in messages if message.ack_id not in held)
            if held and not taken:
                until = time.monotonic() + LINGER_S
            taken.extend(message for message in messages if message.ack_id in held)
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
        self.release(ack_ids)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Best effort: what cannot be acknowledged now is redelivered, and counted already."""
        for ids in _in_requests(ack_ids):
            request = RawAck(subscription=self.name, ack_ids=ids).SerializeToString()
            for _ in range(ACK_ATTEMPTS):
                if self._connection.try_once("acknowledge", partial(_acknowledge, request)) is not None:
                    break
                self.stop.wait(0.1)

    def release(self, ack_ids: Iterable[str]) -> None:
        """These messages are no longer held here."""
        with self._room:
            for ack_id in ack_ids:
                self._leases.pop(ack_id, None)
            self._room.notify_all()

    def give_back(self) -> None:
        """Whatever is held is for others at once. Best effort, for when nothing more will be settled."""
        try:
            self._modify(self._held(), 0)
        except Fatal as fatal:
            self.log.warning("what is held is not given back: %s", fatal)

    def _held(self, ack_ids: Iterable[str] | None = None) -> list[str]:
        """Of these, or of all: what is held by a lease that has not run out."""
        now = time.monotonic()
        with self._room:
            return [i for i in (self._leases if ack_ids is None else ack_ids) if self._leases.get(i, now) > now]

    def _modify(self, ack_ids: Sequence[str], lease_s: int) -> None:
        """From now on for so long. Best effort: a lease that was not renewed runs out."""
        for ids in _in_requests(ack_ids):
            asked = time.monotonic()
            request = RawModify(subscription=self.name, ack_ids=ids, ack_deadline_seconds=lease_s).SerializeToString()
            if self._connection.try_once("modify ack deadline", partial(_modify, request)) is None:
                break
            with self._room:
                self._leases.update((i, asked + lease_s) for i in ids if i in self._leases)

    def _pull_on(self) -> None:
        request = RawPull(subscription=self.name, max_messages=PULL, return_immediately=True).SerializeToString()
        try:
            while not self.stop.is_set():
                with self._room:
                    if len(self._leases) >= MOST_LEASED:
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
                    ack_ids = [message.ack_id for message in messages]
                    with self._room:
                        self._leases.update((ack_id, started + self.lease_s) for ack_id in ack_ids)
                    self._modify(ack_ids, self.lease_s)
                    self._batches.put(messages)
                if len(messages) < 50:
                    self.stop.wait(IDLE_S)
        except Fatal as fatal:
            self._broken = fatal

    def _renew_on(self) -> None:
        try:
            while not self.stop.wait(RENEW_EVERY_S):
                self._modify(self._held(), self.lease_s)
        except Fatal as fatal:
            self._broken = fatal


def _in_requests(ack_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ack_ids[i : i + ACK_IDS] for i in range(0, len(ack_ids), ACK_IDS))


def pull_once(request: bytes, channel: grpc.Channel) -> Any:
    call = channel.unary_unary("/google.pubsub.v1.Subscriber/Pull", None, RawPulled.FromString)
    return call(request, timeout=rpc.ATTEMPT_S)


def _acknowledge(request: bytes, channel: grpc.Channel) -> bytes:
    call = channel.unary_unary("/google.pubsub.v1.Subscriber/Acknowledge", None, None)
    return call(request, timeout=ACK_ATTEMPT_S)


def _modify(request: bytes, channel: grpc.Channel) -> bytes:
    call = channel.unary_unary("/google.pubsub.v1.Subscriber/ModifyAckDeadline", None, None)
    return call(request, timeout=ACK_ATTEMPT_S)
