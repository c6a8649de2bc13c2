"""Kill a durable service with SIGKILL and start it again on the same data, on the same ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Fault, Observations, System
from faults.evidence import BEFORE_S, any_at_work_before, connections, verdict_of
from harness.store import processes_beside
from harness.topology import Link, Pipeline, UsageError

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class KillService(Fault):
    """`seconds`: how long it stays down. Of a Kafka of several brokers one is named, of an HDFS
    `…-namenode` or `…-datanode`; `kill_broker` can do more to a broker."""

    name: ClassVar[str] = "kill_service"
    about: ClassVar[str] = "SIGKILL a durable service (Kafka, Redis, HDFS); it is started again on its data"
    acts_on: ClassVar[str] = "service"

    def targets(self, pipeline: Pipeline) -> list[str]:
        """The process that is killed."""
        service = pipeline.service_of(self.target)
        if not service.durable or not service.networked:
            why = "has no process"
            if not service.durable:
                why = "keeps everything in memory: a kill would lose data that no pipeline could save"
            raise UsageError(
                f"{self.name} {self.target}: the service {service.name} ({service.kind}) {why}. "
                "Pause or partition its links instead, or kill a service that is durable."
            )
        processes = service.processes()
        if self.target not in processes:
            raise UsageError(
                f"{self.name} {self.target}: it has several processes; name one of {', '.join(processes)}."
            )
        return [self.target]

    def works_on(self, pipeline: Pipeline) -> list[list[str]]:
        service = pipeline.service_of(self.target)
        return [[link.name for link in pipeline.links() if link.service == service.name]]

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        return {"killed": {p: {**system.kill_service(p), "at": system.now()} for p in targets[:1]}}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        return {"back": {targets[0]: system.start_service(targets[0])}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """A new pid, links that were at work before, and no connection to the process while it was away."""
        return verdict_of(window, *killed(run, window))


def killed(run: SavedRun, window: FaultWindow) -> tuple[list[tuple[bool, str]], dict[str, object]]:
    """(proofs that a process of a service was killed while it was at work, figures)."""
    proofs: list[tuple[bool, str]] = []
    figures: dict[str, object] = {}
    for process, seen in window.observations.get("killed", {}).items():
        back = window.observations.get("back", {}).get(process, {})
        service, processes = processes_beside(run.meta, process)
        own = [link for link in run.meta["pipeline"]["links"] if link["service"] == service]
        links = [Link(link["worker"], service, len(processes)) for link in own]
        busy, rates = any_at_work_before(run, [link.name for link in links], window.start)
        dead = float(seen.get("at", window.start))
        closed = sum(
            connections(run, proxy, window.start - BEFORE_S, window.start)[1] > 0
            and connections(run, proxy, dead, max(window.end, dead + 1))[0] == 0
            for proxy in (link.proxies[processes.index(process)] for link in links)
        )
        figures[process] = {
            "pid": seen.get("pid"),
            "new_pid": back.get("pid"),
            "links_cut": closed,
            "before": rates,
        }
        proofs.append((seen.get("status") == -9, f"{process} (pid {seen.get('pid')}) ended by the signal"))
        proofs.append((back.get("pid") not in (None, seen.get("pid")), f"{process} was started again with another pid"))
        proofs.append((busy, f"links to {process} were at work just before"))
        proofs.append((closed > 0, f"{closed} links lost their connections"))
    if not proofs:
        proofs.append((False, "no process was there to be killed"))
    return proofs, figures
