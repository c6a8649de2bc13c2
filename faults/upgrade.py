"""Upgrade a worker while it works, as a rolling deployment does it, and roll it back: old and new side by side for a while.

A second process of the worker is started in the other version, on the same links. Once it has connected, both work for
`beside_s`; then the old one is asked to end (SIGTERM, and SIGKILL after a grace period) and the new one is the worker:
what is done to the worker from then on is done to it, and if it dies, it is started again in its version. After `seconds`
the way back is walked likewise. The second process has a name of its own, "aggregator.new", in $GAUNTLET_WORKER and for
its log.

A version that does not come up, or dies beside the old one, is withdrawn, as a deployment does it: the old one stays, and
the evidence says why the fault did not bite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from faults.base import Evidence, Fault, Observations, System, WorkerFault
from faults.evidence import (
    CLOCKS_S,
    at_work,
    flow,
    links_of_worker,
    measured_until,
    verdict_of,
    waiting_work,
    worker_at_work_before,
)
from harness.errors import HarnessFault
from harness.topology import Pipeline, UsageError

if TYPE_CHECKING:
    from harness.compare.versions import Version
    from harness.store import FaultWindow, SavedRun

#: How long a version may take until it has connected.
CONNECTED_WITHIN_S = 20.0
#: So long after the way back the old version must be seen at work.
BACK_AT_WORK_S = 3.0
#: Of what a process carried alone, so much at either end may be of the one before or after.
MARGIN_S = 0.3


@dataclass(frozen=True)
class Upgrade(WorkerFault):
    """`seconds`: how long the new version is alone.

    `to`: the other version, in the words of `gauntlet compare`: a mapping of `spec` (pipeline[@git ref], whose worker of
    this name it is), `env` (variables on top), `command` and `image`; a text is a spec, a list a command; nothing is the
    same version once more. Of several replicas each is upgraded when the one before it has been, and so on the way back.
    """

    seconds: float = 5.0
    to: Mapping[str, Any] = field(default_factory=dict)
    beside_s: float = 2.0

    name: ClassVar[str] = "upgrade"
    about: ClassVar[str] = "another version of a worker beside it, then in its place; later the same way back"

    def __post_init__(self) -> None:
        if isinstance(self.to, str):
            object.__setattr__(self, "to", {"spec": self.to})
        elif isinstance(self.to, list | tuple):
            object.__setattr__(self, "to", {"command": list(self.to)})

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if self.seconds < 1 or self.beside_s < 0.5:
            raise UsageError(
                f"{self.describe()}: what a version does in less than 1 s alone, or 0.5 s beside the other, cannot be told."
            )
        if not isinstance(self.to, Mapping):
            raise UsageError(f"{self.describe()}: {self.to!r} is no version: give to={{...}}, a spec or a command.")
        from harness.compare.versions import worker_in

        for instance in self.targets(pipeline):
            worker = pipeline.instances()[instance]
            if worker.serves:
                raise UsageError(
                    f"{self.describe()}: {instance} serves at an address of its own, at which no second one can listen."
                )
            version = self.version(worker.name)
            version.pinned()  # is there such a commit?
            worker_in(version, pipeline, worker, Path())

    def version(self, worker: str) -> Version:
        from harness.compare.versions import version_of

        return version_of(worker, self.to)

    def refused_by(self, backend: str) -> str:
        if "image" in self.to and backend != "docker":
            return "an image is for containers, which --backend docker runs"
        if "@" in str(self.to.get("spec", "")) and backend == "docker":
            return "in containers the programs are those of an image; build one of that commit and name it as 'image'"
        return ""

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        return {"to": self.version(self.target).described() or "the same version"}

    def hold(self, system: System, targets: Sequence[str]) -> Observations:
        forth: dict[str, Observations] = {}
        back: dict[str, Observations] = {}
        try:
            for instance in targets:
                forth[instance] = {}
                self._replace(system, instance, self.to, forth[instance])
                if "until" not in forth[instance]:
                    break
            else:
                system.wait(self.seconds)
        finally:
            for instance in [i for i, seen in forth.items() if "until" in seen]:
                back[instance] = {}
                self._replace(system, instance, None, back[instance])
        ends = [(i, seen["pid"]) for way in (forth, back) for i, seen in way.items() if seen.get("pid") is not None]
        return {"forth": forth, "back": back, "replaced": {i: [p for j, p in ends if i == j] for i, _ in ends}}

    def _replace(self, system: System, instance: str, to: Mapping[str, Any] | None, seen: Observations) -> None:
        """One process of a worker by another; `seen` is filled as it goes. It has "until" if the first was told to end."""
        seen |= system.start_beside(instance, to)
        if "error" in seen:
            if to is None:
                raise HarnessFault(f"{instance} could not be started again as it was: {seen['error']}")
            return
        beside = system.wait_beside(instance, CONNECTED_WITHIN_S)
        seen |= {"new_pid": beside["pid"], "ready": beside["ready"]}
        both = beside["ready"] is not None and system.wait(self.beside_s)
        if not both or system.beside(instance) != beside["pid"]:
            seen["ready"] = None  # it did not come up, it has died, or the run is being ended
        if to is not None and seen["ready"] is None:
            system.withdraw(instance)
            return
        seen |= system.take_over(instance)
        seen["over"] = round(system.now(), 4)

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        """It has been, in `hold`: the way back takes as long as the way there."""
        return {}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """Either way: the coming version connected while the going one was alive, and both lived together for the stated
        while; the going one then ended on request, none of its version was started any more, and the coming one, which
        never ended by itself, was at work alone, while messages came in."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        forth, back = (window.observations.get(way, {}) for way in ("forth", "back"))
        beside_s = float(window.params.get("beside_s", cls.beside_s))
        for instance in forth:
            busy, rates = worker_at_work_before(run, instance, window.start)
            proofs.append((busy, f"{instance} was at work just before"))
            there, here = forth[instance], back.get(instance, {})
            if "until" in there and not here:
                proofs.append((False, f"{instance} was rolled back"))
            until = here.get("began", window.end)
            out, told = _way(run, instance, "the new version", there, until, beside_s)
            ways: dict[str, object] = {"before": rates, "there": told}
            figures[instance] = ways
            proofs += out
            if "until" not in there:
                continue
            measured = [measured_until(run, link) for link in links_of_worker(run, instance)]
            last = min([here.get("over", window.end) + BACK_AT_WORK_S, *measured])
            out, ways["back"] = _way(run, instance, "the old version", here, last, beside_s)
            proofs += out
        if not proofs:
            proofs.append((False, "no process was there to be upgraded"))
        return verdict_of(window, proofs, figures)


def check_apart(faults: Sequence[Fault], pipeline: Pipeline) -> None:
    """Raises UsageError where a worker is upgraded while it is upgraded already."""
    upgrades = sorted((fault for fault in faults if isinstance(fault, Upgrade)), key=lambda fault: fault.start)
    for i, later in enumerate(upgrades):
        for earlier in upgrades[:i]:
            both = set(earlier.targets(pipeline)) & set(later.targets(pipeline))
            if both and later.start < earlier.start + earlier.seconds:
                raise UsageError(
                    f"{later.describe()}: {min(both)} is being upgraded already then; one upgrade of a worker at a time."
                )


Proofs = list[tuple[bool, str]]


def _way(
    run: SavedRun, instance: str, coming: str, seen: Mapping[str, Any], until: float, beside_s: float
) -> tuple[Proofs, dict[str, object]]:
    """The proofs of one way, and its figures. `until`: when the coming version was no longer alone, epoch seconds."""
    if "error" in seen or "began" not in seen:
        why = seen.get("error", "nobody tried")
        return [(False, f"{coming} of {instance} was started ({why})")], {"error": why}
    starts = [r for r in run.history if r["kind"] == "worker-start" and r["worker"] == instance]
    exits = [r for r in run.history if r["kind"] == "worker-exit" and r["worker"] == instance]
    version, began = seen["version"], seen["began"]
    deaths = [r for r in exits if r.get("version", "") == version and began <= r["t"] <= until and not r.get("asked")]
    died = f" (deaths: {len(deaths)}, the last with status {deaths[-1].get('status')})" if deaths else ""
    if "until" not in seen:
        return [(False, f"{coming} of {instance} came up and stayed{died}")], {"deaths": len(deaths)}
    going, told, over = seen["pid"], seen["until"], seen["over"]
    ended = next((r for r in exits if r["pid"] == going and told - CLOCKS_S <= r["t"] <= over + CLOCKS_S), None)
    together = 0.0
    if seen["ready"] is not None:
        lived = [r["t"] for r in starts if r["pid"] == going and r["t"] <= told]
        died_at = [r["t"] for r in exits if r["pid"] in (going, seen["new_pid"]) and r["t"] >= seen["ready"]]
        together = min([told, *died_at]) - max([seen["ready"], *lived[-1:]])
    links = links_of_worker(run, instance)
    opened = sum(flow(run, link, began, told)["opened"] for link in links)
    again = [r for r in starts if over < r["t"] < until and r.get("version", "") != version]
    busy, rates, came = _alone(run, instance, links, over + MARGIN_S, until - MARGIN_S)
    figures = {
        "pid": going,
        "status": ended["status"] if ended else None,
        "killed": seen["killed"],
        "new_pid": seen["new_pid"],
        "came_up_s": round(seen["ready"] - began, 3) if seen["ready"] is not None else None,
        "together_s": round(together, 3),
        "alone_s": round(until - over, 3),
        "waiting": came,
        "alone": rates,
    }
    how = "was killed, as it did not end on request" if seen["killed"] else "ended on request"
    proofs = [
        (seen["ready"] is not None, f"{coming} of {instance} connected"),
        (opened > 0 or not links, f"{coming} of {instance} opened {opened:g} connections beside the other"),
        (together >= beside_s - CLOCKS_S, f"both were alive together for {max(0.0, together):.1f} s of {beside_s:g}"),
        (ended is not None and bool(ended.get("asked")), f"pid {going} {how}"),
        (not again, f"then only {coming} was left"),
        (not deaths, f"{coming} did not end by itself{died}"),
        (busy, f"{coming} was at work alone"),
    ]
    if came is not None:
        proofs.append((came > 0, f"{came} messages came in for it"))
    return proofs, figures


def _alone(
    run: SavedRun, instance: str, links: Sequence[str], start: float, end: float
) -> tuple[bool, dict[str, object], int | None]:
    """Whether a worker was at work between two moments: by its links, or just before the second if it has none; with the
    figures, and how many messages came to where it reads."""
    if end <= start:
        return False, {}, None
    came = waiting_work(run, instance, start, end)
    if not links:
        busy, rates = worker_at_work_before(run, instance, end)
        return busy, rates, came
    found = {link: at_work(run, link, start, end) for link in links}
    return any(ok for ok, _ in found.values()), {link: rates for link, (_, rates) in found.items()}, came
