"""What a soak knows of itself: what was asked for, a line for each cycle, and what was cut off; `soak.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.run_folder import DamagedRun, read_json, write_whole
from harness.topology import UsageError

#: A cycle that could not say is tried so often in all.
ATTEMPTS = 2
#: Why the drain of a cycle ended after which no worker is known to have anything left to do (see `harness.draining`).
SETTLED = ("drained", "quiet")
#: The events of a run that sent none.
NO_EVENTS = {"sent": 0, "acked": 0, "ambiguous": 0, "failed": 0}


@dataclass(frozen=True)
class Asked:
    """What was asked for. `hours` of cycles of `cycle_s` seconds of load each; `stop`: at the first violation; `claims`: what each is
    held to, as `assertions.registry.to_json` writes it; none: to what every pipeline is."""

    scenario: str
    pipeline: str
    backend: str
    seed: int
    hours: float
    cycle_s: float
    rate: int
    stop: bool = False
    claims: list[dict[str, Any]] = field(default_factory=list)

    def check(self) -> Asked:
        if not self.hours > 0:
            raise UsageError(f"A soak lasts longer than {self.hours:g} hours.")
        if not self.cycle_s >= 10:
            raise UsageError(f"A cycle of {self.cycle_s:g} s has no room for faults: take 10 s or more.")
        return self


@dataclass
class Cycle:
    """What is kept of a cycle. `figures`: of the run, for the trends; None where it was not measured. `lives`: when the process
    of each worker that was there at the end had begun, epoch seconds. `judged`: how many of its acknowledged events were found in
    the source log, and judged; None where that could not be settled. `drain`: why it ended."""

    number: int
    attempt: int
    seed: int
    verdict: str
    run: str
    events: dict[str, int]
    faults: int
    figures: dict[str, float | None]
    violated: list[str] = field(default_factory=list)
    lives: dict[str, float] = field(default_factory=dict)
    judged: int | None = None
    drain: str = "drained"


@dataclass
class Cut:
    """A cycle that was cut off when the harness ended: its run folder and its events. `verdict`: of what became of its events,
    which the next harness judged; "" where nothing is claimed of them, and `why` not. `judged` as of a cycle."""

    run: str
    events: dict[str, int]
    verdict: str = ""
    violated: list[str] = field(default_factory=list)
    judged: int | None = None
    why: str = ""


@dataclass
class State:
    """All that a soak knows of itself; `soak.json`. `spent_s`: how long it has run so far, over all attempts. `idle`: why it ended
    before its time, because a pipeline that had worked did so no more when a cycle was to begin; "" if that did not happen.
    """

    asked: Asked
    cycles: list[Cycle] = field(default_factory=list)
    spent_s: float = 0.0
    cut: list[Cut] = field(default_factory=list)
    idle: str = ""

    def save(self, folder: Path) -> None:
        write_whole(folder / "soak.json", (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> State:
        """Raises UsageError where there is no soak, DamagedRun where it cannot be read."""
        if not (folder / "soak.json").is_file():
            raise UsageError(f"{folder} is no soak: it has no soak.json.")
        saved = read_json(folder / "soak.json")
        try:
            cycles = [Cycle(**cycle) for cycle in saved["cycles"]]
            cut = [Cut(**cut) for cut in saved["cut"]]
            return cls(Asked(**saved["asked"]), cycles, saved["spent_s"], cut, saved.get("idle", ""))
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedRun(f"{folder / 'soak.json'}: is not what a soak writes: {error!r}.") from error

    @property
    def judged(self) -> list[Cycle]:
        """The last attempt of each cycle."""
        return list({cycle.number: cycle for cycle in self.cycles}.values())

    def runs(self) -> list[str]:
        """The run folders of all attempts, those that were cut off too."""
        return [cycle.run for cycle in self.cycles] + [cut.run for cut in self.cut]

    def next(self) -> tuple[int, int]:
        """(number, attempt) of the cycle that comes next."""
        last = self.cycles[-1] if self.cycles else None
        if last is None:
            return 1, 1
        # Where a worker stood still, another pipeline would show nothing of this one's state.
        if last.verdict == "inconclusive" and last.attempt < ATTEMPTS and last.drain in SETTLED:
            return last.number, last.attempt + 1
        return last.number + 1, 1

    def over(self) -> bool:
        said = [*(cycle.verdict for cycle in self.cycles), *(cut.verdict for cut in self.cut)]
        if self.idle or (self.asked.stop and "violation" in said):
            return True
        return bool(self.cycles) and self.spent_s >= self.asked.hours * 3600 and self.next()[1] == 1
