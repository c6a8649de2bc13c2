"""Waiting for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def wait_for(check: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether it comes about within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.01)
    return bool(check())


def gone(process: psutil.Process) -> bool:
    """Whether it has ended, whoever is to reap it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two
        return True
