"""The schedule in action: one thread a fault, each injecting, holding and healing at its time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.base import Container, Fault, Observations
from faults.evidence import STARTS_CPU_S, carries_since
from harness.activity import Activity
from harness.backends.base import Launch
from harness.errors import BackendGone, HarnessFault
from harness.history import History
from harness.stack import Stack
from harness.supervisor import Supervisor
from harness.topology import Pipeline, PubSub, UsageError

#: How long a killed worker may take until it runs again before the fault is told as not healed.
BACK_WITHIN_S = 60.0
#: How long a fault waits for its target to be at work before it is injected all the same.
AT_WORK_WITHIN_S = 10.0
#: A version that has died so often at its start will not come up.
DIED_AT_START = 3


@dataclass(frozen=True)
class InVersion:
    """A process of a worker in some version: what starts it, its command and log, by what name its site knows it, and what
    the version is called ("": as declared)."""

    launch: Launch
    command: str
    log: Path
    process: str
    version: str


def _nowhere(instance: str, to: Mapping[str, Any] | None) -> InVersion:
    raise HarnessFault(f"nothing can start {instance} here")


class LiveSystem:
    """What the faults act on: the processes, proxies and services of the run under way (see faults.base.System)."""

    def __init__(
        self, pipeline: Pipeline, stack: Stack, supervisor: Supervisor, history: History, names: Mapping[str, str]
    ) -> None:
        self.activity = Activity()
        self._pipeline, self._stack, self._supervisor = pipeline, stack, supervisor
        self._history, self._names = history, names
        self.ending = threading.Event()
        #: how a process of an instance is started in another version (None: as declared); the run says
        self.in_version: Callable[[str, Mapping[str, Any] | None], InVersion] = _nowhere
        self._opened: dict[str, dict[str, int]] = {}
        #: called with a worker's name when one of its processes has ended and is about to be started again
        self.before_return: Callable[[str], None] = lambda worker: None

    def now(self) -> float:
        return self._history.clock.now()

    def wait(self, seconds: float) -> bool:
        return not self.ending.wait(max(0.0, seconds))

    def at_work(self, links: Sequence[str]) -> bool:
        """Whether any of them carries work right now, by the processes that their workers now are. A name that is no link's
        is that of a worker without any."""
        now = self.now()
        since = carries_since(list(self._history.records), math.inf, math.inf)
        return any(
            self.activity.at_work(name, now, since.get(name.split("->")[0], 0.0))
            if "->" in name
            else self.activity.busy(name, now, since.get(name, 0.0))
            for name in links
        )

    def signal_worker(self, instance: str, number: int, restart: bool) -> Observations:
        return self._supervisor.signal(instance, number, restart)

    def hold_worker(self, instance: str) -> None:
        self._supervisor.hold(instance)

    def release_worker(self, instance: str) -> None:
        self._supervisor.wait_ended(instance)
        self.before_return(self._pipeline.instances()[instance].name)
        self._supervisor.release(instance)

    def wait_worker_back(self, instance: str, not_pid: int) -> Observations:
        return self._supervisor.wait_running(instance, BACK_WITHIN_S)

    def worker_state(self, instance: str) -> str:
        return self._supervisor.state(instance)

    def expect_exit(self, instance: str) -> Observations:
        return self._supervisor.expect_exit(instance)

    def start_beside(self, instance: str, to: Mapping[str, Any] | None) -> Observations:
        self._opened[instance] = {
            link.name: opened
            for link in self._pipeline.links()
            if link.worker == instance and (opened := self.activity.opened(link.name)) is not None
        }
        began = round(self.now(), 4)
        try:
            made = self.in_version(instance, to)
            self._supervisor.start_beside(instance, made.launch, made.command, made.log, made.process, made.version)
        except BackendGone:
            raise
        except (HarnessFault, UsageError) as error:
            return {"began": began, "error": str(error)}
        return {"began": began, "version": made.version}

    def wait_beside(self, instance: str, seconds: float) -> Observations:
        begin = self.now()
        while True:
            pid, died = self._supervisor.beside(instance)
            if pid is not None and self._works_beside(instance, self.now() - begin):
                return {"pid": pid, "ready": round(self.now(), 4)}
            if died >= DIED_AT_START or self.now() - begin > seconds or not self.wait(0.05):
                return {"pid": pid, "ready": None, "died": died}

    def _works_beside(self, instance: str, waited: float) -> bool:
        """Whether a connection was opened that was not there before; of a worker without a measured link, whether it has
        had the time to start."""
        opened = self._opened[instance]
        if not opened:
            return waited > STARTS_CPU_S
        return any((self.activity.opened(link) or 0) > before for link, before in opened.items())

    def beside(self, instance: str) -> int | None:
        return self._supervisor.beside(instance)[0]

    def take_over(self, instance: str) -> Observations:
        return self._supervisor.take_over(instance)

    def withdraw(self, instance: str) -> Observations:
        return self._supervisor.withdraw(instance)

    def container(self, instance: str) -> Container:
        return self._stack.site.container(self._supervisor.process(instance))

    def kill_service(self, process: str) -> Observations:
        return self._stack.kill_service(process)

    def start_service(self, process: str) -> Observations:
        return self._stack.start_service(process)

    def signal_service(self, process: str, number: int) -> Observations:
        return self._stack.signal_service(process, number)

    def set_link_enabled(self, link: str, enabled: bool) -> None:
        self._stack.toxiproxy.set_enabled(link, enabled)

    def add_toxic(self, link: str, name: str, kind: str, stream: str, attributes: Mapping[str, int]) -> None:
        from harness.toxiproxy import Toxic

        self._stack.toxiproxy.add(link, Toxic(name, kind, stream, attributes))

    def remove_toxic(self, link: str, name: str) -> None:
        self._stack.toxiproxy.remove(link, name)

    def eaten_bytes(self, link: str) -> dict[str, int]:
        c = self._stack.toxiproxy.counters(link)
        return {
            "upstream": c.upstream_received - c.upstream_sent,
            "downstream": c.downstream_received - c.downstream_sent,
        }

    def probe(self, link: str) -> float | None:
        return self._stack.probe(link)

    def seek(self, subscription: str, seconds_back: float) -> Observations:
        """Also tells on which links the redelivered messages will be seen, and which hop holds them."""
        service = next(s for s in self._pipeline.services if isinstance(s, PubSub) and subscription in s.subscriptions)
        topic = service.subscriptions[subscription]
        hop = next(h.name for h in self._pipeline.hops if getattr(h, "topic", None) == topic)
        links = [
            f"{instance}->{service.name}"
            for instance, worker in self._pipeline.instances().items()
            if any(f"{{{subscription}}}" in value for value in worker.env.values())
        ]
        server: Any = self._stack.servers[service.name]
        server.seek(self._names[subscription], self.now() - seconds_back)
        return {"back_s": seconds_back, "hop": hop, "links": links}


class Injection:
    """Runs a schedule. A fault that cannot be done or healed is told in the history and raised at the end.

    Faults that overlap by the schedule belong together: the first one waits, within bounds, until what came before is
    over and its target is at work, and the others follow at their distance from it. So what overlaps in a schedule
    overlaps in the run, what does not does not, and the order stays, however slow the machine is.
    """

    def __init__(self, schedule: Sequence[Fault], system: LiveSystem, pipeline: Pipeline, history: History) -> None:
        self._system, self._history = system, history
        self._links = [[] if fault.idle_allowed else fault.works_on(pipeline) for fault in schedule]
        self._targets = [fault.targets(pipeline) for fault in schedule]
        self._schedule = schedule
        self._errors: list[str] = []
        self._faults: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._all, name="schedule", daemon=True)
        self._t0 = 0.0

    def start(self, t0: float) -> None:
        """`t0`: when the first event is due, epoch seconds."""
        self._t0 = t0
        self._thread.start()

    def under_way(self) -> bool:
        return self._thread.is_alive() or any(thread.is_alive() for thread in self._faults)

    def finish(self, at_once: bool = False) -> None:
        """Waits until every fault is healed; `at_once`: heals those that are active and starts no other."""
        if at_once:
            self._system.ending.set()
        if self._thread.ident is not None:
            self._thread.join(120)
        for thread in self._faults:
            thread.join(120)
        if self._errors and not at_once:
            raise HarnessFault("; ".join(self._errors))

    def _all(self) -> None:
        for group in together(self._schedule):
            due = self._t0 + self._schedule[group[0]].start
            if not self._system.wait(due - self._system.now()) or not self._wait_for(group[0]):
                return
            late = max(0.0, self._system.now() - due)
            for index in group:
                thread = threading.Thread(target=self._one, args=(index, late), name=f"fault-{index}", daemon=True)
                self._faults.append(thread)
                thread.start()

    def _wait_for(self, index: int) -> bool:
        """Until a fault can bite, or the time for that is over; False if the run is being ended."""
        begin = self._system.now()
        why = now = self._not_yet(index)
        while now and self._system.now() - begin < AT_WORK_WITHIN_S:
            if not self._system.wait(0.05):
                return False
            now = self._not_yet(index)
            why = now or why
        if why:
            waited, still = self._system.now() - begin, ", and still is so" if now else ""
            self._history.add(
                "note", text=f"{self._schedule[index].describe()} was put off by {waited:.1f} s: {why}{still}"
            )
        return True

    def _not_yet(self, index: int) -> str:
        """Why a fault could not bite now; "" if it can."""
        if any(thread.is_alive() for thread in self._faults):
            return "a fault before it was not over"
        idle = any(links and not self._system.at_work(links) for links in self._links[index])
        return "its target was not at work" if idle else ""

    def _one(self, index: int, late: float) -> None:
        fault, targets = self._schedule[index], self._targets[index]
        if not self._system.wait(self._t0 + fault.start + late - self._system.now()):
            return
        told = {"index": index, "fault": fault.name, "target": fault.target}
        seen: Observations = {}
        try:
            start = self._system.now()
            seen = dict(fault.inject(self._system, targets))
            in_force = round(self._system.now(), 4)  # on a busy machine the calls that inject it take their time
            self._history.add("fault-start", t=start, **told, params=fault.params(), in_force=in_force, **seen)
            seen = dict(fault.hold(self._system, targets))
        except Exception as error:
            self._failed(fault, "injected", error)
        end = self._system.now()
        try:
            healed = fault.heal(self._system, targets)
            released = round(end, 4)
            if "back" in healed or "eaten_after" not in healed:
                end = self._system.now()
            self._history.add("fault-end", t=end, **told, released=released, **seen, **healed)
        except Exception as error:
            self._failed(fault, "healed", error)

    def _failed(self, fault: Fault, what: str, error: Exception) -> None:
        text = f"the fault {fault.describe()} could not be {what}: {error}"
        self._errors.append(text)
        self._history.add("error", text=text)


def together(schedule: Sequence[Fault]) -> list[list[int]]:
    """Places of the faults in the schedule, those that overlap by it together, in the order of time."""
    groups: list[list[int]] = []
    begin = end = -math.inf
    for index in sorted(range(len(schedule)), key=lambda i: schedule[i].start):
        fault = schedule[index]
        if fault.start < end or fault.start == begin:
            groups[-1].append(index)
        else:
            groups.append([index])
            begin = fault.start
        end = max(end, fault.start + fault.seconds)
    return groups
