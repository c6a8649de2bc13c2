"""Kill a worker: SIGKILL, as an out-of-memory killer or a lost machine does it. The supervisor starts it again."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Observations, System, WorkerFault
from faults.evidence import claimed, fell_silent, restarts, serves, verdict_of, waiting_work, worker_at_work_before

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun

#: So long after its start may a new process of a worker that answers for a hop have been asked in vain.
SILENT_WITHIN_S = 1.0


@dataclass(frozen=True)
class Kill(WorkerFault):
    """`seconds`: how long it is kept from starting again (0: the supervisor's own back-off)."""

    name: ClassVar[str] = "kill"
    about: ClassVar[str] = "SIGKILL a worker; it is started again"
    signal_number: ClassVar[int] = signal.SIGKILL

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        for instance in targets:
            system.hold_worker(instance)
        return {"killed": {i: system.signal_worker(i, self.signal_number, restart=True) for i in targets}}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for instance in targets:
            system.release_worker(instance)
        return {"back": {i: system.wait_worker_back(i, -1) for i in targets}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """A new pid, work that waited for the worker, and progress in the second before; of one that answers for a hop,
        that it answered until then, and then did not."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for instance, seen in window.observations.get("killed", {}).items():
            ended, started = restarts(run, instance, seen["pid"], window.start)
            busy, rates = worker_at_work_before(run, instance, window.start)
            until = started["t"] if started else window.end
            waited = waiting_work(run, instance, window.start - 1, until + 1)
            figures[instance] = {
                "pid": seen["pid"],
                "status": ended["status"] if ended else None,
                "new_pid": started["pid"] if started else None,
                "down_s": round(started["t"] - window.start, 3) if started else None,
                "waiting": waited,
                "before": rates,
            }
            expected = "by the signal" if cls.signal_number == signal.SIGKILL else "on request"
            by_sigkill = ended is not None and ended["status"] == -signal.SIGKILL
            killed = ended is not None and by_sigkill == (cls.signal_number == signal.SIGKILL)
            proofs.append((killed, f"{instance} (pid {seen['pid']}) ended {expected}"))
            own = seen.get("sent", True) and not claimed(run, window, seen["pid"])
            proofs.append((own, "no other fault had ended it already"))
            proofs.append((started is not None, f"{instance} was started again with another pid"))
            proofs.append((busy, f"{instance} was at work just before"))
            if waited is not None:
                proofs.append((waited > 0, f"{waited} messages waited for {instance}"))
            if serves(run, instance):
                silent = fell_silent(run, instance, window.start, until + SILENT_WITHIN_S)
                proofs.append((silent, f"{instance} did not answer for a while"))
        if not proofs:
            proofs.append((False, "no process was there to be ended"))
        return verdict_of(window, proofs, figures)


@dataclass(frozen=True)
class Terminate(Kill):
    """SIGTERM: what an orchestrator sends first when it moves or upgrades a container."""

    name: ClassVar[str] = "terminate"
    about: ClassVar[str] = "SIGTERM a worker; it may finish its work and is started again"
    signal_number: ClassVar[int] = signal.SIGTERM
