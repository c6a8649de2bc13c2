"""Pause a worker: SIGSTOP and later SIGCONT, as a long garbage collection or a frozen virtual machine does it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Observations, System, WorkerFault
from faults.evidence import any_at_work_before, flow, in_force, links_of_worker, verdict_of, waiting_work
from harness.topology import Pipeline, UsageError

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class Pause(WorkerFault):
    """Longer than what it holds is leased for, its messages are given to others, and it goes on with old leases."""

    seconds: float = 3.0

    name: ClassVar[str] = "pause"
    about: ClassVar[str] = "SIGSTOP a worker, SIGCONT it later"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if self.seconds < 0.5:
            raise UsageError(f"{self.describe()}: a pause of less than 0.5 s cannot be told from scheduling.")

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        return {"paused": {i: system.signal_worker(i, signal.SIGSTOP, restart=False) for i in targets}}

    def hold(self, system: System, targets: Sequence[str]) -> Observations:
        system.wait(self.seconds / 2)
        states = {i: system.worker_state(i) for i in targets}
        system.wait(self.seconds / 2)
        return {"states": states}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        return {"resumed": {i: system.signal_worker(i, signal.SIGCONT, restart=False) for i in targets}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """Stopped by the kernel's word, at work before, nothing sent while stopped, and work came in meanwhile."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for instance, state in window.observations.get("states", {}).items():
            links = links_of_worker(run, instance)
            busy, rates = any_at_work_before(run, links, window.start)
            sent = sum(flow(run, link, *in_force(window))["requests"] for link in links)
            waited = waiting_work(run, instance, window.start, window.end)
            figures[instance] = {"state": state, "sent_bytes": sent, "waiting": waited, "before": rates}
            proofs.append((state == "stopped", f"the kernel showed {instance} as {state}"))
            proofs.append((busy, f"{instance} was at work just before"))
            proofs.append((sent == 0, f"{instance} sent {sent} bytes while stopped"))
            if waited is not None:
                proofs.append((waited > 0, f"{waited} messages waited for {instance}"))
        if not proofs:
            proofs.append((False, "no process was there to be paused"))
        return verdict_of(window, proofs, figures)
