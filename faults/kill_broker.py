"""Kill a Kafka broker with SIGKILL and start it again on the same data, on the same ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Fault, Observations, System
from faults.evidence import BEFORE_S, any_at_work, connections, verdict_of
from harness.topology import Pipeline, UsageError

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class KillBroker(Fault):
    """`seconds`: how long it stays down; it takes 2 to 4 s more until it is usable again."""

    name: ClassVar[str] = "kill_broker"
    about: ClassVar[str] = "SIGKILL a durable service (Kafka); it is started again on its data"
    acts_on: ClassVar[str] = "service"

    def targets(self, pipeline: Pipeline) -> list[str]:
        service = pipeline.service(self.target)
        if service.kind != "kafka":
            why = (
                "keeps everything in memory: a kill would lose data that no pipeline could save"
                if not service.durable
                else "has no process"
            )
            raise UsageError(
                f"{self.name} {self.target}: the service {service.name} ({service.kind}) {why}. "
                "Pause or partition its links instead, or kill a Kafka service."
            )
        return [service.name]

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        return {"killed": {s: system.kill_service(s) for s in targets}}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        return {"back": {s: system.start_service(s) for s in targets}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """A new pid, links that were at work before, and no connection to a live broker while it was away."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for service, seen in window.observations.get("killed", {}).items():
            back = window.observations.get("back", {}).get(service, {})
            links = [link["name"] for link in run.meta["pipeline"]["links"] if link["service"] == service]
            busy, rates = any_at_work(run, links, window.start - BEFORE_S, window.start)
            closed = sum(
                connections(run, link, window.start - BEFORE_S, window.start)[1] > 0
                and connections(run, link, window.start, max(window.end, window.start + 1))[0] == 0
                for link in links
            )
            figures[service] = {
                "pid": seen.get("pid"),
                "new_pid": back.get("pid"),
                "links_cut": closed,
                "before": rates,
            }
            proofs.append((seen.get("status") == -9, f"{service} (pid {seen.get('pid')}) ended by the signal"))
            proofs.append(
                (back.get("pid") not in (None, seen.get("pid")), f"{service} was started again with another pid")
            )
            proofs.append((busy, f"links to {service} were at work just before"))
            proofs.append((closed > 0, f"{closed} links lost their connections"))
        if not proofs:
            proofs.append((False, "no broker was there to be killed"))
        return verdict_of(window, proofs, figures)
