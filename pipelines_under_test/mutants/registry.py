"""Which mutants there are, and what must catch each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.topology import BigtableHop, CountedCell, Hop, Pipeline, Row, Sighting
from pipelines_under_test.kappa.pipeline import command, kappa
from pipelines_under_test.kappa.rows import Count
from pipelines_under_test.legacy.pipeline import legacy
from pipelines_under_test.mutants import sums, totals


@dataclass(frozen=True)
class Mutant:
    """A pipeline with one planted bug.

    caught_by   name of the assertion that must find a violation
    scenario    name of the scenario in which it must
    runs        within how many runs of that scenario
    seen_at     where such a bug was seen: the address of an issue, a change or a page of documentation
    """

    name: str
    pipeline: Pipeline
    about: str
    caught_by: str
    scenario: str
    runs: int = 1
    seen_at: str = ""


def mutant(
    name: str,
    worker: str,
    about: str,
    *,
    caught_by: str,
    scenario: str,
    seen_at: str,
    runs: int = 1,
    sink: BigtableHop | None = None,
    env: Mapping[str, str] | None = None,
    of: Pipeline = kappa,
) -> Mutant:
    """The reference pipeline, or another, with the program of one worker replaced by the module of that name. Where that
    program is the batch truth's too, it is replaced there as well: one program, one bug."""
    original = of.worker(worker)
    program = command(f"mutants.{name.replace('-', '_')}")
    replaced = dataclasses.replace(original, command=program, env={**original.env, **(env or {})})
    workers = [replaced if w is original else w for w in of.workers]
    hops: list[Hop] = [sink if sink is not None and hop.role == "sink" else hop for hop in of.hops]
    batch = of.batch
    if batch is not None and batch.command == original.command:
        batch = dataclasses.replace(batch, command=program)
    pipeline = dataclasses.replace(of, name=name, about=about, workers=workers, hops=hops, batch=batch)
    return Mutant(name, pipeline, about, caught_by, scenario, runs, seen_at)


def _sink(cells_of_row: Callable[[Row], Iterable[Count]]) -> BigtableHop:
    """The same table, with another way to read counts out of its rows."""

    def cells(row: Row) -> Iterator[CountedCell]:
        for c in cells_of_row(row):
            yield CountedCell(c.dimension, (c.key, c.engagement), c.window_s, c.window_start_ms, c.count, c.weight)

    return BigtableHop("aggregates", "bigtable", table="aggregates", cells=cells, sightings=_sightings)


def _sightings(row: Row) -> Iterator[Sighting]:
    sink = kappa.sink
    assert isinstance(sink, BigtableHop)
    assert sink.sightings is not None
    yield from sink.sightings(row)


MUTANTS: dict[str, Mutant] = {
    m.name: m
    for m in (
        # -- loss
        mutant(
            "ack-before-write",
            "aggregator",
            "acknowledges messages when they are pulled, before their counts are durable",
            caught_by="no_loss",
            scenario="restarts",
            seen_at="https://github.com/spotify/klio/pull/197",
        ),
        mutant(
            "commit-before-publish",
            "converter",
            "commits its Kafka offsets when messages are handed to the publisher, before they are acknowledged",
            caught_by="no_loss",
            scenario="restarts",
            seen_at="https://github.com/apache/iggy/issues/3847",
        ),
        mutant(
            "fire-and-forget",
            "converter",
            "publishes once and never asks whether it was acknowledged",
            caught_by="no_loss",
            scenario="partitions",
            seen_at="https://github.com/googleapis/google-cloud-python/issues/7620",
        ),
        mutant(
            "swallowed-exception",
            "aggregator",
            "logs a failed write to the sink and goes on as if it had succeeded",
            caught_by="no_loss",
            scenario="partitions",
            seen_at="https://github.com/adobe/experience-platform-streaming-connect/issues/19",
        ),
        mutant(
            "bounded-retry",
            "converter",
            "gives a publish up after five attempts and commits it all the same",
            caught_by="no_loss",
            scenario="partitions",
            seen_at="https://github.com/DataDog/logstash-output-datadog_logs/pull/24",
        ),
        mutant(
            "drop-on-backpressure",
            "converter",
            "drops what comes while its queue is full",
            caught_by="no_loss",
            scenario="partitions",
            seen_at="https://github.com/eclipse-ditto/ditto/pull/1195",
        ),
        mutant(
            "auto-commit",
            "converter",
            "lets the Kafka client commit by the clock, whatever is done or not",
            caught_by="no_loss",
            scenario="killed-while-cut",
            seen_at="https://github.com/confluentinc/librdkafka/issues/2609",
        ),
        mutant(
            "acks-zero",
            "preprocessor",
            "produces with acks=0 and commits what was only put into a socket",
            caught_by="no_loss",
            scenario="black-holes",
            seen_at="https://github.com/joekiller/logstash-kafka/issues/4",
            runs=3,  # a black hole must meet a batch that is not yet written
        ),
        mutant(
            "acks-one",
            "preprocessor",
            "produces with acks=1 and commits what only the leader of a partition has",
            caught_by="no_loss",
            scenario="broker-loss",
            seen_at="https://github.com/fyndiq/confluent_kafka_helpers/issues/4",
            runs=5,  # the worker may be waiting for an answer of the brokers that are away
        ),
        mutant(
            "lost-on-rebalance",
            "converter",
            "commits what it has read when the group rebalances, and forgets what it holds of it",
            caught_by="no_loss",
            scenario="replicas",
            seen_at="https://github.com/apache/camel/pull/2838",
            runs=3,  # the rebalance must meet a worker that holds something
        ),
        mutant(
            "poison-dropped",
            "preprocessor",
            "drops records that it cannot read instead of writing them to the dead letters",
            caught_by="no_loss",
            scenario="steady",
            seen_at="https://github.com/vectordotdev/vector/issues/140",
        ),
        mutant(
            "poison-kills-batch",
            "preprocessor",
            "skips the rest of a batch behind a record that it cannot read",
            caught_by="no_loss",
            scenario="steady",
            seen_at="https://github.com/logstash-plugins/logstash-output-google_bigquery/issues/44",
        ),
        mutant(
            "late-dropped",
            "aggregator",
            "drops events that come after their window was closed",
            caught_by="no_loss",
            scenario="steady",
            seen_at="https://github.com/mozilla/gcp-ingestion/pull/1689",
        ),
        # -- duplication
        mutant(
            "fresh-uuid",
            "converter",
            "gives a message a new UUID with every attempt to publish it",
            caught_by="duplicate_rate",
            scenario="lost-acks",
            seen_at="https://github.com/BasedHardware/omi/pull/12921",
        ),
        mutant(
            "no-dedup",
            "aggregator",
            "counts every message that comes, without deduplication",
            caught_by="duplicate_rate",
            scenario="lost-acks",
            seen_at="https://github.com/kubernetes-retired/heapster/issues/224",
        ),
        mutant(
            "dedup-by-message-id",
            "aggregator",
            "deduplicates deliveries of a message, not publishes of an event",
            caught_by="duplicate_rate",
            scenario="lost-acks",
            seen_at="https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub",
        ),
        mutant(
            "batch-retried",
            "converter",
            "publishes a whole batch anew, with new UUIDs, when one of its requests failed",
            caught_by="duplicate_rate",
            scenario="lost-acks",
            seen_at="https://github.com/wepay/kafka-connect-bigquery/issues/53",
        ),
        mutant(
            "blind-increment",
            "aggregator",
            "deduplicates by a cache, but counts by increments, and repeats one whose answer was lost",
            caught_by="duplicate_rate",
            scenario="lost-acks",
            seen_at="https://github.com/serg-io/dynamodb-atomic-counter/issues/4",
            runs=3,  # a pulse must meet a write in flight
            sink=_sink(sums.cells_of_row),
        ),
        mutant(
            "short-dedup-window",
            "aggregator",
            "forgets after two seconds what it has counted",
            caught_by="duplicate_rate",
            scenario="redeliveries",
            seen_at="https://github.com/getsentry/sentry/pull/14375",
        ),
        mutant(
            "dedup-in-memory",
            "aggregator",
            "remembers what it has counted only as long as it lives",
            caught_by="duplicate_rate",
            scenario="redeliveries",
            seen_at="https://github.com/NousResearch/hermes-agent/pull/111555",
        ),
        mutant(
            "uuid-from-offset",
            "converter",
            "derives the UUID from the offset of an intermediate record, which a replay changes",
            caught_by="duplicate_rate",
            scenario="killed-while-cut",
            seen_at="https://github.com/confluentinc/kafka-connect-elasticsearch/issues/118",
        ),
        mutant(
            "dedup-by-release",
            "aggregator",
            "deduplicates by a key that its own release is a part of, so that another release counts anew",
            caught_by="duplicate_rate",
            scenario="rolling-upgrade",
            seen_at="https://github.com/vivekchand/clawmetry/pull/1232",
        ),
        # -- corruption
        mutant(
            "dedup-by-content",
            "converter",
            "derives the UUID from what an event says instead of its id, so that equal events become one",
            caught_by="no_loss",
            scenario="steady",
            seen_at="https://github.com/elastic/integrations/issues/9966",
        ),
        mutant(
            "truncated-hash",
            "converter",
            "cuts the UUID to twelve bits, so that different events become one",
            caught_by="no_loss",
            scenario="steady",
            seen_at="https://github.com/Cyb3rWard0g/HELK/issues/231",
        ),
        mutant(
            "mixed-up-keys",
            "preprocessor",
            "swaps author and user of events from the web client",
            caught_by="content",
            scenario="steady",
            seen_at="https://github.com/weecology/PortalData/pull/18",
        ),
        mutant(
            "id-as-double",
            "aggregator",
            "reads tweet ids as floating-point numbers",
            caught_by="batch_parity",
            scenario="steady",
            seen_at="https://docs.x.com/resources/fundamentals/x-ids",
        ),
        mutant(
            "arrival-time",
            "aggregator",
            "counts events in the window in which they arrive instead of the one in which they happened",
            caught_by="batch_parity",
            scenario="steady",
            seen_at="https://beam.apache.org/documentation/programming-guide/",
        ),
        mutant(
            "time-zone",
            "aggregator",
            "takes local time for UTC, on a machine that does not run on it",
            caught_by="batch_parity",
            scenario="steady",
            seen_at="https://github.com/graphql-hive/console/pull/5871",
            env={"TZ": "IST-5:30"},
        ),
        mutant(
            "window-boundary",
            "aggregator",
            "counts events of the first millisecond of a window in the one before",
            caught_by="batch_parity",
            scenario="steady",
            seen_at="https://github.com/influxdata/influxdb/pull/18288",
            runs=2,  # at 2000 events a second two are due in that millisecond, and either may be out of order or poison
        ),
        mutant(
            "last-write-wins",
            "aggregator",
            "writes totals that it keeps in memory only, over those from before its restart",
            caught_by="no_loss",
            scenario="restarts",
            seen_at="https://github.com/magma/magma/issues/5300",
            sink=_sink(totals.cells_of_row),
        ),
        mutant(
            "read-modify-write",
            "aggregator",
            "reads a row's totals, adds and writes them, while another replica does the same",
            caught_by="no_loss",
            scenario="replicas",
            seen_at="https://github.com/webisters/cache/issues/37",
            sink=_sink(totals.cells_of_row),
        ),
        mutant(
            "stale-cache",
            "aggregator",
            "writes totals from its cache of rows that another replica has changed since",
            caught_by="no_loss",
            scenario="replicas",
            seen_at="https://github.com/cloudfoundry/java-buildpack/issues/152",
            sink=_sink(totals.cells_of_row),
        ),
        # -- liveness
        mutant(
            "never-reconnects",
            "converter",
            "closes its connection to Pub/Sub after an error and never opens another",
            caught_by="recovery",
            scenario="resets",
            seen_at="https://github.com/confluentinc/librdkafka/issues/536",
        ),
        mutant(
            "hot-loop",
            "aggregator",
            "pulls in a tight loop on a connection that was reset, and gets nothing any more",
            caught_by="no_loss",
            scenario="resets",
            seen_at="https://github.com/confluentinc/librdkafka/issues/1569",
        ),
        mutant(
            "unbounded-buffer",
            "converter",
            "reads ahead until its memory is used up, and again after every restart",
            caught_by="recovery",
            scenario="partitions",
            seen_at="https://github.com/knative-extensions/eventing-kafka/issues/691",
        ),
        mutant(
            "stuck-on-poison",
            "preprocessor",
            "ends at a record that it cannot read, and is started again at the same one",
            caught_by="recovery",
            scenario="steady",
            seen_at="https://github.com/spring-projects/spring-kafka/issues/1287",
        ),
        # -- the old world
        mutant(
            "lax-cutoff",
            "batch-job",
            "counts in the batch what came up to a minute later than it may",
            of=legacy,
            caught_by="batch_parity",
            scenario="batch-layer",
            seen_at="https://github.com/hazelcast/hazelcast-jet/issues/747",
        ),
        mutant(
            "partition-twice",
            "batch-job",
            "adds the counts of one log partition a second time",
            of=legacy,
            caught_by="duplicate_rate",
            scenario="batch-layer",
            seen_at="https://github.com/apache/hive/pull/2674",
        ),
        mutant(
            "both-layers",
            "query",
            "answers from both layers for a window that the batch store covers",
            of=legacy,
            caught_by="duplicate_rate",
            scenario="batch-layer",
            seen_at="https://github.com/apache/pinot/issues/9362",
        ),
    )
}

#: What a single run cannot show, or only by luck: it takes a soak. `caught_by`: the finding of the soak, or of one of its
#: cycles, that must be a violation.
SOAK_MUTANTS: dict[str, Mutant] = {
    m.name: m
    for m in (
        mutant(
            "remembers-everything",
            "converter",
            "notes every message that it has published, and never forgets one",
            caught_by="drift",
            scenario="soak",
            seen_at="https://github.com/smallrye/smallrye-reactive-messaging/issues/2623",
        ),
        mutant(
            "slower-and-slower",
            "converter",
            "looks through everything that it ever published, before each batch",
            caught_by="drift",
            scenario="soak",
            seen_at="https://github.com/dibbhatt/kafka-spark-consumer/issues/56",
        ),
        mutant(
            "one-in-a-hundred-thousand",
            "converter",
            "passes over one event in a hundred thousand, by its id",
            caught_by="no_loss",
            scenario="soak",
            seen_at="https://github.com/allegro/hermes/issues/576",
        ),
    )
}

#: What every run for itself passes, since only the version before it shows that it was better: it takes a comparison.
#: `caught_by`: the measure of the comparison that must be worse.
RELEASE_MUTANTS: dict[str, Mutant] = {
    m.name: m
    for m in (
        mutant(
            "lingers",
            "converter",
            "holds each message until it is a second old",
            caught_by="steady-p99",
            scenario="restarts",
            seen_at="https://github.com/bsv-blockchain/teranode/pull/894",
        ),
        mutant(
            "slow-to-start",
            "converter",
            "takes three seconds to start",
            caught_by="recovery",
            scenario="restarts",
            seen_at="https://github.com/apache/kafka/pull/2560",
        ),
    )
}
