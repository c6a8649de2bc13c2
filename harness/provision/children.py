"""Processes that provisioning runs for a while: compilers, the broker that is trained, programs that are tried out.

They are the keeper's children (`harness/backends/keeper.py`), so none outlives a harness that was killed meanwhile.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.backends.process import Child, Ports, Processes


class Children:
    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled
        self._processes = Processes()
        self._ports = Ports()
        self._lock = threading.Lock()

    def port(self) -> int:
        with self._lock:
            return self._ports.take()

    def run(
        self,
        argv: Sequence[str],
        log: Path,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Runs a command to its end; its output goes to the end of `log`. Returns its exit status.

        Raises subprocess.TimeoutExpired when it had to be killed, InterruptedError when the search was cancelled.
        """
        child = self.start(argv, log, env, cwd)
        deadline = time.monotonic() + timeout_s
        while (status := self.status(child)) is None:
            if self._cancelled() or time.monotonic() > deadline:
                self._processes.signal(child.pid, signal.SIGKILL)
                if self._cancelled():
                    raise InterruptedError(f"{argv[0]} was cancelled")
                raise subprocess.TimeoutExpired(list(argv), timeout_s)
            time.sleep(0.02)
        return status

    def start(
        self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Child:
        return self._processes.spawn(list(argv), log, env=env, cwd=cwd)

    def status(self, child: Child) -> int | None:
        """The exit status, or None while it runs."""
        ended = self._processes.ended(child.pid)
        return None if ended is None else ended.status

    def stop(self, child: Child, grace_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL when the grace is over."""
        self._processes.stop([child.pid], grace_s)

    def close(self) -> None:
        self._processes.close()
        self._ports.close()
