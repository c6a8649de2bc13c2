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

    def masks(self, mask: np.ndarray) -> dict[int, np.ndarray]:
        """A set of events as a mask over the sequences of each producer."""
        return {p: mask[self._base[p] : self._base[p] + size] for p, size in sorted(self.sizes.items())}

    def sequences(self, mask: np.ndarray) -> dict[int, np.ndarray]:
        """A set of events as sequences by producer, ascending."""
        return {
            producer: np.flatnonzero(mask[self._base[producer] : self._base[producer] + size]).astype(np.int64)
            for producer, size in sorted(self.sizes.items())
        }


class Bits:
    """A set of events by their places, a bit each: a run may have a hundred million."""

    def __init__(self, bits: np.ndarray, size: int) -> None:
        """`bits`: as `numpy.packbits` makes them; those beyond `size` are 0."""
        self._bits, self.size = bits, size

    @classmethod
    def of(cls, mask: np.ndarray) -> Bits:
        return cls(np.packbits(mask), len(mask))

    def __and__(self, other: Bits) -> Bits:
        return Bits(self._bits & other._bits, self.size)

    def __or__(self, other: Bits) -> Bits:
        return Bits(self._bits | other._bits, self.size)

    def __sub__(self, other: Bits) -> Bits:
        return Bits(self._bits & ~other._bits, self.size)

    def __len__(self) -> int:
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def mask(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """The boolean array of all places, or of those from `begin` on and before `end`."""
        end = self.size if end is None else min(end, self.size)
        low = begin // 8
        return np.unpackbits(self._bits[low : -(-end // 8)], count=end - low * 8)[begin - low * 8 :].view(bool)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Whether each of these places is in it."""
        found: np.ndarray = (self._bits[places >> 3] << (places & 7).astype(np.uint8) & np.uint8(0x80)).view(np.uint8)
        return found.astype(bool)

    def first(self, most: int) -> np.ndarray:
        """The least `most` places."""
        bytes_ = np.flatnonzero(self._bits)[:most]  # each holds one place or more
        places = (bytes_[:, None] * 8 + np.arange(8)).ravel()
        return places[self.at(places)][:most] if len(places) else places


class Settlement:
    """What became of each event that load intended, settled at the source log.

    Each set of events may be had as a boolean array over `index`, made anew whenever it is asked for, or by its name from
    `sets`, at a bit an event.

    An event whose delivery is ambiguous is looked up in the source log: present, it must arrive like any other;
    absent, it must not appear anywhere.
    """

    def __init__(self, index: EventIndex, source_copies: int, **sets: Bits) -> None:
        """`source_copies`: records of the source log beyond the first of their event (a client that retried). `sets`:
        acked, ambiguous, failed, poison and in_source_log."""
        self.index, self.source_copies = index, source_copies
        log = sets["in_source_log"]
        self.sets = {
            **sets,
            "must_arrive": log - sets["poison"],
            #: acknowledged to load and not in the source log: a service lost them (or the harness)
            "acked_but_absent": sets["acked"] - log,
            "ambiguous_present": sets["ambiguous"] & log,
            "ambiguous_absent": sets["ambiguous"] - log,
            "failed_but_present": sets["failed"] & log,
            "poison_planted": sets["poison"] & log,
        }

    def __getattr__(self, name: str) -> np.ndarray:
        if name.startswith("_") or name not in self.sets:
            raise AttributeError(name)
        return self.sets[name].mask()

    def sequences(self, name: str) -> dict[int, np.ndarray]:
        """One of the sets above as sequences by producer, for instance `sequences("must_arrive")`."""
        return self.index.sequences(self.sets[name].mask())
