"""Partition a link: refuse its connections, or swallow everything in silence (a black hole)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, LinkFault, Observations, System
from faults.evidence import at_work_before, connected_before, connections, flow, in_force, verdict_of

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


@dataclass(frozen=True)
class Partition(LinkFault):
    """The proxy is disabled: connections are cut and new ones refused."""

    seconds: float = 3.0

    name: ClassVar[str] = "partition"
    about: ClassVar[str] = "cut a link: connections are closed and refused"

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            system.set_link_enabled(link, False)
        return {"links": list(targets)}

    def hold(self, system: System, targets: Sequence[str]) -> Observations:
        system.wait(self.seconds / 2)
        answered = {link: system.probe(link) is not None for link in targets}
        system.wait(self.seconds / 2)
        return {"answered": answered}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            system.set_link_enabled(link, True)
        return {}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """At work before, then no connection and no byte, and refused when tried from outside."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for link in window.observations.get("links", []):
            busy, rates = at_work_before(run, link, window.start)
            before = connected_before(run, link, window.start)
            during = connections(run, link, *in_force(window))[1]
            moved = flow(run, link, *in_force(window))
            passed = moved["requests"] + moved["responses"]
            refused = window.observations.get("answered", {}).get(link) is False
            figures[link] = {
                "connections_before": before,
                "connections_during": during,
                "bytes_during": passed,
                "before": rates,
            }
            proofs.append((busy, f"{link} was carrying bytes just before"))
            proofs.append(
                (before > 0 and during == 0, f"its {before} connections were cut and none came in ({during})")
            )
            proofs.append((passed == 0, f"{passed} bytes passed while it was cut"))
            proofs.append((refused, "a connection from outside was refused"))
        if not proofs:
            proofs.append((False, "no link was there to be cut"))
        return verdict_of(window, proofs, figures)


@dataclass(frozen=True)
class BlackHole(LinkFault):
    """Connections stay open and nothing comes back: the worker's own time-outs must notice. Healing closes them.

    Toxiproxy's `timeout` toxic with 0 on both directions: what is sent vanishes, as behind a dead switch.
    """

    seconds: float = 3.0

    name: ClassVar[str] = "black_hole"
    about: ClassVar[str] = "swallow everything on a link in silence, connections stay open"

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        before = {link: system.eaten_bytes(link) for link in targets}
        for link in targets:
            for stream in ("upstream", "downstream"):
                system.add_toxic(link, f"black-hole-{stream}", "timeout", stream, {"timeout": 0})
        return {"links": list(targets), "eaten_before": before}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        for link in targets:
            for stream in ("upstream", "downstream"):
                system.remove_toxic(link, f"black-hole-{stream}")
        system.wait(0.3)  # the counters move when the connections close
        return {"eaten_after": {link: system.eaten_bytes(link) for link in targets}}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """At work before; the worker went on sending and was answered nothing; the proxy swallowed bytes."""
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for link in window.observations.get("links", []):
            busy, rates = at_work_before(run, link, window.start)
            moved = flow(run, link, *in_force(window))
            sent = flow(run, link, window.start, window.end)["requests"]
            before = window.observations.get("eaten_before", {}).get(link, {})
            after = window.observations.get("eaten_after", {}).get(link, {})
            eaten = sum(after.values()) - sum(before.values())
            figures[link] = {
                "sent_bytes": sent,
                "answered_bytes": moved["responses"],
                "eaten_bytes": eaten,
                "before": rates,
            }
            proofs.append((busy, f"{link} was carrying bytes just before"))
            proofs.append((sent > 0, f"{sent} bytes were sent into it"))
            proofs.append((moved["responses"] == 0, f"{moved['responses']} bytes were answered"))
            proofs.append((eaten > 0, f"the proxy swallowed {eaten} bytes"))
        if not proofs:
            proofs.append((False, "no link was there"))
        return verdict_of(window, proofs, figures)
