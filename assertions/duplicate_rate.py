"""How often events are doubled at a hop, held against a lower and an upper bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from assertions.bursts import Bursts, most_within, sizes_by_time
from assertions.sight import due_s
from harness.saved_hop import Several
from harness.store import SavedRun
from harness.topology import UsageError

#: Of the interval that is shown where none is asked for.
SHOWN_CONFIDENCE = 0.95


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
    most         above it: violation. 0 is exact: a single duplicate breaks it.
    confidence   None: the bound is on the rate of this very run, which is a census, and compared as it stands. A share
                 (0.95): the bound is on the rate that lies behind it, of which the run is a sample. It is broken, or
                 kept, when the interval of the rate lies wholly on one side of it; an interval that straddles it is
                 inconclusive, with the number of events that would decide at the rate seen. Bounds of 0 and of 1 and
                 more have no interval.

    The interval takes bursts of duplicates as independent, not duplicates (`bursts.py` has its source). A burst is what
    was doubled within one second, by when the further copies were seen: at a hop by its tap; at the sink where it shows
    when each event was counted, else a burst is the surplus of one window of event time.

    Figures
        hop, messages, events (distinct; at the sink: counted and must arrive), extra (messages beyond the first of
        their event), rate, least, most, confidence, low and high (the interval where 0 < most < 1, at 95 % if no
        confidence is asked for; else null), bursts (how many), largest_burst, doubled (distinct events with more than
        one message), copies (the most messages of one event); at the sink instead of the last two: cells,
        cells_too_high, undecided_cells; events_needed and bursts_needed where the interval straddles the bound (null:
        no number would decide); attribution: where
        and why, by class (see `attribution`)
    Examples
        at a hop: event, copies, seen_s (of the first copies, after the load's start), the most copied first
        at the sink: the cell with its expected and counted count and weight, the greatest surplus first, and
        `likely_event` where the weight of one event explains the surplus
    Cost: one sort of the hop's events, or a join of the cells.
    """

    hop: str
    least: float = 0.0
    most: float = 0.0
    confidence: float | None = None

    name: ClassVar[str] = "duplicate_rate"

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise UsageError(
                f"duplicate_rate of {self.hop}: needs 0 <= least <= most, not least {self.least:g}, most {self.most:g}."
            )
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise UsageError(
                f"duplicate_rate of {self.hop}: confidence must be a share between 0 and 1, such as 0.95, or None for "
                f"a bound on this run's own rate; not {self.confidence:g}."
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
        hop = run.saved_hop(self.hop)
        several = hop.several
        figures: dict[str, Any] = {
            "doubled": len(several.places),
            "copies": int(several.copies.max(initial=int(hop.messages > hop.strangers))),
        }
        parts = not_certified(run, [self.hop])
        doubled = _doubled(run, self.hop)
        examples = self._copied(run, several, doubled)
        sizes = sizes_by_time(doubled.filter(pl.col("nth") > 0)["at"].to_numpy())
        bursts = Bursts(tuple(sizes), self._capacity(lambda: _first_seen(run, self.hop)), len(hop.bits))
        return self._judge(parts, not parts, bursts, figures, examples)

    def _capacity(self, moments_s: Callable[[], np.ndarray]) -> int:
        """The most of these moments, of what may be doubled, that one burst could have; it matters to an interval."""
        return most_within(moments_s()) if 0 < self.most < 1 else 0

    def _copied(self, run: SavedRun, several: Several, doubled: pl.DataFrame) -> list[dict[str, Any]]:
        # A stable sort, so that among equals the earlier event comes first.
        worst = np.argsort(-several.copies, kind="stable")[:MOST_EXAMPLES]
        places = several.places[worst]
        seen = doubled.filter(pl.col("place").is_in(places))
        times = {key[0]: part["at"].to_list() for key, part in seen.partition_by("place", as_dict=True).items()}
        return [
            {
                "event": run.event_id(int(place)),
                "copies": int(copies),
                "seen_s": [round(at - run.t0, 3) for at in times[int(place)][:8]],
            }
            for place, copies in zip(places, several.copies[worst], strict=True)
        ]

    def _at_sink(self, run: SavedRun) -> Finding:
        parts = not_certified(run, [run.source, self.hop])
        certified = not parts
        frame = sink_cells.compared(run)
        events = len(run.settled().sets["must_arrive"])
        wrong = (pl.col("excess") > 0) & ~pl.col("undecided")
        high = frame.filter(wrong)
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
        bursts = self._bursts_at_sink(run, frame, wrong, events)
        figures = {
            "cells": frame.height,
            "cells_too_high": high.height,
            "undecided_cells": undecided.height,
        }
        high = high.sort("excess", *sink_cells.CELL, descending=[True, False, False, False, False])
        examples = sink_cells.described(run, high, MOST_EXAMPLES)
        return self._judge(parts, certified, bursts, figures, examples)

    def _bursts_at_sink(self, run: SavedRun, frame: pl.DataFrame, wrong: pl.Expr, events: int) -> Bursts:
        """The surplus of the cells, which alone counts, split by when single events were counted more than once, where
        the sink shows that and all of it; else by the windows of the cells."""
        extra = sink_cells.most_of_any_group(frame.filter(wrong), "excess")
        if not extra:
            return Bursts((), self._capacity(lambda: due_s(run)), events)
        seen = run.sightings(self.hop)
        if seen is not None and events:
            further = _nth(seen.filter(pl.col("place") >= 0)).filter(pl.col("nth") > 0)["at"].to_numpy()
            if len(further) == extra:
                return Bursts(tuple(sizes_by_time(further)), self._capacity(lambda: due_s(run)), events)
        group = ["dimension", "window_s"]
        windows = frame.group_by(*group, "window_start_ms").agg(
            pl.col("expected").sum(), surplus=pl.col("excess").filter(wrong).sum()
        )
        sums = (
            windows.group_by(group)
            .agg(pl.col("surplus").sum())
            .sort("surplus", *group, descending=[True, False, False])
        )
        windows = windows.join(sums.head(1), on=group, how="semi").sort("window_start_ms")
        sizes = windows.filter(pl.col("surplus") > 0)["surplus"].to_list()
        return Bursts(tuple(sizes), int(windows["expected"].max() or 0), events)  # type: ignore[arg-type]

    def _judge(
        self,
        parts: list[Part],
        certified: bool,
        bursts: Bursts,
        more: dict[str, Any],
        examples: list[dict[str, Any]],
    ) -> Finding:
        extra, events = bursts.extra, bursts.events
        figures: dict[str, Any] = {"hop": self.hop, "messages": events + extra, "events": events, "extra": extra}
        figures |= {"rate": None, "least": self.least, "most": self.most, "confidence": self.confidence}
        figures |= {
            "low": None,
            "high": None,
            "bursts": len(bursts.sizes),
            "largest_burst": max(bursts.sizes, default=0),
        }
        figures |= more
        if not events:
            # A surplus where nothing must arrive is still a surplus; without any it says nothing.
            parts.append(Part("inconclusive", f"no event to judge by at {self.hop}"))
            return finding(self.name, parts, "", figures, examples)
        rate = extra / events
        figures["rate"] = round(rate, 6)
        told = f"{counted_noun(extra, 'duplicate')} of {counted_noun(events, 'event')} at {self.hop} ({rate:.3%})"
        if 0 < self.most < 1:
            low, high = bursts.interval(self.confidence or SHOWN_CONFIDENCE)
            figures |= {"low": round(low, 6), "high": round(high, 6)}
        if not certified:
            # More may have been there, or less.
            parts.append(Part("inconclusive", told))
        elif self.confidence is not None and 0 < self.most < 1:
            interval = f"{low:.3%} … {high:.3%} by {counted_noun(len(bursts.sizes), 'burst')}"
            if low > self.most:
                parts.append(Part("violation", f"{told}, {interval}; allowed are {self.most:.3%}"))
            elif high > self.most:
                parts.append(self._undecided(f"{told}, {interval}", bursts, figures))
            told = f"{told}, {interval}"
        elif rate > self.most:
            allowed = f"allowed are {self.most:.3%}" if self.most else "none is allowed"
            parts.append(Part("violation", f"{told}, {allowed}"))
        if rate < self.least:
            parts.append(
                Part("inconclusive", f"deduplication was not exercised: {told}, at least {self.least:.3%} are wanted")
            )
        allowed = "any number is allowed" if self.most >= 1 else f"allowed are {self.most:.3%}"
        return finding(self.name, parts, f"{told}, {allowed}", figures, examples)

    def _undecided(self, told: str, bursts: Bursts, figures: dict[str, Any]) -> Part:
        """The part that says what would decide; adds it to the figures."""
        assert self.confidence is not None
        needed = bursts.events_needed(self.most, self.confidence)
        scale = (needed or 0) / bursts.events
        figures["events_needed"] = needed
        figures["bursts_needed"] = math.ceil(scale * len(bursts.sizes)) if needed else None
        how = "no number of events would decide"
        if needed:
            how = f"about {needed:,} events would decide"
            if bursts.sizes:
                how += f", with {counted_noun(figures['bursts_needed'], 'burst')} among them"
        return Part("inconclusive", f"{told}: the bound {self.most:.3%} lies within; {how}")


def _doubled(run: SavedRun, hop: str) -> pl.DataFrame:
    """The messages of the events that a hop holds more than once; see `_nth`."""
    several = pl.Series(run.saved_hop(hop).several.places)
    none = pl.DataFrame(schema={"seen_ms": pl.Float64, "place": pl.Int64})
    if several.is_empty():
        return _nth(none)
    pieces = run.saved_hop(hop).pieces("seen_ms")
    kept = (piece.filter(pl.col("place").is_in(several.implode())).select("seen_ms", "place") for piece in pieces)
    return _nth(pl.concat([none, *kept]))


def _nth(seen: pl.DataFrame) -> pl.DataFrame:
    """Messages by time: place, `at` (epoch seconds, when it was seen), and the how manieth of its event it is, from 0."""
    by_time = seen.select("place", at=pl.col("seen_ms") / 1000).sort("at", maintain_order=True)
    return by_time.with_columns(nth=pl.int_range(pl.len()).over("place"))


def _first_seen(run: SavedRun, hop: str) -> np.ndarray:
    """When each event was seen first at a hop, epoch seconds, in no order."""
    first = np.full(len(run.events), np.inf)
    for piece in run.saved_hop(hop).pieces("seen_ms"):
        known = piece.filter(pl.col("place") >= 0)
        np.minimum.at(first, known["place"].to_numpy(), known["seen_ms"].to_numpy() / 1000)
    return first[np.isfinite(first)]
