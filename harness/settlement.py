"""Values in which a saved run tells what became of its events and when its faults were active; see `store.SavedRun`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FaultWindow:
    """One fault as the history tells it. `start` and `end` in epoch seconds.

    `service` is the one of which the target is a process, if it is.

    A fault that was never healed lasts as long as the history does, and `healed` is False.

    `at_start` and `at_end` hold what was observed when it was injected and when it was healed; `observations` is both
    together, the later one winning.
    """

    index: int
    fault: str
    target: str
    start: float
    end: float
    params: Mapping[str, Any] = field(default_factory=dict)
    observations: Mapping[str, Any] = field(default_factory=dict)
    at_start: Mapping[str, Any] = field(default_factory=dict)
    at_end: Mapping[str, Any] = field(default_factory=dict)
    healed: bool = True
    service: str = ""


@dataclass(frozen=True)
class EventIndex:
    """Numbers all events of the plan, so that a set of events is one boolean array.

    The place of (producer, sequence) is `base[producer] + sequence`. Producer 0, the warm-up, has no place.
    """

    sizes: Mapping[int, int]

    @cached_property
    def _base(self) -> np.ndarray:
        base = np.full(max(self.sizes, default=0) + 1, -1, dtype=np.int64)
        total = 0
        for producer in sorted(self.sizes):
            base[producer] = total
            total += self.sizes[producer]
        return base

    @cached_property
    def _size(self) -> np.ndarray:
        size = np.zeros(max(self.sizes, default=0) + 1, dtype=np.int64)
        for producer, events in self.sizes.items():
            size[producer] = events
        return size

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def places(self, producer: np.ndarray, sequence: np.ndarray) -> np.ndarray:
        """Place of each event, or -1 for one that is not of this run's load (warm-up, foreign, unreadable)."""
        producer = np.asarray(producer, dtype=np.int64)
        sequence = np.asarray(sequence, dtype=np.int64)
        inside = (producer >= 0) & (producer < len(self._base))
        known = np.where(inside, producer, 0)
        good = inside & (self._base[known] >= 0) & (sequence >= 0) & (sequence < self._size[known])
        return np.where(good, self._base[known] + sequence, -1)

    def events(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(producer, sequence) of each place."""
        producers = np.array(sorted(self.sizes), dtype=np.int64)
        starts = self._base[producers]
        which = np.searchsorted(starts, places, side="right") - 1
        return producers[which], places - starts[which]

    def sequences(self, mask: np.ndarray) -> dict[int, np.ndarray]:
        """A set of events as sequences by producer, ascending."""
        return {
            producer: np.flatnonzero(mask[self._base[producer] : self._base[producer] + size]).astype(np.int64)
            for producer, size in sorted(self.sizes.items())
        }


@dataclass(frozen=True)
class Settlement:
    """What became of each event that load intended, settled at the source log. Sets are boolean arrays over `index`.

    An event whose delivery is ambiguous is looked up in the source log: present, it must arrive like any other;
    absent, it must not appear anywhere.
    """

    index: EventIndex
    acked: np.ndarray
    ambiguous: np.ndarray
    failed: np.ndarray
    poison: np.ndarray
    in_source_log: np.ndarray
    #: records of the source log beyond the first of their event (a client that retried)
    source_copies: int = 0

    @cached_property
    def must_arrive(self) -> np.ndarray:
        return self.in_source_log & ~self.poison

    @cached_property
    def acked_but_absent(self) -> np.ndarray:
        """Acknowledged to load and not in the source log: a service lost them (or the harness)."""
        return self.acked & ~self.in_source_log

    @cached_property
    def ambiguous_present(self) -> np.ndarray:
        return self.ambiguous & self.in_source_log

    @cached_property
    def ambiguous_absent(self) -> np.ndarray:
        return self.ambiguous & ~self.in_source_log

    @cached_property
    def failed_but_present(self) -> np.ndarray:
        return self.failed & self.in_source_log

    @cached_property
    def poison_planted(self) -> np.ndarray:
        return self.in_source_log & self.poison

    def sequences(self, name: str) -> dict[int, np.ndarray]:
        """One of the sets above as sequences by producer, for instance `sequences("must_arrive")`."""
        return self.index.sequences(getattr(self, name))
