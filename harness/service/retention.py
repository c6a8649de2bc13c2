"""Which folders are removed by age, and how: never one that is under way, and whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness.service.entries import last_written
from harness.service.index import OWN, Asked, Index

DAY_S = 86_400.0


@dataclass(frozen=True)
class Keep:
    """For how many days folders are kept: those that passed, and all others. None: for ever."""

    days: float | None = None
    violations_days: float | None = None

    def limit(self, standing: str) -> float | None:
        return self.days if standing == "pass" else self.violations_days


def due(index: Index, keep: Keep, alive: Collection[str], now: float | None = None) -> list[str]:
    """The names of what is older than it may be. What still runs, or was written to within a day, is not."""
    now = time.time() if now is None else now
    found = []
    for entry in index.entries(Asked(), limit=1_000_000):
        limit = keep.limit(entry.standing)
        if limit is None or entry.standing == "running" or entry.name in alive:
            continue
        age = now - last_written(index.store / entry.name)
        if age > limit * DAY_S and (entry.judged or age > DAY_S):
            found.append(entry.name)
    return found


def remove(store: Path, name: str) -> None:
    """Moves the folder out of the store first, so that nobody ever sees half of one. Raises OSError."""
    bin_ = store / OWN / "removed"
    bin_.mkdir(parents=True, exist_ok=True)
    (store / name).rename(bin_ / name)
    shutil.rmtree(bin_ / name, ignore_errors=True)


def empty_bin(store: Path) -> None:
    """What an earlier service had not removed to the end."""
    with contextlib.suppress(OSError):
        shutil.rmtree(store / OWN / "removed")
