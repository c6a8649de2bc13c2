"""How much verified load Locust puts on a real Kafka, beside Kafka's own producer benchmark.

Both write to the same broker, started anew for each measurement, into a topic of eight partitions, with acks=all and
records of the same size, as fast as they can. Ours are unique JSON events, each in the ledger before it is sent and again
when it is acknowledged; the peer's are one random payload, over and over, and it checks nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import perf_test
from benchmarks.measure import Benchmark, Side
from harness.errors import HarnessFault
from harness.ledger import ACK, INTENT, Ledger
from harness.provision import provision
from harness.session import Session
from harness.topology import Kafka, KafkaHop, Pipeline
from load.events import EVENT_BYTES
from load.profiles import Steady
from load.spec import LoadSpec

PEER = "kafka-producer-perf-test"
EVENTS = 1_000_000
PARTITIONS = 8


def benchmark() -> Benchmark:
    kafka = provision().kafka
    folder = Path(tempfile.gettempdir()) / "gauntlet-benchmark-jars"
    jar = perf_test.tools(kafka, folder)
    return Benchmark(
        "load",
        "Events a second into Kafka, every one acknowledged",
        "/s",
        [
            Side("Gauntlet: Locust with the ledger, keyed by tweet", lambda: ours()),
            Side(PEER, lambda: peer(kafka, jar)),
        ],
        PEER,
        notes=[
            f"Kafka {kafka.version}, one broker on the same machine, {PARTITIONS} partitions, acks=all, {EVENTS:,} records "
            f"of {EVENT_BYTES} bytes",
            f"The peer's settings: {', '.join(perf_test.SETTINGS)}",
        ],
    )


@contextmanager
def _topic() -> Iterator[tuple[str, str, Callable[[], int]]]:
    """(bootstrap, topic, how many records are in it) of a Kafka that is gone afterwards."""
    pipeline = Pipeline(
        name="load-alone",
        services=(Kafka("kafka", topics={"events": PARTITIONS}),),
        workers=(),
        hops=(KafkaHop("events", "kafka", "source", topic="events"),),
    )
    with Session("process") as session:
        stack = session.stack(pipeline)
        server: Any = stack.servers["kafka"]
        names = stack.names(uuid.uuid4().hex[:8])
        server.make(names)
        yield server.direct, names["events"], lambda: sum(server.ends(names["events"]).values())


def ours(users: int = 1) -> float:
    """Events a second from the first intent to the last acknowledgement, by the ledger's own times."""
    with _topic() as (bootstrap, topic, there), tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-") as folder:
        spec = LoadSpec(
            bootstrap,
            topic,
            run="1a2b3c4d",
            seed=7,
            users=users,
            profile=Steady(rate=EVENTS * 10, seconds=0.1, share_poison=0.0),
            ledger=f"{folder}/ledger.bin",
            status=f"{folder}/status.jsonl",
        )
        spec.write(f"{folder}/spec.json")
        done = subprocess.run(
            [sys.executable, "-m", "load.main", f"{folder}/spec.json"], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise HarnessFault(f"the load came to nothing:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        ledger = Ledger.read(spec.ledger)
        if (acked := ledger.totals()["acked"]) != EVENTS or there() != EVENTS:
            raise HarnessFault(f"of {EVENTS:,} events {acked:,} were acknowledged, and {there():,} are in the topic")
        times = ledger.records["t_us"]
        begin = times[ledger.records["kind"] == INTENT].min()
        end = times[ledger.records["kind"] == ACK].max()
        return float(EVENTS / (end - begin) * 1e6)


def peer(kafka: Any, jar: Path) -> float:
    with _topic() as (bootstrap, topic, there):
        rate = perf_test.produce(kafka, jar, bootstrap, topic, EVENTS, EVENT_BYTES)
        if there() != EVENTS:
            raise HarnessFault(f"of {EVENTS:,} records of the peer {there():,} are in the topic")
        return rate
