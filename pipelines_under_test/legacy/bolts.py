"""Bolts with bounded queues, and the manager that watches them: the parts of a Heron topology that its failures are of.

A bolt takes what waits in its queue, at most `per_trip` tuples, makes one trip to the cache with their counts, and rests
until `every_s` after the trip's begin, as Summingbird's sinks did between two flushes. So its capacity is

    per_trip / max(every_s, how long a trip takes)    tuples a second

and falls when the cache is far away. Beyond it the queue fills; a full queue stops whoever fills it (back-pressure), so
that what cannot be taken waits in Kafka; and every tuple in the queue waits as long as the queue is deep. That wait is
the bolt's lag. A bolt that lags longer than allowed takes its container with it, and all queues in it: `Manager`.

Where this differs: a Heron container holds some processes, of which the stream manager carries tuples between
containers and is what grew too large under back-pressure. Here a container is one process, its bolts are threads, and
the manager only watches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from pipelines_under_test.kappa.events import Event
from pipelines_under_test.kappa.worker import Progress
from pipelines_under_test.legacy.cache import Lost
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.rollup import rolled_up

WATCH_EVERY_S = 0.1


class CacheLike(Protocol):
    """Where a bolt puts its counts; see `cache.Cache`."""

    def add(self, counts: dict[Cell, Count], event_ids: Sequence[str]) -> None: ...
    def wait(self, stop: threading.Event) -> None: ...


class Queue:
    """Tuples between a spout and a bolt, with the time at which each entered. Holds at most `depth`."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._waiting: deque[tuple[float, Event]] = deque()
        self._in_hand: list[tuple[float, Event]] = []
        self._changed = threading.Condition()

    def put(self, event: Event, wait_s: float) -> bool:
        """False: the queue stayed full for that long."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiting) < self.depth, wait_s):
                return False
            self._waiting.append((time.monotonic(), event))
            self._changed.notify_all()
            return True

    def take(self, most: int, wait_s: float) -> list[Event]:
        """What waits, oldest first, at most that many; it counts as lagging until `done`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, wait_s)
            self._in_hand = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._changed.notify_all()
            return [event for _, event in self._in_hand]

    def done(self) -> None:
        with self._changed:
            self._in_hand = []

    def lag_s(self) -> float:
        """How long the oldest tuple that is not done has been here, in seconds; 0 without one."""
        with self._changed:
            waiting = self._in_hand or self._waiting
            return time.monotonic() - waiting[0][0] if waiting else 0.0

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting) + len(self._in_hand)


class Bolt:
    """Counts what comes through its queue, in a thread of its own. Each tuple is counted at most once."""

    def __init__(
        self,
        name: str,
        cache: CacheLike,
        depth: int,
        per_trip: int,
        every_s: float,
        log: logging.Logger,
        progress: Progress,
    ) -> None:
        self.name, self.queue = name, Queue(depth)
        self._cache, self._per_trip, self._every_s = cache, per_trip, every_s
        self._log, self._progress = log, progress
        self._abandoned = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self.run, name=self.name, daemon=True).start()

    def run(self) -> None:
        while not self._abandoned.is_set():
            began = time.monotonic()
            if events := self.queue.take(self._per_trip, 0.1):
                self.count(events)
                self.queue.done()
                self._abandoned.wait(self._every_s - (time.monotonic() - began))

    def count(self, events: Sequence[Event]) -> None:
        """One trip. A batch whose counts are lost is not tried again, because nobody knows whether it arrived; the next
        one waits until the cache answers."""
        try:
            self._cache.add(rolled_up(events), [event.event_id for event in events])
            self._progress.add(counted=len(events))
        except Lost as why:
            self._progress.add(lost=len(events))
            self._log.warning("%s: %d tuples are lost: %s", self.name, len(events), why)
            self._cache.wait(self._abandoned)

    def abandon(self) -> None:
        """Leaves what is in the queue where it is."""
        self._abandoned.set()


class Manager:
    """Watches the bolts; when one lags longer than `most_lag_s` it says why and calls `die`, which ends the process."""

    def __init__(self, bolts: Sequence[Bolt], most_lag_s: float, log: logging.Logger, die: Callable[[], None]) -> None:
        self._bolts, self._most_lag_s, self._log, self._die = bolts, most_lag_s, log, die

    def start(self) -> None:
        threading.Thread(target=self.run, name="manager", daemon=True).start()

    def run(self) -> None:
        while self.check():
            time.sleep(WATCH_EVERY_S)

    def check(self) -> bool:
        """False when it came to the end."""
        for bolt in self._bolts:
            if (lag_s := bolt.queue.lag_s()) > self._most_lag_s:
                lost = sum(len(b.queue) for b in self._bolts)
                self._log.error(
                    "the stream manager dies: bolt %s lags %.1f s, over %.1f s; %d tuples in the queues are lost",
                    bolt.name, lag_s, self._most_lag_s, lost,
                )  # fmt: skip
                self._die()
                return False
        return True
