"""Kill a Kafka broker with SIGKILL and start it again on the same data, on the same ports."""

from __future__ import annotations

import contextlib
import signal
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
class KillBroker(Fault):
    """`seconds`: how long it stays down; it takes 2 to 4 s more until it is usable again.

    Of several brokers, which are named kafka-1, kafka-2, ..., the others take over what it led after 3 s.

    alone_s  so long before it is killed its fellow brokers are paused: what it takes in then, nobody else has. A writer
             that waits for all replicas gets no answer in that time; one that trusts the word of the leader (acks=1)
             loses it (https://aphyr.com/posts/293-jepsen-kafka).
    """

    alone_s: float = 0.0

    name: ClassVar[str] = "kill_broker"
    about: ClassVar[str] = "SIGKILL a durable service (Kafka); it is started again on its data"
    acts_on: ClassVar[str] = "service"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if self.alone_s < 0 or 0 < self.alone_s < 0.2:
            raise UsageError(f"{self.describe()}: alone_s must be 0, or at least 0.2 s to be of any effect.")
        if self.alone_s and len(self.targets(pipeline)) == 1:
            raise UsageError(f"{self.describe()}: with alone_s there must be other brokers: Kafka(brokers=3).")

    def targets(self, pipeline: Pipeline) -> list[str]:
        """The broker that is killed, and, with `alone_s`, its fellows."""
        service = pipeline.service_of(self.target)
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
        brokers = service.processes()
        if self.target not in brokers:
            raise UsageError(f"{self.name} {self.target}: it has several brokers; name one of {', '.join(brokers)}.")
        return [self.target, *(b for b in brokers if b != self.target and self.alone_s)]

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        broker, *fellows = targets
        seen: Observations = {}
        with contextlib.ExitStack() as at_the_end:  # each of them, whatever becomes of the others
            for fellow in reversed(fellows):
                at_the_end.callback(system.signal_service, fellow, signal.SIGCONT)
            if fellows:
                seen["paused"] = {b: system.signal_service(b, signal.SIGSTOP) for b in fellows}
                system.wait(self.alone_s)
            seen["killed"] = {broker: {**system.kill_service(broker), "at": system.now()}}
        return seen

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        return {"back": {targets[0]: system.start_service(targets[0])}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """A new pid, links that were at work before, and no connection to the broker while it was away; its fellows
        were stopped by the kernel's word."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for broker, seen in window.observations.get("killed", {}).items():
            back = window.observations.get("back", {}).get(broker, {})
            service, brokers = processes_beside(run.meta, broker)
            own = [link for link in run.meta["pipeline"]["links"] if link["service"] == service]
            links = [Link(link["worker"], service, len(brokers)) for link in own]
            busy, rates = any_at_work_before(run, [link.name for link in links], window.start)
            dead = float(seen.get("at", window.start))
            closed = sum(
                connections(run, proxy, window.start - BEFORE_S, window.start)[1] > 0
                and connections(run, proxy, dead, max(window.end, dead + 1))[0] == 0
                for proxy in (link.proxies[brokers.index(broker)] for link in links)
            )
            figures[broker] = {
                "pid": seen.get("pid"),
                "new_pid": back.get("pid"),
                "links_cut": closed,
                "before": rates,
            }
            proofs.append((seen.get("status") == -9, f"{broker} (pid {seen.get('pid')}) ended by the signal"))
            proofs.append(
                (back.get("pid") not in (None, seen.get("pid")), f"{broker} was started again with another pid")
            )
            proofs.append((busy, f"links to {broker} were at work just before"))
            proofs.append((closed > 0, f"{closed} links lost their connections"))
        for fellow, seen in window.observations.get("paused", {}).items():
            proofs.append((seen.get("state") == "stopped", f"the kernel showed {fellow} as {seen.get('state')}"))
        if not proofs:
            proofs.append((False, "no broker was there to be killed"))
        return verdict_of(window, proofs, figures)
