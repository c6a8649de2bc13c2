"""A load that several processes share: this one as Locust's master, and workers that it starts and that end with it.

`python -m load.workers SPEC.json PORT PARENT` is one of them; nobody but `Crew` starts it.
"""

if __name__ == "__main__":  # before anything else is imported, or sockets and locks exist that block the others
    from gevent import monkey

    monkey.patch_all()

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any

import gevent
from locust.env import Environment

from harness.errors import HarnessFault
from load.distributed import Registrar
from load.spec import LoadSpec
from load.users import Load, PlannedUser

_TELL_S = 0.1
_JOIN_WITHIN_S = 60.0
_QUIT_WITHIN_S = 10.0
_PR_SET_PDEATHSIG = 1


class Crew:
    """The master's side, which `load.main` leads: `look` often."""

    def __init__(self, spec: LoadSpec, path: str) -> None:
        self.spec = spec
        self.broken: BaseException | None = None
        self._runner = Environment(user_classes=[PlannedUser]).create_master_runner("127.0.0.1", 0)
        self._registrar = Registrar(self._runner, starts_itself=False)
        command = [sys.executable, "-m", "load.workers", path, str(self._runner.server.port), str(os.getpid())]
        self._children = [subprocess.Popen(command) for _ in range(spec.processes)]
        self._spread = self._stopped = False
        self._patience = time.monotonic() + _JOIN_WITHIN_S

    def look(self) -> None:
        """Lets the users begin once every worker is there; notes what went wrong with one."""
        ended = [child.returncode for child in self._children if child.poll() is not None]
        told = [f["broken"] for f in self._registrar.figures.values() if f["broken"]]
        if told:
            self.broken = HarnessFault(str(told[0]))
        elif ended:
            self.broken = HarnessFault(f"a worker process of the load ended with status {ended[0]} before its time")
        elif not self._spread and not self._stopped and self._runner.worker_count == self.spec.processes:
            self._runner.start(self.spec.users, spawn_rate=self.spec.users)
            self._spread = True
        elif not self._spread and time.monotonic() > self._patience:
            self.broken = HarnessFault(f"the load's worker processes did not come up within {_JOIN_WITHIN_S:g} s")

    def connected(self) -> bool:
        return self._registrar.connected == self.spec.users

    def done(self) -> bool:
        return self._registrar.total("done") == self.spec.users or (self._stopped and not self._spread)

    def started(self) -> bool:
        return self._registrar.t0_ms is not None

    def start(self, t0_ms: int) -> None:
        self._registrar.start(t0_ms)

    def stop(self, drain_s: float | None = None) -> None:
        self._stopped = True
        self._registrar.stop(drain_s)

    def figures(self) -> dict[str, float]:
        return {name: self._registrar.total(name) for name in ("sent", "acked", "failed", "behind_ms")}

    def close(self) -> None:
        """Ends the workers, by SIGKILL those that do not end by themselves."""
        self._runner.quit()
        patience = time.monotonic() + _QUIT_WITHIN_S
        while any(child.poll() is None for child in self._children) and time.monotonic() < patience:
            gevent.sleep(0.02)
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()


def main(arguments: list[str]) -> int:
    path, port, parent = arguments
    _end_with(int(parent))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the master says when it is over
    spec = LoadSpec.read(path)
    runner = Environment(user_classes=[PlannedUser]).create_worker_runner("127.0.0.1", int(port))
    while runner.worker_index < 0:
        gevent.sleep(0.01)
    load = Load(spec, runner)
    PlannedUser.spec, PlannedUser.shared = spec, load

    def tell() -> None:
        member = load.member
        assert member is not None
        while True:
            done = sum(user.done for user in load.users)
            member.tell(**load.figures(), done=done, broken=str(load.broken or ""))
            gevent.sleep(_TELL_S)

    gevent.spawn(tell)
    runner.greenlet.join()
    load.ledger.close()
    return 0


def _end_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that ends (Linux; prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _failed(error: BaseException) -> Any:
    import traceback

    traceback.print_exception(error)
    return 4


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except Exception as error:
        status = _failed(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
