"""Kill a Kafka broker with SIGKILL and start it again on the same data, on the same ports."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Observations, System
from faults.evidence import verdict_of
from faults.kill_service import KillService, killed
from harness.topology import Kafka, Pipeline, UsageError

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class KillBroker(KillService):
    """`seconds`: how long it stays down; it takes 2 to 4 s more until it is usable again.

    Of several brokers, which are named kafka-1, kafka-2, ..., the others take over what it led after 3 s.

    alone_s  so long before it is killed its fellow brokers are paused: what it takes in then, nobody else has. A writer
             that waits for all replicas gets no answer in that time; one that trusts the word of the leader (acks=1)
             loses it (https://aphyr.com/posts/293-jepsen-kafka).
    """

    alone_s: float = 0.0

    name: ClassVar[str] = "kill_broker"
    about: ClassVar[str] = "SIGKILL a Kafka broker, perhaps while it is alone; it is started again on its data"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if self.alone_s < 0 or 0 < self.alone_s < 0.2:
            raise UsageError(f"{self.describe()}: alone_s must be 0, or at least 0.2 s to be of any effect.")
        if self.alone_s and len(self.targets(pipeline)) == 1:
            raise UsageError(f"{self.describe()}: with alone_s there must be other brokers: Kafka(brokers=3).")

    def targets(self, pipeline: Pipeline) -> list[str]:
        """The broker that is killed, and, with `alone_s`, its fellows."""
        [broker] = super().targets(pipeline)
        service = pipeline.service_of(self.target)
        if not isinstance(service, Kafka):
            raise UsageError(f"{self.name} {self.target}: {service.name} is no Kafka; kill_service kills it.")
        return [broker, *(b for b in service.processes() if b != broker and self.alone_s)]

    def works_on(self, pipeline: Pipeline) -> list[list[str]]:
        """None: a broker that is alone need not have anything to do at that moment."""
        return []

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        broker, *fellows = targets
        seen: Observations = {}
        with contextlib.ExitStack() as at_the_end:  # each of them, whatever becomes of the others
            for fellow in reversed(fellows):
                at_the_end.callback(system.signal_service, fellow, signal.SIGCONT)
            if fellows:
                seen["paused"] = {b: system.signal_service(b, signal.SIGSTOP) for b in fellows}
                system.wait(self.alone_s)
            seen |= super().inject(system, [broker])
        return seen

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """As of any service; its fellows were stopped by the kernel's word."""
        proofs, figures = killed(run, window)
        for fellow, seen in window.observations.get("paused", {}).items():
            proofs.append((seen.get("state") == "stopped", f"the kernel showed {fellow} as {seen.get('state')}"))
        return verdict_of(window, proofs, figures)
