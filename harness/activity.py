"""Who is at work right now, told from what flows over the links: a fault waits for it, since on something idle it
proves nothing.

A first answer, for the moment of an injection only. Whether a fault bit is judged from the saved run, more strictly
(`faults/evidence.py`), by what the same links carried when nothing was to be done; that is not known before the end.
"""

from __future__ import annotations

import threading
from collections import deque

from faults.evidence import BEFORE_S, CONNECT_BYTES, STARTS_CPU_S, WORKS_CPU, WORKS_OVER_S

#: A link that carries less than this share of what it has carried on the average of this run only chatters. (Measured
#: of the reference at 2,000 events/s: 0.4 to 1.5 % when idle.)
WORK_SHARE = 0.05
#: Samples are taken five times a second; the last one that is older than this says nothing of now.
BLIND_AFTER_S = 1.0


class Activity:
    """Thread-safe: one thread adds samples, others ask. Times are epoch seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: dict[str, deque[tuple[float, int]]] = {}
        self._began: dict[str, float] = {}
        self._opened: dict[str, int] = {}
        self._worked: dict[str, deque[tuple[float, int, float]]] = {}

    def add(self, t: float, link: str, carried: int, opened: int = 0) -> None:
        """`carried`: bytes both ways since the run began; `opened`: its connections since then."""
        with self._lock:
            self._opened[link] = opened
            recent = self._recent.setdefault(link, deque())
            recent.append((t, carried))
            while len(recent) > 2 and recent[1][0] <= t - BEFORE_S:
                recent.popleft()
            if carried:
                self._began.setdefault(link, t)

    def opened(self, link: str) -> int | None:
        """How many connections it has had; None where it is not measured."""
        with self._lock:
            return self._opened.get(link)

    def worked(self, t: float, worker: str, pid: int, cpu_s: float) -> None:
        """Of a worker without a link: the processor time that its process has used."""
        with self._lock:
            recent = self._worked.setdefault(worker, deque(maxlen=16))
            if recent and recent[-1][1] != pid:
                recent.clear()
            recent.append((t, pid, cpu_s))

    def busy(self, worker: str, now: float, since: float = 0.0) -> bool:
        """Whether a worker without a link has just used the processor, by a process that was started before `since`.

        True as well where it is not measured, since nothing can be waited for.
        """
        with self._lock:
            recent = self._worked.get(worker)
            if not recent or now - recent[-1][0] > BLIND_AFTER_S:
                return True
            last, _, used = recent[-1]
            before = next((r for r in recent if r[0] >= last - WORKS_OVER_S - 0.05), recent[-1])
            return last - since > STARTS_CPU_S and used - before[2] >= WORKS_CPU * (last - before[0]) > 0

    def at_work(self, link: str, now: float, since: float = 0.0) -> bool:
        """Whether it has carried work in the last moments, from `since` on, when its worker's process was started.

        True as well where it is not measured, since nothing can be waited for.
        """
        with self._lock:
            recent = self._recent.get(link)
            if not recent or now - recent[-1][0] > BLIND_AFTER_S:
                return True
            last, carried = recent[-1]
            first, before = recent[0]
            for t, then in recent:
                if t <= since:
                    first, before = t, then
            moved = carried - before
            if since > last - BEFORE_S and moved <= CONNECT_BYTES:
                return False
            typical = carried / max(last - self._began.get(link, last), 1.0)
            return moved > 0 and moved / max(last - first, 0.2) >= WORK_SHARE * typical
