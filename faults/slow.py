"""Slow a link down: more latency, or less bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from faults.base import Evidence, LinkFault, Observations, System
from faults.evidence import at_work, flow, in_force, typical_rate, verdict_of
from harness.topology import Pipeline, UsageError

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class Latency(LinkFault):
    """Every answer comes `ms` later."""

    seconds: float = 5.0
    ms: int = 200

    name: ClassVar[str] = "latency"
    about: ClassVar[str] = "delay the answers on a link"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if self.ms < 1:
            raise UsageError(f"{self.describe()}: latency needs ms of 1 or more.")

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        before = {link: system.probe(link) for link in targets}
        for link in targets:
            system.add_toxic(link, "latency", "latency", "downstream", {"latency": self.ms})
        return {"links": list(targets), "ms": self.ms, "probe_before_s": before}

    def hold(self, system: System, targets: Sequence[str]) -> Observations:
        system.wait(self.seconds / 2)
        during = {link: system.probe(link) for link in targets}
        system.wait(max(0.0, self.seconds / 2 - self.ms / 1000))
        return {"probe_during_s": during}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            system.remove_toxic(link, "latency")
        return {}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """A probe through the same proxy took longer by the latency, and the worker's own bytes went that way."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, Any] = {}
        asked = window.observations.get("ms", 0) / 1000
        for link in window.observations.get("links", []):
            before = window.observations.get("probe_before_s", {}).get(link)
            during = window.observations.get("probe_during_s", {}).get(link)
            busy, rates = at_work(run, link, window.start, window.end)
            slower = before is not None and during is not None and during >= 0.9 * asked and during > before
            figures[link] = {"probe_before_s": before, "probe_during_s": during, "during": rates}
            proofs.append((slower, f"an answer through {link} took {during} s instead of {before} s"))
            proofs.append((busy, f"{link} was carrying bytes meanwhile"))
        if not proofs:
            proofs.append((False, "no link was there"))
        return verdict_of(window, proofs, figures)


@dataclass(frozen=True)
class Bandwidth(LinkFault):
    """What the worker sends goes no faster than `kb_per_s` kilobytes a second."""

    seconds: float = 5.0
    kb_per_s: int = 50

    name: ClassVar[str] = "bandwidth"
    about: ClassVar[str] = "limit how fast a worker can send on a link"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if self.kb_per_s < 1:
            raise UsageError(f"{self.describe()}: bandwidth needs kb_per_s of 1 or more.")
        if self.seconds < 2:
            raise UsageError(f"{self.describe()}: a limit of less than 2 s cannot be told from what buffers swallow.")

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            system.add_toxic(link, "bandwidth", "bandwidth", "upstream", {"rate": self.kb_per_s})
        return {"links": list(targets), "kb_per_s": self.kb_per_s}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            system.remove_toxic(link, "bandwidth")
        return {}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """More had been sent than the limit allows, then no more than the limit, yet something went through.

        The proxy and the kernel buffer a little, so the first second does not count and 30 % are allowed on top.
        """
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, Any] = {}
        limit = window.observations.get("kb_per_s", 0) * 1000
        for link in window.observations.get("links", []):
            offered = flow(run, link, window.start - 2, window.start)["requests"] / 2
            end = in_force(window)[1]  # what had piled up comes through the moment the limit is gone
            passed = typical_rate(run, link, window.start + 1.0, end)
            some = flow(run, link, window.start, end)["requests"] > 0
            figures[link] = {"before_bytes_per_s": round(offered), "during_bytes_per_s": round(passed), "limit": limit}
            proofs.append(
                (offered > limit, f"{link} carried {offered:.0f} bytes/s before, more than the limit {limit}")
            )
            proofs.append((some and passed <= 1.3 * limit, f"it carried {passed:.0f} bytes/s meanwhile"))
        if not proofs:
            proofs.append((False, "no link was there"))
        return verdict_of(window, proofs, figures)
