"""The supervisor: starts the workers of a run, starts those again that die, and records every start and exit.

It restarts as a container orchestrator does: at once the first time, then after a back-off that doubles up to a cap,
and starts over after a worker has lived for a while (Kubernetes: 10 s, doubling, up to 5 min, reset after 10 min; here
the same shape at test speed).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.backends.base import Child, Children, Exit, Launch
from harness.errors import BackendGone, HarnessFault, WorkerDied, last_lines
from harness.history import History

FIRST_BACK_OFF_S = 0.2
LONGEST_BACK_OFF_S = 5.0
#: A worker that lived this long is taken as healthy: the next back-off is the first one again.
HEALTHY_AFTER_S = 10.0
#: How long a worker may take to end after SIGTERM before it is killed, as an orchestrator would.
GRACE_S = 8.0
#: So many exits that nobody asked for, each after a life too short to be healthy, are a crash loop.
CRASH_LOOP = 8


@dataclass
class _Worker:
    launch: Launch
    command: str
    log: Path
    #: By what name the site knows it, and its version: "" as it is declared.
    process: str
    version: str = ""
    child: Child | None = None
    held: bool = False
    due: threading.Timer | None = None
    back_off: float = FIRST_BACK_OFF_S
    short_lives: int = 0
    died_early: float = 0.0
    unstartable: bool = False
    asked: set[int] = field(default_factory=set)


class Supervisor:
    """Safe to use from any thread."""

    def __init__(self, children: Children, history: History) -> None:
        self._children, self._history = children, history
        self._workers: dict[str, _Worker] = {}
        #: The second process of a worker that is being upgraded: the coming one, or the going one until it has ended.
        self._beside: dict[str, _Worker] = {}
        self._changed = threading.Condition(threading.RLock())
        self._ending = False

    def tell(self, history: History) -> None:
        """From now on, starts and exits go to another history; it is told of the workers that are running. How often one died
        before is no matter of it."""
        with self._changed:
            self._history = history
            for name, worker in self._workers.items():
                worker.short_lives = 0
                if worker.child is not None:
                    self._tell_start(name, worker, worker.child, t=worker.child.started)

    def start(self, name: str, launch: Launch, command: str, log: Path) -> None:
        """`launch` starts it, now and after each end. Raises WorkerDied if its command cannot be run at all."""
        worker = _Worker(launch, command, log, name)
        with self._changed:
            self._workers[name] = worker
            try:
                self._spawn(name, worker)
            except BackendGone:
                raise
            except HarnessFault as error:
                raise WorkerDied(f"The worker {name} cannot be started: {error}") from error

    def _spawn(self, name: str, worker: _Worker) -> None:
        with self._changed:
            if self._ending or worker.held:
                return
            worker.due = None
            child = worker.launch(lambda how: self._exited(name, worker, how))
            worker.child = child
            self._tell_start(name, worker, child)
            self._changed.notify_all()

    def _tell_start(self, name: str, worker: _Worker, child: Child, **when: float) -> None:
        version = {"version": worker.version} if worker.version else {}
        self._history.add("worker-start", **when, worker=name, pid=child.pid, started=child.started, **version)

    def _exited(self, name: str, worker: _Worker, how: Exit) -> None:
        with self._changed:
            asked = how.pid in worker.asked or self._ending
            worker.asked.discard(how.pid)  # the number may come again
            lived = how.t - worker.child.started if worker.child else 0.0
            fields: dict[str, Any] = {"status": how.status, "signal": how.signal, "asked": asked}
            if how.oom_killed:
                fields["oom_killed"] = True
            if worker.version:
                fields["version"] = worker.version
            self._history.add("worker-exit", t=how.t, worker=name, pid=how.pid, **fields)
            worker.child = None
            self._changed.notify_all()
            if self._ending:
                return
            if asked or lived > HEALTHY_AFTER_S:
                worker.back_off, worker.short_lives = FIRST_BACK_OFF_S, 0
            else:
                worker.short_lives += 1
                worker.died_early = time.monotonic()
            if worker.held:
                return
            worker.due = threading.Timer(worker.back_off, self._respawn, (name, worker))
            worker.due.daemon = True
            worker.due.start()
            worker.back_off = min(worker.back_off * 2, LONGEST_BACK_OFF_S)

    def _respawn(self, name: str, worker: _Worker) -> None:
        try:
            self._spawn(name, worker)
            worker.unstartable = False
        except HarnessFault as error:
            with self._changed:
                if self._ending or worker.held:
                    return
                self._history.add("error", text=f"the worker {name} could not be started again: {error}")
                worker.unstartable = True
                worker.due = threading.Timer(worker.back_off, self._respawn, (name, worker))
                worker.due.daemon = True
                worker.due.start()
                worker.back_off = min(worker.back_off * 2, LONGEST_BACK_OFF_S)

    # -- what faults do ------------------------------------------------------------------------------------------

    def child(self, name: str) -> Child | None:
        return self._workers[name].child

    def signal(self, name: str, number: int, restart: bool) -> dict[str, Any]:
        """Sends a signal; with `restart`, its end is expected. {} if the worker was not running at that moment."""
        with self._changed:
            worker = self._workers[name]
            child = worker.child
            if child is None:
                return {"pid": None}
            if restart:
                worker.asked.add(child.pid)
        sent = self._children.signal(child.pid, number)
        return {"pid": child.pid, "started": child.started, "sent": sent}

    def expect_exit(self, name: str) -> dict[str, Any]:
        """The end of the child that runs now is wanted, whoever brings it about."""
        with self._changed:
            worker = self._workers[name]
            if worker.child is None:
                return {"pid": None}
            worker.asked.add(worker.child.pid)
            return {"pid": worker.child.pid, "started": worker.child.started}

    def hold(self, name: str) -> None:
        with self._changed:
            worker = self._workers[name]
            worker.held = True
            if worker.due is not None:
                worker.due.cancel()
                worker.due = None

    def wait_ended(self, name: str) -> None:
        """Returns when a worker's process that a fault asked to end has ended; kills one that ignores SIGTERM too long."""
        self._wait_ended(self._workers[name])

    def _wait_ended(self, worker: _Worker) -> bool:
        """Whether it had to be killed."""
        deadline = time.monotonic() + GRACE_S
        killed = False
        with self._changed:
            while worker.child is not None and worker.child.pid in worker.asked and not self._ending:
                if not self._changed.wait(max(0.01, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    self._children.signal(worker.child.pid, signal.SIGKILL)
                    deadline, killed = time.monotonic() + GRACE_S, True
        return killed

    def release(self, name: str) -> None:
        """Starts a held worker as soon as its old process has ended."""
        self.wait_ended(name)
        with self._changed:
            worker = self._workers[name]
            worker.held = False
            if worker.child is None and worker.due is None:
                self._respawn(name, worker)

    def wait_running(self, name: str, timeout_s: float) -> dict[str, Any]:
        with self._changed:
            worker = self._workers[name]
            self._changed.wait_for(lambda: worker.child is not None or self._ending, timeout_s)
            child = worker.child
            return {"pid": child.pid, "started": child.started} if child else {"pid": None}

    def state(self, name: str) -> str:
        """The kernel's word for it: "running", "sleeping", "stopped" …, or "gone"."""
        child = self.child(name)
        return self._children.state(child.pid) if child else "gone"

    # -- another version of a worker beside it ---------------------------------------------------------------------

    def start_beside(
        self, name: str, launch: Launch, command: str, log: Path, process: str, version: str
    ) -> Child | None:
        """Starts a second process of a worker, which is started again as the first one is; until `take_over` whatever is
        done to the worker is done to the first. Raises HarnessFault where it cannot be started, or there is one already.
        """
        worker = _Worker(launch, command, log, process, version)
        with self._changed:
            if name in self._beside:
                raise HarnessFault(f"{name} is being upgraded already")
            self._beside[name] = worker
            try:
                self._spawn(name, worker)
            except HarnessFault:
                del self._beside[name]
                raise
            return worker.child

    def beside(self, name: str) -> tuple[int | None, int]:
        """(pid of a worker's second process, None while there is none; how often one has died soon after its start)"""
        with self._changed:
            worker = self._beside.get(name)
            child = worker.child if worker is not None else None
            return child.pid if child is not None else None, worker.short_lives if worker is not None else 0

    def take_over(self, name: str) -> dict[str, Any]:
        """The second process is the worker from now on. The first gets SIGTERM, and SIGKILL if it takes too long; returns
        when it has ended, with its pid (None: it was not running), when it was told to, and whether it had to be killed.
        """
        with self._changed:
            self._workers[name], self._beside[name] = self._beside[name], self._workers[name]
        return self.withdraw(name)

    def withdraw(self, name: str) -> dict[str, Any]:
        """Ends a worker's second process, as `take_over` does the first."""
        with self._changed:
            worker, until = self._beside[name], self._history.clock.now()
            worker.held = True
            if worker.due is not None:
                worker.due.cancel()
            pid = worker.child.pid if worker.child is not None else None
            if pid is not None:
                worker.asked.add(pid)
        if pid is not None:
            self._children.signal(pid, signal.SIGCONT)  # one that is paused would not hear it
            self._children.signal(pid, signal.SIGTERM)
        killed = self._wait_ended(worker)
        with self._changed:
            del self._beside[name]
        return {"pid": pid, "until": round(until, 4), "killed": killed}

    def process(self, name: str) -> str:
        """By what name its site knows the process that a worker is now."""
        return self._workers[name].process

    # -- what a run asks -----------------------------------------------------------------------------------------

    def crash_loop(self, since: float = 0.0) -> str | None:
        """The name of a worker that dies again and again, each time soon after its start; None if there is none.

        One that has not died since `since` (of the monotonic clock) got over it: what it died of may have been a fault.
        """
        with self._changed:
            looping = (n for n, w in self._workers.items() if w.short_lives >= CRASH_LOOP and w.died_early > since)
            return next(looping, None)

    def unstartable(self) -> list[str]:
        """Workers that the harness itself could not start again: not the pipeline's fault."""
        with self._changed:
            return [name for name, worker in self._workers.items() if worker.unstartable]

    def down(self) -> list[str]:
        """Workers that are not running at the moment."""
        with self._changed:
            return [name for name, worker in self._workers.items() if worker.child is None]

    def check_started(self) -> None:
        """Raises WorkerDied if a worker has died three times already, with the last lines of its log."""
        with self._changed:
            for name, worker in self._workers.items():
                if worker.short_lives >= 3:
                    raise WorkerDied(
                        f"The worker {name} dies at its start (3 times so far).\n"
                        f"  its command: {worker.command}\n  its log ends:\n{last_lines(worker.log)}"
                    )

    def stop_all(self, grace_s: float = 3.0, but: Collection[str] = ()) -> None:
        """Ends every worker, which is not started again; returns when all have ended and their ends are recorded. Those
        named in `but` go on, and are started again if they die, until it is called without them."""
        with self._changed:
            self._ending = not but
            both = [*self._workers.items(), *self._beside.items()]
            ending = [w for name, w in both if name not in but]
            pids = [w.child.pid for w in ending if w.child is not None]
            for worker in ending:
                worker.held = True
                worker.asked.update([worker.child.pid] if worker.child is not None else [])
                if worker.due is not None:
                    worker.due.cancel()
            self._changed.notify_all()
        self._children.stop(pids, grace_s)
        ended = {
            pid for pid in pids if self._children.ended(pid) is not None
        }  # of which its backend tells in its thread
        with self._changed:
            self._changed.wait_for(lambda: all(w.child is None or w.child.pid not in ended for w in ending), GRACE_S)
