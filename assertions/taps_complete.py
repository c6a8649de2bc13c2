"""Guard: every hop was seen whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import Finding, finding, not_certified, observed, parameters
from harness.store import SavedRun


@dataclass(frozen=True)
class TapsComplete:
    """The tap of every declared hop is certified and what it saw was stored. A guard: never a violation.

    A Kafka tap certifies contiguous offsets up to the end; a Pub/Sub tap that its subscription was there before the
    load and ended by a sentinel and a quiet; a sink that two whole readings agree.

    Figures: hops (certified, reason and the tap's own figures, per hop)
    Examples: hop, reason, per tap that is not certified
    Cost: none to speak of.
    """

    name: ClassVar[str] = "taps_complete"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        parts = not_certified(run, run.hops)
        figures: dict[str, Any] = {}
        examples = []
        for hop in run.hops:
            good, reason = run.certified(hop)
            said = [record for record in run.of_kind("tap") if record.get("hop") == hop]
            own = said[-1].get("figures") or {} if said else {}
            figures[hop] = {"certified": good, "reason": reason or (said[-1].get("reason") if said else ""), **own}
            if not good:
                examples.append({"hop": hop, "reason": reason})
        return finding(self.name, parts, f"all {len(run.hops)} hops were seen whole", {"hops": figures}, examples)
