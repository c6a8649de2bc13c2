"""Is one version worse than the other, by pairs of runs? Pure functions of the differences of the pairs.

A difference is that of one pair of runs under the same seed and schedule, positive where the candidate is worse. If the
two versions are the same, nothing tells the two runs of a pair apart, so each difference could as well have had the other
sign: that, and nothing about the shape of the scatter, is all that is assumed here. Latencies under faults have long
tails and jumps (what a killed worker held comes again after a deadline), of which a normal distribution knows nothing.

* **Test**: every way to turn the signs of the pairs is gone through; how far apart the versions are is the sum of a measure's
  differences over the root of the sum of their squares. All measures of a pair are turned together, and what is looked at is
  the largest of them: so the chance to see *any* difference between equal versions is at most `level`, however the measures
  hang together (Westfall and Young, "Resampling-Based Multiple Testing", 1993, step-down maxT).
* **Interval**: the means of all subsets of the differences cut the line into parts that each hold the true middle equally
  probably (J. A. Hartigan, "Using subsample values as typical values", Journal of the American Statistical Association 64,
  1969, 1303-1317). So the interval asks for no shape either, and none can be stated of fewer than six pairs at 95 %.
* **What could have been seen**: the true difference that this test would have found in `POWER` of all cases, if the pairs
  scattered normally, and as much as these few allow to be believed: more than they happened to, by the upper end of a
  one-sided interval at `POWER` for their scatter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: The chance to see any difference at all between two versions that are the same.
LEVEL = 0.02
#: Of the intervals, each for itself.
CONFIDENCE = 0.95
POWER = 0.8
#: Up to so many pairs every way to turn the signs is gone through; beyond, so many are drawn.
EXACT_PAIRS, DRAWN = 14, 20_000
#: With fewer pairs nothing can be claimed: of 2^n ways two always look as good as what was seen.
LEAST_PAIRS = math.ceil(1 - math.log2(LEVEL))


@dataclass(frozen=True)
class Answer:
    """What the pairs say of one measure, in the unit of the differences.

    pairs         that have a difference
    middle        their mean; nan without any
    low, high     the interval of it at `CONFIDENCE`; infinite where so few pairs allow none
    chance        to see so much or more in some measure between equal versions; 1 where nothing differs
    different     whether that is at most `LEVEL`
    detectable    how small a true difference would have been found in `POWER` of all cases; inf: none, however large
    """

    pairs: int
    middle: float
    low: float
    high: float
    chance: float
    different: bool
    detectable: float


def compare(differences: np.ndarray, level: float = LEVEL, confidence: float = CONFIDENCE) -> list[Answer]:
    """An answer for each column. `differences`: a row a pair, a column a measure, nan where it was not measured."""
    differences = np.asarray(differences, dtype=float)
    if differences.ndim != 2:
        raise ValueError("differences must have a row for each pair and a column for each measure")
    signs = _signs(len(differences))
    sizes = _sizes(differences, signs)
    seen = sizes[0]  # the first way turns nothing
    chances = _chances(sizes, seen)
    open_ = [j for j in range(differences.shape[1]) if chances[j] > level]
    critical = {j: _critical(sizes[:, open_ if j in open_ else slice(None)], level) for j in range(len(chances))}
    return [_answer(differences[:, j], chances[j], critical[j], level, confidence) for j in range(len(chances))]


def _signs(pairs: int) -> np.ndarray:
    """Ways to turn signs, a row each, the first of which turns none."""
    if pairs <= EXACT_PAIRS:
        return np.where((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1, -1.0, 1.0)
    drawn = np.random.default_rng(pairs).choice([-1.0, 1.0], (DRAWN, pairs))
    drawn[0] = 1.0
    return drawn


def _sizes(differences: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """How far the versions would be apart in each measure (column), had the signs been such (row)."""
    known = np.nan_to_num(differences, nan=0.0)
    length = np.sqrt((known**2).sum(axis=0))
    return np.round(np.abs(signs @ known) / np.where(length > 0, length, 1.0), 9)  # equal ways must come out equal


def _chances(sizes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    order = np.argsort(-seen, kind="stable")
    chances = np.ones(len(seen))
    least = 0.0
    for place, j in enumerate(order):
        largest = sizes[:, order[place:]].max(axis=1)
        least = max(least, float((largest >= seen[j]).mean()))
        chances[j] = least if seen[j] > 0 else 1.0
    return chances


def _critical(sizes: np.ndarray, level: float) -> float:
    """The least size that counts as a difference; inf if even the largest is too probable."""
    largest = np.sort(sizes.max(axis=1))[::-1] if sizes.shape[1] else np.zeros(0)
    values, counts = np.unique(-largest, return_counts=True)
    allowed = np.cumsum(counts) <= level * len(largest) + 1e-9
    return float(-values[allowed][-1]) if allowed.any() else math.inf


def _answer(column: np.ndarray, chance: float, critical: float, level: float, confidence: float) -> Answer:
    known = column[~np.isnan(column)]
    n = len(known)
    if not n:
        return Answer(0, math.nan, -math.inf, math.inf, 1.0, False, math.inf)
    low, high = interval(known, confidence)
    return Answer(n, float(known.mean()), low, high, float(chance), bool(chance <= level), _detectable(known, critical))


def interval(differences: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """(low, high) between which the true middle lies; infinite both if there are too few for this confidence."""
    n = len(differences)
    kept = (_signs(n) > 0) if n <= EXACT_PAIRS else np.random.default_rng(n).random((DRAWN, n)) < 0.5
    kept = kept[kept.any(axis=1)]
    means = np.sort((kept @ differences) / kept.sum(axis=1))
    left_out = math.floor((1 - confidence) / 2 * (len(means) + 1) + 1e-9)
    if left_out < 1:
        return -math.inf, math.inf
    return float(means[left_out - 1]), float(means[-left_out])


def _detectable(known: np.ndarray, critical: float) -> float:
    """From the size that counts, by way of Student's t (of which it is a function), and its power."""
    from scipy.optimize import brentq  # here, because it takes half a second
    from scipy.stats import chi2, nct

    n = len(known)
    if n < 2 or critical**2 >= n:
        return math.inf
    scatter = float(known.std(ddof=1))
    if scatter == 0:
        return 0.0
    scatter *= math.sqrt((n - 1) / float(chi2.ppf(1 - POWER, n - 1)))
    t = critical * math.sqrt((n - 1) / (n - critical**2))

    def missing(shift: float) -> float:
        return float(nct.sf(t, n - 1, shift)) - POWER

    top = 2 * t + 10
    return float(brentq(missing, 0.0, top)) * scatter / math.sqrt(n) if missing(top) > 0 else math.inf
