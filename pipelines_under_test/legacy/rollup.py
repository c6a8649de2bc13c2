"""Roll-ups: the counts that one event adds to, at every granularity. The role of TSAR, the TimeSeries AggregatoR.

TSAR took a declaration (dimensions, metrics, granularities from a minute to all of time, sinks) and made of it both a
Summingbird job on Heron and one on Hadoop, which therefore agreed in what they counted, mistakes included. Here the
declaration is the two tables below and only the speed layer's; the batch job has a counting of its own, so that the two
can be compared. As TSAR did, each granularity is written as a row of counts of its own and not summed when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipelines_under_test.kappa.events import Event
from pipelines_under_test.legacy.cells import Cell, Count

#: Dimension -> the field that it counts by, beside the engagement.
DIMENSIONS = {"tweet": "tweet_id", "author": "author_id"}
#: Window lengths in seconds, each from a multiple of itself, in event time.
GRANULARITIES_S = (10, 60)


def cells_of(event: Event) -> Iterable[Cell]:
    """Every cell that the event belongs to."""
    for dimension, field in DIMENSIONS.items():
        key = f"{getattr(event, field)}|{event.engagement}"
        for window_s in GRANULARITIES_S:
            yield Cell(dimension, key, window_s, event.event_time_ms // 1000 // window_s * window_s * 1000)


def rolled_up(events: Iterable[Event]) -> dict[Cell, Count]:
    """What these events add to every cell, combined: each as often as it comes, for there is no deduplication here."""
    found: dict[Cell, Count] = {}
    for event in events:
        for cell in cells_of(event):
            before = found.get(cell, Count(0, 0))
            found[cell] = Count(before.events + 1, before.weight + event.weight)
    return found
