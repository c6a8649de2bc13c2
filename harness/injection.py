"""The schedule in action: one thread a fault, each injecting, holding and healing at its time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from faults.base import Container, Fault, Observations
from faults.evidence import STARTS_S
from harness.activity import Activity
from harness.errors import HarnessFault
from harness.history import History
from harness.stack import Stack
from harness.supervisor import Supervisor
from harness.topology import Pipeline, PubSub

#: How long a killed worker may take until it runs again before the fault is told as not healed.
BACK_WITHIN_S = 60.0
#: How long a fault waits for its target to be at work before it is injected all the same.
AT_WORK_WITHIN_S = 10.0


class LiveSystem:
    """What the faults act on: the processes, proxies and services of the run under way (see faults.base.System)."""

    def __init__(
        self, pipeline: Pipeline, stack: Stack, supervisor: Supervisor, history: History, names: Mapping[str, str]
    ) -> None:
        self.activity = Activity()
        self._pipeline, self._stack, self._supervisor = pipeline, stack, supervisor
        self._history, self._names = history, names
        self.ending = threading.Event()
        #: called with a worker's name when one of its processes has ended and is about to be started again
        self.before_return: Callable[[str], None] = lambda worker: None

    def now(self) -> float:
        return self._history.clock.now()

    def wait(self, seconds: float) -> bool:
        return not self.ending.wait(max(0.0, seconds))

    def at_work(self, links: Sequence[str]) -> bool:
        """Whether any of them carries work right now, by the processes that their workers now are."""
        since: dict[str, float] = {}
        for record in list(self._history.records):
            if record["kind"] == "worker-start":
                since[record["worker"]] = record["t"] + STARTS_S
            elif record["kind"] == "worker-exit":
                since[record["worker"]] = math.inf
        return any(self.activity.at_work(link, since.get(link.split("->")[0], 0.0)) for link in links)

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

    def container(self, instance: str) -> Container:
        return self._stack.site.container(instance)

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
    """Runs a schedule. A fault that cannot be done or healed is told in the history and raised at the end."""

    def __init__(self, schedule: Sequence[Fault], system: LiveSystem, pipeline: Pipeline, history: History) -> None:
        self._system, self._pipeline, self._history = system, pipeline, history
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._one, args=(i, fault), name=f"fault-{i}", daemon=True)
            for i, fault in enumerate(schedule)
        ]
        self._t0 = 0.0

    def start(self, t0: float) -> None:
        """`t0`: when the first event is due, epoch seconds."""
        self._t0 = t0
        for thread in self._threads:
            thread.start()

    def under_way(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def finish(self, at_once: bool = False) -> None:
        """Waits until every fault is healed; `at_once`: heals those that are active and starts no other."""
        if at_once:
            self._system.ending.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(120)
        if self._errors and not at_once:
            raise HarnessFault("; ".join(self._errors))

    def _one(self, index: int, fault: Fault) -> None:
        if not self._system.wait(self._t0 + fault.start - self._system.now()) or not self._wait_for_work(fault):
            return
        targets = fault.targets(self._pipeline)
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

    def _wait_for_work(self, fault: Fault) -> bool:
        """Until what the fault acts on is at work, or the time for that is over; False if the run is being ended."""
        begin = self._system.now()
        needed = fault.works_on(self._pipeline)
        while idle := [links for links in needed if not self._system.at_work(links)]:
            if self._system.now() - begin > AT_WORK_WITHIN_S:
                break
            if not self._system.wait(0.1):
                return False
        if (waited := self._system.now() - begin) > 0.1:
            what = "its target was not at work" + (", and still is not" if idle else "")
            self._history.add("note", text=f"{fault.describe()} was put off by {waited:.1f} s: {what}")
        return True

    def _failed(self, fault: Fault, what: str, error: Exception) -> None:
        text = f"the fault {fault.describe()} could not be {what}: {error}"
        self._errors.append(text)
        self._history.add("error", text=text)
