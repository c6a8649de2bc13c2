"""A scenario: pipeline, load, schedule of faults and assertions, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assertions.base import Assertion
from assertions.registry import GUARDS
from faults.base import Fault
from faults.random_schedule import RandomSchedule, Refuses
from faults.upgrade import check_apart
from harness.topology import Pipeline, UsageError, unknown
from load.profiles import Steady
from load.source_form import load_encoder
from load.spec import check_processes


@dataclass(frozen=True)
class Scenario:
    """What `gauntlet run NAME` runs. `expected`: assertion -> "violation", for a pipeline that is known to be wrong.

    `users` producers share the load, on `processes` processes (of which each can send some hundred thousand events a
    second). `ref` is the name by which the command line was given the pipeline, if it has no other.

    `random`: the faults are drawn from a seed as soon as the backend is known (`drawn`), and `schedule_seed` says which.
    """

    name: str
    pipeline: Pipeline
    load: Steady = field(default_factory=Steady)
    faults: Sequence[Fault] = ()
    assertions: Sequence[Assertion] = ()
    users: int = 1
    seed: int = 7
    expected: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    random: RandomSchedule | None = None
    schedule_seed: int | None = None
    processes: int = 1
    ref: str = ""

    def with_(self, **changes: Any) -> Scenario:
        return dataclasses.replace(self, **changes)

    def drawn(self, backend: str, refuses: Refuses = lambda fault: None) -> Scenario:
        """With the faults that a random schedule has for this backend, but none that it refuses; itself if its faults
        were made by hand."""
        if self.random is None:
            return self
        seed = self.seed if self.random.seed is None else self.random.seed
        faults = self.random.draw(self.pipeline, self.load.rate, self.load.seconds, backend, seed, refuses)
        return self.with_(faults=faults, schedule_seed=seed)

    def validate(self) -> Scenario:
        """Raises UsageError at the first thing that cannot work, before anything is started."""
        self.pipeline.validate()
        self.load.check_users(self.users)
        check_processes(self.processes, self.users)
        for fault in self.faults or self.drawn("").faults:  # what any backend can do: is there anything to draw?
            fault.check(self.pipeline)
        check_apart(self.faults, self.pipeline)
        named = {a.name for a in self.assertions} | {g.name for g in GUARDS}
        for name, verdict in self.expected.items():
            if name not in named:
                raise unknown("assertion of this scenario", name, named)
            if verdict != "violation":
                raise UsageError(f"Only a violation can be expected of {name}, not {verdict!r}.")
        for assertion in self.assertions:
            hop = assertion.params().get("hop")
            if hop is not None:
                self.pipeline.hop(hop)
            if assertion.name.startswith("warehouse_") and self.pipeline.warehouse is None:
                raise UsageError(f"{self.name}: {assertion.name} needs a pipeline that declares a warehouse.")
        if self.pipeline.encode is not None:
            load_encoder(self.pipeline.encode, self.load.share_poison)
        self._parity_is_possible()
        return self

    def _parity_is_possible(self) -> None:
        """A bound on parity that this profile cannot reach would make every run a violation."""
        from load.events import expected_parity

        for assertion in self.assertions:
            if assertion.name not in ("batch_parity", "warehouse_parity"):
                continue
            if self.pipeline.sink is None or self.pipeline.batch is None:
                raise UsageError(f"{self.name}: {assertion.name} needs a pipeline with a sink and a batch truth.")
            least = assertion.params()["least"]
            likely = expected_parity(
                self.load, self.seed, self.pipeline.cells, self.pipeline.late_after_s, users=self.users
            )
            if likely < least:
                raise UsageError(
                    f"{self.name}: {assertion.name} of at least {least:.1%} cannot be reached: with "
                    f"{self.load.share_late:.2%} late events this load makes {likely:.1%} of the cells exact. "
                    "Lower the bound or the share."
                )


@dataclass(frozen=True)
class SideBySide:
    """What `gauntlet run NAME` runs of several pipelines: a scenario each, one after another, under the same load.

    Their schedules are as alike as the pipelines are. Each is judged by its own claims; the worst verdict is that of all.
    """

    name: str
    scenarios: Sequence[Scenario]
    about: str = ""

    @property
    def seed(self) -> int:
        return self.scenarios[0].seed

    @property
    def load(self) -> Steady:
        return self.scenarios[0].load

    def with_(self, **changes: Any) -> SideBySide:
        """The same change in every scenario."""
        return dataclasses.replace(self, scenarios=[s.with_(**changes) for s in self.scenarios])

    def validate(self) -> SideBySide:
        """Raises UsageError at the first thing that cannot work, or could not be compared."""
        names = [s.name for s in self.scenarios]
        if len(set(names)) < max(2, len(names)):
            raise UsageError(
                f"{self.name}: it needs two scenarios or more, of different names, not {', '.join(names)}."
            )
        for s in self.scenarios:
            s.validate()
            if (s.load, s.seed, s.users) != (self.load, self.seed, self.scenarios[0].users):
                raise UsageError(
                    f"{self.name}: {s.name} has another load than {names[0]}, so that nothing could be compared. Give both "
                    "the same load, seed and users."
                )
        return self


def schedule(*faults: Fault | Sequence[Fault]) -> list[Fault]:
    """One flat schedule, in the order of time, out of faults and repeated faults."""
    flat: list[Fault] = []
    for fault in faults:
        flat.extend([fault] if isinstance(fault, Fault) else fault)
    return sorted(flat, key=lambda f: f.start)
