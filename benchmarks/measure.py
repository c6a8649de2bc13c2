"""What a benchmark is, how its sides are measured, and what a series of figures comes to."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

LEAST_ROUNDS = 5

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """One of the things that are compared; `measure` does it once and returns the figure, in the benchmark's unit.

    `most`: what it may come to in any run. `least`: how many times the peer its median must be.
    """

    name: str
    measure: Callable[[], float]
    most: float | None = None
    least: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """`peer` names the side by which the others are divided. `notes` (what the figures depend on) are told with them.
    `bytes_each`: of what a rate counts, if it is told in MB/s, too."""

    name: str
    title: str
    unit: str
    sides: Sequence[Side]
    peer: str
    notes: Sequence[str] = ()
    bytes_each: int = 0


@dataclass(frozen=True)
class Summary:
    median: float
    least: float
    most: float
    runs: int


@dataclass(frozen=True)
class Result:
    name: str
    title: str
    unit: str
    peer: str
    figures: Mapping[str, Sequence[float]]
    most: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    bytes_each: int = 0

    def ratio(self, side: str) -> float:
        """Of the medians: the side to the peer."""
        return summary(self.figures[side]).median / summary(self.figures[self.peer]).median

    def too_much(self) -> list[str]:
        """The sides that were over their limit, were it only once."""
        return [side for side, most in self.most.items() if max(self.figures[side]) > most]

    def too_little(self) -> list[str]:
        """The sides whose ratio to the peer is below what it must be."""
        return [side for side, least in self.least.items() if self.ratio(side) < least]


def summary(figures: Sequence[float]) -> Summary:
    """Raises ValueError for no figures."""
    if not figures:
        raise ValueError("there are no figures to sum up")
    return Summary(statistics.median(figures), min(figures), max(figures), len(figures))


def measure(benchmark: Benchmark, rounds: int, tell: Tell) -> Result:
    """Alternates: each round has every side once, each round beginning with another side, so that no side has the
    colder or the busier machine to itself."""
    before = machine()
    figures: dict[str, list[float]] = {side.name: [] for side in benchmark.sides}
    for number in range(rounds):
        turn = number % len(benchmark.sides)
        for side in [*benchmark.sides[turn:], *benchmark.sides[:turn]]:
            value = side.measure()
            figures[side.name].append(round(value, 3))
            tell(f"{benchmark.name} {number + 1}/{rounds}: {side.name}: {value:.2f} {benchmark.unit}")
    return Result(
        benchmark.name,
        benchmark.title,
        benchmark.unit,
        benchmark.peer,
        figures,
        {side.name: side.most for side in benchmark.sides if side.most is not None},
        {side.name: side.least for side in benchmark.sides if side.least is not None},
        benchmark.notes,
        before,
        benchmark.bytes_each,
    )


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
