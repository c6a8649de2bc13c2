"""Profiles: how many events a second, for how long, on which keys, and what share of them is difficult.

A profile is a frozen value that knows nothing of Kafka. `offset_us(i)` says when the i-th event of the whole load is
due, in microseconds after the load's start; everything else about time follows from it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.topology import UsageError, unknown

#: Most distinct tweets: beyond it the Zipf law's table (see load.numbers) would leave most of them out.
MOST_TWEETS = 1_000_000


@dataclass(frozen=True)
class Steady:
    """The same rate from start to end.

    rate                 events a second, over all users
    seconds              how long
    tweets               how many distinct tweets there are (authors: a fifth of that)
    skew                 exponent of the Zipf law by which tweets are drawn; 0 draws them evenly
    share_late           share of events whose event time lies 20 … 75 s before they are sent: the batch truth
                         discards them for every window that closed more than the pipeline's `late_after_s` ago
    share_out_of_order   share of events whose event time lies 0.5 … 4 s back: out of order, but never late for
                         a `late_after_s` of 4 s or more
    share_poison         share of events whose bytes are damaged; they must end in a dead-letter topic
    share_twins          share of events that carry the same content as the one before them, under their own id:
                         a pipeline that deduplicates by content instead of by id loses them

    The default shares make 97 … 99 % of the reference pipeline's cells exact (`load.events.expected_parity`).
    """

    rate: int = 2_000
    seconds: float = 20
    tweets: int = 2_000
    skew: float = 1.05
    share_late: float = 0.004
    share_out_of_order: float = 0.05
    share_poison: float = 0.001
    share_twins: float = 0.01

    kind: ClassVar[str] = "steady"

    def __post_init__(self) -> None:
        for name in ("rate", "tweets"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise UsageError(f"The load's {name} must be a whole number, not {value!r}.")
        for name in ("seconds", "skew", "share_late", "share_out_of_order", "share_poison", "share_twins"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UsageError(f"The load's {name} must be a number, not {value!r}.")
        if self.rate < 1:
            raise UsageError(f"The load's rate must be at least 1 event a second, not {self.rate}.")
        if self.seconds <= 0:
            raise UsageError(f"The load must last longer than 0 seconds, not {self.seconds:g}.")
        if self.events < 1:
            raise UsageError(f"A load of {self.rate}/s for {self.seconds:g} s has no event: raise rate or seconds.")
        if self.events > 9_999_999_999:
            raise UsageError(f"A load of {self.events:,} events does not fit the ten digits of an event id.")
        if not 1 <= self.tweets <= MOST_TWEETS:
            raise UsageError(f"The load's tweets must be 1 … {MOST_TWEETS:,}, not {self.tweets:,}.")
        if not 0 <= self.skew <= 10:
            raise UsageError(f"The load's skew must be 0 (even) … 10, not {self.skew:g}.")
        for name in ("share_late", "share_out_of_order", "share_poison"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"The load's {name} is a share of its events: 0 … 1, not {getattr(self, name):g}.")
        if self.share_late + self.share_out_of_order > 1:
            together = self.share_late + self.share_out_of_order
            raise UsageError(
                f"An event is late or out of order, not both: share_late + share_out_of_order is {together:g}, over 1."
            )
        if not 0 <= self.share_twins <= 0.5:
            raise UsageError(
                f"The load's share_twins must be 0 … 0.5, not {self.share_twins:g}: at most every second event can be "
                "the twin of the one before it."
            )

    @property
    def events(self) -> int:
        """How many events are planned, over all users."""
        return round(self.rate * self.seconds)

    def offset_us(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each of these events of the whole load is due: microseconds after the load's start, rounded down."""
        return index * 1_000_000 // self.rate

    def check_users(self, users: int) -> None:
        """Raises UsageError unless this many users can share the load, each with at least one event."""
        if isinstance(users, bool) or not isinstance(users, int) or not 1 <= users <= 9_999:
            raise UsageError(f"The number of load users must be 1 … 9999, not {users!r}.")
        if self.events < users:
            raise UsageError(
                f"{users} users cannot share {self.events} events ({self.rate}/s for {self.seconds:g} s): "
                "take fewer users, a higher rate or more seconds."
            )

    def as_dict(self) -> dict[str, Any]:
        """For run.json and the load process; `from_dict` makes an equal profile of it."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Steady:
        """The profile that `as_dict` described. UsageError for a field that does not exist."""
        fields = {f.name for f in dataclasses.fields(cls)}
        given = {name: value for name, value in values.items() if name != "kind"}
        for name in given:
            if name not in fields:
                raise unknown(f"field of the {cls.kind} profile", name, fields)
        if values.get("kind", cls.kind) != cls.kind:
            raise unknown("load profile", str(values["kind"]), PROFILES)
        return cls(**given)


@dataclass(frozen=True)
class Burst(Steady):
    """The same rate from start to end, but for a burst of several times as much.

    times                how many times `rate` it is
    burst_at             when it begins, seconds after the load's start
    burst_seconds        how long it lasts
    """

    times: float = 4
    burst_at: float = 2
    burst_seconds: float = 4

    kind: ClassVar[str] = "burst"

    def __post_init__(self) -> None:
        for name in ("times", "burst_at", "burst_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UsageError(f"The load's {name} must be a number, not {value!r}.")
        if self.times <= 1:
            raise UsageError(f"A burst is more than 1 times the rate, not {self.times:g}.")
        if self.burst_at < 0 or self.burst_seconds <= 0:
            raise UsageError(
                f"A burst begins at 0 seconds or later and lasts longer than 0, not at {self.burst_at:g} for "
                f"{self.burst_seconds:g} s."
            )
        super().__post_init__()
        if self.burst_at + self.burst_seconds > self.seconds:
            raise UsageError(
                f"A burst of {self.burst_seconds:g} s from {self.burst_at:g} s on does not fit a load of {self.seconds:g} s."
            )

    @property
    def most_rate(self) -> int:
        """Events a second in the burst, over all users."""
        return round(self.rate * self.times)

    @property
    def events(self) -> int:
        return sum(self._parts)

    @property
    def _parts(self) -> tuple[int, int, int]:
        """How many events are due before the burst, in it, and after it."""
        after_s = self.seconds - self.burst_at - self.burst_seconds
        return (
            math.ceil(self.rate * self.burst_at),
            math.ceil(self.most_rate * self.burst_seconds),
            math.ceil(self.rate * after_s),
        )

    def offset_us(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        before, within, _ = self._parts
        begin_us = round(self.burst_at * 1_000_000)
        end_us = begin_us + round(self.burst_seconds * 1_000_000)
        return np.where(
            index < before,
            index * 1_000_000 // self.rate,
            np.where(
                index < before + within,
                begin_us + (index - before) * 1_000_000 // self.most_rate,
                end_us + (index - before - within) * 1_000_000 // self.rate,
            ),
        )


#: Every profile by its kind.
PROFILES: dict[str, type[Steady]] = {profile.kind: profile for profile in (Steady, Burst)}


def from_dict(values: Mapping[str, Any]) -> Steady:
    """The profile that some profile's `as_dict` described, by its "kind"."""
    kind = str(values.get("kind", Steady.kind))
    if kind not in PROFILES:
        raise unknown("load profile", kind, PROFILES)
    return PROFILES[kind].from_dict(values)
