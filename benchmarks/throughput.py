"""How many events a second the reference pipeline carries from the source topic to durable aggregates, losing none.

The peer does the same aggregation on the same DirectRunner with Beam's own `ReadFromPubSub` (the negative control of the
zoo, with nothing injected). Each gets a backlog at once, which it works off as fast as it can, on the machine where
Kafka, the emulators, every proxy and every tap run too. The figure is that of the run: events by the time from when the
first was due to when the last was counted in Bigtable; a run that does not pass has none. The other sides are the limits: what
each service does with the same events when it has the machine to itself.
"""

from __future__ import annotations

import polars as pl

from assertions import batch_parity, content, duplicate_rate, no_loss
from benchmarks import alone, load
from benchmarks.measure import Benchmark, Side
from benchmarks.passed import passed
from harness.scenario import Scenario
from harness.store import SavedRun
from harness.topology import Pipeline
from load.events import EVENT_BYTES
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.stock_beam.pipeline import stock_beam

REFERENCE = "the Kappa pipeline"
PEER = "the same with Beam's ReadFromPubSub"
BIGTABLE = "Bigtable's emulator alone: the rows of both dimensions written"
PUBSUB = "Pub/Sub's emulator alone: published, pulled and acknowledged"
KAFKA = "Kafka alone: written by its own producer benchmark"
#: Enough for some ten seconds of work each.
EVENTS, PEER_EVENTS, RECORDS = 80_000, 8_000, 1_000_000


def benchmark() -> Benchmark:
    return Benchmark(
        "throughput",
        "Events a second from the source topic to durable aggregates, with no loss",
        "/s",
        [
            Side(REFERENCE, lambda: carried(kappa, EVENTS), least=10),
            Side(PEER, lambda: carried(stock_beam, PEER_EVENTS)),
            Side(BIGTABLE, lambda: alone.bigtable(EVENTS)),
            Side(PUBSUB, lambda: alone.pubsub(EVENTS)),
            Side(KAFKA, lambda: load.peer(RECORDS)),
        ],
        PEER,
        notes=[
            f"Everything on the same cores; a backlog of {EVENTS:,} events, {PEER_EVENTS:,} for the peer; two dimensions with "
            "two granularities each",
            f"An event is {EVENT_BYTES} bytes at its source, which is what MB/s counts",
        ],
        bytes_each=EVENT_BYTES,
    )


def carried(pipeline: Pipeline, events: int) -> float:
    """Events a second of one run that passed. Raises HarnessFault otherwise."""
    scenario = Scenario(
        "throughput",
        pipeline,
        Steady(rate=events, seconds=1),
        (),
        [no_loss(), content(), duplicate_rate("aggregates", most=0), batch_parity(least=0.5)],
    )
    with passed(scenario) as outcome:
        run = SavedRun.load(outcome.folder)
        seen = run.sightings("aggregates")
        assert seen is not None
        last = float(seen.filter(pl.col("place") >= 0)["seen_ms"].max() or 0) / 1000  # type: ignore[arg-type]
        return int(run.settled().must_arrive.sum()) / (last - run.t0)
