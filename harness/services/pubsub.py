"""Pub/Sub: Google's emulator, or Google's `pstest` where the emulator is not to be had. All of it in memory."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from harness.backends.base import Child, Site
from harness.errors import HarnessFault
from harness.services.base import ServiceExit, TapResult, answer_to, wait_until_up
from harness.services.messages import MessageLog
from harness.topology import Link, PubSub, PubSubHop

PROJECT = "gauntlet"
#: Attribute of the message that ends a tap; sent only after the workers were stopped, so no pipeline ever sees it.
SENTINEL = "gauntlet-sentinel"
#: How long a lease that the tap lost track of may hold a message back: the least deadline that Pub/Sub allows.
TAP_DEADLINE_S = 10
#: How long a seek back may take: the emulator goes through all that it keeps, while it serves the pipeline.
SEEK_S = 60


class PubSubServer:
    def __init__(self, service: PubSub, site: Site, on_exit: ServiceExit) -> None:
        self.name, self.service = service.name, service
        self._site, self._on_exit = site, on_exit
        self._log = site.folder / "logs" / f"{service.name}.log"
        self._port = site.port(self.name, "direct")
        self.direct, self.inside = site.direct(self.name, self._port), self._port.reach
        self.children: dict[str, Child] = {}
        self._clients: tuple[Any, Any] | None = None

    def start(self, process: str = "") -> None:
        child = self._site.start_emulator(
            self.name, "pubsub", self._port, self.log(), on_exit=lambda e: self._on_exit(self.name, e)
        )
        self.children = {self.name: child} if child is not None else {}

    def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        self._clients = clients(self.direct)
        wait_until_up(self, self._site, self._answers, timeout_s)

    def _answers(self) -> bool:
        assert self._clients is not None
        self._clients[0].list_topics(request={"project": f"projects/{PROJECT}"}, timeout=2, retry=None)
        return True

    def log(self, process: str = "") -> Path:
        return self._log

    def upstreams(self, link: Link) -> list[str]:
        return [self._port.reach]

    def names(self, run: str) -> dict[str, str]:
        topics = {t: f"projects/{PROJECT}/topics/{t}-{run}" for t in self.service.topics}
        return topics | {s: f"projects/{PROJECT}/subscriptions/{s}-{run}" for s in self.service.subscriptions}

    def make(self, names: Mapping[str, str]) -> None:
        assert self._clients is not None
        publisher, subscriber = self._clients
        for topic in self.service.topics:
            publisher.create_topic(request={"name": names[topic]}, timeout=10)
        for subscription, topic in self.service.subscriptions.items():
            subscriber.create_subscription(
                request={
                    "name": names[subscription],
                    "topic": names[topic],
                    "ack_deadline_seconds": self.service.ack_deadline_s,
                    "retain_acked_messages": True,  # so that `redeliver` can seek back
                    "message_retention_duration": {"seconds": 3600},
                },
                timeout=10,
            )

    def remove(self, names: Mapping[str, str]) -> None:
        assert self._clients is not None
        publisher, subscriber = self._clients
        with contextlib.suppress(Exception):  # best effort: the emulator forgets everything with its process
            for subscription in self.service.subscriptions:
                subscriber.delete_subscription(request={"subscription": names[subscription]}, timeout=5)
            for topic in self.service.topics:
                publisher.delete_topic(request={"topic": names[topic]}, timeout=5)

    def sweep(self, run: str) -> None:
        assert self._clients is not None
        publisher, subscriber = self._clients
        project = {"project": f"projects/{PROJECT}"}
        for subscription in list(subscriber.list_subscriptions(request=project, timeout=10)):
            if subscription.name.endswith(f"-{run}"):
                subscriber.delete_subscription(request={"subscription": subscription.name}, timeout=10)
        for topic in list(publisher.list_topics(request=project, timeout=10)):
            if topic.name.endswith(f"-{run}"):
                publisher.delete_topic(request={"topic": topic.name}, timeout=10)

    def seek(self, subscription: str, epoch_s: float) -> None:
        """Makes every message published since `epoch_s` due again, acknowledged or not."""
        from google.protobuf.timestamp_pb2 import Timestamp

        assert self._clients is not None
        at = Timestamp()
        at.FromNanoseconds(int(epoch_s * 1e9))
        self._clients[1].seek(request={"subscription": subscription, "time": at}, timeout=SEEK_S, retry=None)

    def client(self) -> tuple[Any, Any]:
        assert self._clients is not None
        return self._clients


def clients(address: str) -> tuple[Any, Any]:
    """(publisher, subscriber) of google-cloud-pubsub's generated layer on an emulator's plain-text address."""
    import grpc
    from google.pubsub_v1.services.publisher import PublisherClient
    from google.pubsub_v1.services.publisher.transports.grpc import PublisherGrpcTransport
    from google.pubsub_v1.services.subscriber import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports.grpc import SubscriberGrpcTransport

    channel = grpc.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 20),
            ("grpc.min_reconnect_backoff_ms", 20),
            ("grpc.max_reconnect_backoff_ms", 200),
        ],
    )
    return (
        PublisherClient(transport=PublisherGrpcTransport(channel=channel)),
        SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)),
    )


class PubSubTap:
    """Reads a topic by a subscription of its own, made before the load, past every proxy.

    A message is its `message_id`: what is delivered to the tap twice counts once. It is certified when nothing failed,
    when a sentinel published at the end came through, and when before that it was quiet for longer than its own
    acknowledgement deadline, so that no lost lease can still hold a message back.
    """

    def __init__(self, hop: PubSubHop, server: PubSubServer, topic: str, run: str, now_ms: Callable[[], float]) -> None:
        assert hop.event_id is not None
        self.hop = hop.name
        self._server, self._topic, self._now_ms = server, topic, now_ms
        self._publisher, self._subscriber = server.client()
        self._keeps = self._subscribed = False
        self._subscription = f"projects/{PROJECT}/subscriptions/gauntlet-tap-{hop.name}-{run}"
        # The stubs beneath the client, for what is done all the time: a third of the processor time of `client.pull`.
        self._pull, self._acknowledge = self._subscriber.transport.pull, self._subscriber.transport.acknowledge
        self._messages = MessageLog(run, hop.event_id, hop.content, {"message_id": pl.String})
        self._ids: set[str] = set()
        self._bytes = 0
        self._own, self._sentinel = uuid.uuid4().hex, threading.Event()
        self._stop = threading.Event()
        self._failures, self._failed_at = 0, 0.0
        self._error: str | None = None
        self._failing = ""
        self._thread = threading.Thread(target=self._read, name=f"tap-{hop.name}", daemon=True)
        self.count, self.warm = self._messages.count, self._messages.warm
        self.distinct, self.last_moved = self._messages.distinct, self._messages.last_moved
        self.trouble, self.hurry = self._messages.trouble, self._messages.hurry

    def abandon(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(5)
            with contextlib.suppress(Exception):
                self._subscriber.delete_subscription(request={"subscription": self._subscription}, timeout=5)

    def pass_over(self) -> None:
        """A new subscription gets only what is published after it was made. It keeps that, so that one can `go_back`."""
        self._keeps = True

    def go_back(self, since_s: float) -> None:
        """Instead of `pass_over`: begins with all that was published since then (epoch seconds), by the subscription of an earlier
        tap of this run, which had been told to `pass_over` and is gone. Raises HarnessFault where that is not there."""
        try:
            self._server.seek(self._subscription, since_s)
        except Exception as error:
            raise HarnessFault(f"{self.hop} cannot be read again: {error}") from error
        self._subscribed = True

    def start(self) -> None:
        if not self._subscribed:
            self._subscriber.create_subscription(
                request={
                    "name": self._subscription,
                    "topic": self._topic,
                    "ack_deadline_seconds": TAP_DEADLINE_S,
                    "retain_acked_messages": self._keeps,
                },
                timeout=10,
            )
        self._thread.start()

    def _read(self) -> None:
        from google.pubsub_v1.types import PullRequest

        request = PullRequest.pb()(subscription=self._subscription, max_messages=1000, return_immediately=True)
        in_a_row = 0
        while not self._stop.is_set():
            try:
                answer = self._pull(request, timeout=10)
                received = type(answer).pb(answer).received_messages
                self._take(received)
                in_a_row, self._failing = 0, ""
                if not received:
                    self._messages.idle()
                if len(received) < 50:
                    self._stop.wait(0.02)
            except Exception as error:
                self._failures += 1
                self._failed_at = time.monotonic()
                in_a_row += 1
                self._failing = repr(error)
                if in_a_row > 50:
                    self._error = repr(error)
                    return
                self._stop.wait(0.1)

    def _take(self, received: Any) -> None:
        seen = self._now_ms()
        fresh = []
        for item in received:
            message = item.message
            if SENTINEL in message.attributes:
                if message.attributes[SENTINEL] == self._own:  # and not that of a tap that is gone
                    self._sentinel.set()
            elif message.message_id not in self._ids:
                self._ids.add(message.message_id)
                self._bytes += item.ByteSize()
                fresh.append(message)
        self._messages.add(
            ([message.message_id for message in fresh],),
            [message.data for message in fresh],
            [dict(message.attributes) for message in fresh],
            [m.publish_time.seconds * 1000 + m.publish_time.nanos // 1_000_000 for m in fresh],
            seen,
        )
        if received:
            from google.pubsub_v1.types import AcknowledgeRequest

            ids = [item.ack_id for item in received]
            self._acknowledge(AcknowledgeRequest.pb()(subscription=self._subscription, ack_ids=ids), timeout=10)

    def broken(self) -> str:
        return f"Its last pull failed: {self._failing}." if self._failing else ""

    def finish(self, timeout_s: float = 30.0) -> TapResult:
        """Publishes the sentinel and waits for it and for the quiet. Call it only when the workers were stopped."""
        reason = ""
        try:
            self._publisher.publish(
                request={"topic": self._topic, "messages": [{"data": b"end", "attributes": {SENTINEL: self._own}}]},
                timeout=10,
            )
        except Exception as error:
            reason = f"the sentinel could not be published: {error}"
        deadline = time.monotonic() + timeout_s
        while not reason and self._error is None:
            # A pull that failed here may have succeeded there, and hold its messages until their deadline.
            quiet = time.monotonic() - max(self._messages.last_moved(), self._failed_at)
            if self._sentinel.is_set() and quiet > TAP_DEADLINE_S:
                break
            if time.monotonic() > deadline:
                missing = "the sentinel did not come" if not self._sentinel.is_set() else "it never was quiet"
                reason = f"{missing} within {timeout_s:g} s"
            time.sleep(0.01)
        self._stop.set()
        self._thread.join(15)
        with contextlib.suppress(Exception):
            self._subscriber.delete_subscription(request={"subscription": self._subscription}, timeout=5)
        if self._error is not None:
            reason = f"the tap broke: {self._error}"
        frame = self._messages.frame()
        good = "the sentinel came, after a quiet longer than the deadline"
        size = round(self._bytes / len(self._ids), 1) if self._ids else 0.0
        return TapResult(frame, not reason, reason or good, failed_pulls=self._failures, bytes_a_message=size)


def probe(address: str, timeout_s: float = 5.0) -> float:
    """Seconds that a gRPC server takes to answer an HTTP/2 preface and ping on a fresh connection (RFC 9113)."""
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00gauntlet"
    # The answer to the ping carries the same eight bytes.
    took, answer = answer_to(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + ping, address, b"gauntlet", timeout_s)
    if b"gauntlet" not in answer:
        raise HarnessFault(f"{address} closed the connection")
    return took
