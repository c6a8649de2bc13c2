"""The pipeline comes back after each fault, and never stands still while there is work and nothing is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assertions.base import (
    MOST_EXAMPLES,
    Finding,
    Part,
    counted_noun,
    finding,
    mixed,
    not_certified,
    observed,
    parameters,
)
from assertions.sight import NEVER, Sight, due_s, last_sight, must_by_rank, normal_s, recovered_at
from assertions.spread import UNIT_S
from harness.store import FaultWindow, NotObserved, SavedRun
from harness.topology import UsageError

#: Liveness: nothing may stand still for longer, in seconds, while no fault is active and events are waiting.
LIVENESS_CAP_S = 60.0
_BIN = round(0.01 / UNIT_S)
#: How a drain may end without a verdict on the pipeline's liveness. "quiet": all is read and nothing moves any more,
#: but something is missing, which is for the other assertions to tell.
_DRAINED = ("drained", "quiet")
_NOT_DRAINED = ("stuck", "crash-loop", "cap")


@dataclass(frozen=True)
class Recovery:
    """Time to recover after each fault, and liveness.

    **Time to recover** counts from when a fault was healed to when the first event that was due after it is seen in
    normal flow at the last hop that shows single events (the sink, where it does): with all that were due before it,
    the backlog therefore too, within the *normal latency* of its due time, and so that it stays so for a second.
    Normal is twice the 99th percentile of the events that were due and seen before the first fault, and at least 0.5 s.
    A fault that nobody felt therefore shows the latency of one event. Events that are never seen do not count here:
    they are lost, not late; but where events were due after the healing and *none* of them was ever seen, the pipeline did
    not recover. Where another fault is active or begins before that moment, the figure tells of both and is
    marked `disturbed`.

    **Liveness**: at the last hop, while no fault is active and events wait, no gap is longer than 60 s (a gap counts
    from the end of the last of several faults that overlap, up to the start of the next one); and the drain
    ended because all had arrived or all was read, not because the pipeline was stuck, in a crash loop, or still not
    done at the cap.

    most_s   the most seconds that an undisturbed recovery may take; None: recovery times are figures only.

    Figures
        hop, at_sink (see `latency`), normal_s, most_s
        faults        per fault: fault, target, start_s, end_s (after the load's start), recovered_s (null: never, or
                      unknown because it was not healed), owed (events that were due after the healing), disturbed (by
                      which faults)
        longest_gap_s the longest standstill while events were waiting and no fault was active
        drain         reason, waited_s
        crashes       exits of workers that nobody had asked for
    Examples
        slow recoveries and standstills; after a drain that did not end, the last exits of the workers with their logs
    Cost: one look at each event, and at those after each fault.
    """

    most_s: float | None = None

    name: ClassVar[str] = "recovery"

    def __post_init__(self) -> None:
        if self.most_s is not None and not self.most_s > 0:
            raise UsageError(f"recovery: most_s must be more than 0 seconds, not {self.most_s:g}.")

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        crashes = [record for record in run.of_kind("worker-exit") if not record.get("asked")]
        drain_parts, drain = _drain(run)
        figures: dict[str, Any] = {"most_s": self.most_s, "drain": drain, "crashes": len(crashes)}
        stuck = any(part.verdict == "violation" for part in drain_parts)
        exits = [_exit(run, record) for record in reversed(crashes)][:MOST_EXAMPLES] if stuck else []
        try:
            sight = last_sight(run)
        except NotObserved as reason:
            # A crash loop is proven by the history alone.
            parts = [*drain_parts, Part("inconclusive", f"cannot say: {reason}")]
            return finding(self.name, parts, "", figures, exits)

        uncertified = not_certified(run, [run.source, sight.hop])
        if not len(sight):
            uncertified.append(Part("inconclusive", f"no event was seen at {sight.hop}"))
        faults = run.faults()
        normal = normal_s(run, sight)
        told = [_recovered(run, sight, fault) for fault in faults] if len(sight) else []
        moved_parts, gaps = _standstills(run, sight, faults)
        figures |= {
            "hop": sight.hop,
            "at_sink": sight.at_sink,
            "normal_s": round(normal, 3),
            "faults": told,
            "longest_gap_s": max((gap["seconds"] for gap in gaps), default=0.0),
        }
        judged = [*self._bound(told, sight.hop, sight.at_sink), *moved_parts]
        parts = drain_parts + uncertified + [Part("inconclusive", p.text) if uncertified else p for p in judged]
        slow = [t for t in told if self.most_s is not None and (t["recovered_s"] or 0) > self.most_s]
        slow.sort(key=lambda t: -t["recovered_s"])
        long = [gap for gap in gaps if gap["seconds"] > LIVENESS_CAP_S]
        return finding(self.name, parts, _passed(told), figures, mixed(exits, slow, long))

    def _bound(self, told: Sequence[dict[str, Any]], hop: str, at_sink: bool) -> list[Part]:
        parts = []
        for fault in told:
            name = f"{fault['fault']} {fault['target']} at {fault['start_s']:g} s"
            if fault["end_s"] is None:
                parts.append(Part("inconclusive", f"{name} was never healed"))
            elif fault["recovered_s"] is None:
                text = f"{counted_noun(fault['owed'], 'event')} due after {name} was healed, and none of them was ever seen"
                # A sink need not show every event; a hop of the path does.
                parts.append(Part("inconclusive" if at_sink else "violation", f"{text} at {hop}"))
            elif self.most_s is not None and not fault["disturbed"] and fault["recovered_s"] > self.most_s:
                text = f"it took {fault['recovered_s']:.1f} s to recover from {name}; allowed are {self.most_s:g} s"
                parts.append(Part("violation", text))
        if self.most_s is not None and told and all(fault["disturbed"] for fault in told):
            parts.append(Part("inconclusive", "every recovery was disturbed by another fault"))
        return parts


def _passed(told: Sequence[dict[str, Any]]) -> str:
    known = [fault for fault in told if fault["recovered_s"] is not None]
    if not known:
        return "nothing stood still; there was no fault to recover from"
    slowest = max(known, key=lambda fault: fault["recovered_s"])
    return (
        f"recovered from {counted_noun(len(known), 'fault')}, in {slowest['recovered_s']:.1f} s at most "
        f"({slowest['fault']} {slowest['target']}); nothing stood still"
    )


def _drain(run: SavedRun) -> tuple[list[Part], dict[str, Any] | None]:
    ends = run.of_kind("drain-end")
    if not ends:
        return [Part("inconclusive", "the history does not say how the drain ended")], None
    reason, waited = str(ends[-1].get("reason")), ends[-1].get("waited_s")
    figures = {"reason": reason, "waited_s": waited}
    if reason in _NOT_DRAINED:
        what = {
            "stuck": "it stood still with work left",
            "crash-loop": "a worker died again and again",
            "cap": "it was still not done at the cap",
        }[reason]
        text = f"the pipeline did not drain within {waited} s: {what}"
        if reason != "crash-loop" and _nobody_saw(ends[-1]):
            return [Part("inconclusive", f"{text}, as far as could be seen: {_unseen(ends[-1])}")], figures
        if reason != "crash-loop" and (blind := not_certified(run, [run.source])):
            # A Kafka that does not serve its topics any more stops every pipeline.
            return [Part("inconclusive", f"{text}; but {blind[0].text}")], figures
        return [Part("violation", text)], figures
    if reason not in _DRAINED:
        return [Part("inconclusive", f"the drain ended for a reason that is not known here: {reason}")], figures
    return [], figures


def _nobody_saw(end: dict[str, Any]) -> bool:
    """Whether nothing is known to be left, but something could not be looked at."""
    if end.get("unstartable"):
        return True  # the harness could not start a worker again
    lags = (end.get("lags") or {}).values()
    blind = bool(end.get("unread")) or any(lag is None for lag in lags)
    return blind and not any(lags) and not end.get("down") and (bool(end.get("unread")) or not end.get("missing"))


def _unseen(end: dict[str, Any]) -> str:
    said = [f"{worker} could not be started again" for worker in end.get("unstartable") or []]
    said += [f"the lag of {group} could not be read" for group, lag in (end.get("lags") or {}).items() if lag is None]
    said += [f"{hop} could not be read through after the last movement" for hop in end.get("unread") or []]
    return ", ".join(said)


def _exit(run: SavedRun, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem": "a worker died",
        "worker": record.get("worker"),
        "at_s": round(record["t"] - run.t0, 3),
        "status": record.get("status"),
        "signal": record.get("signal"),
        "log": f"logs/{record.get('worker')}.log",
    }


def _recovered(run: SavedRun, sight: Sight, fault: FaultWindow) -> dict[str, Any]:
    told: dict[str, Any] = {
        "fault": fault.fault,
        "target": fault.target,
        "start_s": round(fault.start - run.t0, 3),
        "end_s": round(fault.end - run.t0, 3) if fault.healed else None,
        "recovered_s": None,
        "owed": 0,
        "disturbed": [],
    }
    if not fault.healed:
        return told
    after = sight.first_due_from(fault.end)
    told["owed"] = int(np.count_nonzero(must_by_rank(run)[after:]))
    if told["owed"] and sight.seen_before(after) == len(sight):
        return told
    back = recovered_at(run, sight, fault)
    told["recovered_s"] = round(back - fault.end, 3)
    told["disturbed"] = [
        f"{other.fault} {other.target} at {other.start - run.t0:.1f} s"
        for other in run.faults()
        if other is not fault and other.start < back and other.end > fault.end
    ]
    return told


def _standstills(run: SavedRun, sight: Sight, faults: Sequence[FaultWindow]) -> tuple[list[Part], list[dict[str, Any]]]:
    """(parts, the standstills at the last hops, the longest first)"""
    parts: list[Part] = []
    gaps: list[dict[str, Any]] = []
    waits = [(sight.hop, *_waits_by_event(sight))]
    if not sight.at_sink and run.sink is not None:
        try:
            waits.append((run.sink, *_waits_by_count(run)))
        except NotObserved as reason:
            parts.append(Part("inconclusive", f"whether {run.sink} stood still cannot be said: {reason}"))
    active = [(fault.start, fault.end) for fault in faults]
    for hop, start, end in waits:
        # All that may be too long, not only the longest: most of those may lie within faults.
        for i in np.argsort(start - end, kind="stable")[
            : max(MOST_EXAMPLES, int((end - start > LIVENESS_CAP_S).sum()))
        ]:
            low, high = _longest_free(float(start[i]), float(end[i]), active)
            if high > low:
                at = round(low - run.t0, 3)
                gaps.append({"problem": "a standstill", "hop": hop, "at_s": at, "seconds": round(high - low, 3)})
    gaps.sort(key=lambda gap: -gap["seconds"])
    for gap in gaps:
        if gap["seconds"] > LIVENESS_CAP_S:
            text = (
                f"nothing moved at {gap['hop']} for {gap['seconds']:.0f} s from {gap['at_s']:.0f} s on, with events "
                "waiting and no fault active"
            )
            parts.append(Part("violation", text))
    return parts, gaps[:MOST_EXAMPLES]


def _waits_by_event(sight: Sight) -> tuple[np.ndarray, np.ndarray]:
    """(from, to) between sightings: from when an event that was yet to be seen was due, or the sighting before.

    By hundredths of a second: a wait that begins and ends within one is none.
    """
    if not len(sight):
        return np.zeros(0), np.zeros(0)
    seen = sight.units[sight.units != NEVER]
    begin, end = int(seen.min()), int(seen.max())
    bins = (end - begin) // _BIN + 1
    first, last = np.full(bins, np.inf), np.full(bins, -np.inf)
    due = np.full(bins, np.inf)  # the earliest of those seen then
    for block in sight.blocks():
        order = np.argsort(block.seen, kind="stable")
        bin_of = (sight.units[block.rank[order]].astype(np.int64) - begin) // _BIN
        starts = np.flatnonzero(np.diff(bin_of, prepend=-1))
        which = bin_of[starts]
        first[which] = np.minimum(first[which], block.seen[order][starts])
        last[which] = np.maximum(last[which], np.maximum.reduceat(block.seen[order], starts))
        due[which] = np.minimum(due[which], np.minimum.reduceat(block.due[order], starts))
    some = np.isfinite(first)
    first, last, due = first[some], last[some], due[some]
    waiting = np.minimum.accumulate(due[::-1])[::-1]  # the earliest due of those not yet seen
    return np.maximum(np.concatenate([[-np.inf], last[:-1]]), waiting), first


def _waits_by_count(run: SavedRun) -> tuple[np.ndarray, np.ndarray]:
    """The same for a sink that shows counts only, from how its count grew when it was looked at."""
    samples = run.progress.filter(pl.col("hop") == run.sink).sort("t")
    if not samples.height:
        raise NotObserved("its progress was not sampled")
    warm = int(samples.filter(pl.col("t") <= run.t0)["count"].max() or 0)  # type: ignore[arg-type]
    samples = samples.filter(pl.col("t") > run.t0)
    times = samples["t"].to_numpy()
    counts = np.maximum(samples["count"].to_numpy() - warm, 0)
    highest = np.maximum.accumulate(np.concatenate([[0], counts]))
    grew = highest[1:] > highest[:-1]
    moved, reached = np.concatenate([[run.t0], times[grew]]), np.concatenate([[0], highest[1:][grew]])
    due = due_s(run)
    owing = reached[:-1] < len(due)
    next_due = due[np.minimum(reached[:-1], max(0, len(due) - 1))] if len(due) else np.zeros(0)
    if not len(due):
        return np.zeros(0), np.zeros(0)
    return np.maximum(moved[:-1], next_due)[owing], moved[1:][owing]


def _longest_free(start: float, end: float, active: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The longest part of an interval in which no fault is active."""
    best = (start, start)
    low = start
    for begin, stop in sorted(active):
        if stop <= low or begin >= end:
            continue
        if begin - low > best[1] - best[0]:
            best = (low, begin)
        low = max(low, stop)
    if end - low > best[1] - best[0]:
        best = (low, end)
    return best
