"""When each event was seen last on its way, and when the flow was normal again after a fault.

What `latency` and `recovery` are computed from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.store import FaultWindow, NotObserved, SavedRun

#: The least that counts as normal latency, in seconds: below it, noise of the machine would decide.
LEAST_NORMAL_S = 0.5
#: Normal latency must hold for this long (seconds of due times), or for the normal latency itself if that is longer.
HOLDS_S = 1.0


@dataclass(frozen=True)
class Sight:
    """Events that must arrive and were seen at the last hop that shows single events.

    `hop` and whether these are sightings of the sink; `place` of each event, `due` and `seen` in epoch seconds, in the
    order in which they were due; `missing`: how many that must arrive were not seen there. Of a sink that shows counts
    only, they are the events that are alone in their cell, and `missing` counts no others.
    """

    hop: str
    at_sink: bool
    place: np.ndarray
    due: np.ndarray
    seen: np.ndarray
    missing: int

    @property
    def latency(self) -> np.ndarray:
        """Seconds from when each event was due to when it was seen."""
        return self.seen - self.due


def last_sight(run: SavedRun) -> Sight:
    """The sightings of the sink, where it shows single events; else the first sightings at the last path hop; where there
    is none, the sink's own counts of events that are alone in their cell.

    Due is the time at which load meant to send the event, not when it managed to, so a stalled client shows as latency
    and hides nothing. Raises NotObserved if no hop shows single events.
    """

    def make() -> Sight:
        must = run.settled().must_arrive
        due_here = must
        hop, at_sink, frame = run.sink, True, None
        if run.sink is not None:
            frame = run.sightings(run.sink)
        if frame is None:
            at_sink = False
            path = [hop for hop in run.hops_of_role("path") if run.has_hop(hop)]
            if path:
                hop, frame = path[-1], run.messages(path[-1])
            elif run.sink is not None and (appeared := run.appearances(run.sink)) is not None:
                hop, at_sink, (frame, due_here) = run.sink, True, appeared
            else:
                raise NotObserved("no hop shows when single events arrived")
        assert hop is not None
        first = frame.filter(pl.col("place") >= 0).group_by("place").agg(pl.col("seen_ms").min()).sort("place")
        place, seen = first["place"].to_numpy(), first["seen_ms"].to_numpy() / 1000
        wanted = must[place]
        place, seen = place[wanted], seen[wanted]
        due = due_s(run)[place]
        order = np.argsort(due, kind="stable")
        return Sight(hop, at_sink, place[order], due[order], seen[order], int(due_here.sum()) - len(place))

    return run.once("last sight", make)


def due_s(run: SavedRun) -> np.ndarray:
    """When each event of the plan was due, by place, epoch seconds."""

    def make() -> np.ndarray:
        parts = [run.plan.due_us(p, np.arange(n, dtype=np.int64)) for p, n in sorted(run.events.sizes.items())]
        return np.concatenate(parts) / 1e6

    return run.once("due", make)


def normal_s(run: SavedRun, sight: Sight) -> float:
    """What counts as normal latency, in seconds: twice the 99th percentile of the events that were due and seen before
    the first fault, and at least `LEAST_NORMAL_S`."""
    before = sight.seen < min((fault.start for fault in run.faults()), default=np.inf)
    if not before.any():
        return LEAST_NORMAL_S
    return max(LEAST_NORMAL_S, 2 * float(np.percentile(sight.latency[before], 99)))


def recovered_at(run: SavedRun, sight: Sight, fault: FaultWindow) -> float:
    """When the flow was normal again after a fault was healed, epoch seconds; see `flows_again`."""
    return flows_again(sight.due, sight.seen, fault.end, normal_s(run, sight))


def flows_again(due: np.ndarray, seen: np.ndarray, healed: float, normal: float) -> float:
    """When the first event that was due after `healed` was seen in normal flow; `due` ascending.

    Normal flow: every event that was due up to then has been seen, the backlog therefore too, within `normal` of when
    this one was due; and so it stays for the events due in the next second. Events due before the healing prove
    nothing: after a kill, what was already past the worker still arrives on time, and so does the little that another
    partition carries. If the load ends before the flow is normal: when the last event was seen.
    """
    complete = np.maximum.accumulate(seen)  # when the i-th and all that were due before it had been seen
    bad = complete - due > normal
    next_bad = np.minimum.accumulate(np.where(bad, due, np.inf)[::-1])[::-1]  # due of the next that is not in time
    good = (due >= healed) & (next_bad > due + max(HOLDS_S, normal))
    first = int(np.argmax(good))
    return float(complete[first]) if good.any() else max(healed, float(complete[-1]))
