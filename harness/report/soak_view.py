"""A soak while it goes on: a line for each cycle that stays, and on a terminal a status line beneath it.

    0:12:05 cycle 7: pass, 120,000 events, 6 faults bit, p99 1.3 s
    ⠋ cycle 8, load · 7:46:12 left · 903,112 events, 48 faults · aggregator 212 MiB

Everything comes from the soak's own state and the history of the cycle under way, so nothing is asked anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console

from harness.soak.state import State


class SoakView:
    """Use it as a context manager; give `on` to the soak as its listener and `tell` as who tells."""

    def __init__(
        self, state: State, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._clock = state, clock
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._begun, self._before = clock(), state.spent_s
        self._stage, self._acked, self._faults = "deploy", 0, 0
        self._status = self._console.status("deploys the pipeline")

    def __enter__(self) -> SoakView:
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._status.stop()

    @property
    def _spent_s(self) -> float:
        return self._before + self._clock() - self._begun

    def tell(self, line: str) -> None:
        """A cycle is over, and in the state."""
        self._stage, self._acked, self._faults = "clears up", 0, 0
        self._console.print(f"{_hours(self._spent_s)} {line}")
        self._status.update(self.line())

    def on(self, event: dict[str, Any]) -> None:
        """Something happened in the cycle under way."""
        if event["kind"] == "stage":
            self._stage = event["stage"]
        elif event["kind"] == "load":
            self._acked = event.get("acked", self._acked)
        elif event["kind"] == "fault-end":
            self._faults += 1
        else:
            return
        self._status.update(self.line())

    def line(self) -> str:
        """Where it stands: the cycle and its stage, the time left, events and faults so far, and who has most memory."""
        cycles = self._state.judged
        events = sum(cycle.events.get("acked", 0) for cycle in cycles) + self._acked
        faults = sum(cycle.faults for cycle in cycles) + self._faults
        number, attempt = self._state.next()
        again = f" again ({attempt})" if attempt > 1 else ""
        left = self._state.asked.hours * 3600 - self._spent_s
        parts = [
            f"cycle {number}{again}, {self._stage}",
            f"{_hours(left)} left" if left > 0 else "the last one",
            f"{events:,} events, {faults} faults",
        ]
        bad = sum(c.verdict != "pass" for c in cycles) + sum(c.verdict == "violation" for c in self._state.cut)
        parts += [f"{bad} cycles did not pass"] if bad else []
        memory = _most_memory(self._state)
        parts += [memory] if memory else []
        return " · ".join(parts)


def _most_memory(state: State) -> str:
    """Which process had most at the end of the last cycle, and how much."""
    figures = state.cycles[-1].figures if state.cycles else {}
    known = {n: v for n, v in figures.items() if n.startswith("memory of ") and v is not None}
    if not known:
        return ""
    name, value = max(known.items(), key=lambda item: item[1])
    return f"{name.removeprefix('memory of ').removesuffix(' (MiB)')} {value:.0f} MiB"


def _hours(seconds: float) -> str:
    whole = int(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
