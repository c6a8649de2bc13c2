"""What a tap keeps of the messages that it sees: whose they are at once, what they carry when there is time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.services import messages
from harness.services.kafka import KafkaTap
from harness.services.messages import EventSet, MessageLog
from load.events import parse_event_id, parse_event_ids

RUN = "1a2b3c4d"
KEYS = {"partition": pl.Int32, "offset": pl.Int64}

IDS = st.one_of(
    st.builds("{}-{:04d}-{:010d}".format, st.sampled_from([RUN, "1a2b3c4e"]), st.integers(0, 9999), st.integers(0, 10**10 - 1)),
    st.text(max_size=30),
    st.text(alphabet="0123456789-abcdef١²", min_size=24, max_size=24),
    st.text(alphabet="0123456789/:;-", min_size=15, max_size=15).map(lambda rest: f"{RUN}-{rest}"),
    st.none(),
)  # fmt: skip


@given(st.lists(IDS))
def test_ids_are_parsed_together_as_they_are_one_by_one(texts: list[str | None]) -> None:
    producer, sequence = parse_event_ids(texts, RUN)
    one_by_one = [parse_event_id(t) if t is not None else None for t in texts]
    wanted = [p[1:] if p is not None and p[0] == RUN else (-1, -1) for p in one_by_one]
    assert list(zip(producer.tolist(), sequence.tolist(), strict=True)) == wanted
    assert (producer.dtype, sequence.dtype) == (np.int32, np.int64)


@given(st.lists(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 5000)))))
def test_a_set_of_events_is_a_set(batches: list[list[tuple[int, int]]]) -> None:
    found, wanted = EventSet(), set()
    for batch in batches:
        found.add(np.array([p for p, _ in batch], dtype=np.int32), np.array([s for _, s in batch], dtype=np.int64))
        wanted |= set(batch)
        assert len(found) == len(wanted)
    listed = {(p, s) for p, sequences in found.by_producer().items() for s in sequences.tolist()}
    assert listed == wanted
    assert all((np.diff(sequences) > 0).all() for sequences in found.by_producer().values())


def test_ids_that_were_garbled_far_and_wide_cost_little() -> None:
    found = EventSet()
    garbled = np.arange(1000, dtype=np.int64) * 9_999_999
    found.add(np.ones(1000, dtype=np.int32), garbled)
    assert found.by_producer()[1].tolist() == garbled.tolist()
    assert sum(page.nbytes for page in found._pages.values()) <= 2_000_000


def event_id(value: bytes, attributes: Mapping[str, str]) -> str | None:
    if value == b"broken":
        raise KeyError("id")
    if value == b"wrong":
        return 7  # type: ignore[return-value]
    return attributes.get("id") or value.decode().split()[0]


def content(value: bytes, attributes: Mapping[str, str]) -> Mapping[str, Any]:
    return {"weight": int(value.decode().split()[1]), "country": attributes.get("country")}


def an_id(sequence: int, producer: int = 1) -> str:
    return f"{RUN}-{producer:04d}-{sequence:010d}"


def test_a_row_a_message_with_its_id_and_content() -> None:
    log = MessageLog(RUN, event_id, content, KEYS)
    values = [f"{an_id(5)} 17".encode(), b"no-id 18", f"{an_id(0, producer=0)} text".encode()]
    log.add(([0, 1, 0], [3, 0, 4]), values, [{"country": "US"}, {}, {}], [100, 200, 300], 7.5)
    log.add(([1], [1]), [b"zzz 19"], [{"id": an_id(5), "country": "JP"}], [400], 8.5)
    assert (log.count(), log.distinct(), log.warm()) == (3, 2, True)  # the unreadable ones count as one event
    assert {p: s.tolist() for p, s in log.events_by_producer().items()} == {-1: [-1], 0: [0], 1: [5]}
    frame = log.frame()
    assert frame.select("partition", "offset", "created_ms", "seen_ms", "producer", "sequence", "raw").rows() == [
        (0, 3, 100, 7.5, 1, 5, None),
        (1, 0, 200, 7.5, -1, -1, b"no-id 18"),
        (0, 4, 300, 7.5, 0, 0, None),
        (1, 1, 400, 8.5, 1, 5, None),
    ]
    assert frame.select("weight", "country", "user_id", "content_read").rows() == [
        (17, "US", None, True),
        (18, None, None, True),
        (None, None, None, False),  # reading it failed
        (19, "JP", None, True),
    ]


def test_the_first_strange_message_and_the_last_error_are_told() -> None:
    log = MessageLog(RUN, event_id, None, KEYS)
    log.add(([0], [0]), [b"x" * 500], [{}], [0], 0.0)
    assert log.trouble() == f"1 messages came, of which `event_id` shows no id of this run, such as {b'x' * 200!r}."
    log.add(([0, 0], [1, 2]), [b"broken", an_id(1).encode()], [{}, {}], [0, 0], 0.0)
    assert log.trouble().startswith("2 messages came")
    assert log.trouble().endswith("(KeyError('id')).")
    log.add(([0], [3]), [b"wrong"], [{}], [0], 0.0)
    assert "it returned 7, which is no text" in log.trouble()
    assert log.frame()["raw"].to_list() == [b"x" * 200, b"broken", None, b"wrong"]


def test_a_log_that_saw_nothing_has_every_column() -> None:
    log = MessageLog(RUN, event_id, content, KEYS)
    log.add(([], []), [], [], [], 0.0)
    full = MessageLog(RUN, event_id, content, KEYS)
    full.add(([0], [0]), [f"{an_id(5)} 17".encode()], [{}], [0], 0.0)
    assert log.frame().schema == full.frame().schema
    assert MessageLog(RUN, event_id, None, KEYS).frame().schema == {
        k: v for k, v in full.frame().schema.items() if k in log._empty().columns
    }
    assert log.trouble() == ""
    assert not log.warm()


def test_content_is_read_when_asked_for_the_oldest_first_and_before_too_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    def noted(value: bytes, _: Mapping[str, str]) -> Mapping[str, Any]:
        read.append(int(value.split()[1]))
        return {}

    log = MessageLog(RUN, event_id, noted, KEYS)
    for i in range(4):
        log.add(([0], [i]), [f"{an_id(i)} {i}".encode()], [{}], [0], 0.0)
    assert read == []
    assert log.read_on(most=2)
    assert read == [0, 1]
    monkeypatch.setattr(messages, "MOST_UNREAD", 3)
    log.add(([0, 0], [4, 5]), [f"{an_id(i)} {i}".encode() for i in (4, 5)], [{}, {}], [0, 0], 0.0)
    assert read == [0, 1, 2, 3, 4, 5]
    assert not log.read_on()
    assert log.frame()["content_read"].to_list() == [True] * 6


def test_long_messages_wait_in_smaller_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_UNREAD_BYTES", 3_000)
    read: list[int] = []
    log = MessageLog(RUN, event_id, lambda value, _: read.append(len(value)) or {}, KEYS)  # type: ignore[func-returns-value]
    for i in range(4):
        log.add(([0], [i]), [f"{an_id(i)} {i}".encode().ljust(1_000)], [{}], [0], 0.0)
        assert len(read) == (4 if i == 3 else 0)
    log.add(([0], [4]), [f"{an_id(4)} 4".encode()], [{}], [0], 0.0)
    assert len(read) == 4


def test_content_waits_until_nobody_else_needs_the_processor() -> None:
    read: list[bytes] = []
    log = MessageLog(RUN, event_id, lambda value, _: read.append(value) or {}, KEYS)  # type: ignore[func-returns-value]
    log.add(([0], [0]), [f"{an_id(0)} 0".encode()], [{}], [0], 0.0)
    log.idle()
    assert read == []
    log.hurry()
    log.idle()
    assert len(read) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5, 5), (True, None), ("5", None), (5.0, None), (2**63, None), (-(2**63), -(2**63)), (None, None)],
)
def test_a_value_of_another_type_is_shown_as_missing(value: Any, shown: int | None) -> None:
    log = MessageLog(RUN, event_id, lambda v, a: {"weight": value if v.endswith(b"0") else 7}, KEYS)
    log.add(([0, 0], [0, 1]), [f"{an_id(0)} 0".encode(), f"{an_id(1)} 1".encode()], [{}, {}], [0, 0], 0.0)
    assert log.frame()["weight"].to_list() == [shown, 7]


@pytest.mark.parametrize(("value", "shown"), [("a", "a"), (5, None), (b"a", None), (None, None)])
def test_a_text_that_is_none_is_shown_as_missing(value: Any, shown: str | None) -> None:
    log = MessageLog(RUN, event_id, lambda v, a: {"country": value}, KEYS)
    log.add(([0], [0]), [an_id(0).encode()], [{}], [0], 0.0)
    assert log.frame()["country"].to_list() == [shown]


def test_content_that_cannot_be_kept_is_an_error_each_time_and_shifts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MessageLog(RUN, event_id, lambda v, a: {"country": "\ud800" if v.endswith(b"1") else v.decode()[-1]}, KEYS)
    monkeypatch.setattr(messages, "READ_AT_ONCE", 1)
    for i in range(3):
        log.add(([0], [i]), [f"{an_id(i)} {i}".encode()], [{}], [0], 0.0)
    assert log.read_on(most=1)
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError):
            log.read_on(most=1)
    with pytest.raises(UnicodeEncodeError):
        log.frame()


def test_content_that_is_no_mapping_counts_as_not_read() -> None:
    log = MessageLog(RUN, event_id, lambda v, a: 7, KEYS)  # type: ignore[arg-type,return-value]
    log.add(([0], [0]), [an_id(0).encode()], [{}], [0], 0.0)
    frame = log.frame()
    assert frame["content_read"].to_list() == [False]
    assert frame["weight"].to_list() == [None]


def test_many_may_ask_while_one_adds() -> None:
    log = MessageLog(RUN, event_id, content, KEYS)
    stop, errors = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                log.trouble(), log.distinct(), log.count(), log.warm(), log.events_by_producer()
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(200):
        log.add(([0], [i]), [f"{an_id(i * 700)} 1".encode()], [{}], [0], 0.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert log.distinct() == 200


# ------------------------------------------------------------------------------------------- a Kafka tap's offsets


def tap() -> KafkaTap:
    one = object.__new__(KafkaTap)
    one._next, one._gaps = [0] * 3, []
    return one


def follow(one: KafkaTap, *records: tuple[int, int]) -> list[bool]:
    partitions, offsets = zip(*records, strict=True)
    return one._follow(np.array(partitions, dtype=np.int32), np.array(offsets, dtype=np.int64)).tolist()


def test_offsets_that_follow_each_other_are_new_and_leave_no_gap() -> None:
    one = tap()
    assert follow(one, (0, 0), (1, 0), (0, 1), (1, 1), (0, 2)) == [False] * 5
    assert follow(one, (0, 3), (2, 0)) == [False, False]
    assert (one._next, one._gaps) == ([4, 2, 1], [])


def test_records_that_were_read_before_are_known_again() -> None:
    one = tap()
    follow(one, (0, 0), (0, 1), (0, 2))
    assert follow(one, (0, 1), (0, 2), (0, 3), (1, 0)) == [True, True, False, False]
    assert (one._next, one._gaps) == ([4, 1, 0], [])


def test_offsets_that_are_missing_are_told_by_partition() -> None:
    one = tap()
    assert follow(one, (0, 0), (0, 3), (1, 2)) == [False] * 3
    assert one._gaps == ["partition 0: offsets 1 to 2 are missing", "partition 1: offsets 0 to 1 are missing"]
    assert follow(one, (0, 4)) == [False]
    assert one._next == [5, 3, 0]
