"""Taps: what they see, what they can swear to, and when they must not."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from harness.errors import HarnessFault
from harness.services import bigtable, pubsub
from harness.services.base import SinkReading, SinkTap
from harness.services.bigtable import read_rows
from harness.services.kafka import KafkaTap
from harness.services.pubsub import PubSubTap
from harness.services.sqlite import SqliteServer, sqlite_tap
from harness.stack import Stack
from harness.topology import BigtableHop, Cells, CountedCell, KafkaHop, PubSubHop, Sqlite, SqliteHop
from pipelines_under_test.kappa import rows
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.kappa.table import seen_entry


def event_id(value: bytes, attributes: Mapping[str, str]) -> str | None:
    return str(json.loads(value)["id"])


def record(run: str, sequence: int, producer: int = 1) -> bytes:
    return json.dumps({"id": f"{run}-{producer:04d}-{sequence:010d}"}).encode()


def now_ms() -> float:
    return time.time() * 1000


@pytest.fixture
def run(stack: Stack) -> Iterator[str]:
    """A run's tag, with every topic, subscription and table made fresh for it."""
    tag = uuid.uuid4().hex[:8]
    for service in stack.servers:
        stack.make(service, tag)
    yield tag
    stack.remove(tag)


def wait(check: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------- Kafka


def kafka_tap(stack: Stack, run: str) -> KafkaTap:
    server: Any = stack.servers["kafka"]
    return KafkaTap(KafkaHop("source", "kafka", "source", "source", event_id), server, f"source-{run}", run, now_ms)


def produce(stack: Stack, topic: str, values: Sequence[bytes]) -> None:
    producer = Producer({"bootstrap.servers": stack.servers["kafka"].direct})
    for i, value in enumerate(values):
        producer.produce(topic, value, partition=i % 4)
    assert producer.flush(20) == 0


def test_a_kafka_tap_sees_every_record_and_swears_to_it(stack: Stack, run: str) -> None:
    tap = kafka_tap(stack, run)
    tap.start()
    produce(stack, f"source-{run}", [record(run, i) for i in range(500)] + [record(run, 0, producer=0)])
    result = tap.finish()
    assert result.certified, result.reason
    assert sorted(result.frame.filter(producer=1)["sequence"]) == list(range(500))
    assert (tap.count(), tap.distinct(), tap.warm()) == (500, 500, True)


def test_a_topic_answers_as_soon_as_it_is_made(stack: Stack) -> None:
    """A run's first reader must not be told NOT_LEADER; before the wait in `make`, most of these attempts were."""
    server: Any = stack.servers["kafka"]
    for _ in range(5):
        names = server.names(uuid.uuid4().hex[:8])
        server.make(names)
        assert set(server.ends(names["source"]).values()) == {0}
        server.remove(names)


def test_a_topic_that_was_unknown_once_is_found_once_it_is_there(stack: Stack) -> None:
    """librdkafka's metadata cache keeps an unknown topic unknown to list_offsets until somebody asks for metadata."""
    server: Any = stack.servers["kafka"]
    names = server.names(uuid.uuid4().hex[:8])
    with pytest.raises(HarnessFault, match="does not say where source-.* ends"):
        server.ends_by(names["source"], time.monotonic())
    server.make(names)
    assert server.ends_by(names["source"], time.monotonic() + 10) == dict.fromkeys(range(4), 0)
    server.remove(names)


def test_unreadable_and_foreign_ids_are_kept_with_their_bytes(stack: Stack, run: str) -> None:
    tap = kafka_tap(stack, run)
    tap.start()
    produce(stack, f"source-{run}", [b"not json", record("00000000", 5), record(run, 6)])
    frame = tap.finish().frame
    assert sorted(frame["sequence"]) == [-1, -1, 6]
    assert set(frame.filter(producer=-1)["raw"]) == {b"not json", record("00000000", 5)}


def test_a_kafka_tap_with_a_gap_is_not_certified(stack: Stack, run: str) -> None:
    """Records that were deleted before they were read: it reads what is left and must not swear to it."""
    topic = f"source-{run}"
    produce(stack, topic, [record(run, i) for i in range(40)])
    admin = AdminClient({"bootstrap.servers": stack.servers["kafka"].direct})
    for future in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        future.result(20)
    tap = kafka_tap(stack, run)
    tap.start()
    result = tap.finish(timeout_s=3)
    assert not result.certified
    assert "partition 0" in result.reason or "did not reach the end" in result.reason


def test_a_kafka_tap_that_goes_back_begins_where_the_topic_was_trimmed(stack: Stack, run: str) -> None:
    """As the tap of a run did whose harness was killed: what was trimmed before it is not missed."""
    server: Any = stack.servers["kafka"]
    produce(stack, f"source-{run}", [record(run, i) for i in range(40)])
    server.trim(f"source-{run}")
    produce(stack, f"source-{run}", [record(run, i) for i in range(40, 140)])
    tap = kafka_tap(stack, run)
    tap.go_back(0.0)
    tap.start()
    result = tap.finish()
    assert result.certified, result.reason
    assert sorted(result.frame["sequence"].to_list()) == list(range(40, 140))


def test_what_a_group_has_committed_is_known_by_partition(stack: Stack, run: str) -> None:
    """Also for one that has committed nothing, and for two who ask at once."""
    server: Any = stack.servers["kafka"]
    topic, group = f"source-{run}", f"reader-{run}"
    produce(stack, topic, [record(run, i) for i in range(40)])
    assert server.committed("one", group, topic) == dict.fromkeys(range(4), 0)
    assert server.lag(group, topic) == 40
    reader = Consumer({"bootstrap.servers": server.direct, "group.id": group})
    reader.commit(offsets=[TopicPartition(topic, 1, 7), TopicPartition(topic, 3, 10)], asynchronous=False)
    reader.close()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.committed, who, group, topic) for who in ("one", "another")]
        assert [future.result(20) for future in asked] == [{0: 0, 1: 7, 2: 0, 3: 10}] * 2
    assert server.lag(group, topic) == 23


# -------------------------------------------------------------------------------------------------------- Pub/Sub


def pubsub_tap(stack: Stack, run: str) -> PubSubTap:
    server: Any = stack.servers["pubsub"]
    hop = PubSubHop("published", "pubsub", topic="published", event_id=event_id)
    return PubSubTap(hop, server, stack.names(run)["published"], run, now_ms)


def publish(stack: Stack, run: str, values: Sequence[bytes]) -> None:
    publisher, _ = pubsub.clients(stack.servers["pubsub"].direct)
    topic = stack.names(run)["published"]
    publisher.publish(request={"topic": topic, "messages": [{"data": v} for v in values]}, timeout=10)


def test_a_pubsub_tap_counts_messages_and_swears_after_sentinel_and_quiet(stack: Stack, run: str) -> None:
    tap = pubsub_tap(stack, run)
    tap.start()
    publish(stack, run, [record(run, i) for i in range(200)] + [record(run, 7)])
    wait(lambda: tap.count() == 201)
    result = tap.finish()
    assert result.certified, result.reason
    assert time.monotonic() - tap.last_moved() > pubsub.TAP_DEADLINE_S
    assert len(result.frame) == 201
    assert result.frame["message_id"].n_unique() == 201
    assert tap.distinct() == 200


def test_a_pubsub_tap_waits_for_what_a_failed_pull_may_hold(
    stack: Stack, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have handed out messages that never came: they come again at their deadline."""
    monkeypatch.setattr(pubsub, "TAP_DEADLINE_S", 2)
    monkeypatch.setattr(PubSubTap, "start", lambda tap: tap._thread.start())
    tap = pubsub_tap(stack, run)
    tap._subscriber.create_subscription(
        request={"name": tap._subscription, "topic": tap._topic, "ack_deadline_seconds": 10}, timeout=10
    )
    tap.start()
    publish(stack, run, [record(run, 1)])
    wait(lambda: tap.count() == 1)
    time.sleep(2.2)
    monkeypatch.setattr(tap, "_pull", fail)
    wait(lambda: tap._failures > 0)
    monkeypatch.undo()
    monkeypatch.setattr(pubsub, "TAP_DEADLINE_S", 2)
    begin = time.monotonic()
    assert tap.finish().certified
    assert time.monotonic() - begin > 1.5


def fail(*_: object, **__: object) -> None:
    raise TimeoutError("the pull's answer was lost")


def test_a_pubsub_tap_that_never_was_quiet_is_not_certified(stack: Stack, run: str) -> None:
    tap = pubsub_tap(stack, run)
    tap.start()
    publish(stack, run, [record(run, 1)])
    wait(lambda: tap.count() == 1)
    result = tap.finish(timeout_s=1)
    assert not result.certified
    assert "never was quiet" in result.reason


def test_a_pubsub_tap_that_goes_back_sees_what_one_before_it_had_acknowledged(stack: Stack, run: str) -> None:
    """As that of a harness that was killed, which leaves its subscription."""
    begin = time.time()
    publish(stack, run, [record(run, 1_000)])
    before = pubsub_tap(stack, run)
    before.pass_over()
    before.start()
    publish(stack, run, [record(run, i) for i in range(300)])
    wait(lambda: before.count() == 300)
    before._stop.set()
    before._thread.join()
    publish(stack, run, [record(run, i) for i in range(300, 400)] + [record(run, 7)])
    tap = pubsub_tap(stack, run)
    tap.go_back(begin - 5)
    tap.start()
    result = tap.finish(timeout_s=40)
    assert result.certified, result.reason
    assert sorted(result.frame["sequence"].to_list()) == sorted([*range(400), 7]), "and not what was passed over"


def test_a_pubsub_tap_cannot_go_back_where_none_was_before(stack: Stack, run: str) -> None:
    tap = pubsub_tap(stack, run)
    with pytest.raises(HarnessFault, match="cannot be read again"):
        tap.go_back(time.time())


def test_a_pubsub_tap_whose_subscription_is_gone_is_not_certified(stack: Stack, run: str) -> None:
    tap = pubsub_tap(stack, run)
    tap.start()
    publish(stack, run, [record(run, 1)])
    wait(lambda: tap.count() == 1)
    tap._subscriber.delete_subscription(request={"subscription": tap._subscription}, timeout=5)
    result = tap.finish(timeout_s=12)
    assert not result.certified


# ---------------------------------------------------------------------------------------------------------- sinks

CELLS = [Cells("country", ["country"], [10])]


def cell(count: int, weight: int = 5) -> CountedCell:
    return CountedCell("country", ("US",), 10, 1_790_000_000_000, count, weight)


def test_a_sink_is_summed_by_cell_and_certified_by_two_equal_readings() -> None:
    tap = SinkTap("sink", lambda: SinkReading([cell(2), cell(3)], None), CELLS, time.time)
    result = tap_finish(tap)
    assert result.certified
    assert result.frame.to_dicts() == [
        {
            "dimension": "country",
            "key": "US",
            "window_s": 10,
            "window_start_ms": 1_790_000_000_000,
            "count": 5,
            "weight": 10,
        }
    ]


def test_a_sink_that_still_moves_is_not_certified() -> None:
    counts = iter(range(1000))
    tap = SinkTap("sink", lambda: SinkReading([cell(next(counts))], None), CELLS, time.time)
    result = tap_finish(tap)
    assert not result.certified
    assert "differ" in result.reason


def test_a_sink_that_cannot_be_read_is_not_certified() -> None:
    def fail() -> SinkReading:
        raise OSError("gone")

    result = tap_finish(SinkTap("sink", fail, CELLS, time.time))
    assert not result.certified
    assert "gone" in result.reason


def test_a_sink_is_only_glanced_at_until_the_end() -> None:
    """Single events are read once, at the end: not whenever somebody asks how far it is. The reading after that, which must
    find the same, is of all cells, but of them alone."""
    asked: list[str] = []

    def read(how: str) -> SinkReading:
        asked.append(how)
        return SinkReading([cell(2)], [] if how == "whole" else None)

    hows = {how: partial(read, how) for how in ("glance", "recount")}
    tap = SinkTap("sink", lambda: read("whole"), CELLS, time.time, **hows)
    result = tap_finish(tap)
    assert asked[-2:] == ["whole", "recount"]
    assert set(asked[:-2]) == {"glance"}
    assert tap.count() == 2
    assert result.sightings("1a2b3c4d").height == 0


def tap_finish(tap: SinkTap) -> Any:
    tap.start()
    time.sleep(0.1)
    return tap.finish()


def test_sqlite_is_read_by_the_hops_query_and_empty_before_there_is_a_table(tmp_path: Path) -> None:
    server = SqliteServer(Sqlite("db", databases=["counts"]), tmp_path)
    server.start()
    path = server.names("1a2b3c4d")["counts"]
    hop = SqliteHop("counts", "db", database="counts", query="SELECT n, w FROM c", cells=lambda r: [cell(r[0], r[1])])
    assert len(tap_finish(sqlite_tap(hop, path, CELLS, time.time)).frame) == 0
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE c (n, w)")
        connection.execute("INSERT INTO c VALUES (4, 40)")
    result = tap_finish(sqlite_tap(hop, path, CELLS, time.time))
    assert (result.certified, result.frame["count"].to_list()) == (True, [4])
    server.remove({"counts": path})
    assert not Path(path).exists()


def test_bigtable_rows_come_whole_with_all_versions(stack: Stack, run: str) -> None:
    """Also a value that the server sends in pieces and a row of many cells."""
    from google.cloud.bigtable_v2.types import bigtable as types

    server: Any = stack.servers["bigtable"]
    table = stack.names(run)["aggregates"]
    request = types.MutateRowsRequest.pb()(table_name=table)
    for row in range(3):
        entry = request.entries.add(row_key=b"row-%d" % row)
        for qualifier in range(50):
            for version in (1000, 2000):
                cell = entry.mutations.add().set_cell
                cell.family_name, cell.column_qualifier = "seen", b"q%02d" % qualifier
                cell.timestamp_micros, cell.value = version, b"%d" % version + b"x" * (300_000 if qualifier == 7 else 0)
    call = server.channel.unary_stream("/google.bigtable.v2.Bigtable/MutateRows")
    assert list(call(request.SerializeToString(), timeout=20))
    found = list(read_rows(server.channel, table))
    assert [r.key for r in found] == [b"row-0", b"row-1", b"row-2"]
    for row in found:
        assert len(row.cells) == 50
        assert [t for t, _ in row.cells["seen", b"q03"]] == [2000, 1000]
        assert len(row.cells["seen", b"q07"][0][1]) == 300_004


def test_rows_whose_windows_are_over_are_dropped_and_what_they_held_is_told(stack: Stack, run: str) -> None:
    from google.cloud.bigtable_v2.types import bigtable as types

    server: Any = stack.servers["bigtable"]
    table = stack.names(run)["aggregates"]
    hop = kappa.sink
    assert isinstance(hop, BigtableHop)
    old_ms, young_ms = 1_790_000_000_000, 1_790_000_120_000
    call = server.channel.unary_stream("/google.bigtable.v2.Bigtable/MutateRows")
    for at_ms, events in ((old_ms, 3), (young_ms, 2)):
        cells = [
            (rows.seen_qualifier("like", f"u{i}"), rows.seen_value(7, f"{run}-0001-{i:010d}")) for i in range(events)
        ]
        entry = seen_entry(rows.row_key("tweet", "1", at_ms), cells)
        request = types.MutateRowsRequest.pb()(table_name=table, entries=[entry])
        assert list(call(request.SerializeToString(), timeout=20))
    # The row's longest window ends 60 s after its start.
    assert bigtable.trim(hop, server, table, before_ms=old_ms) == []
    dropped = bigtable.trim(hop, server, table, before_ms=young_ms)
    assert {(c.window_s, c.count, c.weight) for c in dropped} == {(10, 3, 21), (60, 3, 21)}
    left = [cell for row in read_rows(server.channel, table) for cell in hop.cells(row)]
    assert {(c.window_s, c.count) for c in left} == {(10, 2), (60, 2)}
