"""What a fault is: a value that says what is done to what and when, and that can prove afterwards that it bit.

A fault file holds one frozen dataclass with three small methods: `inject` and `heal` act on a `System` and return what
they observed; `evidence` is a pure function of the saved run, so that a run can be judged again. What only some faults
need (a rhythm of pulses, a parameter) they add themselves. docs/adding-a-fault.md walks through it in a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from harness.topology import Link, Pipeline, UsageError, unknown

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun

#: What a fault saw while it was injected or healed; kept in the history, read by `evidence`.
Observations = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """Whether a fault bit, the figures that say so, and the reason in a sentence."""

    bit: bool
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class Container(Protocol):
    """A worker's container, for the faults that only the Docker backend can do. Sizes in bytes."""

    def disconnect(self) -> None:
        """Takes it off the network; its connections are not closed, nothing comes through."""
        ...

    def connect(self) -> None: ...
    def connected(self) -> bool: ...
    def limit_cpus(self, cpus: float | None) -> None:
        """None: no limit."""
        ...

    def throttled_periods(self) -> int:
        """How often the kernel has made it wait for its share of the processor."""
        ...

    def limit_memory(self, limit: int | None) -> None: ...
    def memory(self) -> int:
        """What it uses and could not give back."""
        ...

    def hog(self) -> None:
        """Starts a program in it that takes memory without end."""
        ...


class System(Protocol):
    """What a fault may do to a running pipeline. Every call returns only when it has been done, or raises."""

    def now(self) -> float: ...
    def wait(self, seconds: float) -> bool:
        """Waits; False if the run is being ended and the fault shall heal at once."""
        ...

    def signal_worker(self, instance: str, number: int, restart: bool) -> Observations: ...
    def hold_worker(self, instance: str) -> None:
        """Keeps the supervisor from restarting it."""
        ...

    def release_worker(self, instance: str) -> None: ...
    def wait_worker_back(self, instance: str, not_pid: int) -> Observations: ...
    def worker_state(self, instance: str) -> str: ...
    def expect_exit(self, instance: str) -> Observations:
        """Tells the supervisor that the worker's next end was wanted."""
        ...

    def start_beside(self, instance: str, to: Mapping[str, Any] | None) -> Observations:
        """Starts a second process of a worker, in another version (see faults.upgrade; None: as it is declared); until
        `take_over` the worker is still the first. Tells `began` and `version`, or `error`."""
        ...

    def wait_beside(self, instance: str, seconds: float) -> Observations:
        """Until the second process has connected, or a start of it will not succeed any more; tells its `pid`, when it was
        `ready` (None: it was not) and how often it `died`."""
        ...

    def beside(self, instance: str) -> int | None:
        """The pid of the second process; None while it is down."""
        ...

    def take_over(self, instance: str) -> Observations:
        """Makes the second process the worker and ends the first: its `pid`, since when it was told to (`until`), and
        whether it had to be `killed`."""
        ...

    def withdraw(self, instance: str) -> Observations:
        """Ends the second process; tells the same."""
        ...

    def container(self, instance: str) -> Container: ...
    def kill_service(self, process: str) -> Observations: ...
    def start_service(self, process: str) -> Observations: ...
    def signal_service(self, process: str, number: int) -> Observations:
        """SIGSTOP or SIGCONT to a process of a service; tells its state after that."""
        ...

    def set_link_enabled(self, link: str, enabled: bool) -> None: ...
    def add_toxic(self, link: str, name: str, kind: str, stream: str, attributes: Mapping[str, int]) -> None: ...
    def remove_toxic(self, link: str, name: str) -> None: ...
    def eaten_bytes(self, link: str) -> dict[str, int]:
        """Bytes that the link's proxy received and did not pass on, by direction, over its closed connections."""
        ...

    def probe(self, link: str) -> float | None:
        """Seconds that the service takes to answer through this link's proxy; None if it does not."""
        ...

    def seek(self, subscription: str, seconds_back: float) -> Observations: ...


@dataclass(frozen=True)
class Fault:
    """Base of all faults. `start` and `seconds` count from the first event of the load, in seconds.

    idle_allowed  it waits for nothing and need not bite; where it did not, the run is no less conclusive
    """

    target: str
    start: float = 0.0
    seconds: float = 0.0
    idle_allowed: bool = field(default=False, kw_only=True)

    name: ClassVar[str] = ""
    about: ClassVar[str] = ""
    #: What the target is: "worker", "link", "service" or "subscription".
    acts_on: ClassVar[str] = ""
    #: The only backend that can do it ("": all can).
    needs: ClassVar[str] = ""

    # -- writing a schedule --------------------------------------------------------------------------------------

    def at(self, start: float) -> Self:
        """The same fault, injected `start` seconds after the first event.

        If its target is not at work then, or an earlier fault is not over, as soon as that is so, but no more than 10 s
        later; faults that overlap by the schedule keep their distance (see harness.injection).
        """
        return dataclasses.replace(self, start=start)

    def lasting(self, seconds: float) -> Self:
        """The same fault, healed `seconds` after it was injected."""
        return dataclasses.replace(self, seconds=seconds)

    def even_if_idle(self) -> Self:
        """The same fault, which need not bite: for a schedule that hits its target at work or not, as it happens."""
        return dataclasses.replace(self, idle_allowed=True)

    def repeated(self, times: int, every: float) -> list[Self]:
        """The same fault `times` times, `every` seconds apart."""
        return [self.at(self.start + i * every) for i in range(times)]

    def params(self) -> dict[str, Any]:
        common = {f.name for f in dataclasses.fields(Fault)}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in common}

    def as_dict(self) -> dict[str, Any]:
        return {
            "fault": self.name,
            "target": self.target,
            "at": self.start,
            "seconds": self.seconds,
            "params": self.params(),
            **({"idle_allowed": True} if self.idle_allowed else {}),
        }

    def describe(self) -> str:
        length = f" for {self.seconds:g} s" if self.seconds else ""
        return f"{self.name} {self.target} at {self.start:g} s{length}"

    # -- being one -----------------------------------------------------------------------------------------------

    def check(self, pipeline: Pipeline) -> None:
        """Raises UsageError if this fault cannot be done to this pipeline."""
        if self.start < 0 or self.seconds < 0:
            raise UsageError(f"{self.describe()}: a fault needs a start and a duration of 0 or more seconds.")
        self.targets(pipeline)

    def refused_by(self, backend: str) -> str:
        """Why a backend of that name cannot do it as it is asked for, or ""."""
        return ""

    def targets(self, pipeline: Pipeline) -> list[str]:
        """What the target's name stands for: names of processes, links, services or subscriptions."""
        raise NotImplementedError

    def works_on(self, pipeline: Pipeline) -> list[list[str]]:
        """For each target the links that show whether it is at work, or its own name where it is a worker without any;
        none if it need not be.

        The injection is put off until each target is, within bounds: on a busy machine a worker that was killed takes
        long to return, and a fault on something idle proves nothing.
        """
        return []

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        raise NotImplementedError

    def hold(self, system: System, targets: Sequence[str]) -> Observations:
        """What happens between injecting and healing; by default, time passes."""
        system.wait(self.seconds)
        return {}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        raise NotImplementedError

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        raise NotImplementedError


def workers_named(pipeline: Pipeline, target: str) -> list[str]:
    """The processes that a name stands for: one instance, or every instance of a worker."""
    instances = pipeline.instances()
    if target in instances:
        return [target]
    for worker in pipeline.workers:
        if worker.name == target:
            return worker.instances()
    raise unknown("worker", target, dict.fromkeys([w.name for w in pipeline.workers] + list(instances)))


def links_named(pipeline: Pipeline, target: str) -> list[str]:
    """The links that a name stands for: one, those of every replica of a worker, or all of a worker's."""
    links = pipeline.links()
    if any(link.name == target for link in links):
        return [target]
    declared = {name: worker.name for name, worker in pipeline.instances().items()}

    def matches(link: Link) -> bool:
        worker = declared.get(link.worker, link.worker)
        return target in (worker, link.worker, f"{worker}->{link.service}")

    found = [link.name for link in links if matches(link)]
    if not found:
        raise unknown("link", target, [link.name for link in links])
    return found


@dataclass(frozen=True)
class WorkerFault(Fault):
    """A fault on processes: one, or every instance of a worker."""

    acts_on: ClassVar[str] = "worker"

    def targets(self, pipeline: Pipeline) -> list[str]:
        return workers_named(pipeline, self.target)

    def works_on(self, pipeline: Pipeline) -> list[list[str]]:
        """Not of one that answers for a hop: its work is to answer, and whether it does is seen by asking. One without a
        link stands for itself."""
        answering = {hop.worker for hop in pipeline.hops_of_workers()}
        asked = [i for i in self.targets(pipeline) if i not in answering]
        return [[link.name for link in pipeline.links() if link.worker == i] or [i] for i in asked]


@dataclass(frozen=True)
class LinkFault(Fault):
    """A fault on links: one, those of every replica of a worker, or all of a worker's."""

    acts_on: ClassVar[str] = "link"

    def targets(self, pipeline: Pipeline) -> list[str]:
        return links_named(pipeline, self.target)

    def works_on(self, pipeline: Pipeline) -> list[list[str]]:
        return [[link] for link in self.targets(pipeline)]
