"""Guard: every fault of the schedule was injected, and bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import Finding, Part, counted_noun, finding, observed, parameters
from harness.store import FaultWindow, NotObserved, SavedRun


@dataclass(frozen=True)
class FaultsEffective:
    """Each fault of the schedule was injected, healed, and can prove that it bit: a fault that did nothing proves
    nothing. A guard: inconclusive, never a violation. The proof is the fault's own (`faults.evidence`). One that the
    scenario allows to find its target idle (`even_if_idle`) must only have been injected.

    watched      False: nobody watched them, since the harness was killed meanwhile. Then nothing is claimed of them, and
                 nothing may be.

    Figures: scheduled, injected, bit
    Examples: fault, target, start_s (after the load's start), reason, and the figures of the proof, for each that did
    not bite; `allowed` where the scenario allows that
    Cost: that of the proofs.
    """

    watched: bool = True

    name: ClassVar[str] = "faults_effective"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        schedule = run.meta["schedule"]
        windows = run.faults()
        if not self.watched:
            unclaimed = (
                f"nothing is claimed of {counted_noun(len(schedule), 'fault')}: the harness was killed meanwhile"
            )
            return finding(
                self.name, [], unclaimed, {"scheduled": len(schedule), "injected": len(windows), "bit": None}
            )
        parts: list[Part] = []
        examples: list[dict[str, Any]] = []
        for index, planned in enumerate(schedule):
            if not any(window.index == index for window in windows):
                name = f"{planned['fault']} {planned['target']} at {planned['at']:g} s"
                parts.append(Part("inconclusive", f"{name} was never injected"))
                examples.append({"fault": planned["fault"], "target": planned["target"], "reason": "never injected"})
        bit = 0
        for window in windows:
            evidence = evidence_of(run, window)
            start = round(window.start - run.t0, 3)
            name = f"{window.fault} {window.target} at {start:.1f} s"
            bit += bool(evidence.bit)
            if not evidence.bit:
                allowed = 0 <= window.index < len(schedule) and bool(schedule[window.index].get("idle_allowed"))
                if not allowed or not window.healed:
                    parts.append(Part("inconclusive", f"{name} did not bite: {evidence.reason}"))
                told = {"fault": window.fault, "target": window.target, "start_s": start, "reason": evidence.reason}
                examples.append({**told, "figures": dict(evidence.figures), **({"allowed": True} if allowed else {})})
        figures = {"scheduled": len(schedule), "injected": len(windows), "bit": bit}
        idle = f", {len(windows) - bit} found nothing to bite, as the scenario allows" if bit < len(windows) else ""
        passed = f"{counted_noun(bit, 'fault')} bit{idle}" if windows else "no fault was scheduled"
        return finding(self.name, parts, passed, figures, examples)


def evidence_of(run: SavedRun, window: FaultWindow) -> Any:
    """The proof that a fault bit, made once a run. Imported late: faults know the store, too."""
    from faults import evidence
    from faults.base import Evidence

    def make() -> Any:
        if not window.healed:
            return Evidence(False, "not proven: it was never healed")
        try:
            return evidence.evidence_of(run, window)
        except NotObserved as reason:
            return Evidence(False, f"not proven: {reason}")

    return run.once(("evidence", window.index, window.start), make)
