"""The programs that provisioning hands over, each started for real and asked what a run will ask of it.

Google's emulator of Pub/Sub and the server on pstest that stands in for it get the same questions: where they differ in
what a pipeline can see, a verdict would depend on what happens to be installed.
"""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from google.api_core import exceptions
from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport
from google.pubsub_v1 import PublisherClient, ReceivedMessage, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import StreamingPullRequest

from harness.backends.process import Child, Ports, Processes
from harness.provision import Programs, go_build, provision, pubsub
from harness.provision.java import find_java
from harness.provision.programs import ProvisionError
from harness.provision.search import Search


@pytest.fixture(scope="module")
def programs() -> Programs:
    return provision()


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


@pytest.fixture(scope="module")
def port() -> Iterator[Callable[[], int]]:
    ports = Ports()
    yield ports.take
    ports.close()


def until(what: str, holds: Callable[[], bool], seconds: float = 30.0) -> float:
    """Waits until it holds; returns the seconds that it took."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - begin


# -------------------------------------------------------------------------------------------------- finding them again


def test_what_was_provisioned_is_found_again_without_a_process_or_a_connection(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in the start path of every run."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a second look wanted {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("harness.provision.children.Children.__init__", refuse)
    shown: list[object] = []
    begin = time.process_time()
    again = provision(lambda *what: shown.append(what))
    seconds = time.process_time() - begin
    assert again == programs
    assert shown == []
    assert seconds < 0.05, f"it took {seconds * 1000:.0f} ms"


# --------------------------------------------------------------------------------------------------------------- Kafka


def broker(
    programs: Programs, processes: Processes, port: Callable[[], int], folder: Path, extra: list[str]
) -> tuple[str, Child]:
    """A broker on the copied template in `folder`, on ports that nobody has used before."""
    own, controller = port(), port()
    (folder / "server.properties").write_text(
        f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
        f"listeners=OWN://127.0.0.1:{own},CONTROLLER://127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n"
        f"advertised.listeners=OWN://127.0.0.1:{own}\ninter.broker.listener.name=OWN\n"
        f"listener.security.protocol.map=OWN:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={folder / 'data'}\n"
        "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n"
        "transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n"
    )
    java, *rest = programs.kafka.start_args(folder / "server.properties")
    return f"127.0.0.1:{own}", processes.spawn([java, *extra, *rest], folder / "log")


def test_a_copy_of_the_template_starts_on_any_port_with_the_start_cache_in_use(
    programs: Programs, processes: Processes, port: Callable[[], int], tmp_path: Path
) -> None:
    """AOTMode=on makes the JVM refuse to start where it would otherwise leave the cache aside in silence."""
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient

    shutil.copytree(programs.kafka.template, tmp_path / "data")
    trained = any(flag.startswith("-XX:AOTCache=") for flag in programs.kafka.jvm_flags)
    assert trained == find_java(Search()).makes_aot_caches

    def has_ended(child: Child) -> bool:
        return processes.ended(child.pid) is not None

    for life in (1, 2):  # the second on other ports than the first
        address, child = broker(programs, processes, port, tmp_path, ["-XX:AOTMode=on"] if trained else [])
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})

        def answers(admin: AdminClient = admin, child: Child = child) -> bool:
            assert processes.ended(child.pid) is None, (tmp_path / "log").read_text()[-2000:]
            try:
                return bool(admin.list_topics(timeout=1).brokers)
            except Exception:
                return False

        until("the broker answers", answers, 60)
        topics = admin.list_topics(timeout=10).topics
        assert {"__consumer_offsets", "__transaction_state"} <= set(topics), "the template holds the internal topics"
        if life == 1:
            producer = Producer({"bootstrap.servers": address, "log_level": 0})
            producer.produce("kept", b"from the first life")
            assert producer.flush(30) == 0
        else:
            consumer = Consumer({"bootstrap.servers": address, "group.id": "g", "auto.offset.reset": "earliest"})
            consumer.subscribe(["kept"])
            got: list[bytes | None] = []

            def came(consumer: Consumer = consumer, got: list[bytes | None] = got) -> bool:
                got.extend(m.value() for m in consumer.consume(10, 0.1) if m.error() is None)
                return bool(got)

            until("the record of the first life comes", came)
            consumer.close()
            assert got == [b"from the first life"]
        processes.signal(child.pid, signal.SIGKILL)
        until("the broker is gone", partial(has_ended, child))


# ------------------------------------------------------------------------------------------------ Toxiproxy, Bigtable


def test_toxiproxy_makes_a_proxy_and_counts(
    programs: Programs, processes: Processes, port: Callable[[], int], tmp_path: Path
) -> None:
    api, listen = port(), port()
    child = processes.spawn([*programs.toxiproxy.start_args("127.0.0.1", api), "-proxy-metrics"], tmp_path / "log")
    base = f"http://127.0.0.1:{api}"

    def answers() -> bool:
        try:
            return requests.get(f"{base}/proxies", timeout=2).ok
        except requests.ConnectionError:
            return False

    until("Toxiproxy answers", answers)
    assert programs.toxiproxy.version in requests.get(f"{base}/version", timeout=2).text
    proxy = {"name": "self", "listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{api}", "enabled": True}
    assert requests.post(f"{base}/populate", json=[proxy], timeout=2).status_code == 201
    assert requests.get(f"http://127.0.0.1:{listen}/proxies", timeout=2, headers={"Connection": "close"}).ok
    until(
        "the proxy's bytes are counted",
        lambda: "toxiproxy_proxy_received_bytes_total" in requests.get(f"{base}/metrics", timeout=2).text,
    )
    processes.stop([child.pid], 3)


def test_bigtable_keeps_a_row_and_adds_up_in_an_aggregate_family(
    programs: Programs, processes: Processes, port: Callable[[], int], tmp_path: Path
) -> None:
    own = port()
    child = processes.spawn(programs.bigtable.start_args("127.0.0.1", own), tmp_path / "log")
    with grpc.insecure_channel(f"127.0.0.1:{own}") as channel:
        grpc.channel_ready_future(channel).result(30)
        admin = BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=channel))
        data = BigtableClient(transport=BigtableGrpcTransport(channel=channel))
        sums: dict[str, Any] = {"value_type": {"aggregate_type": {"input_type": {"int64_type": {}}, "sum": {}}}}
        families = {"seen": {}, "sums": sums}
        parent = "projects/p/instances/i"
        admin.create_table(
            request={"parent": parent, "table_id": "table", "table": {"column_families": families}}, timeout=10
        )
        table = f"{parent}/tables/table"
        add = {
            "add_to_cell": {
                "family_name": "sums",
                "column_qualifier": {"raw_value": b"count"},
                "timestamp": {"raw_timestamp_micros": 0},
                "input": {"int_value": 3},
            }
        }
        cell = {"set_cell": {"family_name": "seen", "column_qualifier": b"e1", "value": b"", "timestamp_micros": 1000}}
        for _ in range(2):
            data.mutate_row(request={"table_name": table, "row_key": b"r", "mutations": [cell, add]}, timeout=10)
        cells = {}
        for answer in data.read_rows(request={"table_name": table}, timeout=10):
            for chunk in answer.chunks:
                cells[chunk.qualifier] = chunk.value
        assert cells[b"e1"] == b"", "setting a cell twice is setting it once"
        assert int.from_bytes(cells[b"count"], "big") == 6
    processes.stop([child.pid], 3)


# ------------------------------------------------------------------------------------------------------------- Pub/Sub


@dataclass(frozen=True)
class PubSub:
    """A running server and its clients."""

    kind: str
    publisher: PublisherClient
    subscriber: SubscriberClient
    pid: int

    def fresh(self, name: str, **settings: object) -> tuple[str, str]:
        """A topic and a subscription of these settings, which nobody else uses."""
        topic, subscription = f"projects/gauntlet/topics/{name}", f"projects/gauntlet/subscriptions/{name}"
        self.publisher.create_topic(name=topic, timeout=10)
        request = {"name": subscription, "topic": topic, "ack_deadline_seconds": 10, **settings}
        self.subscriber.create_subscription(request=request, timeout=10, retry=None)
        return topic, subscription

    def publish(self, topic: str, *data: bytes, **more: object) -> list[str]:
        request = {"topic": topic, "messages": [{"data": d, **more} for d in data]}
        return list(self.publisher.publish(request=request, timeout=10, retry=None).message_ids)

    def pull(self, subscription: str, most: int = 1000) -> list[ReceivedMessage]:
        request = {"subscription": subscription, "max_messages": most, "return_immediately": True}
        return list(self.subscriber.pull(request=request, timeout=10, retry=None).received_messages)

    def drain(self, subscription: str) -> list[ReceivedMessage]:
        """Everything that can be had within a moment; the emulator needs one after a nack or a seek."""
        got: list[ReceivedMessage] = []
        quiet = time.monotonic() + 0.5
        while time.monotonic() < quiet:
            if more := self.pull(subscription):
                got += more
                quiet = time.monotonic() + 0.5
            time.sleep(0.02)
        return got

    def ack(self, subscription: str, *messages: ReceivedMessage) -> None:
        request = {"subscription": subscription, "ack_ids": [m.ack_id for m in messages]}
        self.subscriber.acknowledge(request=request, timeout=10, retry=None)

    def lend(self, subscription: str, seconds: int, *messages: ReceivedMessage) -> None:
        """Sets the ack deadline anew; 0 gives the messages back."""
        ids = [m.ack_id for m in messages]
        request = {"subscription": subscription, "ack_ids": ids, "ack_deadline_seconds": seconds}
        self.subscriber.modify_ack_deadline(request=request, timeout=10, retry=None)

    def seek(self, subscription: str, seconds: float) -> None:
        """To a time that many seconds from now."""
        to = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        self.subscriber.seek(request={"subscription": subscription, "time": to}, timeout=10, retry=None)


def data_of(messages: list[ReceivedMessage]) -> list[bytes]:
    return sorted(m.message.data for m in messages)


@pytest.fixture(scope="module", params=["emulator", "pstest"])
def server(
    request: pytest.FixtureRequest,
    processes: Processes,
    port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PubSub]:
    search = Search({**os.environ, "GAUNTLET_PUBSUB": request.param})
    try:
        program = pubsub.look(search) or pubsub.fetch(search)
    except ProvisionError as error:
        pytest.skip(str(error))  # a machine without a Cloud SDK, or one that may not build
    finally:
        search.close()
        go_build.clean_up(search)
    assert program.kind == request.param
    own = port()
    child = processes.spawn(program.start_args("127.0.0.1", own), tmp_path_factory.mktemp("pubsub") / "log")
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{own}", options=options) as channel:
        grpc.channel_ready_future(channel).result(30)
        made = PubSub(
            program.kind,
            PublisherClient(transport=PublisherGrpcTransport(channel=channel)),
            SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)),
            child.pid,
        )
        yield made
        assert processes.ended(child.pid) is None, "the server died of these tests"
    processes.stop([child.pid], 5)


def test_each_subscription_gets_every_message_once_with_its_id(server: PubSub) -> None:
    topic, first = server.fresh("once")
    second = first + "-2"
    server.subscriber.create_subscription(name=second, topic=topic, timeout=10)
    ids = [i for part in (0, 750) for i in server.publish(topic, *(b"%d" % n for n in range(part, part + 750)))]
    assert len(set(ids)) == 1500
    for subscription in (first, second):
        got = server.drain(subscription)
        assert sorted(m.message.message_id for m in got) == sorted(ids)
        assert {m.message.publish_time for m in got} != {None}
        server.ack(subscription, *got)
        assert server.drain(subscription) == []


def test_what_is_not_acknowledged_comes_again_at_the_deadline_and_not_before(server: PubSub) -> None:
    topic, subscription = server.fresh("deadline")
    server.publish(topic, b"kept", b"acked", b"extended")
    messages = {m.message.data: m for m in server.drain(subscription)}
    begin = time.monotonic()
    server.ack(subscription, messages[b"acked"])
    server.lend(subscription, 60, messages[b"extended"])
    again: list[ReceivedMessage] = []

    def came() -> bool:
        again.extend(server.pull(subscription))
        return bool(again)

    until("the message comes again", came, 20)
    assert time.monotonic() - begin > 8.5
    assert data_of(again) == [b"kept"]
    assert again[0].message.message_id == messages[b"kept"].message.message_id
    assert again[0].ack_id != messages[b"kept"].ack_id


def test_a_message_that_is_given_back_comes_again_and_only_its_latest_ack_id_counts(server: PubSub) -> None:
    topic, subscription = server.fresh("nack")
    server.publish(topic, b"m")
    (first,) = server.drain(subscription)
    server.lend(subscription, 0, first)
    server.ack(subscription, first)  # too late: it is given back already
    (second,) = server.drain(subscription)
    server.ack(subscription, first)
    server.lend(subscription, 0, second)
    (third,) = server.drain(subscription)
    server.ack(subscription, third)
    assert server.drain(subscription) == []


@pytest.mark.parametrize("retained", [True, False])
def test_a_seek_back_makes_acknowledged_messages_due_again_where_they_are_retained(
    server: PubSub, retained: bool
) -> None:
    topic, subscription = server.fresh(f"seek-{retained}".lower(), retain_acked_messages=retained)
    server.publish(topic, b"a", b"b")
    server.ack(subscription, *server.drain(subscription))
    server.publish(topic, b"c", b"d")
    lent = server.drain(subscription)
    server.ack(subscription, lent[0])
    server.seek(subscription, -60)
    again = server.drain(subscription)
    expected = [b"a", b"b", b"c", b"d"] if retained else [lent[1].message.data]
    assert data_of(again) == expected
    server.ack(subscription, *again)
    server.seek(subscription, 60)
    assert server.drain(subscription) == []


def test_a_seek_into_the_future_forgets_what_waits_and_nothing_that_comes_later(server: PubSub) -> None:
    topic, subscription = server.fresh("purge")
    server.publish(topic, b"old")
    server.seek(subscription, 0.2)
    time.sleep(0.3)
    server.publish(topic, b"new")
    assert data_of(server.drain(subscription)) == [b"new"]


def test_messages_of_an_ordering_key_come_in_order_and_after_each_other(server: PubSub) -> None:
    topic, subscription = server.fresh("ordered", enable_message_ordering=True)
    server.publish(topic, *(b"%d" % i for i in range(10)), ordering_key="k")
    got: list[bytes] = []

    def all_came() -> bool:
        batch = server.pull(subscription)
        got.extend(m.message.data for m in batch)
        if batch:
            server.ack(subscription, *batch)
        return len(got) >= 10

    until("all ten come", all_came)
    assert got == [b"%d" % i for i in range(10)]


def test_what_is_delivered_too_often_goes_to_the_dead_letter_topic(server: PubSub) -> None:
    grave, mourner = server.fresh("grave")
    policy = {"dead_letter_topic": grave, "max_delivery_attempts": 5}
    topic, subscription = server.fresh("mortal", dead_letter_policy=policy)
    server.publish(topic, b"poison", attributes={"id": "1"})
    attempts: list[int] = []
    buried: list[ReceivedMessage] = []

    def is_buried() -> bool:
        batch = server.pull(subscription)
        attempts.extend(m.delivery_attempt for m in batch)
        if batch:
            server.lend(subscription, 0, *batch)
        buried.extend(server.pull(mourner))
        return bool(buried)

    until("it is buried", is_buried)
    assert attempts == [1, 2, 3, 4, 5]
    assert data_of(buried) == [b"poison"]
    assert buried[0].message.attributes["id"] == "1"
    assert buried[0].message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"


def test_a_pull_that_may_wait_returns_when_a_message_comes(server: PubSub) -> None:
    topic, subscription = server.fresh("waits")
    timer = threading.Timer(0.5, lambda: server.publish(topic, b"late"))
    timer.start()
    begin = time.monotonic()
    answer = server.subscriber.pull(subscription=subscription, max_messages=1, timeout=20)
    timer.join()
    assert data_of(list(answer.received_messages)) == [b"late"]
    assert 0.3 < time.monotonic() - begin < 10


def test_a_stream_gets_messages_acknowledges_them_and_keeps_to_its_limit(server: PubSub) -> None:
    topic, subscription = server.fresh("stream")
    server.publish(topic, *(b"%d" % i for i in range(20)))
    sent: list[StreamingPullRequest] = [
        StreamingPullRequest(
            subscription=subscription, stream_ack_deadline_seconds=30, max_outstanding_messages=8, client_id="test"
        )
    ]
    changed = threading.Condition()
    closed = False

    def requests_() -> Iterator[StreamingPullRequest]:
        while True:
            with changed:
                changed.wait_for(lambda: bool(sent) or closed)
                if closed:
                    return
                request = sent.pop(0)
            yield request

    got: list[ReceivedMessage] = []
    answers: Any = server.subscriber.streaming_pull(requests=requests_(), timeout=60)

    def read() -> None:
        try:
            for answer in answers:
                got.extend(answer.received_messages)
        except exceptions.GoogleAPICallError:
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until("the first messages come", lambda: len(got) >= 8)
    time.sleep(0.5)
    held = len(got)
    acknowledged = 0
    while acknowledged < 20:
        fresh = got[acknowledged:]
        if fresh:
            with changed:
                sent.append(StreamingPullRequest(ack_ids=[m.ack_id for m in fresh]))
                changed.notify()
            acknowledged += len(fresh)
        assert reader.is_alive()
        time.sleep(0.02)
    time.sleep(0.3)
    with changed:
        closed = True
        changed.notify()
    answers.cancel()
    reader.join(10)
    assert len({m.message.data for m in got}) == 20
    assert server.drain(subscription) == [], "everything was acknowledged on the stream"
    if server.kind == "pstest":
        assert held == 8


def test_names_that_are_wrong_are_told(server: PubSub) -> None:
    nowhere = "projects/gauntlet/topics/nowhere"
    with pytest.raises(exceptions.NotFound):
        server.publish(nowhere, b"m")
    with pytest.raises(exceptions.NotFound):
        server.pull("projects/gauntlet/subscriptions/nowhere")
    with pytest.raises(exceptions.NotFound):
        server.subscriber.create_subscription(
            name="projects/gauntlet/subscriptions/orphan", topic=nowhere, timeout=10, retry=None
        )
    server.fresh("twice")
    with pytest.raises(exceptions.AlreadyExists):
        server.fresh("twice")
    for wrong in ([b""], [b"m"] * 1001):
        with pytest.raises(exceptions.InvalidArgument):
            server.publish("projects/gauntlet/topics/twice", *wrong)


def test_a_deleted_subscription_ends_the_pull_that_waits_on_it(server: PubSub) -> None:
    _, subscription = server.fresh("deleted")
    if server.kind == "emulator":
        server.subscriber.delete_subscription(subscription=subscription, timeout=10)
        with pytest.raises(exceptions.NotFound):
            server.pull(subscription)
        return
    timer = threading.Timer(0.3, lambda: server.subscriber.delete_subscription(subscription=subscription, timeout=10))
    timer.start()
    with pytest.raises(exceptions.NotFound):
        server.subscriber.pull(subscription=subscription, max_messages=1, timeout=20, retry=None)
    timer.join()


@pytest.mark.parametrize("server", ["pstest"], indirect=True)
def test_pstest_refuses_what_it_cannot_do(server: PubSub) -> None:
    """Ignored, these would look like a fault of the pipeline."""
    wanted: dict[str, dict[str, object]] = {
        "filter": {"filter": 'attributes.a="b"'},
        "exactly-once": {"enable_exactly_once_delivery": True},
        "push": {"push_config": {"push_endpoint": "http://127.0.0.1:1/"}},
    }
    for name, settings in wanted.items():
        with pytest.raises(exceptions.MethodNotImplemented, match=name):
            server.fresh(f"refused-{name}", **settings)


@pytest.mark.parametrize("server", ["pstest"], indirect=True)
def test_a_long_backlog_costs_no_more_a_message_than_a_short_one(server: PubSub) -> None:
    """The queue of the package pstest looks at the whole backlog every 10 ms; this is why it is not used."""
    import psutil

    process = psutil.Process(server.pid)

    def cost(name: str, messages: int) -> float:
        """Seconds of the server's processor time a message, for publish, pull and acknowledgement."""
        topic, subscription = server.fresh(name)
        before = sum(process.cpu_times()[:2])
        for _ in range(messages // 1000):
            server.publish(topic, *[b"x" * 187] * 1000)
        while got := server.pull(subscription):
            server.ack(subscription, *got)
        return (sum(process.cpu_times()[:2]) - before) / messages

    cost("warm", 5_000)
    short, long = cost("short", 10_000), cost("long", 60_000)
    assert long < 2.5 * short, f"{short * 1e6:.1f} us a message with 10,000 in the queue, {long * 1e6:.1f} with 60,000"
