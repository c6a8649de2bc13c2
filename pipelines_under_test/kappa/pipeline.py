"""The declaration of the reference pipeline: the only module here that knows the harness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.topology import (
    Batch,
    Bigtable,
    BigtableHop,
    Cells,
    CountedCell,
    Kafka,
    KafkaHop,
    Pipeline,
    PubSub,
    PubSubHop,
    Row,
    Sighting,
    Worker,
)
from pipelines_under_test.kappa import events, rows

_SOURCE_ID = re.compile(rb'"event_id"\s*:\s*"([^"]*)"')
_INTERMEDIATE_ID = re.compile(rb'"id"\s*:\s*"([^"]*)"')


def _first_group(pattern: re.Pattern[bytes], value: bytes) -> str | None:
    match = pattern.search(value or b"")
    return match.group(1).decode("utf-8", "replace") if match else None


# ------------------------------------------------------------------------------------- how records show themselves


def id_in_source(value: bytes, _: Mapping[str, str]) -> str | None:
    """By search, not by parsing: a poison record still shows whose it is."""
    return _first_group(_SOURCE_ID, value)


def id_in_intermediate(value: bytes, _: Mapping[str, str]) -> str | None:
    return _first_group(_INTERMEDIATE_ID, value)


def id_in_message(value: bytes, _: Mapping[str, str]) -> str | None:
    return _first_group(_SOURCE_ID, value)


def id_in_dead_letter(value: bytes, _: Mapping[str, str]) -> str | None:
    """Dead letters hold original bytes: of the source from the preprocessor, intermediate ones from the converter."""
    return _first_group(_SOURCE_ID, value) or _first_group(_INTERMEDIATE_ID, value)


def content_in_source(value: bytes, _: Mapping[str, str]) -> Mapping[str, Any]:
    return _content(events.from_source, value)


def content_in_intermediate(value: bytes, _: Mapping[str, str]) -> Mapping[str, Any]:
    return _content(events.from_intermediate, value)


def content_in_message(value: bytes, _: Mapping[str, str]) -> Mapping[str, Any]:
    return _content(events.from_message, value)


def _content(read: Any, value: bytes) -> Mapping[str, Any]:
    try:
        event = read(value)
    except events.Poison:
        return {}
    return {
        "tweet_id": event.tweet_id,
        "author_id": event.author_id,
        "user_id": event.user_id,
        "engagement": event.engagement,
        "weight": event.weight,
        "event_time_ms": event.event_time_ms,
        "client": event.client,
        "country": event.country,
    }


def cells_in_row(row: Row) -> Iterator[CountedCell]:
    for c in rows.cells_of_row(row):
        yield CountedCell(c.dimension, (c.key, c.engagement), c.window_s, c.window_start_ms, c.count, c.weight)


def sightings_in_row(row: Row) -> Iterator[Sighting]:
    """Each event has a row in both dimensions; those of the tweet are enough."""
    if rows.parse_key(row.key).dimension == "tweet":
        for seen in rows.sightings_of_row(row):
            yield Sighting(seen.event_id, seen.seen_ms)


# ------------------------------------------------------------------------------------------------- the declaration


def command(module: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"pipelines_under_test.{module}")


preprocessor = Worker(
    "preprocessor",
    command("kappa.preprocessor"),
    uses={"KAFKA": "kafka"},
    env={
        "SOURCE_TOPIC": "{source}",
        "INTERMEDIATE_TOPIC": "{intermediate}",
        "DEAD_LETTER_TOPIC": "{dead_letter}",
        "PREPROCESSOR_GROUP": "{preprocessor}",
    },
    reads="source",
    writes=("intermediate", "dead_letter"),
    group="preprocessor",
)

converter = Worker(
    "converter",
    command("kappa.converter"),
    uses={"KAFKA": "kafka", "PUBSUB": "pubsub"},
    env={
        "INTERMEDIATE_TOPIC": "{intermediate}",
        "DEAD_LETTER_TOPIC": "{dead_letter}",
        "PUBLISHED_TOPIC": "{published}",
        "CONVERTER_GROUP": "{converter}",
    },
    reads="intermediate",
    writes=("published", "dead_letter"),
    group="converter",
)

aggregator = Worker(
    "aggregator",
    command("kappa.aggregator"),
    uses={"PUBSUB": "pubsub", "BIGTABLE": "bigtable"},
    env={
        "SUBSCRIPTION": "{aggregator}",
        "REFUSED_TOPIC": "{refused}",
        "TABLE": "{aggregates}",
        "DEDUP_HORIZON_S": "3600",
        "DEDUP_GRACE_S": "600",
    },
    reads="published",
    writes=("aggregates", "refused"),
)

kappa = Pipeline(
    name="kappa",
    about="Twitter's Kappa pipeline: Kafka, Pub/Sub, Beam, Bigtable; exact under every fault",
    services=(
        Kafka("kafka", topics={"source": 4, "intermediate": 4, "dead_letter": 1}),
        PubSub("pubsub", topics=("published", "refused"), subscriptions={"aggregator": "published"}, ack_deadline_s=10),
        Bigtable("bigtable", tables={"aggregates": (rows.SEEN, rows.AGG)}),
    ),
    workers=(preprocessor, converter, aggregator),
    hops=(
        KafkaHop("source", "kafka", "source", topic="source", event_id=id_in_source, content=content_in_source),
        KafkaHop(
            "intermediate",
            "kafka",
            topic="intermediate",
            event_id=id_in_intermediate,
            content=content_in_intermediate,
        ),
        PubSubHop("published", "pubsub", topic="published", event_id=id_in_message, content=content_in_message),
        BigtableHop("aggregates", "bigtable", table="aggregates", cells=cells_in_row, sightings=sightings_in_row),
        KafkaHop("dead_letter", "kafka", "dead-letter", topic="dead_letter", event_id=id_in_dead_letter),
        PubSubHop("refused", "pubsub", "dead-letter", topic="refused", event_id=id_in_message),
    ),
    cells=(
        Cells("tweet", ("tweet_id", "engagement"), rows.WINDOWS_S),
        Cells("author", ("author_id", "engagement"), rows.WINDOWS_S),
    ),
    batch=Batch(command("kappa.batch"), uses={"KAFKA": "kafka"}, env={"SOURCE_TOPIC": "{source}"}),
    max_quiet_s=12.0,
    late_after_s=5.0,
)
