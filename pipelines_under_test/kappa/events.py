"""What an event looks like at each hop, and the way from one form to the next. Pure functions, no I/O.

source        flat JSON with numbers, as clients log it: event_id, tweet_id, author_id, user_id, engagement, weight,
              event_time_ms, client, country
intermediate  nested JSON, ids as text, the engagement as an upper-case action:
              {"id", "tweet": {"id", "author"}, "actor": {"id", "client", "country"}, "action", "w", "ts": {"ms"}}
message       the data of a Pub/Sub message, flat JSON again with the names of the serving side:
              {"event_id", "tweet", "author", "user", "type", "weight", "at_ms", "client", "country"}; the UUID that
              deduplication goes by is its attribute `uuid`, and `created_at_ms` the time of the source record

Whatever does not fit raises `Poison` with a reason that is short, stable and fit for a header.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

ENGAGEMENTS = frozenset({"impression", "like", "retweet", "reply", "quote", "click", "profile_click", "video_view"})

#: The name space of the events' UUIDs. A constant of this pipeline: another value would count every replay again.
UUID_NAMESPACE = uuid.UUID("6f1d8c1e-3f0b-5a52-9b57-2f6a1c0de7a4")

LARGEST_INT = 2**63 - 1
#: Latest event time that is taken: the end of the year 9999, in ms since the epoch.
LATEST_MS = 253_402_300_799_999
LONGEST_TEXT = 200


class Poison(ValueError):
    """A record that can never be processed. `str()` is its reason."""


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction. Ids are numbers, times are ms since the epoch."""

    event_id: str
    tweet_id: int
    author_id: int
    user_id: int
    engagement: str
    weight: int
    event_time_ms: int
    client: str
    country: str


def uuid_of(event_id: str) -> str:
    """The UUID that an event keeps through every retry and replay: version 5, from the event's own id."""
    return str(uuid.uuid5(UUID_NAMESPACE, event_id))


# ------------------------------------------------------------------------------------------------------ source


def from_source(raw: bytes | None) -> Event:
    """Reads the source form. Raises Poison."""
    fields = _object(raw)
    return _checked(
        Event(
            _text(fields, "event_id"),
            _number(fields, "tweet_id"),
            _number(fields, "author_id"),
            _number(fields, "user_id"),
            _text(fields, "engagement"),
            _number(fields, "weight"),
            _number(fields, "event_time_ms"),
            _text(fields, "client"),
            _text(fields, "country"),
        )
    )


# ------------------------------------------------------------------------------------------------ intermediate


def to_intermediate(event: Event) -> bytes:
    return orjson.dumps(
        {
            "id": event.event_id,
            "tweet": {"id": str(event.tweet_id), "author": str(event.author_id)},
            "actor": {"id": str(event.user_id), "client": event.client, "country": event.country},
            "action": event.engagement.upper(),
            "w": event.weight,
            "ts": {"ms": event.event_time_ms},
        }
    )


def from_intermediate(raw: bytes | None) -> Event:
    """Reads the intermediate form. Raises Poison."""
    fields = _object(raw)
    tweet, actor, ts = (_nested(fields, name) for name in ("tweet", "actor", "ts"))
    return _checked(
        Event(
            _text(fields, "id"),
            _digits(tweet, "id"),
            _digits(tweet, "author"),
            _digits(actor, "id"),
            _text(fields, "action").lower(),
            _number(fields, "w"),
            _number(ts, "ms"),
            _text(actor, "client"),
            _text(actor, "country"),
        )
    )


# ----------------------------------------------------------------------------------------------------- message


def to_message(event: Event) -> bytes:
    return orjson.dumps(
        {
            "event_id": event.event_id,
            "tweet": event.tweet_id,
            "author": event.author_id,
            "user": event.user_id,
            "type": event.engagement,
            "weight": event.weight,
            "at_ms": event.event_time_ms,
            "client": event.client,
            "country": event.country,
        }
    )


def from_message(raw: bytes | None) -> Event:
    """Reads a message's data. Raises Poison."""
    fields = _object(raw)
    return _checked(
        Event(
            _text(fields, "event_id"),
            _number(fields, "tweet"),
            _number(fields, "author"),
            _number(fields, "user"),
            _text(fields, "type"),
            _number(fields, "weight"),
            _number(fields, "at_ms"),
            _text(fields, "client"),
            _text(fields, "country"),
        )
    )


def uuid_attribute(attributes: Mapping[str, str]) -> str:
    """The UUID of a message, in canonical spelling. Raises Poison."""
    given = attributes.get("uuid") or ""
    if not given:
        raise Poison("attribute missing: uuid")
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise Poison("attribute malformed: uuid") from None


# ------------------------------------------------------------------------------------------------------ checks


def _object(raw: bytes | None) -> dict[str, Any]:
    if not raw:
        raise Poison("empty record")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Poison("not JSON") from None
    if type(value) is not dict:
        raise Poison("not a JSON object")
    return value


def _field(fields: Mapping[str, Any], name: str) -> Any:
    try:
        return fields[name]
    except KeyError:
        raise Poison(f"field missing: {name}") from None


def _nested(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = _field(fields, name)
    if type(value) is not dict:
        raise Poison(f"not an object: {name}")
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = _field(fields, name)
    if type(value) is not int:  # not isinstance: true and false are ints to Python
        raise Poison(f"not a whole number: {name}")
    if not 0 <= value <= LARGEST_INT:
        raise Poison(f"out of range: {name}")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = _field(fields, name)
    if type(value) is not str:
        raise Poison(f"not a text: {name}")
    if not 0 < len(value) <= LONGEST_TEXT:
        raise Poison(f"out of range: {name}")
    return value


def _digits(fields: Mapping[str, Any], name: str) -> int:
    value = _text(fields, name)
    if not (value.isascii() and value.isdigit()):
        raise Poison(f"not digits: {name}")
    number = int(value)
    if number > LARGEST_INT:
        raise Poison(f"out of range: {name}")
    return number


def _checked(event: Event) -> Event:
    if event.engagement not in ENGAGEMENTS:
        raise Poison(f"unknown engagement: {event.engagement[:40]}")
    if event.event_time_ms > LATEST_MS:
        raise Poison("out of range: event_time_ms")
    if not (len(event.country) == 2 and event.country.isascii() and event.country.isalpha()):
        raise Poison("out of range: country")
    return event
