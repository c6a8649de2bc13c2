"""How long events take from when they are due to where they are seen last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from assertions.base import MOST_EXAMPLES, Finding, Part, counted_noun, finding, not_certified, observed, parameters
from assertions.sight import Block, Sight, last_sight, recovered_at
from assertions.spread import Spread
from harness.store import SavedRun
from harness.topology import UsageError


@dataclass(frozen=True)
class Latency:
    """End to end: from when an event was due (not when load managed to send it) to its sighting at the sink, or at the
    last hop that shows single events. A figure; judged only where a bound is stated.

    p99_most_s   the most seconds that the 99th percentile over all events may take, those under faults included; None:
                 no bound. Events that were not seen count as slower than any; if they decide, it is inconclusive (a
                 loss is the business of `no_loss`, and a sink need not show every event).
    steady_p99_most_s   the same of the events whose way did not overlap a fault, or the recovery from it; inconclusive
                 where there is none. It is for what the load alone brings about, a burst for one.

    Figures
        hop (where the events were seen), at_sink, events (seen), missing (must arrive, not seen there), p99_most_s,
        steady_p99_most_s, p50_s, p95_s, p99_s, max_s (seconds, over all events seen),
        steady and under_fault: events, p50_s, p95_s, p99_s and max_s of the events whose way did not, or did, overlap a
        fault or the recovery from it (see `recovery`); null for none
    Examples
        the slowest events: event, due_s and seen_s (after the load's start), latency_s, faults (active, or
        not yet recovered from, on its way)
    Cost: one look at each event and fault.
    """

    p99_most_s: float | None = None
    steady_p99_most_s: float | None = None

    name: ClassVar[str] = "latency"

    def __post_init__(self) -> None:
        for bound, most_s in self.params().items():
            if most_s is not None and not most_s > 0:
                raise UsageError(f"latency: {bound} must be more than 0 seconds, not {most_s:g}.")

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        sight = last_sight(run)
        parts = not_certified(run, [run.source, sight.hop])
        figures: dict[str, Any] = {
            "hop": sight.hop,
            "at_sink": sight.at_sink,
            "events": len(sight),
            "missing": sight.missing,
            **self.params(),
        }
        if not len(sight):
            parts.append(Part("inconclusive", f"no event was seen at {sight.hop}"))
            return finding(self.name, parts, "", figures)
        affected = _affected(run, sight)
        steady, under_fault, slowest = Spread(), Spread(), _Slowest()
        for block in sight.blocks():
            hit = np.zeros(len(block.rank), dtype=bool)
            for _, start, end in affected:
                hit |= (block.due <= end) & (block.seen >= start)
            latency = block.latency
            steady.add(latency[~hit])
            under_fault.add(latency[hit])
            slowest.add(block, latency)
        whole = steady + under_fault
        figures |= _percentiles(whole)
        figures |= {
            "steady": {"events": len(steady), **_percentiles(steady)} if len(steady) else None,
            "under_fault": {"events": len(under_fault), **_percentiles(under_fault)} if len(under_fault) else None,
        }
        if not parts:
            parts += _held("p99", whole, self.p99_most_s, sight)
            parts += _held("p99 while nothing was broken", steady, self.steady_p99_most_s, sight)
        passed = (
            f"p50 {figures['p50_s']:.2f} s, p95 {figures['p95_s']:.2f} s, p99 {figures['p99_s']:.2f} s, "
            f"most {figures['max_s']:.2f} s to {sight.hop}"
        )
        return finding(self.name, parts, passed, figures, _shown(run, slowest, affected))


def _held(what: str, latency: Spread, most_s: float | None, sight: Sight) -> list[Part]:
    """Holds a bound against both ends of what the events that were not seen may have taken."""
    if most_s is None:
        return []
    if not len(latency):
        return [Part("inconclusive", f"no event tells {what}")]
    if latency.percentile(99, below=sight.missing) > most_s:
        text = f"{what} is {latency.percentile(99):.2f} s at {sight.hop}, at most {most_s:g} s are allowed"
        return [Part("violation", text)]
    if latency.percentile(99, above=sight.missing) > most_s:
        text = f"{what} hangs on {counted_noun(sight.missing, 'event')} not seen at {sight.hop}"
        return [Part("inconclusive", text)]
    return []


def _percentiles(latency: Spread) -> dict[str, float]:
    found = {f"p{p}_s": round(latency.percentile(p), 4) for p in (50, 95, 99)}
    return {**found, "max_s": round(latency.most, 4)}


def _affected(run: SavedRun, sight: Sight) -> list[tuple[str, float, float]]:
    """(fault, from, to): the time in which each fault was active or not yet recovered from."""
    return [
        (f"{fault.fault} {fault.target}", fault.start, recovered_at(run, sight, fault) if fault.healed else fault.end)
        for fault in run.faults()
    ]


class _Slowest:
    """The events that took longest, the worst first; of equals the one that was due first."""

    def __init__(self) -> None:
        none = np.zeros(0)
        self.rank, self.due, self.seen = none.astype(np.int64), none, none

    def add(self, block: Block, latency: np.ndarray) -> None:
        some = slice(None)
        if len(latency) > MOST_EXAMPLES:
            least = np.partition(latency, -MOST_EXAMPLES)[-MOST_EXAMPLES]
            some = latency >= least  # type: ignore[assignment]
        rank = np.concatenate([self.rank, block.rank[some]])
        due, seen = np.concatenate([self.due, block.due[some]]), np.concatenate([self.seen, block.seen[some]])
        worst = np.argsort(due - seen, kind="stable")[:MOST_EXAMPLES]
        self.rank, self.due, self.seen = rank[worst], due[worst], seen[worst]


def _shown(run: SavedRun, slowest: _Slowest, affected: Sequence[tuple[str, float, float]]) -> list[dict[str, Any]]:
    examples = []
    for rank, due, seen in zip(slowest.rank.tolist(), slowest.due.tolist(), slowest.seen.tolist(), strict=True):
        faults = [name for name, start, end in affected if due <= end and seen >= start]
        sequence, producer = divmod(rank, run.plan.users)
        examples.append(
            {
                "event": f"{run.tag}-{producer + 1:04d}-{sequence:010d}",
                "due_s": round(due - run.t0, 3),
                "seen_s": round(seen - run.t0, 3),
                "latency_s": round(seen - due, 4),
                "faults": faults,
            }
        )
    return examples
