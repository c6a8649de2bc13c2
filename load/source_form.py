"""The bytes of events: the harness's own source form, event ids, and encoders that a user brings.

The source form is JSON of fixed width (see `load.events`): a template is repeated for every event and the fields are
written into it by the column, which makes millions of events a second instead of the 0.2 million of `json.dumps`.
Words are padded with spaces outside their quotes, which JSON allows.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.topology import CONTENT_FIELDS, UsageError
from load import numbers
from load.plan import CATEGORIES, POISONS, Columns, Plan

#: Turns events into the bytes of a pipeline's own source form: [(Kafka key or None, value)], in the same order. Each
#: event is a dict of the content fields, `event_id` and `poison`.
Encoder = Callable[[Sequence[Mapping[str, Any]]], Sequence[tuple[bytes | None, bytes]]]

_EVENT_ID = re.compile(r"([0-9a-f]{8})-([0-9]{4})-([0-9]{10})", re.ASCII)
_ID_CHARS, _NO_ID = 24, "?" * 24
_ID_DIGITS = [*range(9, 13), *range(14, 24)]
_POWERS = 10 ** np.arange(9, -1, -1, dtype=np.int64)

_WIDTHS = {"tweet_id": 19, "author_id": 10, "user_id": 10, "weight": 9, "event_time_ms": 13}
_WIDTHS |= {field: max(map(len, words)) + 2 for field, words in CATEGORIES.items()}


def _lay_out() -> tuple[bytes, dict[str, int], dict[str, slice]]:
    """The template; where each field's value starts; and where each field stands with its name and comma."""
    text = '{"event_id":"RRRRRRRR-PPPP-QQQQQQQQQQ"'
    starts = {"run": text.index("R"), "producer": text.index("P"), "sequence": text.index("Q")}
    wholes = {}
    for field in CONTENT_FIELDS:
        begin = len(text)
        text += f',"{field}":'
        starts[field] = len(text)
        text += "0" * _WIDTHS[field]
        wholes[field] = slice(begin, len(text))
    return (text + "}").encode(), starts, wholes


_TEMPLATE, _STARTS, _WHOLES = _lay_out()
_TEMPLATE_ROW = np.frombuffer(_TEMPLATE, dtype=np.uint8)
_WORDS = {
    field: np.frombuffer(b"".join(f'"{w}"'.encode().ljust(_WIDTHS[field]) for w in words), dtype=np.uint8).reshape(
        len(words), _WIDTHS[field]
    )
    for field, words in CATEGORIES.items()
}

#: Bytes of one event in the source form (a poison event may be shorter).
EVENT_BYTES = len(_TEMPLATE)


def event_ids(columns: Columns, plan: Plan, producer: int) -> list[str]:
    """The events' ids: run, producer and sequence, as RRRRRRRR-PPPP-QQQQQQQQQQ."""
    head = f"{plan.run}-{producer:04d}-"
    return [f"{head}{sequence:010d}" for sequence in columns.sequence.tolist()]


def parse_event_id(text: str) -> tuple[str, int, int] | None:
    """(run, producer, sequence) of an event id, or None for any other text."""
    match = _EVENT_ID.fullmatch(text)
    return (match[1], int(match[2]), int(match[3])) if match else None


def parse_event_ids(texts: Sequence[str | None], run: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(producer, sequence) of each of these ids, as `parse_event_id` reads them; both -1 for what is no id of this run."""
    joined = "".join([t if t is not None and len(t) == _ID_CHARS else _NO_ID for t in texts])
    chars = np.frombuffer(joined.encode("latin-1", "replace"), dtype=np.uint8).reshape(len(texts), _ID_CHARS)
    digits = chars[:, _ID_DIGITS] - np.uint8(ord("0"))  # below "0" it wraps round to more than 9
    fine = (chars[:, :9] == np.frombuffer(f"{run}-".encode(), dtype=np.uint8)).all(axis=1)
    fine &= (digits <= 9).all(axis=1) & (chars[:, 13] == ord("-"))
    producer = np.where(fine, digits[:, :4] @ _POWERS[-4:], -1).astype(np.int32)
    return producer, np.where(fine, digits[:, 4:] @ _POWERS, -1)


def keys(columns: Columns) -> list[bytes]:
    """Kafka keys of the source form: the tweet id's digits. Not damaged, whatever the value."""
    rows = np.empty((len(columns), 19), dtype=np.uint8)
    numbers.put_digits(rows, 0, 19, columns.tweet_id)
    return _as_bytes(rows)


def encode(columns: Columns, plan: Plan, producer: int) -> list[bytes]:
    """The events in the source form, poison ones damaged (each in its way, its id still readable at its place)."""
    rows = np.tile(_TEMPLATE_ROW, (len(columns), 1))
    rows[:, _STARTS["run"] : _STARTS["run"] + 8] = np.frombuffer(plan.run.encode(), dtype=np.uint8)
    rows[:, _STARTS["producer"] : _STARTS["producer"] + 4] = np.frombuffer(b"%04d" % producer, dtype=np.uint8)
    numbers.put_digits(rows, _STARTS["sequence"], 10, columns.sequence)
    for field in CONTENT_FIELDS:
        start, width = _STARTS[field], _WIDTHS[field]
        if field in CATEGORIES:
            rows[:, start : start + width] = _WORDS[field][getattr(columns, field)]
        else:
            numbers.put_digits(rows, start, width, getattr(columns, field))
    values = _as_bytes(rows)
    for i in np.flatnonzero(columns.poison).tolist():
        values[i] = _damage(values[i], POISONS[columns.damage[i]])
    return values


def _damage(value: bytes, poison: str) -> bytes:
    """One event's bytes as a broken client might have sent them.

    cut                  the text ends in the middle of the weight: no JSON
    text for a number    JSON, but the weight is the text "a lot"
    field missing        JSON without event_time_ms
    unknown engagement   JSON with the engagement "teleport"
    """
    if poison == "cut":
        return value[: _STARTS["weight"] + 4]
    if poison == "text for a number":
        return _replace(value, _STARTS["weight"], b'"a lot"'.ljust(_WIDTHS["weight"]))
    if poison == "field missing":
        gap = _WHOLES["event_time_ms"]
        return _replace(value, gap.start, b" " * (gap.stop - gap.start))
    assert poison == "unknown engagement"
    return _replace(value, _STARTS["engagement"], b'"teleport"'.ljust(_WIDTHS["engagement"]))


def _replace(value: bytes, start: int, piece: bytes) -> bytes:
    return value[:start] + piece + value[start + len(piece) :]


def _as_bytes(rows: NDArray[np.uint8]) -> list[bytes]:
    # A view as fixed-width texts is the fastest way to a list of bytes. It drops NULs at the end, and no row has any.
    return rows.view(f"S{rows.shape[1]}").ravel().tolist() if len(rows) else []


# ------------------------------------------------------------------------------------------------ a user's encoder


def as_mappings(columns: Columns, plan: Plan, producer: int) -> list[dict[str, Any]]:
    """The events as plain dicts, as a user's encoder gets them."""
    series: dict[str, Sequence[Any]] = {"event_id": event_ids(columns, plan, producer)}
    series |= {field: columns.values(field) for field in CONTENT_FIELDS}
    series["poison"] = columns.poison.tolist()
    return [dict(zip(series, event, strict=True)) for event in zip(*series.values(), strict=True)]


def encode_with(
    encoder: Encoder, columns: Columns, plan: Plan, producer: int
) -> tuple[list[bytes | None], list[bytes]]:
    """(keys, values) by a user's encoder. UsageError if a value lacks its event's id: nothing could be told of it."""
    events = as_mappings(columns, plan, producer)
    pairs = list(encoder(events))
    if len(pairs) != len(events):
        raise UsageError(f"The encoder made {len(pairs)} records of {len(events)} events; it must make one of each.")
    for event, (_, value) in zip(events, pairs, strict=True):
        if event["event_id"].encode() not in value:
            raise UsageError(f"The encoder does not keep the event id readable: {value!r} for the event {event}.")
    return [key for key, _ in pairs], [value for _, value in pairs]


def load_encoder(name: str, share_poison: float) -> Encoder:
    """The encoder that "module:function" names, tried once on a made-up event.

    UsageError if it cannot be imported, fails, returns something else than [(key or None, value)], drops the event
    id, or returns the same bytes for a poison event as for a sound one although the profile has poison: then
    what the harness takes for poison would reach the sink, and a sound pipeline would be judged wrong.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise UsageError(f"The encoder must be named as 'module:function', not {name!r}.")
    try:
        encoder: Encoder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"The encoder {name!r} cannot be imported: {error}.") from error
    sound = dict(_SAMPLE)
    try:
        pairs = list(encoder([sound, {**sound, "poison": True}]))
    except Exception as error:
        raise UsageError(f"The encoder {name!r} failed on the event {sound}: {error!r}.") from error
    if len(pairs) != 2 or not all(_is_pair(pair) for pair in pairs):
        raise UsageError(
            f"The encoder {name!r} must return one (key, value) for each event, the key bytes or None, the value "
            f"bytes; for two events it returned {pairs!r}."
        )
    for _, value in pairs:
        if sound["event_id"].encode() not in value:
            raise UsageError(
                f"The encoder {name!r} does not keep the event id readable: {sound['event_id']} is not in {value!r}."
            )
    if share_poison and pairs[0] == pairs[1]:
        raise UsageError(
            f"The encoder {name!r} does not damage events whose 'poison' is True, but the load has a share_poison of "
            f"{share_poison:g}. Damage them (bytes that the pipeline cannot read, with the id still in them), or set "
            "share_poison to 0."
        )
    return encoder


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and isinstance(pair[0], (bytes, type(None)))
        and isinstance(pair[1], bytes)
    )


_SAMPLE: dict[str, Any] = {
    "event_id": "0123abcd-0001-0000000042",
    "tweet_id": 1_800_000_000_000_000_001,
    "author_id": 2_000_000_001,
    "user_id": 1_000_000_001,
    "engagement": "like",
    "weight": 123_456_789,
    "event_time_ms": 1_790_000_000_000,
    "client": "web",
    "country": "US",
    "poison": False,
}
