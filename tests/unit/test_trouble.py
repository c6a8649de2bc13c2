"""A tap that sees no warm-up event says why, as far as it can tell: the first thing that a wrong declaration shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from waiting import wait_for

from harness.errors import HarnessFault, NothingArrives
from harness.run import Run
from harness.services.base import SinkReading, SinkTap
from harness.services.kafka import KafkaServer
from harness.services.messages import MessageLog
from harness.topology import Cells, CountedCell, EventId, Kafka

CELLS = (Cells("country", ("country",), (30,)),)
KEYS = {"partition": pl.Int32, "offset": pl.Int64}


def raises(_value: bytes, _attributes: object) -> str:
    raise KeyError("id")


@pytest.mark.parametrize(
    ("event_id", "told"),
    [
        (lambda v, a: None, "1 messages came, of which `event_id` shows no id of this run, such as b'x;1'."),
        (lambda v, a: "1", "shows no id of this run"),
        (lambda v, a: "00000000-0000-0000000001", "shows no id of this run"),
        (raises, "such as b'x;1' (KeyError('id'))."),
    ],
)
def test_messages_without_a_readable_id_are_shown(event_id: EventId, told: str) -> None:
    log = MessageLog("1a2b3c4d", event_id, None, KEYS)
    assert log.trouble() == ""  # nothing came, nothing is strange
    log.add(([0], [0]), [b"x;1"], [{}], [0], 0.0)
    assert not log.warm()
    assert told in log.trouble()


def test_messages_that_can_be_read_are_no_trouble() -> None:
    log = MessageLog("1a2b3c4d", lambda v, a: v.decode(), None, KEYS)
    log.add(([0], [0]), [b"1a2b3c4d-0000-0000000001"], [{}], [0], 0.0)
    assert (log.warm(), log.trouble()) == (True, "")


def cannot() -> SinkReading:
    raise ValueError("no such column: chanel")


def holds(*cells: CountedCell) -> Callable[[], SinkReading]:
    return lambda: SinkReading(cells, None)


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (cannot, "It cannot be read: ValueError('no such column: chanel')."),
        (
            holds(CountedCell("county", ("US",), 30, 0, 1, 1)),
            "Its rows show cells of [('county', 30)], and none of the first that is declared, ('country', 30).",
        ),
        (holds(), ""),
        (holds(CountedCell("country", ("US",), 30, 0, 1, 1)), ""),
    ],
)
def test_a_sink_that_cannot_be_read_or_shows_other_cells_says_so(read: Callable[[], SinkReading], told: str) -> None:
    tap = SinkTap("sales", read, CELLS, time.time)
    tap.start()
    assert wait_for(lambda: tap.trouble() or tap.known_until())  # the latter is set last
    assert tap.trouble() == told
    assert tap.broken() == (told if read is cannot else ""), "what it holds is the pipeline's doing"
    tap.abandon()


def test_a_sink_whose_keys_are_no_texts_is_not_certified_and_breaks_nothing() -> None:
    tap = SinkTap("sales", holds(CountedCell("country", (1,), 30, 0, 1, 1)), CELLS, time.time)  # type: ignore[arg-type]
    tap.start()
    result = tap.finish()
    assert not result.certified
    assert "could not be read: TypeError" in result.reason
    assert len(result.frame) == 0


def test_a_topic_whose_name_begins_with_anothers_has_partitions_of_its_own() -> None:
    server = object.__new__(KafkaServer)
    server.service = Kafka("kafka", topics={"orders": 2, "orders-raw": 5})
    assert server._partitions("orders-raw-1a2b3c4d") == 5
    assert server._partitions("orders-1a2b3c4d") == 2
    assert server._partitions("orders-raw") == 5


class Seen:
    """What a run asks of a tap to which nothing came."""

    def __init__(self, warm: bool = False, broken: str = "", trouble: str = "") -> None:
        self.warm, self.broken, self.trouble = (lambda: warm), (lambda: broken), (lambda: trouble)


@pytest.mark.parametrize(
    ("taps", "unstartable", "deployed", "whose"),
    [
        ({"source": Seen(warm=True), "orders": Seen()}, [], True, NothingArrives),
        ({"source": Seen(warm=True), "orders": Seen(trouble="3 messages came, of which …")}, [], True, NothingArrives),
        ({"source": Seen(warm=True), "orders": Seen(broken="The tap broke: x.")}, [], True, HarnessFault),
        ({"source": Seen(warm=True), "orders": Seen()}, ["enrich"], True, HarnessFault),
        ({"source": Seen(), "orders": Seen()}, [], True, HarnessFault),
        ({"source": Seen(), "orders": Seen(broken="The tap broke: x.")}, ["enrich"], False, NothingArrives),
    ],
)
def test_a_pipeline_that_has_worked_is_not_blamed_for_what_the_harness_cannot(
    tmp_path: Path, taps: dict[str, Seen], unstartable: list[str], deployed: bool, whose: type[Exception]
) -> None:
    run: Any = SimpleNamespace(
        taps=taps,
        deployed="a pipeline at work" if deployed else None,
        pipeline=SimpleNamespace(
            source=SimpleNamespace(name="source"), instances=lambda: {"enrich": SimpleNamespace(writes=["orders"])}
        ),
        supervisor=SimpleNamespace(unstartable=lambda: unstartable),
        folder=SimpleNamespace(worker_log=lambda name: tmp_path / name),
    )
    found = Run._cold(run, list(taps), 60.0)
    assert type(found) is whose
    assert "within 60 s of the first one sent" in str(found)
