"""Throttle a worker's container: less processor than it needs, as on a crowded host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Observations, System, WorkerFault
from faults.evidence import any_at_work_before, links_of_worker, verdict_of
from harness.topology import Pipeline, UsageError

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class Throttle(WorkerFault):
    """`cpus`: how many processors it may use, as a share (0.1: a tenth of one)."""

    seconds: float = 3.0
    cpus: float = 0.1

    name: ClassVar[str] = "throttle"
    about: ClassVar[str] = "leave a worker's container a share of a processor"
    needs: ClassVar[str] = "docker"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if not self.cpus >= 0.01:
            raise UsageError(f"{self.describe()}: throttle needs cpus of 0.01 or more.")

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        before = {i: system.container(i).throttled_periods() for i in targets}
        for instance in targets:
            system.container(instance).limit_cpus(self.cpus)
        return {"throttled_before": before}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        after = {i: system.container(i).throttled_periods() for i in targets}
        for instance in targets:
            system.container(instance).limit_cpus(None)
        return {"throttled_after": after}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """At work before, and made to wait by the kernel in a tenth of the periods of 100 ms at least."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        before = window.observations.get("throttled_before", {})
        for instance, after in window.observations.get("throttled_after", {}).items():
            busy, rates = any_at_work_before(run, links_of_worker(run, instance), window.start)
            periods = after - before.get(instance, after)
            least = max(1, int(window.end - window.start))
            figures[instance] = {"throttled_periods": periods, "before": rates}
            proofs.append((busy, f"{instance} was at work just before"))
            proofs.append((periods >= least, f"the kernel made {instance} wait in {periods} periods"))
        if not proofs:
            proofs.append((False, "no container was there to be throttled"))
        return verdict_of(window, proofs, figures)
