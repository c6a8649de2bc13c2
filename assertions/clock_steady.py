"""Guard: nobody set the clock in the middle of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import Finding, NotObserved, Part, finding, observed, parameters
from harness.store import SavedRun


@dataclass(frozen=True)
class ClockSteady:
    """The wall clock did not move against the monotonic one by more than `most_ms` milliseconds: latencies, windows of
    faults and a pipeline's own timers would be wrong. A guard: inconclusive, never a violation.

    Figures: drift_ms (the largest, with its sign), most_ms
    Cost: none to speak of.
    """

    most_ms: float = 250.0

    name: ClassVar[str] = "clock_steady"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        drifts = [record["wall_minus_mono_ms_drift"] for record in run.of_kind("clock")]
        if not drifts:
            raise NotObserved("nobody watched the clock")
        drift = max(drifts, key=abs)
        parts = []
        if abs(drift) > self.most_ms:
            parts.append(Part("inconclusive", f"the wall clock was moved by {drift:.0f} ms during the run"))
        figures = {"drift_ms": drift, "most_ms": self.most_ms}
        return finding(self.name, parts, f"the clock was steady within {abs(drift):.1f} ms", figures)
