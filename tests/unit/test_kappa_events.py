"""The forms of an event at each hop: what is read back is what was written, and what does not fit says why."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines_under_test.kappa import events
from pipelines_under_test.kappa.events import Event, Poison

EVENT = Event(
    "1a2b3c4d-0001-0000000042",
    1_234_567_890_123_456_789,
    1_000_000_007,
    1_000_000_009,
    "profile_click",
    987_654_321,
    1_790_000_012_345,
    "android",
    "JP",
)
SOURCE = (
    b'{"event_id":"1a2b3c4d-0001-0000000042","tweet_id":1234567890123456789,"author_id":1000000007,'
    b'"user_id":1000000009,"engagement":"profile_click","weight":987654321,"event_time_ms":1790000012345,'
    b'"client":"android","country":"JP"}'
)

counts = st.integers(0, events.LARGEST_INT)
texts = st.text(min_size=1, max_size=40).filter(lambda t: t.isprintable())
any_event = st.builds(
    Event,
    event_id=texts,
    tweet_id=counts,
    author_id=counts,
    user_id=counts,
    engagement=st.sampled_from(sorted(events.ENGAGEMENTS)),
    weight=counts,
    event_time_ms=st.integers(0, events.LATEST_MS),
    client=texts,
    country=st.sampled_from(["US", "ZZ", "jp"]),
)


def damaged(**changes: Any) -> bytes:
    """The source form with some fields changed, or left out where the change is `...`."""
    fields = json.loads(SOURCE) | changes
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def reason(read: Callable[[bytes], Event], raw: bytes) -> str:
    with pytest.raises(Poison) as poison:
        read(raw)
    return str(poison.value)


def test_the_source_form_is_read() -> None:
    assert events.from_source(SOURCE) == EVENT


def test_padding_by_spaces_is_no_poison() -> None:
    padded = SOURCE.replace(b'"android"', b'"android"    ').replace(b'"profile_click"', b'"profile_click"  ')
    assert events.from_source(padded) == EVENT


@given(any_event)
def test_every_event_survives_the_intermediate_form(event: Event) -> None:
    assert events.from_intermediate(events.to_intermediate(event)) == event


@given(any_event)
def test_every_event_survives_the_message(event: Event) -> None:
    assert events.from_message(events.to_message(event)) == event


def test_the_forms_differ_in_names_nesting_and_types() -> None:
    intermediate = json.loads(events.to_intermediate(EVENT))
    assert intermediate["tweet"] == {"id": "1234567890123456789", "author": "1000000007"}
    assert intermediate["action"] == "PROFILE_CLICK"
    assert not set(intermediate) & set(json.loads(SOURCE))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty record"),
        (SOURCE[:90], "not JSON"),
        (SOURCE + b"}", "not JSON"),
        (b'"text"', "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "not JSON"),
        (damaged(weight="many"), "not a whole number: weight"),
        (damaged(weight="123456789"), "not a whole number: weight"),
        (damaged(weight=1.5), "not a whole number: weight"),
        (damaged(weight=True), "not a whole number: weight"),
        (damaged(weight=None), "not a whole number: weight"),
        (damaged(weight=-1), "out of range: weight"),
        (damaged(tweet_id=2**63), "out of range: tweet_id"),
        (damaged(tweet_id=2**65), "not a whole number: tweet_id"),
        (damaged(event_time_ms=253_402_300_800_000), "out of range: event_time_ms"),
        (damaged(engagement="poke"), "unknown engagement: poke"),
        (damaged(engagement="LIKE"), "unknown engagement: LIKE"),
        (damaged(engagement=3), "not a text: engagement"),
        (damaged(event_id=""), "out of range: event_id"),
        (damaged(event_id="x" * 201), "out of range: event_id"),
        (damaged(country="USA"), "out of range: country"),
        *[(damaged(**{name: ...}), f"field missing: {name}") for name in json.loads(SOURCE)],
    ],
)
def test_each_kind_of_poison_is_refused_with_its_reason(raw: bytes, why: str) -> None:
    assert reason(events.from_source, raw) == why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tweet": "7"}, "not an object: tweet"),
        ({"tweet": {"id": 7, "author": "1"}}, "not a text: id"),
        ({"tweet": {"id": "7x", "author": "1"}}, "not digits: id"),
        ({"tweet": {"id": "\u0667", "author": "1"}}, "not digits: id"),
        ({"tweet": {"id": "9" * 19, "author": "1"}}, "out of range: id"),
        ({"ts": {}}, "field missing: ms"),
    ],
)
def test_a_wrong_intermediate_record_is_refused_with_its_reason(changes: dict[str, Any], why: str) -> None:
    raw = json.dumps(json.loads(events.to_intermediate(EVENT)) | changes).encode()
    assert reason(events.from_intermediate, raw) == why


@given(st.binary(max_size=200))
def test_garbage_is_poison_and_never_another_error(raw: bytes) -> None:
    for read in (events.from_source, events.from_intermediate, events.from_message):
        with pytest.raises(Poison):
            read(raw)


names = st.sampled_from(["id", "tweet", "actor", "ts", "ms", "event_id", "w"])
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(names, v)
)


@given(any_json)
def test_wrong_json_is_poison_and_never_another_error(value: Any) -> None:
    raw = json.dumps(value).encode()
    for read in (events.from_source, events.from_intermediate, events.from_message):
        with pytest.raises(Poison):
            read(raw)


def test_the_uuid_of_an_event_never_changes() -> None:
    """A constant: another value would make every replay across a release a new event."""
    assert events.uuid_of("1a2b3c4d-0001-0000000042") == "df34681f-752c-55ac-87ce-0d35c412ece3"
    assert uuid.UUID(events.uuid_of("x")).version == 5


@given(texts, texts)
def test_different_events_have_different_uuids(one: str, other: str) -> None:
    assert (events.uuid_of(one) == events.uuid_of(other)) == (one == other)


def test_the_uuid_attribute_is_taken_in_any_spelling() -> None:
    given_uuid = events.uuid_of("x")
    assert events.uuid_attribute({"uuid": given_uuid.upper()}) == given_uuid


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, "attribute missing: uuid"),
        ({"uuid": ""}, "attribute missing: uuid"),
        ({"uuid": "no"}, "attribute malformed: uuid"),
        ({"uuid": "impression|x"}, "attribute malformed: uuid"),
    ],
)
def test_a_wrong_uuid_attribute_is_refused_with_its_reason(attributes: dict[str, str], why: str) -> None:
    with pytest.raises(Poison, match=why):
        events.uuid_attribute(attributes)
