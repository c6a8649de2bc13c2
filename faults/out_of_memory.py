"""Let a worker's container run out of memory: the kernel kills it, not the harness."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Observations, System, WorkerFault
from faults.evidence import any_at_work_before, links_of_worker, restarts, verdict_of, waiting_work

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun

#: What is left to the container on top of what it uses, while another program in it takes all that it can get.
ROOM = 8 << 20
#: How long the kernel may take to find that there is no more.
KILLED_WITHIN_S = 15.0


@dataclass(frozen=True)
class OutOfMemory(WorkerFault):
    """`seconds`: how long it is kept from starting again (0: the supervisor's own back-off)."""

    name: ClassVar[str] = "out_of_memory"
    about: ClassVar[str] = "let a worker's container run out of memory; it is started again"
    needs: ClassVar[str] = "docker"

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        killed = {}
        for instance in targets:
            system.hold_worker(instance)
            killed[instance] = system.expect_exit(instance)
            if killed[instance]["pid"] is None:
                continue  # it is down by itself: the evidence will say so
            container = system.container(instance)
            container.limit_memory(container.memory() + ROOM)
            container.hog()
            end = system.now() + KILLED_WITHIN_S
            while system.worker_state(instance) != "gone" and system.now() < end and system.wait(0.05):
                pass
        return {"killed": killed}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for instance in targets:
            # Before the limit is lifted: what eats the memory must not go on to the machine's.
            system.signal_worker(instance, signal.SIGKILL, restart=True)
            system.container(instance).limit_memory(None)
            system.release_worker(instance)
        return {"back": {i: system.wait_worker_back(i, -1) for i in targets}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """Killed for want of memory by the container's own state, a new pid, at work before, and work that waited."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for instance, seen in window.observations.get("killed", {}).items():
            ended, started = restarts(run, instance, seen["pid"], window.start)
            busy, rates = any_at_work_before(run, links_of_worker(run, instance), window.start)
            waited = waiting_work(run, instance, window.start - 1, (started["t"] if started else window.end) + 1)
            killed = ended is not None and bool(ended.get("oom_killed"))
            figures[instance] = {
                "pid": seen["pid"],
                "oom_killed": killed,
                "new_pid": started["pid"] if started else None,
                "waiting": waited,
                "before": rates,
            }
            proofs.append((killed, f"{instance} (pid {seen['pid']}) was killed for want of memory"))
            proofs.append((started is not None, f"{instance} was started again with another pid"))
            proofs.append((busy, f"{instance} was at work just before"))
            if waited is not None:
                proofs.append((waited > 0, f"{waited} messages waited for {instance}"))
        if not proofs:
            proofs.append((False, "no container was there to run out of memory"))
        return verdict_of(window, proofs, figures)
