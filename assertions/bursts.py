"""How sure a rate of duplicates is, given that duplicates come in bursts.

One retried publish request doubles up to a batch of messages at once, one redelivery a lease's worth. Taken as
independent they would make an interval far too narrow, so what is counted as independent is the burst: the duplicates
of one cause. Bursts are taken to come as a Poisson process, of any mixture of sizes; the number of duplicates is then
a sum of independent Poisson counts, each weighted by its size, and its interval is the gamma interval of Fay and Feuer
(M. P. Fay, E. J. Feuer, "Confidence intervals for directly standardized rates: a method based on the gamma
distribution", Statistics in Medicine 16, 1997, 791-801):

    y = sum of the sizes, v = sum of their squares, w = the largest size that can be; G(p; k) the gamma quantile
    lower = v/y G(a/2; y²/v)        upper = (v + w²)/(y + w) G(1 - a/2; (y + w)²/(v + w²))

It is exact (Garwood 1936, the Poisson counterpart of Clopper and Pearson) where all bursts have one size, single
duplicates among them, and conservative in the authors' simulations elsewhere. It needs the largest size that can be,
not the largest seen: `ENOUGH` bursts are taken to show it; with fewer, and with none at all, w is the most that one
burst could have doubled, all the events of its length. So a run that saw no duplicate says little of a rate, and an
interval from few bursts is wide.

What it does not know: causes that are further apart than `BURST_S` and yet one (a fault that lasts for many seconds)
count as several; a size that is rarer than one burst in `ENOUGH` may have shown itself in none of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Duplicates within so many seconds of the first of them are of one cause: longer than it takes to repeat a request or
#: to deliver a lease again, so that one cause is hardly ever counted as two, which would make an interval too narrow.
BURST_S = 1.0
#: So many bursts show how large bursts are. In simulations (compound Poisson; sizes fixed, geometric and log-normal)
#: the upper limit of 97.5 % then failed in at most 5 %, and with fewer bursts in up to 11 %.
ENOUGH = 10
#: No number above it is told as the number of events that would decide.
MOST_NEEDED = 10**12


@dataclass(frozen=True)
class Bursts:
    """The duplicates of a hop by their cause.

    sizes      duplicates of each burst
    capacity   the most that one burst could have doubled
    events     distinct events, of which the duplicates are a share
    """

    sizes: Sequence[int]
    capacity: int
    events: int

    @property
    def extra(self) -> int:
        return sum(self.sizes)

    def interval(self, confidence: float, times: float = 1.0) -> tuple[float, float]:
        """(lowest, highest) rate of duplicates to events; of a run `times` as long in which all else is as here."""
        from scipy.special import gammaincinv  # here, because it takes half a second and few runs need it

        y, v = times * self.extra, times * float(sum(size * size for size in self.sizes))
        known = times * len(self.sizes) >= ENOUGH
        w = max(1, *self.sizes, 0 if known else self.capacity)
        tail = (1 - confidence) / 2
        low = v / y * float(gammaincinv(y * y / v, tail)) if y else 0.0
        high = (v + w * w) / (y + w) * float(gammaincinv((y + w) ** 2 / (v + w * w), 1 - tail))
        return low / (times * self.events), high / (times * self.events)

    def events_needed(self, bound: float, confidence: float) -> int | None:
        """How many events would decide whether the rate keeps a bound, if bursts go on as seen. None if no number
        would: the rate is at the very bound."""
        rate = self.extra / self.events

        def decides(events: int) -> bool:
            low, high = self.interval(confidence, events / self.events)
            return low > bound if rate > bound else high <= bound

        if math.isclose(rate, bound, rel_tol=1e-9):
            return None
        enough = self.events
        while not decides(enough):
            enough *= 2
            if enough > MOST_NEEDED:
                return None
        low = self.events
        while enough - low > max(1, low // 1000):  # three digits are enough: the rate will not be quite the same
            middle = (low + enough) // 2
            low, enough = (low, middle) if decides(middle) else (middle, enough)
        return enough


def sizes_by_time(times_s: np.ndarray, length_s: float = BURST_S) -> list[int]:
    """How many of these moments fall into each burst: the first of them, and all within its length; then the next."""
    times = np.sort(times_s)
    sizes = []
    begin = 0
    while begin < len(times):
        end = int(np.searchsorted(times, times[begin] + length_s, side="right"))
        sizes.append(end - begin)
        begin = end
    return sizes


def most_within(times_s: np.ndarray, length_s: float = BURST_S) -> int:
    """The most of these moments that lie within one length."""
    times = np.sort(times_s)
    ends = np.searchsorted(times, times + length_s, side="right")
    return int((ends - np.arange(len(times))).max(initial=0))
