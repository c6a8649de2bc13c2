"""How often events are doubled at a hop, held against a lower and an upper bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assertions import attribution
from assertions import cells as sink_cells
from assertions.base import (
    MOST_EXAMPLES,
    Finding,
    Part,
    counted_noun,
    finding,
    not_certified,
    observed,
    parameters,
)
from harness.store import SavedRun
from harness.topology import UsageError


@dataclass(frozen=True)
class DuplicateRate:
    """The duplicate rate at a hop, (distinct messages - distinct events) / distinct events, is within its bounds.

    A message is a Kafka record or a Pub/Sub message_id: what a tap was shown twice is no duplicate, and what was
    redelivered to the pipeline cannot be seen by a tap. At the sink, where only counts are seen, the rate is the
    surplus of the cells that hold too much over the events that must arrive (cells that nothing should be in hold too
    much, too; cells that hold too little do not make up for it), in the dimension and window where it is highest.
    An event that stands twice in the source log, because the client that sent it tried again, counts once at the sink.

    hop          the hop's name
    least        below it nothing is wrong with the pipeline: deduplication was not exercised, inconclusive. A statement
                 about this run, so it is compared as it stands.
    most         above it: violation. 0 is exact: a single duplicate breaks it. Any other bound is a statement about the
                 pipeline, of which this run is a sample: it is broken, or kept, when the interval of the rate lies
                 wholly on one side of it; an interval that straddles it is inconclusive, with the number of events that
                 would decide at the rate seen.
    confidence   of that interval: Wilson's score interval for the share of surplus messages among all messages, turned
                 into a rate. Events are taken as independent; where duplicates come in bursts the true interval is
                 wider.

    Figures
        hop, messages, events (distinct; at the sink: counted and must arrive), extra (messages beyond the first of
        their event), rate, least, most, confidence, low and high (the interval), doubled (distinct events with more
        than one message), copies (the most messages of one event); at the sink instead of the last two: cells,
        cells_too_high, undecided_cells; events_needed where the interval straddles the bound; attribution: where and
        why, by class (see `attribution`)
    Examples
        at a hop: event, copies, seen_s (of the first copies, after the load's start), the most copied first
        at the sink: the cell with its expected and counted count and weight, the greatest surplus first, and
        `likely_event` where the weight of one event explains the surplus
    Cost: one sort of the hop's events, or a join of the cells.
    """

    hop: str
    least: float = 0.0
    most: float = 0.0
    confidence: float = 0.95

    name: ClassVar[str] = "duplicate_rate"

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise UsageError(
                f"duplicate_rate of {self.hop}: needs 0 <= least <= most, not least {self.least:g}, most {self.most:g}."
            )
        if not 0 < self.confidence < 1:
            raise UsageError(
                f"duplicate_rate of {self.hop}: confidence must be between 0 and 1, not {self.confidence:g}."
            )

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        run.settled()
        found = self._at_sink(run) if self.hop == run.sink else self._at_hop(run)
        return attribution.explain(found, run, lambda run: attribution.of_duplicates(run, self.hop))

    def _at_hop(self, run: SavedRun) -> Finding:
        # The order matters: a wrong name is told as such before anything is said about its tap.
        places = run.messages(self.hop)["place"].to_numpy()
        known = places[places >= 0]
        copies = np.bincount(known, minlength=len(run.events))
        messages, events = len(known), int((copies > 0).sum())
        figures: dict[str, Any] = {
            "doubled": int((copies > 1).sum()),
            "copies": int(copies.max(initial=0)),
        }
        parts = not_certified(run, [self.hop])
        examples = [] if messages == events else self._copied(run, copies)
        return self._judge(parts, not parts, messages, events, figures, examples)

    def _copied(self, run: SavedRun, copies: np.ndarray) -> list[dict[str, Any]]:
        # A stable sort, so that among equals the earlier event comes first.
        worst = np.argsort(-copies, kind="stable")[:MOST_EXAMPLES]
        worst = worst[copies[worst] > 1]
        seen = run.messages(self.hop).filter(pl.col("place").is_in(worst)).sort("seen_ms")
        times = {key[0]: part["seen_ms"].to_list() for key, part in seen.partition_by("place", as_dict=True).items()}
        return [
            {
                "event": run.event_id(int(place)),
                "copies": int(copies[place]),
                "seen_s": [round(ms / 1000 - run.t0, 3) for ms in times[int(place)][:8]],
            }
            for place in worst
        ]

    def _at_sink(self, run: SavedRun) -> Finding:
        parts = not_certified(run, [run.source, self.hop])
        certified = not parts
        frame = sink_cells.compared(run)
        events = int(run.settled().must_arrive.sum())
        high = frame.filter((pl.col("excess") > 0) & ~pl.col("undecided"))
        undecided = frame.filter((pl.col("excess") > 0) & pl.col("undecided"))
        if undecided.height:
            parts.append(
                Part(
                    "inconclusive",
                    f"{counted_noun(undecided.height, 'cell')} may hold too much, or an event that a service lost",
                )
            )
        hidden = frame.filter((pl.col("excess") == 0) & (pl.col("residue") != 0))
        if hidden.height:
            parts.append(Part("inconclusive", f"a loss may hide duplicates in {counted_noun(hidden.height, 'cell')}"))
        extra = sink_cells.most_of_any_group(high, "excess")
        figures = {
            "cells": frame.height,
            "cells_too_high": high.height,
            "undecided_cells": undecided.height,
        }
        high = high.sort("excess", *sink_cells.CELL, descending=[True, False, False, False, False])
        examples = sink_cells.described(run, high, MOST_EXAMPLES)
        return self._judge(parts, certified, events + extra, events, figures, examples)

    def _judge(
        self,
        parts: list[Part],
        certified: bool,
        messages: int,
        events: int,
        more: dict[str, Any],
        examples: list[dict[str, Any]],
    ) -> Finding:
        extra = messages - events
        figures: dict[str, Any] = {"hop": self.hop, "messages": messages, "events": events, "extra": extra}
        bounds = {"least": self.least, "most": self.most, "confidence": self.confidence}
        if not events:
            figures |= {"rate": None, **bounds, "low": None, "high": None, **more}
            # A surplus where nothing must arrive is still a surplus; without any it says nothing.
            parts.append(Part("inconclusive", f"no event to judge by at {self.hop}"))
            return finding(self.name, parts, "", figures, examples)
        rate = extra / events
        low, high = rate_interval(extra, messages, self.confidence)
        figures |= {"rate": round(rate, 6), **bounds, "low": round(low, 6), "high": round(high, 6), **more}
        told = f"{counted_noun(extra, 'duplicate')} of {counted_noun(events, 'event')} at {self.hop} ({rate:.3%})"
        if not certified:
            # More may have been there, or less.
            parts.append(Part("inconclusive", told))
        elif self.most == 0:
            if extra:
                parts.append(Part("violation", f"{told}, none is allowed"))
        elif low > self.most:
            parts.append(Part("violation", f"{told}, at least {low:.3%}; allowed are {self.most:.3%}"))
        elif high > self.most:
            needed = events_needed(rate, self.most, self.confidence)
            figures["events_needed"] = needed
            how = f"about {needed:,} events would decide" if needed else "no number of events would decide"
            parts.append(
                Part("inconclusive", f"{told}, {low:.3%} … {high:.3%}: the bound {self.most:.3%} lies within; {how}")
            )
        if rate < self.least:
            parts.append(
                Part("inconclusive", f"deduplication was not exercised: {told}, at least {self.least:.3%} are wanted")
            )
        return finding(self.name, parts, f"{told}, allowed are {self.most:.3%}", figures, examples)


def rate_interval(extra: int, messages: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of extra / messages, as a rate of extra to the messages that are not extra."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = extra / messages
    middle = share + z * z / (2 * messages)
    half = z * math.sqrt(share * (1 - share) / messages + z * z / (4 * messages * messages))
    scale = 1 + z * z / messages
    low = 0.0 if extra == 0 else max(0.0, (middle - half) / scale)
    high = min(1.0, (middle + half) / scale)
    return low / (1 - low), high / (1 - high) if high < 1 else math.inf


def events_needed(rate: float, bound: float, confidence: float) -> int | None:
    """How many events would decide whether a rate keeps a bound, if the rate stays as seen; None if they are equal.

    Wilson's interval excludes a share exactly when the score test does, which gives the number at once.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    seen, allowed = rate / (1 + rate), bound / (1 + bound)
    if math.isclose(seen, allowed, rel_tol=1e-9):
        return None
    messages = z * z * allowed * (1 - allowed) / (seen - allowed) ** 2
    return math.ceil(messages / (1 + rate)) + 1
