"""Where an event was lost, and what happened to the worker that had it.

An event is lost on the step after the last hop that saw it. It was *exposed* there from the moment at which that hop saw
it until what came after it was through: half of the next `FOLLOWERS` events that passed the same hop (the same partition
of it, at a Kafka hop) had been seen at the hop after. A worker that ended within that span may have had the event in
its hands; whether it had is proven by its committed offset (Kafka), and told only then.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from assertions.attribution import circumstances as c
from assertions.attribution import residue, ways
from assertions.attribution.classes import Class, all_or_so_many, at_s, was, window_told
from assertions.attribution.ways import Step
from harness.settlement import Bits, FaultWindow
from harness.store import SavedRun

FOLLOWERS = 32
#: Where nothing shows when the sink counted an event: how long a worker is taken to hold it, in seconds.
HOLDS_S = 2.0


def classes(run: SavedRun) -> list[Class]:
    """Every event that was lost, by class, the largest first. Cost: O(events) a hop, and a sort of its messages."""
    return run.once("lost classes", lambda: sorted(_classes(run), key=lambda found: -found.events))


def _classes(run: SavedRun) -> Iterator[Class]:
    must = run.settled().sets["must_arrive"]
    refused = missing = _dead_letters(run) & must
    for hop in ways.path(run)[1:]:
        if not run.certified(hop)[0]:
            continue
        here = must - run.bits_at(hop) - missing
        if here:
            missing |= here
            yield from _on_step(run, ways.steps(run)[hop], np.flatnonzero(here.mask()))
    if refused:
        yield from _refused(run, np.flatnonzero(refused.mask()))
    if run.sink is None or not run.has_hop(run.sink) or not run.certified(run.sink)[0]:
        return
    found = residue.explained(run)
    step = ways.steps(run)[run.sink]
    gone = found.changes.filter(pl.col("change") < 0)["place"].to_numpy()
    gone = gone[~missing.at(gone)]
    if len(gone):
        yield from _on_step(run, step, gone)
    if found.lost:
        cause = "which events cannot be decided: a cell lacks so many that more than one choice of its events may explain it"
        yield Class("lost", "undecided", step, np.zeros(0, dtype=np.int64), found.lost, (), step.write_link, cause)


def _dead_letters(run: SavedRun) -> Bits:
    seen = Bits.of(np.zeros(len(run.events), dtype=bool))
    for hop in run.hops_of_role("dead-letter"):
        if run.has_hop(hop) and run.certified(hop)[0]:
            seen |= run.bits_at(hop)
    return seen


# ------------------------------------------------------------------------------------------------------ by step


def _on_step(run: SavedRun, step: Step, places: np.ndarray) -> Iterator[Class]:
    came, passed = exposure(run, step, places)
    order = np.argsort(came, kind="stable")
    places, came, passed = places[order], came[order], passed[order]
    forced = c.overlapping(c.in_force(run, step), came, passed)
    ends = c.ends(run, step)
    # By the end before which it had been committed, where one is; else by the first that it may have been held at.
    by, states = np.full(len(places), -1), np.full(len(places), c.UNKNOWN, dtype=np.int8)
    for wanted in (c.COMMITTED, None):
        for number, end in enumerate(ends):
            held = np.flatnonzero((by < 0) & (came - c.SLACK_S <= end.at) & (passed >= end.at))
            if len(held):
                state = _committed(run, step, end, places[held])
                taken = np.ones(len(held), dtype=bool) if wanted is None else state == wanted
                by[held[taken]], states[held[taken]] = number, state[taken]
    for number, end in enumerate(ends):
        held = by == number
        if held.any():
            # What was committed before the end was never touched again: what came later has nothing to do with it.
            later = (states[held] != c.COMMITTED).any()
            also = [w for w, m in forced if m[held].any() and (later or w.start <= end.at)]
            yield _in_hand(run, step, end, places[held], states[held], also)
    left = by < 0
    for end in c.ends(run, step):
        waited = left & (came > end.at) & (came <= end.back)
        waited &= ~np.any([m for _, m in forced], axis=0) if forced else True
        if waited.any():
            left[waited] = False
            yield _while_down(run, step, end, places[waited])
    yield from _others(run, step, places[left], [(w, m[left]) for w, m in forced], came[left])


def exposure(run: SavedRun, step: Step, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(when each event's last message came to the hop before, until when it was exposed), epoch seconds."""
    assert step.before is not None
    before = ways.seen_at(run, step.before)
    came = before.last[places]
    after = ways.first_counted(run) if step.after == run.sink else ways.seen_at(run, step.after).first
    if after is None:
        if before.partition is None or before.offset is None:
            return came, came + HOLDS_S
        # Where the worker commits, it is done with an event soon after; and if it commits first, a little later.
        done = c.committed_first(run, step, before.partition[places], before.offset[places])
        return came, np.where(np.isfinite(done), done, came) + HOLDS_S
    passed = np.full(len(places), np.inf)
    # What came there twice says nothing of when it was dealt with: its second copy follows long after it was through.
    through = np.flatnonzero(~np.isnan(after) & (before.copies == 1))
    line = before.last if before.offset is None else before.offset.astype(np.float64)
    lane = before.partition if before.partition is not None else np.zeros(len(before.last), dtype=np.int32)
    for number in np.unique(lane[places]):
        own = through[lane[through] == number]
        own = own[np.argsort(line[own], kind="stable")]
        mine = np.flatnonzero(lane[places] == number)
        next_one = np.searchsorted(line[own], line[places[mine]], side="right")
        passed[mine] = _typical(after[own], next_one)
    return came, np.maximum(passed, came)


def _typical(times: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The median of the `FOLLOWERS` times from each start on; inf where there is none."""
    found = np.full(len(start), np.inf)
    padded = np.concatenate([times, np.full(FOLLOWERS, np.nan)])
    for lo in range(0, len(start), 100_000):
        rows = np.flatnonzero(start[lo : lo + 100_000] < len(times)) + lo
        if len(rows):
            found[rows] = np.nanmedian(padded[start[rows, None] + np.arange(FOLLOWERS)], axis=1)
    return found


def _committed(run: SavedRun, step: Step, end: c.End, places: np.ndarray) -> np.ndarray:
    before = ways.seen_at(run, str(step.before))
    if before.partition is None or before.offset is None:
        return np.full(len(places), c.UNKNOWN, dtype=np.int8)
    return c.committed_at(run, step, end, before.partition[places], before.offset[places])


# ------------------------------------------------------------------------------------------------------- told


def _in_hand(
    run: SavedRun, step: Step, end: c.End, places: np.ndarray, state: np.ndarray, also: list[FaultWindow]
) -> Class:
    n, committed, open_ = len(places), int((state == c.COMMITTED).sum()), int((state == c.NOT_COMMITTED).sum())
    worker, at = str(step.worker), at_s(run, end.at)
    before = ways.seen_at(run, str(step.before))
    alone = len(step.instances) == 1
    it = worker if alone else end.instance
    if committed and alone:
        cause = (
            f"{all_or_so_many(committed, n)} {was(committed)} in {_whose(worker)} hands when it {end.how} at {at}; "
            f"{_offsets(committed, committed)} had been committed by then, {_before_through(step, committed)}"
        )
        if committed < n:
            cause += f"; {_rest(n, 0, open_, n - committed - open_, worker)}"
    elif before.offset is None:
        gap = float(np.max(end.at - before.last[places]))
        gap_told = f"up to {gap:.1f} s before" if gap >= 0.05 else "just before"
        cause = (
            f"{all_or_so_many(n, n)} came to {step.before} {gap_told} {it} {end.how} at {at}, and what came after "
            f"{_them(n)} was through only later; whether {_it(n)} {was(n)} acknowledged, or delivered again, no tap can see"
        )
    else:
        # Of several processes, which of them had an event in its hands is not known.
        cause = (
            f"{all_or_so_many(n, n)} had come to {step.before} and {was(n)} not through when {it} {end.how} at {at}; "
            f"{_rest(n, committed, open_, n - committed - open_, worker)}"
        )
    faults = [w for w in (end.fault, *also) if w is not None]
    observed = None if (state == c.UNKNOWN).all() else committed
    return Class("lost", "in-hand", step, places, n, tuple(faults), step.write_link, cause, observed)


def _before_through(step: Step, n: int) -> str:
    return f"before {_it(n)} reached {step.after}, so {step.before} was not read again from there"


def _rest(n: int, committed: int, open_: int, unknown: int, worker: str) -> str:
    parts = []
    if committed:
        parts.append(f"{_offsets(committed, n)} had been committed by then")
    if open_:
        parts.append(
            f"{_offsets(open_, n)} had not been committed by then, so {worker} was to read {_them(open_)} again and did not "
            f"pass {_them(open_)} on"
        )
    if unknown:
        parts.append(f"whether {_offsets(unknown, n)} had been committed by then was not observed")
    return "; ".join(parts)


def _while_down(run: SavedRun, step: Step, end: c.End, places: np.ndarray) -> Class:
    n = len(places)
    back = f"and started again at {at_s(run, end.back)}" if np.isfinite(end.back) else "and never started again"
    cause = f"{all_or_so_many(n, n)} came to {step.before} while {step.worker} was down (it {end.how} at {at_s(run, end.at)} {back})"
    faults = () if end.fault is None else (end.fault,)
    return Class("lost", "while-down", step, places, n, faults, step.write_link, cause)


def _others(
    run: SavedRun, step: Step, places: np.ndarray, forced: list[tuple[FaultWindow, np.ndarray]], came: np.ndarray
) -> Iterator[Class]:
    for rows, windows in by_faults(forced, len(places)):
        some, n = places[rows], int(rows.sum())
        if windows:
            cause = (
                f"{all_or_so_many(n, n)} {was(n)} on the way from {step.before} to {step.after} while "
                f"{' and '.join(window_told(run, w) for w in windows)} {was(len(windows))} in force"
            )
            yield Class("lost", "under-fault", step, some, n, windows, _link_of(step, windows), cause)
            continue
        span = (
            f"at {at_s(run, came[rows].min())}"
            if n == 1
            else f"between {at_s(run, came[rows].min())} and {at_s(run, came[rows].max())}"
        )
        if step.worker is None:
            cause = (
                f"seen at {step.before} {span}; no worker declares that it reads {step.before} and writes {step.after}"
            )
        else:
            cause = (
                f"seen at {step.before} {span}, when no fault was in force on {step.worker} or its links and it was "
                f"running: {step.worker} itself dropped {_them(n)}{_later_ones(run, step, some)}"
            )
        yield Class("lost", "unforced", step, some, n, (), step.write_link, cause)


def _later_ones(run: SavedRun, step: Step, places: np.ndarray) -> str:
    """That a worker read an event and went on is proven by its commit behind it."""
    before = ways.seen_at(run, str(step.before))
    if before.partition is None or before.offset is None:
        return ""
    done = np.isfinite(c.committed_first(run, step, before.partition[places], before.offset[places]))
    if not done.all():
        return ""
    return f", and committed {_offsets(len(places), len(places))}"


def _refused(run: SavedRun, places: np.ndarray) -> Iterator[Class]:
    if not len(places):
        return
    way = ways.path(run)
    lacks = ~np.array([run.bits_at(hop).at(places) for hop in way[1:]], dtype=bool).reshape(-1, len(places)).T
    for number, hop in enumerate([*way[1:], *([run.sink] if run.sink else [])]):
        lost_here = lacks[:, number] & ~lacks[:, :number].any(axis=1) if number < len(way) - 1 else ~lacks.any(axis=1)
        some = places[lost_here]
        if len(some):
            step = ways.steps(run)[hop]
            n = len(some)
            where = " or ".join(
                h for h in run.hops_of_role("dead-letter") if run.has_hop(h) and run.bits_at(h).at(some).any()
            )
            cause = f"{all_or_so_many(n, n)} {was(n)} refused as poison and {'is' if n == 1 else 'are'} in {where}"
            yield Class("lost", "refused", step, some, n, (), step.write_link, cause)


# ---------------------------------------------------------------------------------------------------- helpers


def by_faults(
    forced: list[tuple[FaultWindow, np.ndarray]], events: int
) -> Iterator[tuple[np.ndarray, tuple[FaultWindow, ...]]]:
    """The events apart by the set of faults that overlapped them: (mask, faults)."""
    if not events:
        return
    table = np.array([mask for _, mask in forced], dtype=bool).reshape(len(forced), events).T
    sets, which = np.unique(table, axis=0, return_inverse=True)
    for number, row in enumerate(sets):
        yield which.ravel() == number, tuple(w for (w, _), on in zip(forced, row, strict=True) if on)


def _link_of(step: Step, windows: tuple[FaultWindow, ...]) -> str | None:
    """The link that a fault was on, where one was; else the one that leads to the hop after."""
    return next((w.target for w in windows if "->" in w.target), step.write_link)


def _whose(worker: str) -> str:
    return f"{worker}'" if worker.endswith("s") else f"{worker}'s"


def _offsets(k: int, n: int) -> str:
    """The offsets of `k` of the `n` events that were told of before."""
    if k == n:
        return "its offset" if n == 1 else "their offsets"
    return f"the {'offset' if k == 1 else 'offsets'} of {k:,}"


def _it(n: int) -> str:
    return "it" if n == 1 else "they"


def _them(n: int) -> str:
    return "it" if n == 1 else "them"
