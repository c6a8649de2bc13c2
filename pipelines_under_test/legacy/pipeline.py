"""The declaration of the legacy pipeline: the only module here that knows the harness."""

from __future__ import annotations

import dataclasses

from harness.topology import Batch, Files, Hdfs, HttpHop, Kafka, KafkaHop, Pipeline, Redis, Worker
from pipelines_under_test.kappa.pipeline import command, content_in_source, id_in_dead_letter, id_in_source, kappa

#: Replicas of the batch store: what one data centre held at Twitter, and the other.
REPLICAS = ("store_a", "store_b")
BATCH_STORE = ",".join(f"{{{replica}}}" for replica in REPLICAS)

landing = Worker(
    "landing",
    command("legacy.landing"),
    uses={"KAFKA": "kafka"},
    env={"SOURCE_TOPIC": "{source}", "LANDING_GROUP": "{landing}", "RAW_LOGS": "{raw_logs}"},
    reads="source",
    group="landing",
)

#: Not "batch", which is the harness's own batch truth.
batch_job = Worker(
    "batch-job",
    command("legacy.batch"),
    env={"RAW_LOGS": "{raw_logs}", "BATCH_STORE": BATCH_STORE, "LATE_AFTER_S": "5"},
)

speed = Worker(
    "speed",
    command("legacy.speed"),
    uses={"KAFKA": "kafka", "REDIS": "redis"},
    env={
        "SOURCE_TOPIC": "{source}",
        "DEAD_LETTER_TOPIC": "{dead_letter}",
        "SPEED_GROUP": "{speed}",
        "REDIS_PREFIX": "{counts}",
        "SHOW_EVENTS": "1",
    },
    reads="source",
    writes=("counts", "dead_letter"),
    group="speed",
)

query = Worker(
    "query",
    command("legacy.query"),
    uses={"REDIS": "redis"},
    env={"BACKEND": "lambda", "BATCH_STORE": BATCH_STORE, "REDIS_PREFIX": "{counts}"},
    serves="LISTEN",
)

legacy = Pipeline(
    name="legacy",
    about="Twitter's Lambda pipeline: raw logs and a batch job, a speed layer that is at most once, a query service",
    services=(
        Kafka("kafka", topics={"source": 4, "dead_letter": 1}),
        Redis("redis", prefixes=("counts",)),
        Files("files", folders=("raw_logs", *REPLICAS)),
    ),
    workers=(landing, batch_job, speed, query),
    hops=(
        KafkaHop("source", "kafka", "source", topic="source", event_id=id_in_source, content=content_in_source),
        HttpHop("counts", worker="query", sightings="/sightings"),
        KafkaHop("dead_letter", "kafka", "dead-letter", topic="dead_letter", event_id=id_in_dead_letter),
    ),
    cells=kappa.cells,
    batch=Batch(command("legacy.batch"), env={"RAW_LOGS": "{raw_logs}"}),
    max_quiet_s=12.0,
    late_after_s=5.0,
    leaves_out_late=True,
)


def _in_hdfs(worker: Worker) -> Worker:
    return dataclasses.replace(worker, uses={**worker.uses, "HDFS": "hdfs"})


legacy_hdfs = dataclasses.replace(
    legacy,
    name="legacy-hdfs",
    about="the same with its raw logs in HDFS",
    services=(
        *(s for s in legacy.services if not isinstance(s, Files)),
        Files("files", folders=REPLICAS),
        Hdfs("hdfs", folders=("raw_logs",)),
    ),
    workers=(_in_hdfs(landing), _in_hdfs(batch_job), speed, query),
    batch=dataclasses.replace(legacy.batch, uses={"HDFS": "hdfs"}),  # type: ignore[type-var]
)


def of_capacity(pipeline: Pipeline, name: str, about: str, **settings: str) -> Pipeline:
    """The same with other settings of the speed layer, which say what it can take; see `legacy.speed`."""
    changed = [
        dataclasses.replace(w, env={**w.env, **settings}) if w.name == speed.name else w for w in pipeline.workers
    ]
    return dataclasses.replace(pipeline, name=name, about=about, workers=changed)


#: Two bolts that take 200 events a trip, twice a second: 800 events/s, twice what `old-against-new`
#: asks of them, but for a burst. Their queues hold 2.5 s of that, and they may lag 10.
legacy_800 = of_capacity(
    legacy,
    "legacy-800",
    "the same with a speed layer that can take 800 events a second",
    BOLTS="2",
    PER_TRIP="200",
    TRIP_EVERY_S="0.5",
    QUEUE_DEPTH="1000",
)

#: One bolt that takes 600 events a trip, twice a second: 1,200 events/s. Its queue holds 5 s of that, and it may lag 4.
legacy_1200 = of_capacity(
    legacy,
    "legacy-1200",
    "the same with a speed layer that can take 1,200 events a second, and whose bolt may lag no longer than 4 s",
    BOLTS="1",
    PER_TRIP="600",
    TRIP_EVERY_S="0.5",
    QUEUE_DEPTH="6000",
    MOST_LAG_S="4",
)
