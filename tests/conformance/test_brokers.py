"""A Kafka of three brokers, on every backend that starts its own."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from advertised import brokers_told
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from harness.session import Session
from harness.stack import Stack
from pipelines_under_test.kappa.pipeline import kappa

THRICE = kappa.brokers(kafka=3)
LINK = "preprocessor->kafka"


@pytest.fixture(scope="module")
def cluster(backend: str) -> Iterator[Stack]:
    """Taken away with the last of these tests: three brokers are a load for all others."""
    if backend == "external":
        pytest.skip("three brokers of our own are not there already")
    with Session(backend) as session:
        yield session.stack(THRICE)


@pytest.fixture
def topic(cluster: Stack) -> Iterator[str]:
    run = uuid.uuid4().hex[:8]
    cluster.make("kafka", run)
    yield f"source-{run}"
    cluster.toxiproxy.reset()
    cluster.remove(run)


def written(cluster: Stack, topic: str, lo: int, hi: int) -> None:
    """Numbers by the load's own link, acknowledged by all replicas."""
    settings = {"bootstrap.servers": cluster.address("load", "kafka"), "acks": "all", "log_level": 0}
    producer = Producer({**settings, "enable.idempotence": True, "request.timeout.ms": 3000})
    for i in range(lo, hi):
        producer.produce(topic, str(i).encode(), partition=i % 4)
    assert producer.flush(60) == 0


def read(cluster: Stack, topic: str, count: int) -> list[int]:
    consumer = Consumer({"bootstrap.servers": cluster.servers["kafka"].direct, "group.id": "x", "log_level": 0})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(4)])
    found: list[int] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found += [int(m.value()) for m in consumer.consume(1000, 0.5) if m.error() is None]
    consumer.close()
    return found


def test_a_client_learns_no_address_but_the_proxies_of_its_link(cluster: Stack, tmp_path: Path) -> None:
    for worker in ("preprocessor", "load"):
        proxies = sorted(cluster.address(worker, "kafka").split(","))
        assert len(set(proxies)) == 3
        assert brokers_told(cluster, worker, tmp_path / worker) == proxies


def test_who_leads_what_is_the_same_in_every_run(cluster: Stack, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.servers["kafka"].direct, "log_level": 0})
    partitions = admin.list_topics(topic, timeout=20).topics[topic].partitions
    assert {p: (found.leader, sorted(found.replicas)) for p, found in partitions.items()} == {
        0: (1, [1, 2, 3]),
        1: (2, [1, 2, 3]),
        2: (3, [1, 2, 3]),
        3: (1, [1, 2, 3]),
    }


def test_a_cut_link_is_cut_to_every_broker_and_no_other_is(cluster: Stack) -> None:
    cluster.toxiproxy.set_enabled(LINK, False)
    assert {link.name: cluster.probe(link.name) is not None for link in cluster.links} == {
        link.name: link.name != LINK for link in cluster.links
    }
    cluster.toxiproxy.set_enabled(LINK, True)
    assert cluster.probe(LINK) is not None


def test_each_broker_may_die_and_what_all_have_acknowledged_is_there(cluster: Stack, topic: str) -> None:
    """Others take over what it led, as long as it is away; it comes back at the same addresses, with its data."""
    where = cluster.servers["kafka"].direct
    done = 0
    for broker in ("kafka-1", "kafka-2", "kafka-3"):
        before = cluster.kill_service(broker)
        assert before["status"] == -9
        assert cluster.alive()[broker] is False
        assert cluster.probe(LINK) is not None, "the others answer"
        written(cluster, topic, done, done + 100)
        done += 100
        assert cluster.start_service(broker)["pid"] != before["pid"]
    assert all(cluster.alive().values())
    assert cluster.servers["kafka"].direct == where
    assert sorted(read(cluster, topic, done)) == list(range(done))


def test_a_broker_is_paused_and_goes_on(cluster: Stack) -> None:
    assert cluster.signal_service("kafka-2", signal.SIGSTOP)["state"] == "stopped"
    assert cluster.signal_service("kafka-2", signal.SIGCONT)["state"] != "stopped"


def test_the_flow_is_told_of_the_link_and_of_each_of_its_proxies(cluster: Stack, topic: str) -> None:
    meter = cluster.site.meter()
    try:
        proxies = cluster.links[0].proxies
        before = meter.sample()
        assert {"load->kafka", *proxies} <= before.keys()
        producer = Producer({"bootstrap.servers": cluster.address("load", "kafka"), "log_level": 0})
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for i in range(300):
                producer.produce(topic, b"x" * 200, partition=i % 4)
            assert producer.flush(20) == 0
            time.sleep(0.2)
            after = meter.sample()
            if all(after[proxy].requests > before[proxy].requests + 1000 for proxy in proxies):
                break
        grew = {proxy: after[proxy].requests - before[proxy].requests for proxy in proxies}
        assert min(grew.values()) > 1000, grew
        assert after["load->kafka"].requests >= before["load->kafka"].requests + sum(grew.values()) * 0.9
    finally:
        meter.close()
