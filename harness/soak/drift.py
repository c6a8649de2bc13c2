"""Whether a measure grows from cycle to cycle, by a test for a trend and not by the look of a curve.

The test is that of Mann and Kendall: of every two cycles, does the later one show more? It asks for no distribution and
is not led astray by single outliers (H. B. Mann, "Nonparametric tests against trend", Econometrica 13, 1945, 245-259);
how much it grows is the median of the slopes between every two cycles (P. K. Sen, "Estimates of the regression
coefficient based on Kendall's tau", Journal of the American Statistical Association 63, 1968, 1379-1389).

A measure drifts if its growth is sure and large: what is only sure may be a few kilobytes, what is only large may be noise.
The first cycles are left out: caches fill, and a young process grows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
