"""What is measured of each run, and what a difference of it means for a release."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.report import comparison
from harness.store import SavedRun
from harness.topology import UsageError, unknown


@dataclass(frozen=True)
class Measure:
    """A figure of a run.

    factor      whether a difference is told as a factor, candidate over baseline, or else in `unit`
    higher      whether more of it is better
    tolerance   so much worse may the candidate be: a factor of 1 or more, or an amount in `unit`
    visible     a comparison in which a difference of so much could have gone unseen claims nothing; the same way told
    grain       what lies below it is the machine's, in `unit`
    """

    key: str
    name: str
    unit: str
    tolerance: float
    visible: float
    grain: float
    factor: bool = True
    higher: bool = False

    def difference(self, baseline: float | None, candidate: float | None) -> float:
        """Of a pair: positive where the candidate is worse; the logarithm of a factor, or in `unit`; nan if unknown."""
        if baseline is None or candidate is None:
            return math.nan
        if self.factor:
            change = math.log((max(0.0, candidate) + self.grain) / (max(0.0, baseline) + self.grain))
        else:
            change = candidate - baseline
        return -change if self.higher else change

    def as_difference(self, amount: float) -> float:
        """A tolerance as a difference."""
        return math.log(amount) if self.factor else amount

    def as_change(self, difference: float) -> float:
        """A difference the way a person is told of it: candidate over baseline, or candidate minus baseline."""
        change = -difference if self.higher else difference
        if self.factor:
            return math.exp(change) if change < 700 else math.inf
        return change

    def told(self, change: float) -> str:
        """A change in words: "1.30 x", "+0.40 percentage points"."""
        if math.isinf(change):
            return "any amount"
        return f"{change:.2f} x" if self.factor else f"{change:+.2f} {self.unit}"

    def told_amount(self, difference: float) -> str:
        """How large a difference is, whatever its sign: "30 %" or "0.40 percentage points"."""
        if math.isinf(difference):
            return "any size"
        size = abs(difference)
        if not self.factor:
            return f"{size:.2f} {self.unit}"
        percent = 100 * (1 - math.exp(-size) if self.higher else math.exp(size) - 1)
        return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"

    def told_value(self, value: float | None) -> str:
        return "–" if value is None else f"{value:,.4g} {self.unit}"


MEASURES = (
    Measure("duplicates", "Duplicate rate before the sink", "percentage points", 1.0, 5.0, 0.01, factor=False),
    Measure("p99", "Latency, p99", "s", 1.25, 2.0, 0.005),
    Measure("steady-p99", "Latency in quiet times, p99", "s", 1.25, 2.0, 0.005),
    Measure("throughput", "Throughput while the load lasts", "events/s", 1.05, 1.25, 1.0, higher=True),
    Measure("recovery", "Time to recover from a fault, mean", "s", 1.25, 2.0, 0.1),
)


def figures(verdict: Mapping[str, Any], run: SavedRun) -> dict[str, float | None]:
    """The figures of a run by the keys of MEASURES; None where it was not measured."""
    found = comparison.measured(verdict, run)
    recovered = [
        fault.get("recovered_s")
        for _, finding in comparison.findings(verdict, "recovery")
        for fault in (finding.get("figures") or {}).get("faults") or []
    ]
    known = [float(seconds) for seconds in recovered if seconds is not None]
    return {
        "duplicates": found["duplicates_before"],
        "p99": found["latency_p99_s"],
        "steady-p99": found["steady_p99_s"],
        "throughput": found.get("carried_per_s"),
        # Of one that was never seen to recover there is no figure; the mean of the others would flatter it.
        "recovery": round(sum(known) / len(known), 4) if known and len(known) == len(recovered) else None,
    }


def adjusted(tolerance: Mapping[str, float], visible: Mapping[str, float]) -> tuple[Measure, ...]:
    """MEASURES with other bounds for some. Raises UsageError for a name or an amount that makes no sense."""
    known = {measure.key: measure for measure in MEASURES}
    for option, amounts in (("--tolerance", tolerance), ("--visible", visible)):
        for key, amount in amounts.items():
            if key not in known:
                raise unknown("measure", key, known)
            least = 1.0 if known[key].factor else 0.0
            if not (math.isfinite(amount) and amount >= least):
                how = "a factor of 1 or more, as 1.25" if known[key].factor else f"0 or more {known[key].unit}"
                raise UsageError(f"{option} {key}={amount:g}: it is {how}.")
    return tuple(
        replace(m, tolerance=tolerance.get(m.key, m.tolerance), visible=visible.get(m.key, m.visible)) for m in MEASURES
    )
