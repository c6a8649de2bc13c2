"""How values of time are spread, counted by tenths of a millisecond: percentiles of any number of them in bounded memory."""

from __future__ import annotations

import math

import numpy as np

#: Seconds of one count.
UNIT_S = 1e-4
#: Values from 0 up to this many seconds are counted; what lies beyond is kept one by one, for it is rare.
_COUNTED_S = 100.0
_COUNTS = round(_COUNTED_S / UNIT_S)


class Spread:
    """Add values in seconds with `add`; ask for percentiles at any time."""

    def __init__(self) -> None:
        self._counts = np.zeros(_COUNTS, dtype=np.int64)
        self._beyond: list[np.ndarray] = []

    def add(self, seconds: np.ndarray) -> None:
        units = np.rint(seconds / UNIT_S).astype(np.int64)
        inside = (units >= 0) & (units < _COUNTS)
        if not inside.all():
            self._beyond.append(units[~inside])
            units = units[inside]
        if len(units):
            counts = np.bincount(units)
            self._counts[: len(counts)] += counts

    def __add__(self, other: Spread) -> Spread:
        """The spread of the values of both."""
        both = Spread()
        both._counts = self._counts + other._counts
        both._beyond = [*self._beyond, *other._beyond]
        return both

    def __len__(self) -> int:
        return int(self._counts.sum()) + sum(map(len, self._beyond))

    def percentile(self, percent: float, below: int = 0, above: int = 0) -> float:
        """The smallest value that at least so many percent do not exceed (nearest rank): one that was observed, to a tenth
        of a millisecond. `below` and `above`: so many further values that are less, or more, than any; -inf or inf if it
        is one of those. Of nothing at all: nan.
        """
        beyond = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *self._beyond]))
        negative = beyond[beyond < 0]
        total = len(self) + below + above
        if not total:
            return math.nan
        rank = max(1, math.ceil(total * percent / 100 - 1e-9)) - below
        if rank <= 0:
            return -math.inf
        if rank <= len(negative):
            return float(negative[rank - 1] * UNIT_S)
        rank -= len(negative)
        upto = np.cumsum(self._counts)
        if rank <= upto[-1]:
            return float(np.searchsorted(upto, rank) * UNIT_S)
        rank -= int(upto[-1])
        large = beyond[len(negative) :]
        return float(large[rank - 1] * UNIT_S) if rank <= len(large) else math.inf

    @property
    def most(self) -> float:
        """The largest value; nan of nothing."""
        return self.percentile(100)
