"""Guard: the run waited until nothing was on its way any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import Finding, NotObserved, Part, finding, observed, parameters
from harness.store import SavedRun

#: Reasons for which a drain ends by itself (harness.draining).
BY_ITSELF = ("drained", "quiet")


@dataclass(frozen=True)
class Drained:
    """The drain ended by itself. What was still on its way when it was broken off (by a crash loop, a standstill or the
    cap) might have been a duplicate or a late arrival, so counts that are right say nothing yet. Whether the pipeline
    is to blame is for `recovery` to say. A guard: inconclusive, never a violation.

    Figures: reason, waited_s
    Cost: none to speak of.
    """

    name: ClassVar[str] = "drained"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        ends = run.of_kind("drain-end")
        if not ends:
            raise NotObserved("the history does not say how the drain ended")
        reason, waited = str(ends[-1].get("reason")), ends[-1].get("waited_s")
        parts = []
        if reason not in BY_ITSELF:
            parts.append(Part("inconclusive", f"the drain was broken off after {waited} s: {reason}"))
        figures = {"reason": reason, "waited_s": waited}
        return finding(self.name, parts, f"it drained in {waited} s ({reason})", figures)
