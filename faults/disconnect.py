"""Disconnect a worker's container from its network, as when a host's cable is pulled: nothing is refused or closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Observations, System, WorkerFault
from faults.evidence import any_at_work_before, flow, in_force, links_of_worker, verdict_of, waiting_work

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class Disconnect(WorkerFault):
    """All links of the worker at once, and unlike a cut link without a word to either side."""

    seconds: float = 3.0

    name: ClassVar[str] = "disconnect"
    about: ClassVar[str] = "take a worker's container off its network"
    needs: ClassVar[str] = "docker"

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        for instance in targets:
            system.container(instance).disconnect()
        return {"disconnected": list(targets)}

    def hold(self, system: System, targets: Sequence[str]) -> Observations:
        system.wait(self.seconds)
        return {"connected": {i: system.container(i).connected() for i in targets}}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for instance in targets:
            system.container(instance).connect()
        return {"reconnected": {i: system.container(i).connected() for i in targets}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """Off the network by the daemon's word, at work before, not a byte from it meanwhile, and work came in."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for instance, connected in window.observations.get("connected", {}).items():
            links = links_of_worker(run, instance)
            busy, rates = any_at_work_before(run, links, window.start)
            sent = sum(flow(run, link, *in_force(window))["requests"] for link in links)
            waited = waiting_work(run, instance, window.start, window.end)
            figures[instance] = {"sent_bytes": sent, "waiting": waited, "before": rates}
            proofs.append((not connected, f"the daemon showed {instance} off its network"))
            proofs.append((busy, f"{instance} was at work just before"))
            proofs.append((sent == 0, f"{sent} bytes came from {instance} meanwhile"))
            if waited is not None:
                proofs.append((waited > 0, f"{waited} messages waited for {instance}"))
        if not proofs:
            proofs.append((False, "no container was there to be disconnected"))
        return verdict_of(window, proofs, figures)
