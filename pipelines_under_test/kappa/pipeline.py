"""The declaration of the reference pipeline: the only module here that knows the harness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from harness.topology import (
    CONTENT_FIELDS,
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
from pipelines_under_test.kappa import rows

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


# Read here anew and not by the pipeline's own code, which could be wrong in the same way on both sides; and with as little
# ceremony as can be, because a tap reads every record of a run. What is missing or of another type is shown as it is.


def content_in_source(value: bytes, _: Mapping[str, str]) -> Mapping[str, Any]:
    fields = _object(value)
    return {name: fields.get(name) for name in CONTENT_FIELDS} if fields else {}


def content_in_intermediate(value: bytes, _: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        fields = _object(value)
        tweet, actor = fields["tweet"], fields["actor"]
        return {
            "tweet_id": _digits(tweet["id"]),
            "author_id": _digits(tweet["author"]),
            "user_id": _digits(actor["id"]),
            "engagement": fields["action"].lower(),
            "weight": fields["w"],
            "event_time_ms": fields["ts"]["ms"],
            "client": actor["client"],
            "country": actor["country"],
        }
    except (KeyError, TypeError, AttributeError):
        return {}


def content_in_message(value: bytes, _: Mapping[str, str]) -> Mapping[str, Any]:
    fields = _object(value)
    return {name: fields.get(ours) for name, ours in _IN_MESSAGE} if fields else {}


_IN_MESSAGE = (
    ("tweet_id", "tweet"),
    ("author_id", "author"),
    ("user_id", "user"),
    ("engagement", "type"),
    ("weight", "weight"),
    ("event_time_ms", "at_ms"),
    ("client", "client"),
    ("country", "country"),
)


def _object(value: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return fields if type(fields) is dict else {}


def _digits(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


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
