"""Reset the connections of a link, again and again: RST instead of an answer, as a restarted balancer does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, LinkFault, Observations, System
from faults.evidence import at_work_before, flow, measured_until, verdict_of

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class ResetConnections(LinkFault):
    """Every connection is reset as soon as data comes back on it, for the whole duration."""

    seconds: float = 2.0

    name: ClassVar[str] = "reset_connections"
    about: ClassVar[str] = "reset (RST) the connections of a link as soon as they carry an answer"

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            system.add_toxic(link, "reset", "reset_peer", "downstream", {"timeout": 0})
        return {"links": list(targets)}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            system.remove_toxic(link, "reset")
        return {}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """At work before, and connections that existed were closed; the worker came back on new ones."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for link in window.observations.get("links", []):
            busy, rates = at_work_before(run, link, window.start)
            moved = flow(run, link, window.start - 0.1, window.end + 0.3)
            later = flow(run, link, window.start, min(window.end + 5, measured_until(run, link)))
            figures[link] = {"closed": moved["closed"], "opened": later["opened"], "before": rates}
            proofs.append((busy, f"{link} was carrying bytes just before"))
            proofs.append((moved["closed"] > 0, f"{moved['closed']} connections were closed"))
            proofs.append((later["opened"] > 0, f"{later['opened']} new ones were made"))
        if not proofs:
            proofs.append((False, "no link was there"))
        return verdict_of(window, proofs, figures)
