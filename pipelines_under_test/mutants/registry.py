"""Which mutants there are, and what must catch each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from harness.topology import BigtableHop, CountedCell, Hop, Pipeline, Row, Sighting
from pipelines_under_test.kappa.pipeline import command, kappa
from pipelines_under_test.mutants import sums


@dataclass(frozen=True)
class Mutant:
    """A pipeline with one planted bug.

    caught_by   name of the assertion that must find a violation
    scenario    name of the scenario in which it must
    runs        within how many runs of that scenario
    """

    name: str
    pipeline: Pipeline
    about: str
    caught_by: str
    scenario: str
    runs: int = 1


def mutant(
    name: str,
    worker: str,
    about: str,
    *,
    caught_by: str,
    scenario: str,
    runs: int = 1,
    sink: BigtableHop | None = None,
) -> Mutant:
    """The reference pipeline with the program of one worker replaced by the module of that name."""
    module = f"mutants.{name.replace('-', '_')}"
    workers = [dataclasses.replace(w, command=command(module)) if w.name == worker else w for w in kappa.workers]
    hops: list[Hop] = [sink if sink is not None and hop.role == "sink" else hop for hop in kappa.hops]
    pipeline = dataclasses.replace(kappa, name=name, about=about, workers=workers, hops=hops)
    return Mutant(name, pipeline, about, caught_by, scenario, runs)


def _summed_cells(row: Row) -> Iterator[CountedCell]:
    for c in sums.cells_of_row(row):
        yield CountedCell(c.dimension, (c.key, c.engagement), c.window_s, c.window_start_ms, c.count, c.weight)


def _sightings(row: Row) -> Iterator[Sighting]:
    sink = kappa.sink
    assert isinstance(sink, BigtableHop)
    assert sink.sightings is not None
    yield from sink.sightings(row)


MUTANTS: dict[str, Mutant] = {
    m.name: m
    for m in (
        mutant(
            "ack-before-write",
            "aggregator",
            "acknowledges messages when they are pulled, before their counts are durable",
            caught_by="no_loss",
            scenario="restarts",
        ),
        mutant(
            "commit-before-publish",
            "converter",
            "commits its Kafka offsets when messages are handed to the publisher, before they are acknowledged",
            caught_by="no_loss",
            scenario="restarts",
        ),
        mutant(
            "fresh-uuid",
            "converter",
            "gives a message a new UUID with every attempt to publish it",
            caught_by="duplicate_rate",
            scenario="lost-acks",
        ),
        mutant(
            "no-dedup",
            "aggregator",
            "counts every message that comes, without deduplication",
            caught_by="duplicate_rate",
            scenario="lost-acks",
        ),
        mutant(
            "late-dropped",
            "aggregator",
            "drops events that come after their window was closed",
            caught_by="no_loss",
            scenario="steady",
        ),
        mutant(
            "blind-increment",
            "aggregator",
            "deduplicates by a cache, but counts by increments, and repeats one whose answer was lost",
            caught_by="duplicate_rate",
            scenario="lost-acks",
            runs=3,  # a pulse must meet a write in flight
            sink=BigtableHop("aggregates", "bigtable", table="aggregates", cells=_summed_cells, sightings=_sightings),
        ),
        mutant(
            "poison-dropped",
            "preprocessor",
            "drops records that it cannot read instead of writing them to the dead letters",
            caught_by="no_loss",
            scenario="steady",
        ),
        mutant(
            "dedup-by-content",
            "converter",
            "derives the UUID from what an event says instead of its id, so that equal events become one",
            caught_by="no_loss",
            scenario="steady",
        ),
        mutant(
            "arrival-time",
            "aggregator",
            "counts events in the window in which they arrive instead of the one in which they happened",
            caught_by="batch_parity",
            scenario="steady",
        ),
    )
}
