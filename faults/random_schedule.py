"""Random schedules: faults, targets, times and durations drawn from one seed, so that a run can be repeated exactly.

What is drawn follows from the seed, the pipeline's declaration, the load's rate and seconds, the backend's name (which
says what faults there are) and the fields of `RandomSchedule`: the same of all these give the same schedule. Another
version of Gauntlet may draw another one; `run.json` keeps what was drawn.

A schedule is worth running only if every fault in it can bite and the run stays decidable. So:

- a target is drawn only where events pass: a link to a service where its worker reads or writes a hop of the path, never
  one that carries dead letters only, and never the load's own link (while it is cut, all of the pipeline is idle);
- what cannot be healed or done is no candidate: a kill of a service that is not durable, a fault of another backend;
- a fault needs its target *at work* before it starts, and some for as long as they last (`faults/evidence.py`). What
  stops a worker starves all workers behind it, and for a while after it was healed neither it nor they are surely at
  work again. So no fault may fall into the time in which another one starves or hinders its target. Two faults still
  overlap where the later one is further up, or on another branch;
- no more than `most_active` are active at once, the first second is calm, and all are healed a second before the load
  ends.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faults.base import Fault
from faults.disconnect import Disconnect
from faults.evidence import BEFORE_S
from faults.kill import Kill, Terminate
from faults.kill_broker import KillBroker
from faults.kill_service import KillService
from faults.lose_acks import LoseAcks
from faults.out_of_memory import OutOfMemory
from faults.partition import BlackHole, Partition
from faults.pause import Pause
from faults.redeliver import Redeliver
from faults.reset_connections import ResetConnections
from faults.slow import Bandwidth, Latency
from faults.throttle import Throttle
from harness.topology import Pipeline, PubSub, UsageError, Worker, unknown

#: From then on events flow at every hop; before, no target is at work. Seconds after the load's start.
FLOWING_AFTER_S = 1.0
#: All faults are healed so long before the load's end, in seconds.
CALM_END_S = 1.0
#: The sampling of the links is five times a second: so much more than the proof looks back must be undisturbed.
MARGIN_S = 0.2
#: A fault whose proof looks back only needs its target for a moment of its own time, in seconds.
MOMENT_S = 0.5
#: The least load under which a limit of bandwidth can be told from idle chatter, in events a second.
LEAST_RATE_OF_A_LIMIT = 100

#: How often a place is looked for for one fault, and how many faults are tried for each that is wanted.
_PLACES = 12
_FAULTS = 4


class Source:
    """Random numbers of one seed. Built on `random.random` alone, the only method that Python promises to keep."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"gauntlet schedule {seed}").random

    def between(self, least: float, most: float) -> float:
        """In hundredths; both ends may be drawn."""
        low, high = math.ceil(round(least * 100, 6)), math.floor(round(most * 100, 6))
        return (low + int(self._random() * (max(low, high) - low + 1))) / 100

    def of(self, things: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
        weights = weights or [1.0] * len(things)
        at = self._random() * sum(weights)
        for thing, weight in zip(things, weights, strict=True):
            at -= weight
            if at < 0:
                return thing
        return things[-1]


#: A backend's reason why a fault cannot be done to a pipeline; nothing if it can.
Refuses = Callable[[Fault], object]


def _never(fault: Fault) -> None:
    return None


def _nothing(source: Source, rate: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Draw:
    """How a fault is drawn. Times in seconds.

    weight       how often, against the others
    seconds      (least, most) that it lasts
    settles_s    so long after it was healed its worker may not be at work again
    heals_s      so long healing itself may take
    looks_back_s so long before its start its proof looks at its target
    throughout   whether its proof needs its target at work for as long as it lasts, and not only before
    starves      whether it takes the work from the workers behind its target
    once         whether its proof could not tell two of them on one target apart
    params       its further parameters, for the load's rate in events a second
    """

    weight: float
    seconds: tuple[float, float]
    settles_s: float
    heals_s: float = 0.0
    looks_back_s: float = BEFORE_S
    throughout: bool = False
    starves: bool = True
    once: bool = False
    params: Callable[[Source, int], dict[str, Any]] = _nothing


#: Every fault, and how it is drawn.
DRAWS: dict[type[Fault], Draw] = {
    Kill: Draw(3, (0, 2), settles_s=4.5, heals_s=0.5),
    Terminate: Draw(1, (0, 1), settles_s=4.5, heals_s=1.0),
    KillBroker: Draw(2, (0, 1), settles_s=5, heals_s=4.0),
    KillService: Draw(2, (0, 1), settles_s=3, heals_s=1.0),
    Pause: Draw(2, (1, 3), settles_s=2.5),
    Partition: Draw(3, (1.5, 3), settles_s=3.5),
    BlackHole: Draw(2, (1.5, 3), settles_s=3.5),
    Latency: Draw(
        1,
        (2, 4),
        settles_s=1.5,
        throughout=True,
        starves=False,
        params=lambda source, rate: {"ms": int(source.between(2, 4) * 100)},
    ),
    Bandwidth: Draw(
        1,
        (2.5, 4),
        settles_s=3.5,
        looks_back_s=2.0,
        throughout=True,
        params=lambda source, rate: {"kb_per_s": max(1, int(rate * source.between(1, 2) / 100))},
    ),
    ResetConnections: Draw(1, (1, 2.5), settles_s=3),
    LoseAcks: Draw(
        3,
        (2, 4),
        settles_s=2.5,
        throughout=True,
        params=lambda source, rate: {"pulse_ms": int(source.between(5, 10) * 10), "every_ms": 400},
    ),
    Redeliver: Draw(1, (0, 0), settles_s=2, looks_back_s=3.0, throughout=True, starves=False, once=True),
    Disconnect: Draw(1, (2, 4), settles_s=8, heals_s=0.5),
    Throttle: Draw(1, (2, 4), settles_s=3),
    OutOfMemory: Draw(1, (0, 1), settles_s=5, heals_s=5.0),
}


@dataclass(frozen=True)
class RandomSchedule:
    """A schedule that is drawn when it is known what it is for: `gauntlet.run(..., faults=random_schedule(seed=42))`.

    seed         None: the seed of the run's events
    every_s      the most faults: one for so many seconds of load (fewer where no more find their place)
    most_active  so many at once, at most
    weights      fault -> how often it is drawn against the others, instead of its own (`DRAWS`); 0: never
    """

    seed: int | None = None
    every_s: float = 3.0
    most_active: int = 2
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise UsageError(f"The seed of a random schedule must be a whole number, not {self.seed!r}.")
        if not self.every_s > 0:
            raise UsageError(f"A random schedule needs every_s of more than 0 seconds, not {self.every_s:g}.")
        if self.most_active < 1:
            raise UsageError(f"A random schedule needs most_active of 1 or more, not {self.most_active}.")
        names = {kind.name for kind in DRAWS}
        for name, weight in self.weights.items():
            if name not in names:
                raise unknown("fault", name, names)
            if not 0 <= weight < math.inf:
                raise UsageError(f"The weight of {name} must be 0 or more, not {weight:g}.")

    def draw(
        self, pipeline: Pipeline, rate: int, seconds: float, backend: str, seed: int, refuses: Refuses = _never
    ) -> tuple[Fault, ...]:
        """The schedule, in the order of time. `seed` counts if this has none of its own; `backend`: its name, and
        `refuses` what else it cannot do.

        Raises UsageError where no fault can be drawn: no target, or too short a load.
        """
        source = Source(seed if self.seed is None else self.seed)
        weights = {kind: self.weights.get(kind.name, draw.weight) for kind, draw in DRAWS.items()}
        targets = {k: t for k, t in targets_of(pipeline, rate, backend, refuses).items() if weights[k] > 0}
        if not targets:
            raise UsageError(
                f"No fault can be drawn at random for {pipeline.name}: none of its workers has a link on which events "
                "pass, or every fault has a weight of 0."
            )
        least = min(_earliest(DRAWS[kind]) + _shortest(DRAWS[kind]) + CALM_END_S for kind in targets)
        kinds = [k for k in targets if _earliest(DRAWS[k]) + _shortest(DRAWS[k]) + CALM_END_S <= seconds]
        if not kinds:
            raise UsageError(
                f"A load of {seconds:g} s is too short for a random schedule: the shortest fault needs one of "
                f"{least:.1f} s, to find its target at work and to be healed before the end."
            )
        most = max(1, int(seconds / self.every_s))
        chosen: list[_Drawn] = []
        for _ in range(_FAULTS * most):
            if len(chosen) == most:
                break
            kind = source.of(kinds, [weights[k] for k in kinds])
            target = source.of(list(targets[kind]))
            one = self._placed(source, kind, target, pipeline, rate, seconds, chosen)
            if one is not None:
                chosen.append(one)
        return tuple(sorted((one.fault for one in chosen), key=lambda fault: fault.start))

    def _placed(
        self,
        source: Source,
        kind: type[Fault],
        target: str,
        pipeline: Pipeline,
        rate: int,
        seconds: float,
        others: Sequence[_Drawn],
    ) -> _Drawn | None:
        draw = DRAWS[kind]
        room = seconds - CALM_END_S - _earliest(draw) - draw.heals_s
        length = source.between(draw.seconds[0], min(draw.seconds[1], room))
        fault = kind(target, seconds=length, **draw.params(source, rate))
        anywhere = drawn(pipeline, fault)
        latest = seconds - CALM_END_S - draw.heals_s - length
        for _ in range(_PLACES):
            one = dataclasses.replace(anywhere, fault=fault.at(source.between(_earliest(draw), latest)))
            if all(fit(one, other) for other in others) and most_active([one, *others]) <= self.most_active:
                return one
        return None


def _earliest(draw: Draw) -> float:
    return FLOWING_AFTER_S + draw.looks_back_s + MARGIN_S


def _shortest(draw: Draw) -> float:
    return draw.seconds[0] + draw.heals_s


# --------------------------------------------------------------------------------------------- what may be drawn


def targets_of(pipeline: Pipeline, rate: int, backend: str, refuses: Refuses = _never) -> dict[type[Fault], list[str]]:
    """Every fault that can be done to a pipeline on a backend and can bite there, with its targets."""
    links = busy_links(pipeline)
    sending = [name for name, sends in links.items() if sends]
    found: dict[type[Fault], list[str]] = {}
    for kind in DRAWS:
        if kind.needs not in ("", backend):
            continue
        if kind.acts_on == "worker":
            named = list(dict.fromkeys(link.split("->")[0] for link in links))
        elif kind.acts_on == "link":
            named = list(links) if kind is not Bandwidth else sending if rate >= LEAST_RATE_OF_A_LIMIT else []
        elif kind.acts_on == "service":
            used = [s for s in pipeline.services if s.durable and any(n.endswith(f"->{s.name}") for n in links)]
            used = [s for s in used if (s.kind == "kafka") is (kind is KillBroker)]
            named = [process for service in used for process in service.processes()]
        else:
            named = [s for s in _seen_subscriptions(pipeline) if _pullers(pipeline, s)]
        if possible := [t for t in named if _can_be_done(kind(t), pipeline) and not refuses(kind(t))]:
            found[kind] = possible
    return found


def _can_be_done(fault: Fault, pipeline: Pipeline) -> bool:
    try:
        fault.targets(pipeline)
    except UsageError:
        return False
    return True


def busy_links(pipeline: Pipeline) -> dict[str, bool]:
    """Links on which events pass -> whether their worker also sends events on them.

    A worker that declares neither where it reads nor where it writes may use any of its links for them.
    """
    path = {hop.name: hop.service for hop in pipeline.hops if hop.role != "dead-letter"}
    exports = {hop.name for hop in pipeline.hops if hop.role == "export"}  # who only reads these may well be idle
    found = {}
    for link in pipeline.links():
        worker = pipeline.instances().get(link.worker)
        if worker is None:
            continue  # the load's own
        reads = [hop for hop in _reads(worker, path) if hop not in exports]
        writes = _writes(worker, path)
        sends = link.service in {path[hop] for hop in writes}
        if sends or link.service in {path[hop] for hop in reads} or not (worker.reads or worker.writes):
            found[link.name] = sends
    return found


def _reads(worker: Worker, path: Mapping[str, str]) -> list[str]:
    return [worker.reads] if worker.reads in path else []


def _writes(worker: Worker, path: Mapping[str, str]) -> list[str]:
    return [hop for hop in worker.writes if hop in path]


def _seen_subscriptions(pipeline: Pipeline) -> list[str]:
    """Those of topics that are hops: what is delivered again is counted there."""
    topics = {(hop.service, getattr(hop, "topic", None)) for hop in pipeline.hops if hop.role != "dead-letter"}
    pubsubs = [service for service in pipeline.services if isinstance(service, PubSub)]
    return [s for service in pubsubs for s, topic in service.subscriptions.items() if (service.name, topic) in topics]


def _pullers(pipeline: Pipeline, subscription: str) -> list[str]:
    """Processes that pull from a subscription."""
    return [
        name
        for name, worker in pipeline.instances().items()
        if any(f"{{{subscription}}}" in value for value in worker.env.values())
    ]


# ------------------------------------------------------------------------------------------- what fits together


@dataclass(frozen=True)
class _Drawn:
    """A fault with its place: the processes it acts on, and those that it takes the work from."""

    fault: Fault
    draw: Draw
    on: frozenset[str]
    hinders: frozenset[str]

    @property
    def active(self) -> tuple[float, float]:
        return self.fault.start, self.fault.start + self.fault.seconds + self.draw.heals_s

    @property
    def needs(self) -> tuple[float, float]:
        """When its targets must be at work."""
        start, end = self.active
        return start - self.draw.looks_back_s - MARGIN_S, end if self.draw.throughout else start + MOMENT_S

    @property
    def disturbs(self) -> tuple[float, float]:
        """When those that it hinders may not be at work."""
        start, end = self.active
        return start, end + self.draw.settles_s


def drawn(pipeline: Pipeline, fault: Fault) -> _Drawn:
    """A fault with what it acts on and hinders in a pipeline."""
    kind = type(fault)
    if kind.acts_on == "service":
        on = frozenset(pipeline.instances())
    elif kind.acts_on == "subscription":
        on = frozenset(_pullers(pipeline, fault.target))
    else:
        on = frozenset(target.split("->")[0] for target in fault.targets(pipeline))
    hinders = on | (behind(pipeline, on) if DRAWS[kind].starves else frozenset())
    return _Drawn(fault, DRAWS[kind], on, hinders)


def behind(pipeline: Pipeline, instances: frozenset[str]) -> frozenset[str]:
    """The processes that get their work from these, directly or not; also those that do not say where they read."""
    path = {hop.name: hop.service for hop in pipeline.hops if hop.role != "dead-letter"}
    workers = pipeline.instances()
    found: set[str] = set()
    front = set(instances)
    while front:
        written = {hop for name in front for hop in _writes(workers[name], path)}
        front = {n for n, w in workers.items() if w.reads in written or not w.reads} - found
        found |= front
    return frozenset(found)


def fit(one: _Drawn, other: _Drawn) -> bool:
    """Whether neither takes from the other what it needs to bite."""
    if one.draw.once and (type(one.fault), one.fault.target) == (type(other.fault), other.fault.target):
        return False
    return not (_disturbs(one, other) or _disturbs(other, one))


def _disturbs(one: _Drawn, other: _Drawn) -> bool:
    (begin, end), (needed, until) = one.disturbs, other.needs
    return bool(one.hinders & other.on) and begin < until and needed < end


def most_active(schedule: Sequence[_Drawn]) -> int:
    """How many faults are active at once, at most."""
    return max((sum(a.active[0] <= b.active[0] < a.active[1] for a in schedule) for b in schedule), default=0)
