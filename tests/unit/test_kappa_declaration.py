"""The declarations of the reference pipeline, its mutants and the negative control."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kappa_events import EVENT, SOURCE

from harness.topology import CONTENT_FIELDS, BigtableHop, KafkaHop, Pipeline, PubSubHop, Row
from pipelines_under_test.kappa import events, rows
from pipelines_under_test.kappa import pipeline as declaration
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.mutants import MUTANTS, RELEASE_MUTANTS, SOAK_MUTANTS, sums
from pipelines_under_test.stock_beam.pipeline import stock_beam
from pipelines_under_test.timed_dedup.pipeline import kappa_timed_dedup

OF_KAPPA = [
    m.pipeline for m in (MUTANTS | SOAK_MUTANTS | RELEASE_MUTANTS).values() if m.pipeline.services == kappa.services
]
EVERYONE = [kappa, stock_beam, kappa_timed_dedup, *OF_KAPPA]
FORMS = {
    "source": SOURCE,
    "intermediate": events.to_intermediate(EVENT),
    "published": events.to_message(EVENT),
}


@pytest.mark.parametrize("pipeline", EVERYONE, ids=lambda p: p.name)
def test_every_declaration_is_valid(pipeline: Pipeline) -> None:
    pipeline.validate()


@pytest.mark.parametrize("pipeline", EVERYONE, ids=lambda p: p.name)
def test_every_command_is_a_module_that_exists(pipeline: Pipeline) -> None:
    for worker in pipeline.workers:
        assert worker.command[:2] == ("{python}", "-m")
        assert importlib.util.find_spec(worker.command[2]) is not None


@pytest.mark.parametrize("pipeline", [p for p in EVERYONE if p is not kappa], ids=lambda p: p.name)
def test_one_stack_serves_them_all(pipeline: Pipeline) -> None:
    """Same services, links, hops and cells; one worker runs another program."""
    assert pipeline.services == kappa.services
    assert pipeline.links() == kappa.links()
    assert [(h.name, h.role, h.kind) for h in pipeline.hops] == [(h.name, h.role, h.kind) for h in kappa.hops]
    changed = [a.name for a, b in zip(pipeline.workers, kappa.workers, strict=True) if a.command != b.command]
    assert len(changed) == 1


def test_mutants_are_known_by_their_names() -> None:
    assert all(name == m.name == m.pipeline.name and m.runs >= 1 for name, m in MUTANTS.items())


def hop(name: str) -> KafkaHop | PubSubHop:
    found = kappa.hop(name)
    assert isinstance(found, KafkaHop | PubSubHop)
    return found


@pytest.mark.parametrize("name", FORMS)
def test_each_hop_shows_the_id_and_the_same_content(name: str) -> None:
    at = hop(name)
    assert at.event_id is not None
    assert at.content is not None
    assert at.event_id(FORMS[name], {}) == EVENT.event_id
    assert dict(at.content(FORMS[name], {})) == {
        f: getattr(EVENT, f) for f in events.Event.__slots__ if f != "event_id"
    }


def test_poison_still_shows_its_id() -> None:
    at = hop("source")
    assert at.event_id is not None
    assert at.event_id(SOURCE[:60], {}) == EVENT.event_id


@pytest.mark.parametrize("raw", [SOURCE[:60], FORMS["intermediate"]])
def test_dead_letters_show_their_id_whoever_wrote_them(raw: bytes) -> None:
    at = hop("dead_letter")
    assert at.event_id is not None
    assert at.event_id(raw, {}) == EVENT.event_id


@given(st.binary(max_size=100))
def test_garbage_never_raises_at_any_hop(raw: bytes) -> None:
    for at in kappa.hops:
        if isinstance(at, KafkaHop | PubSubHop):
            assert at.event_id is not None
            at.event_id(raw, {})
            if at.content is not None:
                assert at.content(raw, {}) == {}


def test_rows_show_cells_and_sightings() -> None:
    sink = kappa.sink
    assert isinstance(sink, BigtableHop)
    assert sink.cells is not None
    assert sink.sightings is not None
    cell = (rows.SEEN, rows.seen_qualifier("like", events.uuid_of("e")))
    row = Row(rows.row_key("tweet", "7", 1_790_000_041_000), {cell: [(3_000_000, b"5|e"), (2_000_000, b"5|e")]})
    assert [(c.dimension, c.key, c.window_s, c.window_start_ms, c.count, c.weight) for c in sink.cells(row)] == [
        ("tweet", ("7", "like"), 10, 1_790_000_040_000, 1, 5),
        ("tweet", ("7", "like"), 60, 1_790_000_040_000, 1, 5),
    ]
    assert [(s.event_id, s.seen_ms) for s in sink.sightings(row)] == [("e", 2000.0)]
    author = Row(rows.row_key("author", "9", 1_790_000_041_000), {cell: [(2_000_000, b"5|e")]})
    assert list(sink.sightings(author)) == []


def test_rows_of_sums_show_sums_and_not_seen_cells() -> None:
    number = (7).to_bytes(8, "big")
    cells = {
        (sums.SUM, sums.count_qualifier("like")): [(0, number)],
        (sums.SUM, sums.weight_qualifier("like")): [(0, number)],
        (rows.SEEN, rows.seen_qualifier("like", "u")): [(0, b"5|e")],
    }
    row = Row(rows.row_key("tweet", "7", 0), cells)
    assert [(c.window_s, c.count, c.weight) for c in sums.cells_of_row(row)] == [(10, 7, 7), (60, 7, 7)]


def test_showing_ids_and_content_is_cheap() -> None:
    """A tap reads every record of a run: tens of thousands a second must pass."""
    started = time.perf_counter()
    for _ in range(5000):
        declaration.id_in_source(SOURCE, {})
        declaration.content_in_source(SOURCE, {})
    assert time.perf_counter() - started < 1.0


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*at, name))
    else:
        yield at


ALTERED = [(name, at) for name in FORMS for at in leaves(json.loads(FORMS[name])) if at[-1] not in ("event_id",)]


@pytest.mark.parametrize(("name", "at"), [(n, a) for n, a in ALTERED if (n, a) != ("intermediate", ("id",))])
@pytest.mark.parametrize("how", ["another type", "another value", "missing"])
def test_whatever_is_altered_shows(name: str, at: tuple[str, ...], how: str) -> None:
    """Also a number that became a text, or a text that became a number."""
    document = json.loads(FORMS[name])
    inner = document
    for part in at[:-1]:
        inner = inner[part]
    if how == "missing":
        del inner[at[-1]]
    elif how == "another type":
        inner[at[-1]] = str(inner[at[-1]]) if isinstance(inner[at[-1]], int) else 7
    else:
        inner[at[-1]] = inner[at[-1]] + 1 if isinstance(inner[at[-1]], int) else inner[at[-1]] + "0"
    content = hop(name).content
    assert content is not None
    shown = dict(content(json.dumps(document).encode(), {}))
    typed = {f: v if type(v) is CONTENT_FIELDS[f] else None for f, v in shown.items()}
    assert typed != {f: getattr(EVENT, f) for f in events.Event.__slots__ if f != "event_id"}
