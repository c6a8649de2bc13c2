"""When each event was seen last on its way, and when the flow was normal again after a fault.

What `latency` and `recovery` are computed from. Events are looked at in the order in which they were due, a block at a
time: what is kept of an event is when it was seen, in four bytes.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from assertions.spread import UNIT_S, Spread
from harness.saved_hop import PIECE
from harness.store import FaultWindow, NotObserved, SavedRun

#: The least that counts as normal latency, in seconds: below it, noise of the machine would decide.
LEAST_NORMAL_S = 0.5
#: Normal latency must hold for this long (seconds of due times), or for the normal latency itself if that is longer.
HOLDS_S = 1.0
#: In `Sight.units`: never seen.
NEVER = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Block:
    """Events that were seen, in the order in which they were due: their ranks in it, `due` and `seen` in epoch seconds."""

    rank: np.ndarray
    due: np.ndarray
    seen: np.ndarray

    @property
    def latency(self) -> np.ndarray:
        """Seconds from when each event was due to when it was seen."""
        return self.seen - self.due


@dataclass(frozen=True)
class Sight:
    """Events that must arrive, by their rank in the order in which they were due, and when each was seen at the last hop
    that shows single events.

    `hop` and whether these are sightings of the sink; `units`: when it was seen, tenths of a millisecond after `t0` (epoch
    seconds), or NEVER; `due`: ranks -> when they were due, epoch seconds; `missing`: how many that must arrive were not
    seen there. Of a sink that shows counts only, they are the events that are alone in their cell, and no others count.
    """

    hop: str
    at_sink: bool
    t0: float
    units: np.ndarray
    due: Callable[[np.ndarray], np.ndarray]
    missing: int

    def __len__(self) -> int:
        return self.seen_before(len(self.units))

    @cached_property
    def _seen_by_block(self) -> np.ndarray:
        """How many were seen in the blocks before each block."""
        starts = range(0, len(self.units), PIECE)
        return np.cumsum([0] + [np.count_nonzero(self.units[b : b + PIECE] != NEVER) for b in starts])

    def seen_before(self, rank: int) -> int:
        """How many of the events before a rank were seen."""
        block = rank // PIECE
        return int(self._seen_by_block[block] + np.count_nonzero(self.units[block * PIECE : rank] != NEVER))

    def blocks(self, begin: int = 0, step: int = PIECE) -> Iterator[Block]:
        """All events that were seen, from a rank on; empty blocks are left out."""
        for lo in range(begin, len(self.units), step):
            units = self.units[lo : lo + step]
            rank = np.flatnonzero(units != NEVER)
            if len(rank):
                yield Block(rank + lo, self.due(rank + lo), self.t0 + units[rank] * UNIT_S)

    def first_due_from(self, moment: float) -> int:
        """The rank of the first event that was due at a moment (epoch seconds) or later."""
        return bisect_left(range(len(self.units)), moment, key=lambda rank: float(self.due(np.array([rank]))[0]))

    def last_seen_before(self, rank: int) -> float:
        """When the last of the events before a rank had been seen, epoch seconds; -inf if none was."""
        block = rank // PIECE
        last = int(max(self._last_by_block[block], _last(self.units[block * PIECE : rank])))
        return -np.inf if last == -NEVER else self.t0 + last * UNIT_S

    @cached_property
    def _last_by_block(self) -> np.ndarray:
        found = [-NEVER] + [_last(self.units[b : b + PIECE]) for b in range(0, len(self.units), PIECE)]
        return np.maximum.accumulate(np.array(found, dtype=np.int64))


def _last(units: np.ndarray) -> int:
    seen = units[units != NEVER]
    return int(seen.max()) if len(seen) else -NEVER


def last_sight(run: SavedRun) -> Sight:
    """The sightings of the sink, where it shows single events; else the first sightings at the last path hop; where there
    is none, the sink's own counts of events that are alone in their cell.

    Due is the time at which load meant to send the event, not when it managed to, so a stalled client shows as latency
    and hides nothing. Raises NotObserved if no hop shows single events.
    """

    def make() -> Sight:
        hop, at_sink, pieces, owed = run.sink, True, None, None
        if run.sink is not None:
            pieces = run.sighting_pieces(run.sink)
        if pieces is None:
            at_sink = False
            path = [hop for hop in run.hops_of_role("path") if run.has_hop(hop)]
            if path:
                hop, pieces = path[-1], run.saved_hop(path[-1]).pieces("seen_ms")
            elif run.sink is not None and (appeared := run.appearances(run.sink)) is not None:
                at_sink, pieces, owed = True, iter([appeared[0]]), int(appeared[1].sum())
            else:
                raise NotObserved("no hop shows when single events arrived")
        assert hop is not None
        units = np.full(len(run.events), NEVER, dtype=np.int32)
        for piece in pieces:
            known = piece["place"].to_numpy() >= 0
            piece = piece if known.all() else piece.filter(known)
            rank = run.plan.rank(piece["producer"].to_numpy(), piece["sequence"].to_numpy())
            seen = np.rint((piece["seen_ms"].to_numpy() / 1000 - run.t0) / UNIT_S)
            np.minimum.at(units, rank, np.clip(seen, -NEVER + 1, NEVER - 1).astype(np.int32))
        for begin in range(0, len(units), PIECE):
            units[begin : begin + PIECE][~must_by_rank(run, begin, begin + PIECE)] = NEVER
        sight = Sight(hop, at_sink, run.t0, units, lambda rank: run.plan.due_us_of(rank) / 1e6, 0)
        owed = len(run.settled().sets["must_arrive"]) if owed is None else owed
        return dataclasses.replace(sight, missing=owed - len(sight))

    return run.once("last sight", make)


def must_by_rank(run: SavedRun, begin: int = 0, end: int | None = None) -> np.ndarray:
    """Whether the event of each rank, or of those from `begin` on and before `end`, must arrive."""
    must = run.settled().sets["must_arrive"]
    if run.plan.users == 1:
        return must.mask(begin, end)
    rank = np.arange(begin, len(run.events) if end is None else min(end, len(run.events)))
    sequence, producer = rank // run.plan.users, rank % run.plan.users + 1
    return must.at(run.events.places(producer, sequence))


def due_s(run: SavedRun) -> np.ndarray:
    """When each event that must arrive was due, in that order, epoch seconds."""
    return run.plan.due_us_of(np.flatnonzero(must_by_rank(run))) / 1e6


def normal_s(run: SavedRun, sight: Sight) -> float:
    """What counts as normal latency, in seconds: twice the 99th percentile of the events that were due and seen before
    the first fault, and at least `LEAST_NORMAL_S`."""

    def make() -> float:
        first = min((fault.start for fault in run.faults()), default=np.inf)
        spread = Spread()
        for block in sight.blocks():
            if block.due[0] >= first:
                break
            spread.add(block.latency[block.seen < first])
        return max(LEAST_NORMAL_S, 2 * spread.percentile(99)) if len(spread) else LEAST_NORMAL_S

    return run.once("normal latency", make)


def recovered_at(run: SavedRun, sight: Sight, fault: FaultWindow) -> float:
    """When the flow was normal again after a fault was healed, epoch seconds; see `flows_again`."""
    normal = normal_s(run, sight)
    begin, size = sight.first_due_from(fault.end), PIECE
    already = sight.last_seen_before(begin)
    while True:
        due, seen = _between(sight, begin, begin + size)
        whole = begin + size >= len(sight.units)
        found = flows_again(due, seen, fault.end, normal, already, whole)
        if found is not None:
            return found
        size *= 2


def _between(sight: Sight, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """(due, seen) of the events of these ranks that were seen."""
    rank = np.flatnonzero(sight.units[begin:end] != NEVER) + begin
    return sight.due(rank), sight.t0 + sight.units[rank] * UNIT_S


def flows_again(
    due: np.ndarray,
    seen: np.ndarray,
    healed: float,
    normal: float,
    already: float = -np.inf,
    whole: bool = True,
) -> float | None:
    """When the first event that was due after `healed` was seen in normal flow; `due` ascending.

    Normal flow: every event that was due up to then has been seen, the backlog therefore too, within `normal` of when
    this one was due; and so it stays for the events due in the next second. Events due before the healing prove
    nothing: after a kill, what was already past the worker still arrives on time, and so does the little that another
    partition carries. If the load ends before the flow is normal: when the last event was seen.

    `already`: when the last of earlier events had been seen. Unless it is the `whole` rest, later events follow, and None
    says that they decide.
    """
    complete = np.maximum(
        np.maximum.accumulate(seen), already
    )  # when the i-th and all that were due before it had been seen
    bad = complete - due > normal
    next_bad = np.minimum.accumulate(np.where(bad, due, np.inf)[::-1])[::-1]  # due of the next that is not in time
    until = due + max(HOLDS_S, normal)
    good = (due >= healed) & (next_bad > until)
    if not whole and len(due):
        good &= until < due[-1]
    if good.any():
        return float(complete[int(np.argmax(good))])
    if not whole:
        return None
    return max(healed, float(complete[-1]) if len(complete) else already)
