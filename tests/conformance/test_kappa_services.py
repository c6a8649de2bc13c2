"""The reference pipeline's workers, one by one, against real services."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from google.cloud.bigtable_admin_v2.types import CreateTableRequest
from google.pubsub_v1.types import (
    AcknowledgeRequest,
    PublishRequest,
    PubsubMessage,
    PullRequest,
    PullResponse,
    Subscription,
    Topic,
)

from pipelines_under_test.kappa import events, rows
from pipelines_under_test.kappa.compaction import Compactor, Horizon
from pipelines_under_test.kappa.events import Event
from pipelines_under_test.kappa.table import RawChunks, RawRead, StoredRow, Table, assemble

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parents[2]
LOG = logging.getLogger("test")


def eventually(what: Callable[[], Any], within_s: float = 20) -> Any:
    """The first true answer; fails with the last one."""
    until = time.monotonic() + within_s
    while not (answer := what()) and time.monotonic() < until:
        time.sleep(0.05)
    assert answer, f"not within {within_s} s"
    return answer


class World:
    """Topics, subscriptions and a table of one test, and the workers that it started."""

    def __init__(self, kafka: str, pubsub: str, bigtable: str, logs: Path) -> None:
        self.kafka, self.logs, self.tag = kafka, logs, uuid.uuid4().hex[:8]
        self.pubsub, self.bigtable = pubsub, bigtable
        self.pubsub_channel = grpc.insecure_channel(pubsub, options=[("grpc.max_receive_message_length", -1)])
        self.bigtable_channel = grpc.insecure_channel(bigtable, options=[("grpc.max_receive_message_length", -1)])
        self.topics = {name: f"{name}-{self.tag}" for name in ("source", "intermediate", "dead")}
        self.published, self.refused = (f"projects/gauntlet/topics/{n}-{self.tag}" for n in ("published", "refused"))
        self.subscription, self.published_tap, self.refused_tap = (
            f"projects/gauntlet/subscriptions/{n}-{self.tag}" for n in ("aggregator", "published-tap", "refused-tap")
        )
        self.table = f"projects/gauntlet/instances/gauntlet/tables/aggregates-{self.tag}"
        self.workers: list[subprocess.Popen[bytes]] = []
        admin = AdminClient({"bootstrap.servers": kafka})
        for future in admin.create_topics([NewTopic(name, 2, 1) for name in self.topics.values()]).values():
            future.result()
        for topic in (self.published, self.refused):
            self.call(self.pubsub_channel, "google.pubsub.v1.Publisher/CreateTopic", Topic.pb()(name=topic))
        for name, topic in (
            (self.subscription, self.published),
            (self.published_tap, self.published),
            (self.refused_tap, self.refused),
        ):
            wanted = Subscription.pb()(name=name, topic=topic, ack_deadline_seconds=10)
            self.call(self.pubsub_channel, "google.pubsub.v1.Subscriber/CreateSubscription", wanted)
        request = CreateTableRequest.pb()(
            parent="projects/gauntlet/instances/gauntlet", table_id=self.table.rsplit("/", 1)[1]
        )
        for family in (rows.SEEN, rows.AGG):
            request.table.column_families[family].SetInParent()
        self.call(self.bigtable_channel, "google.bigtable.admin.v2.BigtableTableAdmin/CreateTable", request)

    @staticmethod
    def call(channel: grpc.Channel, method: str, request: Any) -> bytes:
        return channel.unary_unary(f"/{method}", None, None)(request.SerializeToString(), timeout=10)

    # -- workers

    def start(self, module: str, name: str, program: str = "", **env: str) -> subprocess.Popen[bytes]:
        """`program`: what to run instead of the module."""
        settings = {
            "KAFKA": self.kafka,
            "PUBSUB": self.pubsub,
            "BIGTABLE": self.bigtable,
            "SOURCE_TOPIC": self.topics["source"],
            "INTERMEDIATE_TOPIC": self.topics["intermediate"],
            "DEAD_LETTER_TOPIC": self.topics["dead"],
            "PUBLISHED_TOPIC": self.published,
            "SUBSCRIPTION": self.subscription,
            "REFUSED_TOPIC": self.refused,
            "TABLE": self.table,
            "PREPROCESSOR_GROUP": f"preprocessor-{self.tag}",
            "CONVERTER_GROUP": f"converter-{self.tag}",
            "GAUNTLET_WORKER": name,
            "TMPDIR": str(self.logs),  # as in a run: one that is killed removes nothing
        }
        with (self.logs / f"{name}.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, *(["-c", program] if program else ["-m", f"pipelines_under_test.{module}"])],
                env=os.environ | settings | env,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.pubsub_channel.close()
        self.bigtable_channel.close()

    # -- Kafka

    def produce(self, topic: str, values: Sequence[bytes], created_ms: int | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.kafka})
        for i, value in enumerate(values):
            extra = {} if created_ms is None else {"timestamp": created_ms}
            producer.produce(self.topics[topic], value, key=str(i), **extra)
        assert producer.flush(10) == 0

    def records(self, topic: str) -> list[Message]:
        """Everything that the topic holds now."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "reader", "enable.auto.commit": False})
        ends = {p: end_of(consumer, TopicPartition(self.topics[topic], p)) for p in (0, 1)}
        consumer.assign([TopicPartition(self.topics[topic], p, 0) for p in ends])
        found: list[Message] = []
        while len(found) < sum(ends.values()):
            found += [m for m in consumer.consume(1000, 1) if m.error() is None]
        consumer.close()
        return found

    # -- Pub/Sub

    def publish(self, happened: Sequence[Event], copies: int = 1) -> None:
        messages = [
            PubsubMessage.pb()(data=events.to_message(e), attributes={"uuid": events.uuid_of(e.event_id)})
            for e in happened
        ] * copies
        self.publish_raw(messages)

    def publish_raw(self, messages: Sequence[Any]) -> None:
        for i in range(0, len(messages), 500):
            request = PublishRequest.pb()(topic=self.published, messages=messages[i : i + 500])
            self.call(self.pubsub_channel, "google.pubsub.v1.Publisher/Publish", request)

    def lease(self, subscription: str) -> list[Any]:
        """What the subscription has now for whoever pulls: leased for its deadline of 10 s, and not acknowledged."""
        request = PullRequest.pb()(subscription=subscription, max_messages=1000, return_immediately=True)
        found: list[Any] = []
        while received := (
            PullResponse.pb()
            .FromString(self.call(self.pubsub_channel, "google.pubsub.v1.Subscriber/Pull", request))
            .received_messages
        ):
            found.extend(received)
        return found

    def pull(self, subscription: str) -> list[Any]:
        """What the subscription has now, acknowledged."""
        found: list[Any] = []
        while received := self.lease(subscription):
            ids = AcknowledgeRequest.pb()(subscription=subscription, ack_ids=[r.ack_id for r in received])
            self.call(self.pubsub_channel, "google.pubsub.v1.Subscriber/Acknowledge", ids)
            found.extend(r.message for r in received)
        return found

    # -- Bigtable

    def rows(self) -> list[StoredRow]:
        method = "/google.bigtable.v2.Bigtable/ReadRows"
        call = self.bigtable_channel.unary_stream(method, None, RawChunks.FromString)
        return assemble(call(RawRead(table_name=self.table).SerializeToString(), timeout=20))

    def counts(self) -> dict[tuple[str, str, str, int, int], tuple[int, int]]:
        return count(c for row in self.rows() for c in rows.cells_of_row(row))

    def seen(self) -> int:
        return sum(1 for row in self.rows() for family, _ in row.cells if family == rows.SEEN)


@pytest.fixture
def world(kafka_bootstrap: str, pubsub_address: str, bigtable_address: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka_bootstrap, pubsub_address, bigtable_address, tmp_path)
    yield made
    made.close()


def count(cells: Any) -> dict[tuple[str, str, str, int, int], tuple[int, int]]:
    found: dict[tuple[str, str, str, int, int], tuple[int, int]] = {}
    for c in cells:
        name = (c.dimension, c.key, c.engagement, c.window_s, c.window_start_ms)
        before = found.get(name, (0, 0))
        found[name] = (before[0] + c.count, before[1] + c.weight)
    return found


def happenings(number: int, at_ms: int, tag: str = "00000000") -> list[Event]:
    """Events over five seconds from then, on 7 tweets of 3 authors, each with a weight of its own."""
    kinds = sorted(events.ENGAGEMENTS)
    return [
        Event(
            f"{tag}-0001-{i:010d}",
            1_000_000_000_000_000_000 + i % 7,
            1_000_000_000 + i % 3,
            1_000_000_000 + i,
            kinds[i % len(kinds)],
            100_000_000 + i,
            at_ms + i * 5000 // number,
            "ios",
            "US",
        )
        for i in range(number)
    ]


def expected(happened: Sequence[Event]) -> dict[tuple[str, str, str, int, int], tuple[int, int]]:
    found: dict[tuple[str, str, str, int, int], tuple[int, int]] = {}
    for e in happened:
        for dimension, key in (("tweet", e.tweet_id), ("author", e.author_id)):
            for window in (10, 60):
                start = e.event_time_ms // (window * 1000) * window * 1000
                name = (dimension, str(key), e.engagement, window, start)
                before = found.get(name, (0, 0))
                found[name] = (before[0] + 1, before[1] + e.weight)
    return found


def source_form(event: Event) -> bytes:
    return json.dumps({f: getattr(event, f) for f in Event.__slots__}).encode()


def now_ms() -> int:
    return int(time.time() * 1000)


def headers(record: Message) -> Mapping[str, bytes]:
    return {name: value for name, value in record.headers() or [] if isinstance(value, bytes)}


# ------------------------------------------------------------------------------------- preprocessor and converter


def test_events_reach_pubsub_and_poison_the_dead_letters(world: World) -> None:
    happened = happenings(300, now_ms())
    poison = [source_form(happened[0])[:80], b"", source_form(happened[1]).replace(b'"US"', b"7")]
    world.produce("source", [source_form(e) for e in happened] + poison)
    workers = [world.start("kappa.preprocessor", "preprocessor"), world.start("kappa.converter", "converter")]

    messages: list[Any] = []
    eventually(lambda: messages.extend(world.pull(world.published_tap)) or len(messages) >= 300)
    assert sorted(events.from_message(m.data).event_id for m in messages) == [e.event_id for e in happened]
    assert {m.attributes["uuid"] for m in messages} == {events.uuid_of(e.event_id) for e in happened}
    assert {m.attributes["converter"] for m in messages} == {"converter"}

    dead = eventually(lambda: (found := world.records("dead")) and len(found) == 3 and found)
    assert sorted(headers(d)["reason"] for d in dead) == [b"empty record", b"not JSON", b"not a text: country"]
    assert {headers(d)["topic"] for d in dead} == {world.topics["source"].encode()}
    assert sorted(d.value() or b"" for d in dead) == sorted(poison)

    for worker in workers:
        worker.terminate()
        assert worker.wait(10) == 0


def test_a_killed_worker_takes_its_partitions_back_before_its_session_ends(world: World) -> None:
    """The session lasts 30 s; a static member does not wait for that."""
    worker = world.start("kappa.preprocessor", "preprocessor")
    world.produce("source", [source_form(e) for e in happenings(100, now_ms())])
    eventually(lambda: len(world.records("intermediate")) >= 100)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    world.produce("source", [source_form(e) for e in happenings(100, now_ms(), "11111111")])
    world.start("kappa.preprocessor", "preprocessor")

    def ids() -> set[str]:
        return {events.from_intermediate(r.value()).event_id for r in world.records("intermediate")}

    eventually(lambda: len(ids()) == 200, within_s=20)


def test_a_worker_that_was_replaced_under_its_name_ends_and_commits_nothing_more(world: World) -> None:
    first = world.start("kappa.preprocessor", "preprocessor")
    world.produce("source", [source_form(happenings(1, now_ms())[0])])
    eventually(lambda: world.records("intermediate"))
    world.start("kappa.preprocessor", "preprocessor")
    assert first.wait(15) == 1


def test_a_worker_without_its_environment_says_what_is_missing(world: World) -> None:
    worker = world.start("kappa.converter", "converter", PUBLISHED_TOPIC="")
    assert worker.wait(10) == 2
    assert "PUBLISHED_TOPIC is not set" in (world.logs / "converter.log").read_text()


# ----------------------------------------------------------------------------------------------------- aggregator


def test_copies_are_counted_once(world: World) -> None:
    happened = happenings(500, now_ms())
    world.publish(happened, copies=3)
    worker = world.start("kappa.aggregator", "aggregator")
    eventually(lambda: world.seen() >= 1000)
    time.sleep(1)
    assert world.counts() == expected(happened)
    worker.terminate()
    assert worker.wait(10) == 0


def test_a_killed_aggregator_loses_nothing_and_doubles_nothing(world: World) -> None:
    happened: list[Event] = []
    stop = threading.Event()

    def publish() -> None:
        for i in range(40):
            some = happenings(100, now_ms(), f"{i:08d}")
            world.publish(some)
            happened.extend(some)
            stop.wait(0.1)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for _ in range(2):
            worker = world.start("kappa.aggregator", "aggregator")
            eventually(world.seen)
            time.sleep(0.5)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    finally:
        publisher.join()
    world.start("kappa.aggregator", "aggregator")
    # What was just on its way to a killed one is redelivered at the acknowledgement deadline, 10 s.
    eventually(lambda: world.seen() >= 2 * len(happened), within_s=25)
    assert world.counts() == expected(happened)


def held_by_an_aggregator_without_a_sink(world: World, count: int) -> subprocess.Popen[bytes]:
    worker = world.start("kappa.aggregator", "aggregator", BIGTABLE="127.0.0.1:1")
    world.publish(happenings(count, now_ms()))
    eventually(lambda: "trying again" in (world.logs / "aggregator.log").read_text())
    return worker


def test_what_a_worker_holds_is_its_own_as_long_as_it_lives_and_soon_anothers_when_it_is_killed(world: World) -> None:
    """Compared with a subscription whose messages come again after the deadline: later while alive, sooner when killed."""
    worker = held_by_an_aggregator_without_a_sink(world, 300)
    assert len(world.lease(world.published_tap)) == 300
    eventually(lambda: world.lease(world.published_tap))
    assert world.lease(world.subscription) == []
    worker.kill()
    again: list[Any] = []
    eventually(lambda: again.extend(world.lease(world.subscription)) or len(again) == 300)
    assert world.lease(world.published_tap) == [], "the deadline has not come yet"


def test_what_a_worker_holds_when_it_is_asked_to_end_is_given_back(world: World) -> None:
    worker = held_by_an_aggregator_without_a_sink(world, 300)
    worker.terminate()
    assert worker.wait(10) == 0
    assert len(world.lease(world.subscription)) == 300


def test_two_aggregators_share_a_subscription(world: World) -> None:
    happened = happenings(2000, now_ms())
    for name in ("aggregator-1", "aggregator-2"):
        world.start("kappa.aggregator", name)
    for i in range(0, 2000, 100):
        world.publish(happened[i : i + 100], copies=2)
        time.sleep(0.02)
    eventually(lambda: world.seen() >= 4000)
    assert world.counts() == expected(happened)


def test_late_events_are_counted_where_they_belong(world: World) -> None:
    happened = happenings(50, now_ms() - 75_000)
    world.publish(happened)
    world.start("kappa.aggregator", "aggregator")
    eventually(lambda: world.seen() >= 100)
    assert world.counts() == expected(happened)


def test_poison_and_replays_past_the_horizon_are_refused_with_their_reason(world: World) -> None:
    fresh, old = happenings(1, now_ms())[0], happenings(1, now_ms() - 7_200_000, "11111111")[0]
    world.publish([fresh, old])
    raw = PubsubMessage.pb()
    world.publish_raw([raw(data=b"?", attributes={"uuid": events.uuid_of("x"), "source": "somewhere"})])
    world.publish_raw([raw(data=events.to_message(fresh), attributes={})])
    world.start("kappa.aggregator", "aggregator")
    refused: list[Any] = []
    eventually(lambda: refused.extend(world.pull(world.refused_tap)) or len(refused) >= 3)
    assert {(m.data, m.attributes["reason"]) for m in refused} == {
        (events.to_message(old), "past the deduplication horizon"),
        (b"?", "not JSON"),
        (events.to_message(fresh), "attribute missing: uuid"),
    }
    assert {m.attributes["source"] for m in refused if m.data == b"?"} == {"somewhere"}
    eventually(lambda: world.seen() == 2)
    assert world.counts() == expected([fresh])


# ------------------------------------------------------------------------------------------- table and compaction


@pytest.fixture
def table(world: World) -> Iterator[Table]:
    made = Table(world.bigtable, world.table, threading.Event(), LOG)
    yield made
    made.connection.close()


def add(table: Table, happened: Sequence[Event]) -> None:
    cells: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for e in happened:
        cell = rows.seen_qualifier(e.engagement, events.uuid_of(e.event_id)), rows.seen_value(e.weight, e.event_id)
        for dimension, key in (("tweet", e.tweet_id), ("author", e.author_id)):
            cells.setdefault(rows.row_key(dimension, str(key), e.event_time_ms), []).append(cell)
    table.add_seen(cells)


def test_a_repeated_write_changes_no_count_and_the_first_sighting_stays(world: World, table: Table) -> None:
    happened = happenings(100, now_ms())
    before_ms = now_ms()
    add(table, happened)
    after_ms = now_ms()
    time.sleep(0.1)
    add(table, happened)
    assert world.counts() == expected(happened)
    seen = {s.event_id: s.seen_ms for row in world.rows() for s in rows.sightings_of_row(row)}
    assert set(seen) == {e.event_id for e in happened}
    # The server's clock has milliseconds and is the same machine's here.
    assert all(before_ms - 1 <= ms <= after_ms + 1 for ms in seen.values())


def test_compaction_keeps_the_counts_and_removes_the_seen_cells_of_old_rows_only(world: World, table: Table) -> None:
    horizon = Horizon(horizon_s=60, grace_s=10)
    now = now_ms()
    old, young = happenings(200, now - 200_000), happenings(50, now, "11111111")
    add(table, old)
    add(table, young)
    compactor = Compactor(table, horizon)
    assert compactor.run_once(now) > 0
    assert world.counts() == expected([*old, *young])
    assert world.seen() == 2 * len(young)

    # Again, by one that remembers and by one that does not: nothing is left to do.
    assert compactor.run_once(now) == 0
    assert Compactor(table, horizon).run_once(now) == 0
    # Time passes: now the others are due as well.
    assert compactor.run_once(now + 200_000) > 0
    assert world.seen() == 0
    assert world.counts() == expected([*old, *young])


def test_two_compactors_at_once_keep_the_counts(world: World, table: Table) -> None:
    happened = happenings(500, now_ms() - 200_000)
    add(table, happened)
    compactors = [Compactor(table, Horizon(60, 10)) for _ in range(2)]
    threads = [threading.Thread(target=c.run_once) for c in compactors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.seen() == 0
    assert world.counts() == expected(happened)


#: The aggregator, which learns its horizon when all that it needs is imported, so that none of it has passed before it works.
ONCE_IMPORTED = """
import os, pathlib, sys, time
from pipelines_under_test.kappa import aggregator
told = pathlib.Path(os.environ["TOLD"])
told.with_suffix(".imported").touch()
while not told.exists():
    time.sleep(0.01)
os.environ["DEDUP_HORIZON_S"] = told.read_text()
sys.exit(aggregator.main())
"""


def test_a_replay_past_a_short_horizon_is_refused_and_the_compacted_counts_stay(world: World) -> None:
    """The whole of it in one worker: counted, compacted a little later, replayed, refused."""
    told = world.logs / "horizon"
    world.start("", "aggregator", ONCE_IMPORTED, TOLD=str(told), DEDUP_GRACE_S="2")
    eventually(told.with_suffix(".imported").exists, within_s=30)
    now = time.time()
    happened = happenings(200, int(now // 60 - 1) * 60_000)  # in the minute before this one
    ended_s = now % 60  # since its end
    world.publish(happened)
    told.with_suffix(".new").write_text(str(ended_s + 6))
    told.with_suffix(".new").rename(told)
    eventually(lambda: world.counts() == expected(happened), within_s=6)
    seen = world.seen()
    assert seen == 2 * len(happened)
    # A minute's rows are compacted when the horizon and the grace have passed over the end of that minute.
    eventually(lambda: world.seen() == 0, within_s=20)
    assert world.counts() == expected(happened)
    world.publish(happened)
    refused: list[Any] = []
    eventually(lambda: refused.extend(world.pull(world.refused_tap)) or len(refused) >= len(happened))
    assert {m.attributes["reason"] for m in refused} == {"past the deduplication horizon"}
    assert world.counts() == expected(happened)
    assert world.seen() == 0


# --------------------------------------------------------------------------------------------------- batch truth


def test_the_batch_truth_reads_the_log_to_its_end(world: World) -> None:
    start = now_ms() // 60_000 * 60_000
    happened = happenings(3000, start)
    late = happenings(10, start - 30_000, "11111111")
    poison = [b"", b"{", source_form(happened[5]).replace(b"100000005", b'"many"')]
    raw = [source_form(e) for e in (*happened, *happened[:100], *late)] + poison
    world.produce("source", raw, created_ms=start + 1000)
    output = world.logs / "batch.parquet"
    worker = world.start("kappa.batch", "batch", BATCH_OUTPUT=str(output), LATE_AFTER_S="5")
    assert worker.wait(30) == 0
    cells = {(d, *k.split("|"), w, s): (n, weight) for d, k, w, s, n, weight in pl.read_parquet(output).iter_rows()}
    wanted = expected(happened)
    for name, (n, weight) in expected(late).items():
        closed_s = (start + 1000 - (name[4] + name[3] * 1000)) / 1000
        if closed_s <= 5:
            before = wanted.get(name, (0, 0))
            wanted[name] = (before[0] + n, before[1] + weight)
    assert cells == wanted
    assert not output.with_name("batch.parquet.part").exists()


def test_the_batch_truth_of_an_empty_log_is_an_empty_table(world: World) -> None:
    output = world.logs / "batch.parquet"
    worker = world.start("kappa.batch", "batch", BATCH_OUTPUT=str(output), LATE_AFTER_S="5")
    assert worker.wait(30) == 0
    assert pl.read_parquet(output).height == 0


def test_the_batch_truth_of_a_topic_that_is_not_there_is_an_error(world: World) -> None:
    output = world.logs / "batch.parquet"
    worker = world.start("kappa.batch", "batch", BATCH_OUTPUT=str(output), SOURCE_TOPIC=f"nothing-{world.tag}")
    assert worker.wait(30) != 0
    assert not output.exists()


def end_of(consumer: Consumer, partition: TopicPartition) -> int:
    """A topic that was just made may not have its leader yet; the broker says so until it has."""
    end = time.monotonic() + 10
    while True:
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=10)[1])
        except KafkaException:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
