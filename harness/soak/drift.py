"""Whether a measure grows from cycle to cycle, by a test for a trend and not by the look of a curve.

The test is that of Mann and Kendall: of every two cycles, does the later one show more? It asks for no distribution and
is not led astray by single outliers (H. B. Mann, "Nonparametric tests against trend", Econometrica 13, 1945, 245-259);
how much it grows is the median of the slopes between every two cycles (P. K. Sen, "Estimates of the regression
coefficient based on Kendall's tau", Journal of the American Statistical Association 63, 1968, 1379-1389).

What belongs to a process begins anew with each of its lives, and the faults of a soak end many: a leak then shows as teeth of
a saw, in which nothing grows from the first cycle to the last. So such a measure is tested a second time, by comparing only
the cycles of one life with each other, and summing over the lives what the test counts, and its variance (R. M. Hirsch, J. R.
Slack, R. A. Smith, "Techniques of trend analysis for monthly water quality data", Water Resources Research 18, 1982,
107-121, with lives in the place of months). How large the growth is, is then what the longest life came to, and nothing that
no process ever reached.

A measure drifts if its growth is sure and large: what is only sure may be a few kilobytes, what is only large may be noise.
The first cycles are left out: caches fill, and a young process grows.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

#: A growth is sure if chance alone would show it less often than this. Some dozen measures are tested a soak.
LEVEL = 0.001
#: And large if, from the first cycle to the last, it is more than this share of what the measure was.
LEAST_SHARE = 0.1
#: Left out: this share of the cycles, from the first on.
YOUNG = 0.25
#: With fewer cycles than this (after the first ones) no growth could be sure.
LEAST_CYCLES = 8


@dataclass(frozen=True)
class Drift:
    """What became of one measure over the cycles that count.

    verdict     "steady", "drifts", or "too few" cycles to say
    first, last the measure at both ends of the fitted line, in its own unit; a_cycle: the growth from one to the next
    chance      how probable it is that so much growth, or more, is chance; nan if it cannot be said
    """

    measure: str
    verdict: Literal["steady", "drifts", "too few"]
    cycles: int
    first: float
    last: float
    a_cycle: float
    chance: float

    def to_json(self) -> dict[str, Any]:
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in vars(self).items()}


def drift(measure: str, values: Sequence[float], least: float = 0.0) -> Drift:
    """Judges a measure by its value in each cycle, nan where it was not measured. `least`: a growth of less than this, in
    the measure's unit, is never large (below it lies the grain of the machine)."""
    from scipy.stats import kendalltau, theilslopes  # here, because it takes half a second

    known = np.array(values, dtype=float)[math.ceil(len(values) * YOUNG) if len(values) > LEAST_CYCLES else 0 :]
    at = np.flatnonzero(~np.isnan(known))
    known = known[at]
    if len(known) < LEAST_CYCLES:
        return Drift(measure, "too few", len(known), *(float("nan"),) * 4)
    slope, middle, _, _ = theilslopes(known, at)
    first, last = (float(middle + slope * end) for end in (at[0], at[-1]))
    chance = 1.0
    if (known != known[0]).any():
        chance = float(kendalltau(at, known, alternative="greater").pvalue)
    large = last - first > max(least, LEAST_SHARE * abs(first))
    return Drift(
        measure, "drifts" if chance < LEVEL and large else "steady", len(known), first, last, float(slope), chance
    )


def drift_in_a_life(
    measure: str, values: Sequence[float], lives: Sequence[Hashable | None], least: float = 0.0
) -> Drift:
    """As `drift`, of a measure that begins anew with each life of a process. `lives`: which one it was in each cycle, None
    where that is not known. The first cycle of each life is left out. `first` and `last`: of the longest life."""
    from scipy.stats import norm  # here, because it takes half a second

    counted = 0
    score, most, variance = 0, 0, 0.0
    slopes: list[np.ndarray] = []
    longest: tuple[int, float] = (0, 0.0)  # (cycles from its first counted one to its last, what it was in that)
    for life, group in groupby(range(len(values)), key=lambda i: lives[i]):
        at = np.array([i for i in list(group)[1:] if not math.isnan(values[i])], dtype=int)
        if life is None or len(at) < 2:
            continue
        known = np.array([values[i] for i in at], dtype=float)
        before, after = np.triu_indices(len(at), 1)
        growth = known[after] - known[before]
        counted += len(at)
        score += int(np.sign(growth).sum())
        most += len(growth)
        # Ties make it smaller; without them it errs to the side of no alarm.
        variance += len(at) * (len(at) - 1) * (2 * len(at) + 5) / 18
        slopes.append(growth / (at[after] - at[before]))
        longest = max(longest, (int(at[-1] - at[0]), float(known[0])))
    # Of many short lives as little can be sure as of few cycles, even if every one of them shows more than the one before.
    if counted < LEAST_CYCLES or norm.sf((most - 1) / math.sqrt(variance)) >= LEVEL:
        return Drift(measure, "too few", counted, *(float("nan"),) * 4)
    slope = float(np.median(np.concatenate(slopes)))
    chance = float(norm.sf((score - 1) / math.sqrt(variance))) if score > 0 else 1.0
    first, last = longest[1], longest[1] + slope * longest[0]
    large = last - first > max(least, LEAST_SHARE * abs(first))
    return Drift(measure, "drifts" if chance < LEVEL and large else "steady", counted, first, last, slope, chance)
