"""Whether a program that was just fetched really listens where it is told to."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.errors import last_lines
from harness.provision.programs import Program
from harness.provision.search import Search


class DoesNotRun(Exception):
    """The program did not start to listen; the message carries the end of what it wrote."""


def try_out(search: Search, program: Program, timeout_s: float = 20.0) -> None:
    """Starts the program on a free port of 127.0.0.1, waits until it listens, and ends it. Raises DoesNotRun."""
    with tempfile.TemporaryDirectory(prefix="gauntlet-trial-") as folder:
        log = Path(folder) / "log"
        port = search.children.port()
        child = search.children.start(program.start_args("127.0.0.1", port), log)
        try:
            wait_for_port(search, port, lambda: search.children.status(child), timeout_s)
        except DoesNotRun as error:
            raise DoesNotRun(f"{program.name} {error}; it wrote:\n{last_lines(log, 6)}") from None
        finally:
            search.children.stop(child, 3.0)


def wait_for_port(search: Search, port: int, status: Callable[[], int | None], timeout_s: float) -> float:
    """Waits until something listens on the port; returns the seconds that it took."""
    began = time.monotonic()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return time.monotonic() - began
        except OSError:
            pass
        if (ended := status()) is not None:
            raise DoesNotRun(f"ended at its start with status {ended}")
        if time.monotonic() - began > timeout_s:
            raise DoesNotRun(f"did not listen within {timeout_s:.0f} s")
        if search.cancelled():
            raise InterruptedError("the trial was cancelled")
        time.sleep(0.01)
