"""What happened around a step of the way: when its worker ended and came back, what it had committed, which faults were on it.

Everything here was observed: ends and starts stand in the history, committed offsets in the samples, faults in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from assertions.attribution.ways import Step
from harness.settlement import FaultWindow
from harness.store import SavedRun

#: How far a tap's clock may lag behind what it shows, and an exit's behind the fault that caused it, in seconds.
SLACK_S = 0.25
#: Faults that end their worker: told as the end of a process, not as something that was in force.
ENDING = frozenset({"kill", "terminate", "out_of_memory", "upgrade"})

#: What was observed of an offset at some moment.
NOT_COMMITTED, COMMITTED, UNKNOWN = 0, 1, -1


@dataclass(frozen=True)
class End:
    """One end of a worker's process: `at`, and `back`, when the same instance was started again (inf: never).

    `how` is a verb phrase ("was killed"); `fault` the fault that did it, None if it ended by itself.
    """

    instance: str
    at: float
    back: float
    how: str
    fault: FaultWindow | None


def ends(run: SavedRun, step: Step) -> list[End]:
    """Every end of the step's worker before the run stopped it, by time."""
    return run.once(("ends", step.after), lambda: _ends(run, step))


def _ends(run: SavedRun, step: Step) -> list[End]:
    stopped = run.stages.get("collect", np.inf)
    exits = [r for r in run.of_kind("worker-exit") if r.get("worker") in step.instances and r["t"] < stopped]
    starts = [r for r in run.of_kind("worker-start") if r.get("worker") in step.instances]
    ending = [w for w in run.faults() if w.fault in ENDING and aims_at(w, step)]
    found: list[End] = []
    told: set[int] = set()
    for record in exits:
        instance = str(record["worker"])
        fault = next((w for w in ending if _did(w, instance, record)), None)
        if fault is not None:
            told.add(id(fault))
        back = min((r["t"] for r in starts if r["worker"] == instance and r["t"] >= record["t"]), default=np.inf)
        if fault is not None and fault.fault == "upgrade":
            back = record["t"]  # the other version was there already
        found.append(End(instance, float(record["t"]), float(back), _how(record, fault), fault))
    # A fault whose mark is not in the history (an older run, another backend): what the fault itself says.
    found += [
        End(w.target, w.start, w.end if w.healed else np.inf, _how({}, w), w)
        for w in ending
        if id(w) not in told and w.fault != "upgrade"
    ]
    return sorted(found, key=lambda end: end.at)


def _did(window: FaultWindow, instance: str, record: dict[str, object]) -> bool:
    if window.fault == "upgrade":
        replaced = window.observations.get("replaced")
        return isinstance(replaced, dict) and record.get("pid") in replaced.get(instance, ())
    killed = window.observations.get("killed")
    if isinstance(killed, dict) and isinstance(killed.get(instance), dict) and killed[instance].get("pid") is not None:
        return bool(killed[instance]["pid"] == record.get("pid"))
    return window.start - SLACK_S <= float(record["t"]) <= window.end + SLACK_S  # type: ignore[arg-type]


def _how(record: dict[str, object], fault: FaultWindow | None) -> str:
    if record.get("oom_killed") or (fault is not None and fault.fault == "out_of_memory"):
        return "was killed for want of memory"
    if fault is not None and fault.fault == "upgrade":
        return "was replaced by another version"
    if fault is not None:
        return "was terminated" if fault.fault == "terminate" else "was killed"
    status = record.get("status")
    return f"ended by itself (status {status})" if status is not None else "ended by itself"


def aims_at(window: FaultWindow, step: Step) -> bool:
    """Whether a fault acts on the step's worker, one of its links, or a service at the end of one."""
    names = {step.worker, *step.instances, *step.links, *(link.rpartition("->")[2] for link in step.links)}
    if step.worker is not None:
        names |= {f"{step.worker}->{link.rpartition('->')[2]}" for link in step.links}
    return not names.isdisjoint({window.target, window.service, *links_of(window)})


def links_of(window: FaultWindow) -> set[str]:
    """The links that a fault says it acted on."""
    told = [window.observations, *_mappings(window.observations.get("sought"))]
    return {str(link) for part in told for link in part.get("links") or ()}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [v for v in value.values() if isinstance(v, Mapping)] if isinstance(value, Mapping) else []


def on_link(window: FaultWindow, step: Step) -> bool:
    """Whether a fault acts on the link on which the step's worker writes, or on the service that it writes to."""
    if step.write_link is None or window.fault in ENDING:
        return False
    service = step.write_link.rpartition("->")[2]
    own = {step.write_link, service, *(link for link in step.links if link.endswith(f"->{service}"))}
    return not own.isdisjoint({window.target, window.service, *links_of(window)})


def in_force(run: SavedRun, step: Step) -> list[FaultWindow]:
    """The faults on a step that do not end its worker, by their start."""
    return [w for w in run.faults() if w.fault not in ENDING and aims_at(w, step)]


def overlapping(
    windows: Iterable[FaultWindow], start: np.ndarray, end: np.ndarray
) -> list[tuple[FaultWindow, np.ndarray]]:
    """Each of the faults with which of the spans [start, end] it overlaps; those that overlap none are left out."""
    found = [(w, (w.start <= end + SLACK_S) & (w.end >= start - SLACK_S)) for w in windows]
    return [(w, mask) for w, mask in found if mask.any()]


def committed_at(run: SavedRun, step: Step, end: End, partition: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Whether each of these records had been committed when the worker ended: COMMITTED, NOT_COMMITTED or UNKNOWN.

    A group commits forwards only. So it was committed if a sample shows it that was answered before the end, or, where
    the worker is one process, before it was started again; and it was not if a sample that was asked for after the end
    does not show it yet.
    """
    state = np.full(len(offset), UNKNOWN, dtype=np.int8)
    samples = run.commits.filter((pl.col("worker") == step.worker) & (pl.col("hop") == step.before))
    if samples.is_empty():
        return state
    limit = end.back if len(step.instances) == 1 else end.at
    for number in np.unique(partition):
        own = samples.filter(pl.col("partition") == int(number))
        by_then = own.filter(pl.col("t") <= limit)["offset"].to_numpy()
        after = own.filter(pl.col("asked") >= end.at).head(1)
        rows = partition == number
        if after.height:
            state[rows & (offset >= int(after["offset"][0]))] = NOT_COMMITTED
        if len(by_then):
            state[rows & (offset < by_then.max())] = COMMITTED
    return state


def committed_first(run: SavedRun, step: Step, partition: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """When each of these records was first seen committed, epoch seconds; inf: never, or not observed."""
    at = np.full(len(offset), np.inf)
    samples = run.commits.filter((pl.col("worker") == step.worker) & (pl.col("hop") == step.before))
    for number in np.unique(partition) if samples.height else ():
        own = samples.filter(pl.col("partition") == int(number)).sort("t")
        reached = np.maximum.accumulate(own["offset"].to_numpy())
        rows = np.flatnonzero(partition == number)
        index = np.searchsorted(reached, offset[rows], side="right")
        inside = index < len(reached)
        at[rows[inside]] = own["t"].to_numpy()[index[inside]]
    return at
