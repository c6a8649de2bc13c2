"""How much verified load Locust puts on a real Kafka, beside Kafka's own producer benchmark.

Both write to a broker that was started for the measurement, into a topic of eight partitions, with acks=all and records
of the same size, as fast as they can. Ours are unique JSON events, each in the ledger before it is sent and again when it
is acknowledged; the peer's are one random payload, over and over, and it remembers nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import perf_test
from benchmarks.kafka_alone import PARTITIONS, fill, topic
from benchmarks.measure import Benchmark, Side
from harness.ledger import ACK, INTENT
from harness.provision import provision
from load.events import EVENT_BYTES

OURS = "Gauntlet: Locust, unique events in the ledger, without a key"
BOTH = "the same by Locust's master and two worker processes"
KEYED = "the same by one process, keyed by tweet"
PEER = "kafka-producer-perf-test"
EVENTS = 2_000_000


def benchmark() -> Benchmark:
    kafka = provision().kafka
    return Benchmark(
        "load",
        "Events a second into Kafka, every one acknowledged",
        "/s",
        [
            Side(OURS, lambda: ours(keyed=False), least=1.0),
            Side(BOTH, lambda: ours(2, keyed=False), least=1.3),
            Side(KEYED, ours, least=0.9),
            Side(PEER, lambda: peer(EVENTS)),
        ],
        PEER,
        notes=[
            f"Kafka {kafka.version}, one broker on the same cores, {PARTITIONS} partitions, acks=all, {EVENTS:,} records "
            f"of {EVENT_BYTES} bytes",
            f"The peer sends without a key. Its settings: {', '.join(perf_test.SETTINGS)}",
        ],
    )


def ours(processes: int = 1, keyed: bool = True) -> float:
    """From the first intent to the last acknowledgement, by the ledger's own times."""
    with topic() as one:
        _, _, ledger = fill(one, EVENTS, processes, keyed)
        records = ledger.records
        times, kinds = records["t_us"], records["kind"]
        return float(EVENTS / (times[kinds == ACK].max() - times[kinds == INTENT].min()) * 1e6)


def peer(records: int) -> float:
    """Records a second of the same size by Kafka's own benchmark."""
    kafka = provision().kafka
    jar = perf_test.tools(kafka, Path(tempfile.gettempdir()) / "gauntlet-benchmark-jars")
    with topic() as one:
        rate = perf_test.produce(kafka, jar, one.bootstrap, one.name, records, EVENT_BYTES)
        one.must_hold(records)
        return rate
