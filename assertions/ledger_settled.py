"""Guard: what load was told agrees with the source log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import (
    MOST_EXAMPLES,
    Finding,
    Part,
    counted_noun,
    finding,
    mixed,
    not_certified,
    observed,
    parameters,
)
from harness.store import SavedRun


@dataclass(frozen=True)
class LedgerSettled:
    """Every event that was acknowledged to load is in the source log; ambiguous ones are settled by looking there.

    An acknowledged event that is not in the log was lost by a service (or by the harness), before the pipeline could
    have seen it: inconclusive, "a service lost data". So is an event that is in the log although load is sure that it
    never sent it. (An event in the log that load never intended is worse: HarnessFault, from `SavedRun.settled`.)
    A guard: never a violation.

    Figures: acked, ambiguous, failed, in_source_log, source_copies (records beyond the first of their event),
    acked_but_absent, ambiguous_present, ambiguous_absent, failed_but_present, poison_planted, must_arrive,
    torn (ledger files that ended in the middle of a record: load was killed)
    Examples: event, problem
    Cost: O(events).
    """

    name: ClassVar[str] = "ledger_settled"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        settled = run.settled()
        sets = (
            "acked",
            "ambiguous",
            "failed",
            "in_source_log",
            "acked_but_absent",
            "ambiguous_present",
            "ambiguous_absent",
            "failed_but_present",
            "poison_planted",
            "must_arrive",
        )
        figures: dict[str, Any] = {name: len(settled.sets[name]) for name in sets}
        figures |= {"source_copies": settled.source_copies, "torn": run.ledger.torn}
        parts = not_certified(run, [run.source])
        problems = {
            "acked_but_absent": "acknowledged, but not in the source log: a service lost data",
            "failed_but_present": "in the source log, although load is sure that it was never sent",
        }
        examples = []
        for name, problem in problems.items():
            if figures[name]:
                parts.append(Part("inconclusive", f"{counted_noun(figures[name], 'event')} {problem}"))
                places = settled.sets[name].first(MOST_EXAMPLES)
                examples.append([{"event": run.event_id(int(place)), "problem": problem} for place in places])
        passed = f"all {figures['acked']:,} acknowledged events are in the source log"
        if figures["ambiguous"]:
            passed += f"; of {figures['ambiguous']:,} ambiguous ones {figures['ambiguous_present']:,} are"
        return finding(self.name, parts, passed, figures, mixed(*examples))
