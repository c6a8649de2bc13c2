"""Guard: the load was really there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import Finding, Part, finding, observed, parameters, share
from harness.store import SavedRun


@dataclass(frozen=True)
class LoadDelivered:
    """At least `least` of the events that were planned were acknowledged; otherwise the pipeline was not tested by the
    load that the scenario states. A guard: inconclusive, never a violation.

    Figures: planned, sent (acked or ambiguous), acked, ambiguous, failed, share (acked / planned), least, behind_ms
    (how far load fell behind its plan at most, in milliseconds; null if it never said)
    Cost: O(events).
    """

    least: float = 0.95

    name: ClassVar[str] = "load_delivered"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        settled = run.settled()
        planned = len(settled.index)
        acked, ambiguous, failed = (len(settled.sets[name]) for name in ("acked", "ambiguous", "failed"))
        behind = [record["behind_ms"] for record in run.of_kind("load") if record.get("behind_ms") is not None]
        figures = {
            "planned": planned,
            "sent": acked + ambiguous,
            "acked": acked,
            "ambiguous": ambiguous,
            "failed": failed,
            "share": share(acked, planned),
            "least": self.least,
            "behind_ms": max(behind, default=None),
        }
        told = f"{acked:,} of {planned:,} planned events were acknowledged"
        parts = []
        if not planned or acked < self.least * planned:
            parts.append(
                Part("inconclusive", f"the load was not delivered: {told}, at least {self.least:.0%} are needed")
            )
        return finding(self.name, parts, told, figures)
