"""Lose acknowledgements: requests arrive and are done, their answers are eaten, so the sender must try again.

Pulses of Toxiproxy's `timeout` toxic with 0 on the downstream, each then removed, which closes the connection. This is
what makes an at-least-once publisher double its messages: the only fault that reliably does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, LinkFault, Observations, System
from faults.evidence import at_work, flow, verdict_of
from harness.topology import Pipeline, UsageError

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class LoseAcks(LinkFault):
    """For `pulse_ms` of every `every_ms` no answer comes through; the longer the pulse, the more retries."""

    seconds: float = 5.0
    pulse_ms: int = 50
    every_ms: int = 500

    name: ClassVar[str] = "lose_acks"
    about: ClassVar[str] = "eat the answers on a link in pulses, so that its worker must retry"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if not 0 < self.pulse_ms < self.every_ms:
            raise UsageError(f"{self.describe()}: pulse_ms must be more than 0 and less than every_ms.")
        if self.seconds * 1000 < self.every_ms:
            raise UsageError(f"{self.describe()}: it must last at least one period of {self.every_ms} ms.")

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        return {"links": list(targets), "eaten_before": {link: system.eaten_bytes(link) for link in targets}}

    def hold(self, system: System, targets: Sequence[str]) -> Observations:
        end = system.now() + self.seconds
        pulses = 0
        while system.now() < end:
            due = system.now() + self.every_ms / 1000
            for link in targets:
                system.add_toxic(link, "lose-acks", "timeout", "downstream", {"timeout": 0})
            going_on = system.wait(self.pulse_ms / 1000)
            for link in targets:
                system.remove_toxic(link, "lose-acks")
            pulses += 1
            if not going_on or not system.wait(max(0.0, min(due, end) - system.now())):
                break
        return {"pulses": pulses}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        system.wait(0.3)  # the counters move when the connections close
        return {"eaten_after": {link: system.eaten_bytes(link) for link in targets}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """At work meanwhile, answers eaten by the proxy's count, connections closed for it."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {"pulses": window.observations.get("pulses", 0)}
        for link in window.observations.get("links", []):
            busy, rates = at_work(run, link, window.start, window.end)
            before = window.observations.get("eaten_before", {}).get(link, {}).get("downstream", 0)
            after = window.observations.get("eaten_after", {}).get(link, {}).get("downstream", 0)
            closed = flow(run, link, window.start - 0.1, window.end + 0.5)["closed"]
            figures[link] = {"eaten_bytes": after - before, "closed": closed, "during": rates}
            proofs.append((busy, f"{link} was carrying bytes meanwhile"))
            proofs.append((after > before, f"{after - before} bytes of answers were eaten"))
            proofs.append((closed > 0, f"{closed} connections were closed for it"))
        if len(proofs) == 0:
            proofs.append((False, "no link was there"))
        return verdict_of(window, proofs, figures)
