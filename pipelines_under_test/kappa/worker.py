"""What every worker of the pipeline has: settings from the environment, a log, a wish to stop, a sign of life."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

PROGRESS_EVERY_S = 5.0


class Fatal(Exception):
    """The worker cannot go on; a restart may help. Exit status 1, and nothing more is settled."""


class Stopped(Exception):
    """The worker was asked to stop in the middle of something it may leave: nothing of it was settled."""


def setting(name: str, default: str | None = None) -> str:
    """An environment variable that must be there unless it has a default. Ends the process with status 2."""
    value = os.environ.get(name, default)
    if value is None or value == "":
        print(f"{name} is not set: this worker gets its addresses and names from its environment", file=sys.stderr)
        raise SystemExit(2)
    return value


def open_log(name: str) -> logging.Logger:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s",
        datefmt="%H:%M:%S",
        force=True,  # Beam configures the root logger while it is imported
    )
    for noisy in ("apache_beam", "google", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    log = logging.getLogger(name)
    log.info("release %s", setting("RELEASE", "1"))  # of two that work side by side, which one this is
    return log


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. The worker finishes what it has in hand and ends with status 0."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


class Progress:
    """Counts, and one log line in five seconds that says how many."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._counts: dict[str, int] = {}
        self._said: dict[str, int] = {}
        self._last = time.monotonic()
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] = self._counts.get(name, 0) + count
            now = time.monotonic()
            if now - self._last < PROGRESS_EVERY_S or self._said == self._counts:
                return
            rate = {n: (c - self._said.get(n, 0)) / (now - self._last) for n, c in self._counts.items()}
            self._last, self._said = now, dict(self._counts)
        self._log.info("%s", ", ".join(f"{self._said[n]} {n} ({rate[n]:.0f}/s)" for n in self._said))

    def total(self) -> str:
        with self._lock:
            return ", ".join(f"{count} {name}" for name, count in self._counts.items()) or "nothing done"
