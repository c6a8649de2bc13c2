"""Kafka: KRaft, one broker or several, one listener a link.

Each link has a listener of its own on each broker, whose advertised address is that link's proxy for it, so that no
client can ever learn a way around its proxies (the trap of testcontainers-java #2073: the bootstrap goes through the
proxy, and everything after it to the advertised address). Three more listeners, for the controllers, for the brokers
among themselves and for the harness, are not proxied.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from numpy.typing import NDArray

from harness.backends.base import Child, Site
from harness.errors import HarnessFault, StartFailed, UsageError
from harness.provision.kafka import new_uuid
from harness.services.base import ServiceExit, TapResult, wait_until_up
from harness.services.messages import MessageLog
from harness.topology import Kafka, KafkaHop, Link

#: How the harness's own clients behave: quick to come back after a broker restart, silent while it is away.
CLIENT: dict[str, str | int | float] = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "metadata.recovery.strategy": "none",
    "socket.connection.setup.timeout.ms": 2000,
    "log_level": 0,
}
#: Records that a tap takes at a time, and what it shows as the headers of one that has none.
MOST_RECORDS = 10_000
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
#: Errors that say that records are gone which the tap has not read.
_GAPS = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


class Broker:
    """One of them: its node (from 1 on), its ports, and a listener for each link that leads to it by that proxy."""

    def __init__(self, name: str, node: int, site: Site, links: Sequence[Link]) -> None:
        self.name, self.node = name, node
        self.controller, self.inner = site.port(name, "controller"), site.port(name, "inner")
        self.direct_port = site.port(name, "direct")
        self.direct = site.direct(name, self.direct_port)
        #: by link: its proxy before this broker, and the port that the proxy leads to
        self.listeners = {link.name: (link.proxies[node - 1], site.port(name, link.name)) for link in links}


class KafkaServer:
    """A cluster of the service's brokers, each of them a controller as well."""

    def __init__(self, service: Kafka, site: Site, links: Sequence[Link], on_exit: ServiceExit) -> None:
        self.name, self.service = service.name, service
        self._site, self._on_exit = site, on_exit
        self.brokers = {name: Broker(name, i, site, links) for i, name in enumerate(service.processes(), 1)}
        self.direct = ",".join(broker.direct for broker in self.brokers.values())
        self.inside = ",".join(broker.inner.reach for broker in self.brokers.values())
        self.children: dict[str, Child] = {}
        self._cluster = new_uuid()
        self._admin: AdminClient | None = None
        #: by who asks and group: each is used by one thread only
        self._askers: dict[tuple[str, str], Consumer] = {}

    # -- life --------------------------------------------------------------------------------------------------

    def start(self, process: str = "") -> None:
        for name, broker in self.brokers.items():
            if process in ("", name):
                child = self._site.start_kafka(
                    name,
                    partial(self.properties, broker),
                    self.log(name),
                    on_exit=partial(self._on_exit, name),
                    identity=self._identity(broker),
                )
                if child is not None:
                    self.children[name] = child

    def _identity(self, broker: Broker) -> str:
        """meta.properties of one of several brokers: what `kafka-storage format` would write."""
        if len(self.brokers) == 1:
            return ""
        return f"version=1\ncluster.id={self._cluster}\nnode.id={broker.node}\ndirectory.id={new_uuid()}\n"

    def properties(self, broker: Broker, data: Path) -> str:
        """server.properties. Short session time-outs and a small offsets topic: a broker back in 2-4 s, not 13."""
        # INNER is the brokers' own way to themselves: DIRECT may advertise an address that only the harness can reach.
        ports = {"CONTROLLER": broker.controller, "INNER": broker.inner, "DIRECT": broker.direct_port}
        advertised = {"INNER": broker.inner.reach, "DIRECT": broker.direct}
        for i, (proxy, port) in enumerate(broker.listeners.values()):
            ports[f"L{i}"], advertised[f"L{i}"] = port, self._site.doors[proxy].client
        replicas, majority = len(self.brokers), len(self.brokers) // 2 + 1
        settings = {
            "process.roles": "broker,controller",
            "node.id": f"{broker.node}",
            "controller.quorum.voters": ",".join(f"{b.node}@{b.controller.reach}" for b in self.brokers.values()),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INNER",
            "listeners": ",".join(f"{name}://{port.bind}" for name, port in ports.items()),
            "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in ports),
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "default.replication.factor": f"{replicas}",
            "min.insync.replicas": f"{majority}",
            # How long the others wait before they take over what a silent broker leads.
            "broker.session.timeout.ms": "3000" if replicas > 1 else "2000",
            "broker.heartbeat.interval.ms": "300",
            # What was trimmed is given back to the disk by the segment, and not after hours.
            "log.segment.bytes": f"{16 << 20}",
            "log.retention.check.interval.ms": "10000",
            # Or a broker that is killed within a minute has again what was trimmed, and a batch truth counts it.
            "log.flush.start.offset.checkpoint.interval.ms": "200",
            "log.initial.task.delay.ms": "200",  # 30 s otherwise, after every start
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": f"{replicas}",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": f"{replicas}",
            "transaction.state.log.min.isr": f"{majority}",
            "share.coordinator.state.topic.replication.factor": f"{replicas}",
            "share.coordinator.state.topic.min.isr": f"{majority}",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.enable": "false",
            "delete.topic.enable": "true",
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        self._admin = self._admin or AdminClient({"bootstrap.servers": self.direct, **CLIENT})
        wait_until_up(self, self._site, self._answers, timeout_s)
        if not self.children:
            self._check_listeners()

    def _answers(self) -> bool:
        """Whether every broker takes part that was started and is not dead."""
        assert self._admin is not None
        there = self._admin.list_topics(timeout=1).brokers
        if not self.children:
            return len(there) > 0
        alive = [name for name, child in self.children.items() if self._site.children.ended(child.pid) is None]
        return bool(alive) and all(self.brokers[name].node in there for name in alive)

    def _check_listeners(self) -> None:
        """A Kafka that was there before must lead the clients of each listener back to the link's own proxy."""
        (broker,) = self.brokers.values()
        for link, (proxy, port) in broker.listeners.items():
            if port.reach == broker.direct_port.reach:
                continue  # an open link: nobody says that it goes through its proxy
            door = self._site.doors[proxy].client
            try:
                told = advertised(door)
            except HarnessFault as error:
                raise UsageError(f"No Kafka answers at {port.reach}, the listener of {link}: {error}") from error
            if told != [door]:
                raise UsageError(
                    f"The listener {port.reach} of {link} leads its clients on to {', '.join(told)}, past the proxy at "
                    f"{door}. Set advertised.listeners of that listener to {door}."
                )

    def log(self, process: str = "") -> Path:
        return self._site.folder / "logs" / f"{process or self.name}.log"

    def upstreams(self, link: Link) -> list[str]:
        return [broker.listeners[link.name][1].reach for broker in self.brokers.values()]

    # -- what a run makes fresh --------------------------------------------------------------------------------

    def names(self, run: str) -> dict[str, str]:
        return {topic: f"{topic}-{run}" for topic in self.service.topics}

    def make(self, names: Mapping[str, str]) -> None:
        self._create([self._topic(names[topic], partitions) for topic, partitions in self.service.topics.items()])
        # In KRaft a topic is made once the controller has it; its partitions have a leader a moment later, and until
        # then whoever asks for an offset is told NOT_LEADER_OR_FOLLOWER.
        deadline = time.monotonic() + 30
        for topic in names.values():
            self.ends_by(topic, deadline)

    def _create(self, wanted: Sequence[NewTopic]) -> None:
        assert self._admin is not None
        again = False
        while wanted:
            lost: set[str] = set()
            for topic, future in self._admin.create_topics(list(wanted), operation_timeout=30).items():
                try:
                    future.result(40)
                except KafkaException as error:
                    code = error.args[0].code()
                    if code == KafkaError._DESTROY_BROKER and not again:
                        # A client drops the connections by which it came in once it knows the brokers, and with one of
                        # them what it has asked there, which may have been done.
                        lost.add(topic)
                    elif code != KafkaError.TOPIC_ALREADY_EXISTS or not again:
                        raise StartFailed(f"{self.name}: the topic {topic} could not be made: {error}") from error
            wanted, again = [topic for topic in wanted if topic.topic in lost], True

    def _topic(self, name: str, partitions: int) -> NewTopic:
        """Of several brokers the first leads the first partition and so on, in every topic and run: a schedule that
        names a broker means the same each time. Else as many replicas as the broker makes by default."""
        nodes = [broker.node for broker in self.brokers.values()]
        if len(nodes) == 1:
            return NewTopic(name, partitions)
        places = [[nodes[(p + i) % len(nodes)] for i in range(len(nodes))] for p in range(partitions)]
        return NewTopic(name, partitions, replica_assignment=places)

    def remove(self, names: Mapping[str, str]) -> None:
        for asker in list(self._askers):
            self._askers.pop(asker).close()
        if self._admin is not None and names:
            for future in self._admin.delete_topics(list(names.values()), operation_timeout=10).values():
                with contextlib.suppress(KafkaException, TimeoutError):
                    future.result(15)

    def sweep(self, run: str) -> None:
        assert self._admin is not None
        for asker in list(self._askers):
            self._askers.pop(asker).close()
        topics = [t for t in self._admin.list_topics(timeout=10).topics if t.endswith(f"-{run}")]
        if topics:
            for future in self._admin.delete_topics(topics, operation_timeout=10).values():
                future.result(15)
        groups = [g.group_id for g in self._admin.list_consumer_groups(request_timeout=10).result(15).valid]
        ours = [g for g in groups if g.endswith(f"-{run}")]
        if ours:
            for deleted in self._admin.delete_consumer_groups(ours, request_timeout=10).values():
                with contextlib.suppress(KafkaException):  # it has members until they time out; then it expires
                    deleted.result(15)

    def lag(self, group: str, topic: str) -> int | None:
        """Records of `topic` that `group` has not committed yet; None where the broker does not say (it is away)."""
        try:
            ends = self.ends(topic)
        except (KafkaException, TimeoutError):
            return None
        committed = self._committed("lag", group, topic, list(ends))
        return None if committed is None else sum(end - committed[p] for p, end in ends.items())

    def committed(self, use: str, group: str, topic: str, timeout_s: float = 5.0) -> dict[int, int] | None:
        """The offset that `group` has committed in each partition (0: none yet); None where the broker is away.

        `use` names who asks: each thread has a client of its own.
        """
        return self._committed(use, group, topic, range(self._partitions(topic)), timeout_s)

    def _committed(
        self, use: str, group: str, topic: str, partitions: Iterable[int], timeout_s: float = 5.0
    ) -> dict[int, int] | None:
        # By a consumer that never joins: the admin client's list_consumer_group_offsets (confluent-kafka 2.16) crashes
        # the process on some error answers, which is what a broker gives just after its restart.
        consumer = self._askers.get((use, group))
        if consumer is None:
            settings = {"bootstrap.servers": self.direct, "group.id": group, **CLIENT}
            consumer = self._askers[use, group] = Consumer(settings)
        try:
            asked = consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=timeout_s)
        except (KafkaException, TimeoutError):
            return None
        if any(p.error is not None for p in asked):
            return None
        return {p.partition: max(0, p.offset) for p in asked}

    def trim(self, topic: str) -> None:
        """Removes every record that the topic holds now. Raises HarnessFault."""
        assert self._admin is not None
        ends = [TopicPartition(topic, p, end) for p, end in self.ends_by(topic, time.monotonic() + 30).items() if end]
        try:
            for future in (self._admin.delete_records(ends, operation_timeout=30) if ends else {}).values():
                future.result(40)
        except (KafkaException, TimeoutError) as error:
            raise HarnessFault(f"{self.name}: the records of {topic} could not be removed: {error}") from error

    def ends(self, topic: str) -> dict[int, int]:
        """The end offset of each partition."""
        return self._offsets(topic, OffsetSpec.latest())

    def _offsets(self, topic: str, which: OffsetSpec) -> dict[int, int]:
        # By the admin client: asking a consumer that another thread reads hangs.
        assert self._admin is not None
        partitions = {TopicPartition(topic, p): which for p in range(self._partitions(topic))}
        try:
            found = self._admin.list_offsets(partitions, request_timeout=10)
            return {p.partition: future.result(15).offset for p, future in found.items()}
        except KafkaException:
            # Where the topic or its leader was unknown once, librdkafka (2.16) keeps that in its cache and list_offsets
            # fails with it for ever after; only asking for the topic's metadata makes it look again.
            with contextlib.suppress(KafkaException):
                self._admin.list_topics(topic, timeout=1)
            raise

    def ends_by(self, topic: str, deadline: float) -> dict[int, int]:
        """As `ends`, asked again while the broker cannot say (just started, or the topic just made) until `deadline`
        (of the monotonic clock). Raises HarnessFault after that."""
        return self._offsets_by(topic, OffsetSpec.latest(), deadline)

    def begins_by(self, topic: str, deadline: float) -> dict[int, int]:
        """The offset of the first record in each partition that was not trimmed; asked as `ends_by` does."""
        return self._offsets_by(topic, OffsetSpec.earliest(), deadline)

    def _offsets_by(self, topic: str, which: OffsetSpec, deadline: float) -> dict[int, int]:
        while True:
            try:
                return self._offsets(topic, which)
            except (KafkaException, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise HarnessFault(f"{self.name} does not say where {topic} begins and ends: {error}") from error
                time.sleep(0.02)

    def _partitions(self, name: str) -> int:
        # The run's own name ends in its tag. Not by prefix: of "orders" and "orders-raw" one begins with the other.
        topics = self.service.topics
        return topics[name] if name in topics else topics[name.rpartition("-")[0]]


class KafkaTap:
    """Reads a topic from its beginning, past every proxy, and certifies it by contiguous offsets up to the end."""

    def __init__(self, hop: KafkaHop, server: KafkaServer, topic: str, run: str, now_ms: Callable[[], float]) -> None:
        assert hop.event_id is not None
        self.hop = hop.name
        self._server, self._topic, self._now_ms = server, topic, now_ms
        self._partitions = server.service.topics[hop.topic]
        keys = {"partition": pl.Int32, "offset": pl.Int64}
        self._messages = MessageLog(run, hop.event_id, hop.content, keys)
        self._begin = self._next = [0] * self._partitions
        self._gaps: list[str] = []
        self._stop = threading.Event()
        self._error: str | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": server.direct,
                "group.id": f"gauntlet-tap-{run}",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": 8 << 20,
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 262144,
                **CLIENT,
            }
        )
        self._thread = threading.Thread(target=self._read, name=f"tap-{hop.name}", daemon=True)
        self.count, self.warm = self._messages.count, self._messages.warm
        self.distinct, self.last_moved = self._messages.distinct, self._messages.last_moved
        self.trouble, self.hurry = self._messages.trouble, self._messages.hurry
        self.events_by_producer = self._messages.events_by_producer

    def broken(self) -> str:
        return f"The tap broke: {self._error}." if self._error else ""

    def abandon(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(5)
            self._consumer.close()

    def pass_over(self) -> None:
        ends = self._server.ends_by(self._topic, time.monotonic() + 30)
        self._begin = [ends[p] for p in range(self._partitions)]

    def go_back(self, since_s: float) -> None:
        """Instead of `pass_over`, of a topic that was trimmed since: begins with the first record that is still there. Raises
        HarnessFault."""
        begins = self._server.begins_by(self._topic, time.monotonic() + 30)
        self._begin = [begins[p] for p in range(self._partitions)]

    def start(self) -> None:
        self._next = list(self._begin)
        self._consumer.assign([TopicPartition(self._topic, p, due) for p, due in enumerate(self._next)])
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                if records := self._consumer.consume(MOST_RECORDS, 0.1):
                    self._take(records)
                else:
                    self._messages.idle()
            except Exception as error:  # the tap must say that it broke, not vanish
                self._error = repr(error)
                return

    def _take(self, records: Sequence[Any]) -> None:
        seen = self._now_ms()
        found = [record for record in records if record.error() is None]
        if len(found) < len(records):
            for record in records:
                error = record.error()
                if error is not None and error.code() in _GAPS:
                    self._gaps.append(f"partition {record.partition()}: {error.str()}")
        partitions, offsets = [record.partition() for record in found], [record.offset() for record in found]
        again = self._follow(np.array(partitions, dtype=np.int32), np.array(offsets, dtype=np.int64))
        if again.any():
            found = [record for record, known in zip(found, again.tolist(), strict=True) if not known]
            partitions, offsets = [record.partition() for record in found], [record.offset() for record in found]
        self._messages.add(
            (partitions, offsets),
            [record.value() or b"" for record in found],
            [_headers(record) for record in found],
            [record.timestamp()[1] for record in found],
            seen,
        )

    def _follow(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these records the tap had already (its own refetch after a broker's restart: the same record, not a
        duplicate). Notes what is missing between them."""
        again = np.zeros(len(offsets), dtype=bool)
        for partition in np.unique(partitions).tolist():
            places, due = np.flatnonzero(partitions == partition), self._next[partition]
            if np.array_equal(offsets[places], np.arange(due, due + len(places))):
                self._next[partition] = due + len(places)
                continue
            for place in places.tolist():
                offset, due = int(offsets[place]), self._next[partition]
                again[place] = offset < due
                if offset > due:
                    self._gaps.append(f"partition {partition}: offsets {due} to {offset - 1} are missing")
                self._next[partition] = max(due, offset + 1)
        return again

    def finish(self, timeout_s: float = 30.0) -> TapResult:
        """Reads on to the end offsets as they are now."""
        ends: dict[int, int] = {}
        reason = ""
        deadline = time.monotonic() + timeout_s
        try:
            ends = self._server.ends_by(self._topic, deadline)
            while any(self._next[p] < end for p, end in ends.items()) and self._error is None:
                if time.monotonic() > deadline:
                    reason = f"it did not reach the end of the topic within {timeout_s:g} s"
                    break
                time.sleep(0.01)
        except HarnessFault as error:
            reason = str(error)
        self._stop.set()
        self._thread.join(10)
        self._consumer.close()
        if self._error is not None:
            reason = f"the tap broke: {self._error}"
        elif self._gaps:
            reason = "; ".join(self._gaps[:5])
        frame = self._messages.frame()
        if not reason and len(frame) != (there := sum(ends.values()) - sum(self._begin)):
            reason = f"{len(frame)} records were kept of {there}"
        return TapResult(frame, not reason, reason or "offsets are contiguous up to the end", ends=list(ends.values()))


def _headers(record: Any) -> Mapping[str, str]:
    given = record.headers()
    if not given:
        return NO_HEADERS
    return {k: v.decode("utf-8", "replace") for k, v in given if isinstance(v, bytes)}


def probe(address: str, timeout_s: float = 5.0) -> float:
    """Seconds that a broker takes to answer an ApiVersions request on a fresh connection to `address`."""
    start = time.monotonic()
    _ask(address, 18, 0, b"", timeout_s)
    return time.monotonic() - start


def advertised(address: str, timeout_s: float = 10.0) -> list[str]:
    """Where a broker sends the clients that come in by this address: "host:port" a broker. Raises HarnessFault.

    By one Metadata request (version 4, no topics; https://kafka.apache.org/protocol), because a client library goes on
    to those addresses by itself, and tells nothing if nobody is there.
    """
    answer = _ask(address, 3, 4, struct.pack("!iB", 0, 0), timeout_s)
    (brokers,) = struct.unpack_from("!i", answer, 8)  # after the correlation id and the throttle time
    at, found = 12, []
    for _ in range(brokers):
        (length,) = struct.unpack_from("!h", answer, at + 4)  # after the node's id
        host = answer[at + 6 : at + 6 + length].decode()
        port, rack = struct.unpack_from("!ih", answer, at + 6 + length)
        found.append(f"{host}:{port}")
        at += 12 + length + max(0, rack)
    return sorted(found)


def _ask(address: str, api: int, version: int, body: bytes, timeout_s: float) -> bytes:
    """One request on a connection of its own; the answer without its length. Raises HarnessFault."""
    host, port = address.rsplit(":", 1)
    request = struct.pack("!hhih", api, version, 1, 8) + b"gauntlet" + body
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
            connection.sendall(struct.pack("!i", len(request)) + request)
            with connection.makefile("rb") as answers:
                head = answers.read(4)
                answer = answers.read(struct.unpack("!i", head)[0]) if len(head) == 4 else b""
    except OSError as error:
        raise HarnessFault(f"{address} did not answer: {error}") from error
    if not answer:
        raise HarnessFault(f"{address} closed the connection")
    return answer
