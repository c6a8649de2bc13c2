"""Who is at work right now, told from what flows over the links: a fault waits for it, since on something idle it
proves nothing.

A first answer, for the moment of an injection only. Whether a fault bit is judged from the saved run, more strictly
(`faults/evidence.py`), by what the same links carried when nothing was to be done; that is not known before the end.
"""

from __future__ import annotations

import threading
from collections import deque

from faults.evidence import BEFORE_S

#: A link that carries less than this share of the most that it has carried in this run only chatters. (Measured of the
#: reference at 2,000 events/s: 0.4 to 1.5 % when idle; a backlog is worked off at four times the usual rate.)
WORK_SHARE = 0.05


class Activity:
    """Thread-safe: one thread adds samples, others ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: dict[str, deque[tuple[float, int]]] = {}
        self._most: dict[str, float] = {}

    def add(self, t: float, link: str, carried: int) -> None:
        """`carried`: bytes both ways since the run began, at `t` seconds."""
        with self._lock:
            recent = self._recent.setdefault(link, deque())
            recent.append((t, carried))
            while len(recent) > 2 and recent[1][0] <= t - BEFORE_S:
                recent.popleft()
            if t - recent[0][0] >= BEFORE_S:
                self._most[link] = max(self._most.get(link, 0.0), self._rate(link, 0.0))

    def at_work(self, link: str, since: float = 0.0) -> bool:
        """Whether it has carried work in the last moments, from `since` on; True as well where it is not measured, since
        nothing can be waited for."""
        with self._lock:
            if link not in self._recent:
                return True
            rate = self._rate(link, since)
            return rate > 0 and rate >= WORK_SHARE * self._most.get(link, 0.0)

    def _rate(self, link: str, since: float) -> float:
        """Bytes a second over the last BEFORE_S seconds, or from `since` on."""
        recent = self._recent[link]
        last, now = recent[-1]
        first, before = recent[0]
        for t, carried in recent:
            if t <= since:
                first, before = t, carried
        return (now - before) / max(last - first, 0.2)
