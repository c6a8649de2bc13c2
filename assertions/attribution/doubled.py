"""Where an event was doubled first, and how.

At a hop of the path that is the first hop that holds more messages of it than the hop before. Between the two copies
there either lies a return of the worker (it processed the same record again), or a fault on the link on which it writes
was in force (what it sent had arrived, the answer was lost, it sent again), or neither.

At the sink, what was counted too often was either doubled on the path and not deduplicated, or came there once and was
counted again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from assertions.attribution import circumstances as c
from assertions.attribution import residue, ways
from assertions.attribution.classes import Class, all_or_so_many, at_s, was, window_told
from assertions.attribution.lost import by_faults, exposure
from assertions.attribution.ways import Step
from assertions.base import counted_noun
from harness.settlement import FaultWindow
from harness.store import SavedRun

#: How long after an event was counted its worker may still wait for an answer, or not have acknowledged it, in seconds.
ANSWER_S = 1.0
#: A worker that counted more than this share of the events that came to it twice does not deduplicate.
DEDUPLICATES = 0.9


def classes(run: SavedRun, hop: str) -> list[Class]:
    """Every event that stands twice at a hop, or was counted twice at the sink, by class, the largest first."""
    found = _at_sink if hop == run.sink else _at_hop
    return run.once(("doubled classes", hop), lambda: sorted(found(run, hop), key=lambda f: -f.events))


def _at_hop(run: SavedRun, hop: str) -> Iterator[Class]:
    # A dead-letter hop is on no way: how an event came to be there twice is not told.
    if hop in ways.path(run) and run.certified(hop)[0]:
        yield from _on_path(run, hop, run.saved_hop(hop).several.places)


def _on_path(run: SavedRun, hop: str, places: np.ndarray, at_sink: str = "") -> Iterator[Class]:
    """By the first hop on the way to this one that holds more of an event than the hop before."""
    if not len(places):
        return
    chain = [ways.steps(run)[hop]]
    while chain[0].before is not None:
        chain.insert(0, ways.steps(run)[chain[0].before])
    left = np.ones(len(places), dtype=bool)
    for step in chain:
        before = 1 if step.before is None else np.maximum(1, ways.seen_at(run, step.before).copies[places])
        here = left & (ways.seen_at(run, step.after).copies[places] > before)
        left &= ~here
        if here.any():
            further = "" if step.after == hop else f", and passed on to {hop}"
            yield from _on_step(run, step, places[here], further + at_sink)


def _on_step(run: SavedRun, step: Step, places: np.ndarray, further: str) -> Iterator[Class]:
    worst = np.argsort(-ways.seen_at(run, step.after).copies[places], kind="stable")
    places = places[worst]
    first, second = _copies(run, step.after, places)
    forced = c.overlapping([w for w in c.in_force(run, step) if c.on_link(w, step)], first, second)
    left = np.ones(len(places), dtype=bool)
    link = np.any([m for _, m in forced], axis=0) if forced else np.zeros(len(places), dtype=bool)
    for end in c.ends(run, step):
        # The tap may see late what the worker wrote before it ended.
        between = np.flatnonzero(left & (first - c.SLACK_S < end.back) & (second >= end.back))
        if not len(between):
            continue
        state = _committed(run, step, end, places[between])
        # Committed before the end: it was not read again.
        again = between[state != c.COMMITTED]
        open_ = between[state == c.NOT_COMMITTED]
        left[again] = False
        either = np.setdiff1d(again, open_)[link[np.setdiff1d(again, open_)]]
        plain = np.setdiff1d(again, either)
        if len(plain):
            yield _replayed(run, step, end, places[plain], int(np.isin(plain, open_).sum()), further)
        if len(either):
            both = tuple(w for w, m in forced if m[either].any())
            yield _either(run, step, end, places[either], both, further)
    other = c.overlapping([w for w in c.in_force(run, step) if not c.on_link(w, step)], first, second)
    masks = [(w, m[left]) for w, m in (*forced, *other)]
    for rows, windows in by_faults(masks, int(left.sum())):
        some, gap = places[left][rows], (second - first)[left][rows]
        yield _on_its_own(run, step, some, windows, float(np.median(gap)), further)


def _copies(run: SavedRun, hop: str, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When the first and the second message of each event came to a hop."""
    frame = ways.times_of(run, hop).filter(pl.col("place").is_in(places)).sort("at")
    both = frame.group_by("place").agg(pl.col("at").first().alias("first"), pl.col("at").get(1).alias("second"))
    ordered = pl.DataFrame({"place": places}).join(both, on="place", how="left", maintain_order="left")
    return ordered["first"].to_numpy(), ordered["second"].to_numpy()


def _committed(run: SavedRun, step: Step, end: c.End, places: np.ndarray) -> np.ndarray:
    unknown = np.full(len(places), c.UNKNOWN, dtype=np.int8)
    if step.before is None:
        return unknown
    before = ways.seen_at(run, step.before)
    if before.partition is None or before.offset is None:
        return unknown
    # An event that stands there more than once has more than one offset.
    once = before.copies[places] == 1
    state = c.committed_at(run, step, end, before.partition[places], before.offset[places])
    return np.where(once, state, unknown)


# ------------------------------------------------------------------------------------------------------- told


def _replayed(run: SavedRun, step: Step, end: c.End, places: np.ndarray, open_: int, further: str) -> Class:
    n = len(places)
    them, offsets = ("it", "its offset") if n == 1 else ("them", "their offsets")
    ended = f"{end.how} at {at_s(run, end.at)}"
    back = f"after its return at {at_s(run, end.back)}"
    if open_ == n:
        cause = (
            f"{step.worker} wrote {them}, {ended} before {offsets} had been committed, and read the same "
            f"{'record' if n == 1 else 'records'} of {step.before} again {back}"
        )
    elif open_:
        cause = (
            f"{step.worker} wrote {them} before it {ended} and again {back}: the offsets of {open_:,} had not been committed "
            f"by then; whether those of {n - open_:,} had was not observed"
        )
    else:
        how = (
            "whether the offset had been committed was not observed"
            if n == 1
            else "whether the offsets had been committed was not observed"
        )
        if step.before is not None and ways.seen_at(run, step.before).offset is None:
            how = f"what {step.before} delivered again no tap can see"
        cause = f"{step.worker} wrote {them} before it {ended} and again {back}; {how}"
    faults = () if end.fault is None else (end.fault,)
    committed = None if not open_ else 0
    return Class("doubled", "replayed", step, places, n, faults, step.write_link, cause + further, committed)


def _either(
    run: SavedRun, step: Step, end: c.End, places: np.ndarray, windows: tuple[FaultWindow, ...], further: str
) -> Class:
    n = len(places)
    cause = (
        f"{step.worker} {end.how} at {at_s(run, end.at)} and {' and '.join(window_told(run, w) for w in windows)} "
        f"{was(len(windows))} in force between the copies: either the same {'record was' if n == 1 else 'records were'} "
        "processed again or the write was repeated"
    )
    faults = (*(() if end.fault is None else (end.fault,)), *windows)
    return Class("doubled", "replayed-or-retried", step, places, n, faults, step.write_link, cause + further)


def _on_its_own(
    run: SavedRun, step: Step, places: np.ndarray, windows: tuple[FaultWindow, ...], gap: float, further: str
) -> Class:
    n = len(places)
    apart = f"{gap * 1000:.0f} ms" if gap < 1 else f"{gap:.1f} s"
    each = f"the second copy came {apart} after the first{'' if n == 1 else ' (the median)'}"
    worker = step.worker or f"what writes to {step.after}"
    if any(c.on_link(w, step) for w in windows):
        hit = [w for w in windows if c.on_link(w, step)]
        cause = (
            f"{each} while {' and '.join(window_told(run, w) for w in hit)} {was(len(hit))} in force and {worker} was not "
            "started again in between: it sent again what had arrived"
        )
        return Class("doubled", "retried", step, places, n, windows, step.write_link, cause + further)
    if windows:
        cause = f"{each} while {' and '.join(window_told(run, w) for w in windows)} {was(len(windows))} in force"
        return Class("doubled", "under-fault", step, places, n, windows, step.write_link, cause + further)
    cause = (
        f"{each}; no fault was in force on {worker} or its links and it was not started again in between: {worker} itself "
        f"wrote {'it' if n == 1 else 'them'} twice"
    )
    return Class("doubled", "unforced", step, places, n, (), step.write_link, cause + further)


# ------------------------------------------------------------------------------------------------------- sink


def _at_sink(run: SavedRun, sink: str) -> Iterator[Class]:
    if not run.has_hop(sink) or not run.certified(sink)[0]:
        return
    found = residue.explained(run)
    step = ways.steps(run)[sink]
    places = found.changes.filter(pl.col("change") > 0)["place"].to_numpy()
    if not len(places) and not found.doubled:
        return
    last = step.before if step.before in ways.path(run) else None
    many = np.zeros(len(places), dtype=bool)
    if last is not None:
        copies = ways.seen_at(run, last).copies
        stand_twice = int((copies[run.settled().must_arrive] > 1).sum())
        many = copies[places] > 1
        if many.sum() < DEDUPLICATES * stand_twice:
            # It does deduplicate. What it counted twice all the same while something was going on there, it counted again.
            many &= ~_disturbed(run, step, places)
        note = (
            f", and of the {counted_noun(stand_twice, 'event')} that came to {last} more than once "
            f"{step.worker or sink} counted {many.sum():,} again"
        )
        yield from _on_path(run, last, places[many], note)
    if (~many).any():
        yield from _recounted(run, step, places[~many])
    if found.doubled:
        cause = (
            "which events cannot be decided: more than one choice of a cell's events may explain what it holds too much"
        )
        yield Class(
            "doubled", "undecided", step, np.zeros(0, dtype=np.int64), found.doubled, (), step.write_link, cause
        )


def _around(
    run: SavedRun, step: Step, places: np.ndarray
) -> tuple[list[tuple[c.End, np.ndarray]], list[tuple[FaultWindow, np.ndarray]]]:
    """The ends of the sink's worker, and the faults on it, with which of these events were counted around them."""
    came, passed = exposure(run, step, places)
    counted = ways.first_counted(run)
    until = (passed if counted is None else np.fmax(counted[places], came)) + ANSWER_S
    ends = [(end, (came - c.SLACK_S <= end.at) & (until >= end.at)) for end in c.ends(run, step)]
    forced = c.overlapping(c.in_force(run, step), came, until)
    # A seek delivers again what was published before it.
    for window in c.in_force(run, step):
        back = float(window.params.get("back_s") or 0.0)
        if back:
            mask = (came >= window.start - back - c.SLACK_S) & (came <= window.end)
            forced = [(w, m) for w, m in forced if w is not window] + ([(window, mask)] if mask.any() else [])
    return ends, forced


def _disturbed(run: SavedRun, step: Step, places: np.ndarray) -> np.ndarray:
    ends, forced = _around(run, step, places)
    return np.any([np.zeros(len(places), dtype=bool), *(m for _, m in ends), *(m for _, m in forced)], axis=0)  # type: ignore[no-any-return]


def _recounted(run: SavedRun, step: Step, places: np.ndarray) -> Iterator[Class]:
    places = places[np.argsort(exposure(run, step, places)[0], kind="stable")]
    ends, forced = _around(run, step, places)
    left = np.ones(len(places), dtype=bool)
    for end, mask in ends:
        held = left & mask
        if held.any():
            left &= ~held
            also = [w for w, m in forced if m[held].any()]
            yield _recounted_as(run, step, places[held], end, tuple(also))
    for rows, windows in by_faults([(w, m[left]) for w, m in forced], int(left.sum())):
        yield _recounted_as(run, step, places[left][rows], None, windows)


def _recounted_as(
    run: SavedRun, step: Step, places: np.ndarray, end: c.End | None, windows: tuple[FaultWindow, ...]
) -> Class:
    n = len(places)
    begin = f"{all_or_so_many(n, n)} {was(n)} counted more than once"
    if step.before in ways.path(run):
        twice = int((ways.seen_at(run, step.before).copies[places] > 1).sum())
        begin += (
            f" and {was(n)} in {step.before} once"
            if not twice
            else f" ({twice:,} of them stand in {step.before} more than once)"
        )
    told = []
    if end is not None:
        told.append(
            f"{step.worker} {end.how} at {at_s(run, end.at)}, around when {'it was' if n == 1 else 'they were'} counted first"
        )
    if windows:
        told.append(f"{' and '.join(window_told(run, w) for w in windows)} {was(len(windows))} in force then")
    if not told:
        told.append(f"no fault was in force on {step.worker or step.after} or its links then")
    how = (
        "whether it was delivered again or its write was repeated no tap can see"
        if n == 1
        else "whether they were delivered again or their writes were repeated no tap can see"
    )
    before = ways.seen_at(run, str(step.before)) if step.before in ways.path(run) else None
    if before is not None and before.offset is not None:
        how = "read again or written again: no tap can see which"
    faults = (*(() if end is None or end.fault is None else (end.fault,)), *windows)
    cause = f"{begin}: {'; '.join(told)}; {how}"
    return Class("doubled", "recounted", step, places, n, faults, step.write_link, cause)
