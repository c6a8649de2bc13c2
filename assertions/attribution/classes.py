"""A class of events that went wrong at the same place and for the same reason, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from assertions.attribution import ways
from assertions.attribution.ways import Step
from assertions.base import MOST_EXAMPLES, counted_noun
from harness.settlement import FaultWindow
from harness.store import SavedRun

#: How many classes a summary tells and a finding lists.
MOST_TOLD = 3
MOST_CLASSES = 32


@dataclass(frozen=True)
class Class:
    """Events that were lost or doubled on one step for one reason.

    kind     "lost" or "doubled"
    name     in-hand, while-down, under-fault, unforced, refused (lost); replayed, retried, replayed-or-retried,
             under-fault, unforced, recounted (doubled); undecided (both)
    step     from which hop to which, and by which worker
    places   the events, the worst first; empty where only their number is known
    events   how many
    faults   those that overlapped, in the order of the schedule
    link     the link that they were on, or the one that leads to the hop after
    cause    in words, with the observation that supports it
    committed  how many of the events' records were seen committed when the worker ended; None: not observed of any
    """

    kind: Literal["lost", "doubled"]
    name: str
    step: Step
    places: np.ndarray
    events: int
    faults: tuple[FaultWindow, ...]
    link: str | None
    cause: str
    committed: int | None = None

    def sentence(self) -> str:
        events = counted_noun(self.events, "event")
        if self.kind == "lost":
            return f"{events} lost between {self.step.before} and {self.step.after}; {self.cause}"
        if self.step.before is None or self.name == "recounted":
            return f"{events} doubled at {self.step.after}; {self.cause}"
        return f"{events} doubled between {self.step.before} and {self.step.after}; {self.cause}"

    def to_json(self, run: SavedRun) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "class": self.name,
            "events": self.events,
            "hop_before": self.step.before,
            "hop_after": self.step.after,
            "worker": self.step.worker,
            "link": self.link,
            "faults": [
                {"index": w.index, "fault": w.fault, "target": w.target, "start": round(w.start - run.t0, 3)}
                for w in self.faults
            ],
            "committed": self.committed,
            "cause": self.cause,
            "examples": [way_of(run, int(place)) for place in self.places[:MOST_EXAMPLES]],
        }


def told(classes: Sequence[Class]) -> str:
    """The classes as sentences, the largest first; "" for none."""
    sentences = [c.sentence() for c in classes[:MOST_TOLD]]
    if len(classes) > MOST_TOLD:
        rest = sum(c.events for c in classes[MOST_TOLD:])
        sentences.append(
            f"and {counted_noun(rest, 'event')} in {counted_noun(len(classes) - MOST_TOLD, 'further class', 'further classes')}"
        )
    return ". ".join(sentences)


def way_of(run: SavedRun, place: int) -> dict[str, Any]:
    """An event's way, hop by hop: how often it was seen, first and last, in seconds after the load's start."""
    way: dict[str, Any] = {"event": run.event_id(place)}
    for hop in ways.path(run):
        seen = ways.seen_at(run, hop)
        copies = int(seen.copies[place])
        if not copies:
            way[hop] = "never"
            continue
        first, last = (round(float(t[place]) - run.t0, 3) for t in (seen.first, seen.last))
        way[hop] = f"at {first:.3f} s" if copies == 1 else f"{copies} times, at {first:.3f} … {last:.3f} s"
        if copies == 1 and seen.partition is not None and seen.offset is not None:
            way[hop] += f" ({int(seen.partition[place])}/{int(seen.offset[place])})"
    counted = ways.first_counted(run)
    if counted is not None and run.sink is not None:
        at = float(counted[place])
        way[run.sink] = "not in its rows" if np.isnan(at) else f"from {at - run.t0:.3f} s"
    return way


def at_s(run: SavedRun, t: float) -> str:
    """`12.4 s`: a moment as everything is told, from the load's start."""
    return f"{t - run.t0:.1f} s"


def window_told(run: SavedRun, window: FaultWindow) -> str:
    """`partition converter->pubsub (9.0 to 10.5 s)`"""
    if not window.healed or window.end - window.start < 0.05:
        return f"{window.fault} {window.target} (at {at_s(run, window.start)})"
    return f"{window.fault} {window.target} ({window.start - run.t0:.1f} to {at_s(run, window.end)})"


def all_or_so_many(n: int, of: int) -> str:
    """`all`, `it` or `12 of them`, as the subject of a sentence about `of` events."""
    if n == of:
        return "it" if of == 1 else "all"
    return f"{n:,} of them"


def was(n: int) -> str:
    return "was" if n == 1 else "were"
