"""Guard: the machine did not run out of anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import Finding, NotObserved, Part, counted_noun, finding, observed, parameters
from harness.store import SavedRun


@dataclass(frozen=True)
class MachineHealthy:
    """No process was killed for want of memory during the run (but by a fault that wanted it), and the disk was not full: what happens then says
    nothing about the pipeline. A guard: inconclusive, never a violation.

    Figures: oom_kills (during the run), disk_free_bytes (the least that was seen), disk_full
    Cost: none to speak of.
    """

    name: ClassVar[str] = "machine_healthy"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        records = run.of_kind("machine")
        if not records:
            raise NotObserved("nobody watched the machine")
        ends = [e for kind in ("worker-exit", "service-exit") for e in run.of_kind(kind) if e.get("oom_killed")]
        wanted = sum(bool(e["asked"]) for e in ends)
        # The machine's own count has the wanted ones too; that of containers may be on another machine than ours.
        kills = max(max(int(record["oom_kills"]) for record in records) - wanted, len(ends) - wanted)
        full = any(record["disk_full"] for record in records)
        free = min(int(record["disk_free_bytes"]) for record in records)
        parts = []
        if kills:
            parts.append(
                Part("inconclusive", f"{counted_noun(kills, 'process', 'processes')} killed for want of memory")
            )
        if full:
            parts.append(Part("inconclusive", f"the disk was full ({free >> 20:,} MiB left)"))
        figures = {"oom_kills": kills, "disk_free_bytes": free, "disk_full": full}
        return finding(self.name, parts, "neither memory nor disk ran out", figures)
