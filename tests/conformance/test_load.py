"""The load process against a real Kafka: what it says it sent is what the source log holds.

The fixture `kafka_bootstrap` (tests/conformance/conftest.py) is the address of a Kafka for the test session.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import wait_for

from harness.errors import StartFailed
from harness.ledger import Ledger, ledgers
from load.events import Plan, columns, encode, parse_event_id
from load.profiles import Steady
from load.spec import LoadSpec
from load.warmup import send_warmup

pytestmark = pytest.mark.services

REPOSITORY = Path(__file__).parents[2]
RUN = "1a2b3c4d"
PARTITIONS = 4


@dataclass(frozen=True)
class Record:
    """A record of the source log; created_ms is its CreateTime."""

    event_id: str
    key: bytes | None
    value: bytes
    created_ms: int
    partition: int


@pytest.fixture
def topic(kafka_bootstrap: str) -> Iterator[str]:
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    name = f"load-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(20)
    yield name
    admin.delete_topics([name])[name].result(20)


@pytest.fixture
def spec(kafka_bootstrap: str, topic: str, tmp_path: Path) -> LoadSpec:
    return LoadSpec(
        bootstrap=kafka_bootstrap,
        topic=topic,
        run=RUN,
        seed=7,
        profile=Steady(rate=2_000, seconds=2),
        ledger=str(tmp_path / "ledger.bin"),
        status=str(tmp_path / "status.jsonl"),
        go=str(tmp_path / "go"),
        stop=str(tmp_path / "stop"),
        drain_s=20,
    )


def start(spec: LoadSpec) -> subprocess.Popen[bytes]:
    """Starts the load process, waits until it is ready and lets it go in half a second."""
    path = Path(spec.go).with_name("spec.json")
    spec.write(path)
    process = subprocess.Popen([sys.executable, "-m", "load.main", str(path)], cwd=REPOSITORY)
    deadline = time.monotonic() + 30
    while "ready" not in states(spec):
        assert process.poll() is None, f"the load process ended with {process.returncode}: {lines(spec)}"
        assert time.monotonic() < deadline, "the load process did not become ready"
        time.sleep(0.02)
    return process


def wait_for_acks(spec: LoadSpec) -> None:
    assert wait_for(lambda: any(line.get("acked", 0) > 0 for line in lines(spec)), 20), "it sent nothing"


def go(spec: LoadSpec, t0_ms: int | None = None) -> Plan:
    t0_ms = t0_ms or int(time.time() * 1000) + 200
    Path(spec.go).write_text(json.dumps({"t0_ms": t0_ms}))
    return spec.plan(t0_ms)


def lines(spec: LoadSpec) -> list[dict[str, Any]]:
    path = Path(spec.status)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def states(spec: LoadSpec) -> list[str]:
    return [line["state"] for line in lines(spec)]


def source_log(spec: LoadSpec) -> list[Record]:
    """Every record of the topic, up to its end."""
    consumer = Consumer({"bootstrap.servers": spec.bootstrap, "group.id": "reader", "enable.auto.commit": False})
    ends = [consumer.get_watermark_offsets(TopicPartition(spec.topic, p), timeout=10) for p in range(PARTITIONS)]
    consumer.assign([TopicPartition(spec.topic, p, low) for p, (low, _) in enumerate(ends)])
    wanted, found = sum(high - low for low, high in ends), []
    deadline = time.monotonic() + 30
    while len(found) < wanted:
        assert time.monotonic() < deadline, f"{len(found)} of {wanted} records read"
        for message in consumer.consume(10_000, timeout=1):
            value = message.value()
            assert value is not None
            event_id = value[13:37] if value.startswith(b"{") else value[:24]
            found.append(
                Record(event_id.decode(), message.key(), value, message.timestamp()[1], message.partition() or 0)
            )
    consumer.close()
    return found


def sequences(log: list[Record], producer: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    parsed = [parse_event_id(record.event_id) for record in log]
    return np.sort(np.array([p[2] for p in parsed if p and p[1] == producer], dtype=np.int64))


def test_every_event_is_in_the_log_once_with_its_due_time_and_bytes(spec: LoadSpec) -> None:
    process = start(spec)
    plan = go(spec)
    assert process.wait(30) == 0
    last = lines(spec)[-1]
    assert last["state"] == "done"
    assert last["ended"] == "plan"
    assert (last["planned"], last["sent"], last["acked"], last["failed"], last["ambiguous"]) == (4000, 4000, 4000, 0, 0)
    ledger = Ledger.read(spec.ledger)
    assert ledger.run == RUN
    assert ledger.totals() == {"sent": 4000, "acked": 4000, "ambiguous": 0, "failed": 0}

    log = sorted(source_log(spec), key=lambda record: record.event_id)
    assert np.array_equal(sequences(log, 1), ledger.acked(1))
    made = columns(plan, 1, 0, 4000)
    assert [record.created_ms for record in log] == made.created_ms.tolist()
    assert [record.value for record in log] == encode(made, plan, 1)
    assert [record.key for record in log] == [b"%d" % tweet for tweet in made.tweet_id.tolist()]


def test_the_load_keeps_its_schedule(spec: LoadSpec) -> None:
    spec = replace(spec, profile=Steady(rate=1_000, seconds=3))
    process = start(spec)
    plan = go(spec)
    assert process.wait(30) == 0
    intents = Ledger.read(spec.ledger).records
    intents = intents[intents["kind"] == 1]
    due_us = plan.due_us(1, intents["lo"] + intents["n"].astype(np.int64) - 1)
    late_ms = (intents["t_us"] - due_us) / 1000
    assert late_ms.min() > -1.5, "a batch was sent before its last event was due"
    assert np.median(late_ms) < 20, f"late by {np.percentile(late_ms, [50, 99, 100])} ms"


def test_users_share_the_rate_and_each_is_a_producer(spec: LoadSpec) -> None:
    spec = replace(spec, users=3, profile=Steady(rate=1_000, seconds=1))
    process = start(spec)
    plan = go(spec)
    assert process.wait(30) == 0
    ledger = Ledger.read(spec.ledger)
    assert ledger.producers == [1, 2, 3]
    log = source_log(spec)
    for producer in (1, 2, 3):
        assert np.array_equal(sequences(log, producer), ledger.acked(producer))
        assert len(ledger.acked(producer)) == plan.events_of(producer)
    assert len(log) == 1_000


def test_a_late_start_is_caught_up_and_nothing_skipped(spec: LoadSpec) -> None:
    process = start(spec)
    began = time.monotonic()
    go(spec, t0_ms=int(time.time() * 1000) - 60_000)
    assert process.wait(20) == 0
    assert time.monotonic() - began < 10, "events that were due a minute ago were sent at the rate instead of at once"
    assert Ledger.read(spec.ledger).totals()["acked"] == 4000
    assert len(source_log(spec)) == 4000


def test_a_kill_leaves_nothing_acked_outside_the_log_and_nothing_in_the_log_that_was_not_intended(
    spec: LoadSpec,
) -> None:
    spec = replace(spec, profile=Steady(rate=2_000, seconds=30))
    process = start(spec)
    go(spec)
    wait_for_acks(spec)
    process.kill()
    process.wait(10)
    time.sleep(0.3)  # the broker may still be writing what the socket held
    ledger = Ledger.read(spec.ledger)
    log = sequences(source_log(spec), 1)
    assert 0 < len(ledger.acked(1)) < 60_000
    assert np.setdiff1d(ledger.acked(1), log).size == 0
    assert np.setdiff1d(log, ledger.intended(1)).size == 0
    assert len(np.unique(log)) == len(log)
    assert len(ledger.failed(1)) == 0
    assert len(ledger.acked(1)) + len(ledger.ambiguous(1)) == len(ledger.intended(1))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("how", ["stop", "signal"])
def test_an_early_end_drains_and_says_so(spec: LoadSpec, how: str, processes: int) -> None:
    spec = replace(spec, users=processes, processes=processes, profile=Steady(rate=2_000, seconds=30))
    process = start(spec)
    go(spec)
    wait_for_acks(spec)
    if how == "stop":
        Path(spec.stop).touch()
    else:
        process.terminate()
    assert process.wait(10) == 0
    last = lines(spec)[-1]
    assert (last["state"], last["ended"], last["ambiguous"]) == ("done", how, 0)
    assert 0 < last["acked"] < 60_000
    assert len(source_log(spec)) == last["acked"] == Ledger.read(*ledgers(spec.ledger)).totals()["acked"]


def test_a_users_encoder_makes_the_records(spec: LoadSpec) -> None:
    spec = replace(spec, encode="tests.lines_encoder:encode_as_lines", profile=Steady(500, 1, share_poison=0.1))
    process = start(spec)
    plan = go(spec)
    assert process.wait(30) == 0
    log = sorted(source_log(spec), key=lambda record: record.event_id)
    made = columns(plan, 1, 0, 500)
    assert [b"broken" in record.value for record in log] == made.poison.tolist()
    assert {record.key for record in log} == {None}
    assert [record.created_ms for record in log] == made.created_ms.tolist()
    assert np.array_equal(sequences(log, 1), Ledger.read(spec.ledger).acked(1))


def test_a_load_without_keys_is_spread_and_complete(spec: LoadSpec, tmp_path: Path) -> None:
    spec = replace(spec, keyed=False)
    process = start(spec)
    plan = go(spec)
    assert process.wait(30) == 0
    assert send_warmup(spec.bootstrap, spec.topic, plan, 10, tmp_path / "warmup.bin", keyed=False) == 10
    log = sorted(source_log(spec), key=lambda record: record.event_id)
    assert {record.key for record in log} == {None}
    assert len({record.partition for record in log}) == PARTITIONS
    made = columns(plan, 1, 0, 4000)
    assert [record.value for record in log[10:]] == encode(made, plan, 1)
    assert np.array_equal(sequences(log, 1), Ledger.read(spec.ledger).acked(1))


def test_a_topic_that_does_not_exist_is_an_error_with_its_name(kafka_bootstrap: str, tmp_path: Path) -> None:
    plan = Plan(Steady(), 7, 1, 1_790_000_000_000, RUN)
    with pytest.raises(StartFailed, match=r"no topic 'not-there' at .* within 0\.5 s"):
        send_warmup(kafka_bootstrap, "not-there", plan, 10, tmp_path / "warmup.bin", timeout_s=0.5)


def test_the_warm_up_is_producer_0_in_a_ledger_of_its_own(spec: LoadSpec, tmp_path: Path) -> None:
    plan = spec.plan(int(time.time() * 1000))
    path = tmp_path / "warmup.bin"
    assert send_warmup(spec.bootstrap, spec.topic, plan, 40, path) == 40
    assert send_warmup(spec.bootstrap, spec.topic, plan, 10, path, lo=40) == 10
    ledger = Ledger.read(path)
    assert ledger.producers == [0]
    assert ledger.totals()["acked"] == 50
    log = source_log(spec)
    assert np.array_equal(sequences(log, 0), np.arange(50))
    assert all(b'"country":"ZZ"' in record.value for record in log)
    assert len({record.partition for record in log}) == PARTITIONS


LOCUSTFILE = """
from load.spec import LoadSpec
from load.users import EventUser

class Mine(EventUser):
    spec = LoadSpec.read({path!r})
"""


def by_locustfile(spec: LoadSpec, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`locust` with a locustfile of one's own, for two users that send what the spec says."""
    spec.write(folder / "spec.json")
    (folder / "locustfile.py").write_text(LOCUSTFILE.format(path=str(folder / "spec.json")))
    done = subprocess.run(
        [sys.executable, "-m", "locust", "--headless", "--only-summary", "-u2", "-r2", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    ledger = Ledger.read(*ledgers(spec.ledger))
    assert ledger.totals() == {"sent": 800, "acked": 800, "ambiguous": 0, "failed": 0}
    log = source_log(spec)
    assert [np.array_equal(sequences(log, p), ledger.acked(p)) for p in (1, 2)] == [True, True]
    return done


def test_the_user_works_in_a_locustfile_of_ones_own(spec: LoadSpec, tmp_path: Path) -> None:
    spec = replace(spec, users=2, profile=Steady(rate=400, seconds=2))
    done = by_locustfile(spec, tmp_path, "-t12s")  # which is to be more than its start and the load take
    assert f"produce to {spec.topic}" in done.stdout + done.stderr


# ------------------------------------------------------------------------------------- Locust's master and workers


def pids_of_workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [p for p in psutil.Process(process.pid).children() if "load.workers" in p.cmdline()]


@pytest.fixture
def shared(spec: LoadSpec) -> LoadSpec:
    return replace(spec, users=4, processes=2)


def test_worker_processes_send_the_same_events_as_one(shared: LoadSpec) -> None:
    process = start(shared)
    workers = pids_of_workers(process)
    assert len(workers) == 2
    plan = go(shared)
    assert process.wait(30) == 0
    assert not any(worker.is_running() for worker in workers)
    last = lines(shared)[-1]
    assert (last["state"], last["ended"], last["planned"], last["acked"]) == ("done", "plan", 4000, 4000)
    assert [path.name for path in ledgers(shared.ledger)] == ["ledger-0.bin", "ledger-1.bin"]
    shares = [Ledger.read(path).producers for path in ledgers(shared.ledger)]
    assert [len(share) for share in shares] == [2, 2]
    ledger = Ledger.read(*ledgers(shared.ledger))
    assert ledger.producers == [1, 2, 3, 4]
    log = sorted(source_log(shared), key=lambda record: record.event_id)
    wanted = [value for p in plan.producers for value in encode(columns(plan, p, 0, plan.events_of(p)), plan, p)]
    assert [record.value for record in log] == wanted
    assert [np.array_equal(sequences(log, p), ledger.acked(p)) for p in plan.producers] == [True] * 4


def test_a_worker_that_dies_is_an_error_and_its_ledger_is_kept(shared: LoadSpec) -> None:
    shared = replace(shared, profile=Steady(rate=2_000, seconds=30))
    process = start(shared)
    go(shared)
    time.sleep(1)
    first, second = pids_of_workers(process)
    first.kill()
    assert process.wait(30) == 4
    assert "a worker process of the load ended with status -9" in lines(shared)[-1]["text"]
    assert not second.is_running()
    ledger = Ledger.read(*ledgers(shared.ledger))
    log = source_log(shared)
    for producer in ledger.producers:
        assert np.setdiff1d(ledger.acked(producer), sequences(log, producer)).size == 0
        assert np.setdiff1d(sequences(log, producer), ledger.intended(producer)).size == 0


def test_workers_end_with_a_master_that_was_killed(shared: LoadSpec) -> None:
    process = start(shared)
    workers = pids_of_workers(process)
    process.kill()
    process.wait(10)
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_locustfile_of_ones_own_is_spread_over_processes(spec: LoadSpec, tmp_path: Path) -> None:
    spec = replace(spec, users=2, profile=Steady(rate=400, seconds=2))
    port = str(free_port())
    master = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
    by_locustfile(spec, tmp_path, "-t8s", "--processes", "2", *master)
    assert len(ledgers(spec.ledger)) == 2


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
