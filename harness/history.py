"""The history of a run: what happened, in the order of time, one JSON object a line.

Every record has `t` (epoch seconds) and `kind`; `docs/run-folder.md` lists the kinds. The file is written line by line
with one `write` each, so that a run that was killed leaves a readable beginning.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Listener = Callable[[dict[str, Any]], None]
#: Makes the view of one run, of several that are made one after another.
Views = Callable[[], "contextlib.AbstractContextManager[Listener]"]


@contextlib.contextmanager
def nobody() -> Iterator[Listener]:
    """The view of a run that nobody looks at."""
    yield lambda event: None


class Clock:
    """Epoch seconds that never step: the wall clock read once, then advanced by the monotonic clock.

    A wall clock that is set in the middle of a run would move windows and latencies; `drift_ms` shows such a step, and
    the guard `clock_steady` judges it.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset

    def drift_ms(self) -> float:
        return (time.time() - time.monotonic() - self._offset) * 1000


class History:
    """Appends records to `path` and shows each to the listeners. Safe to use from any thread."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.records: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o644)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def add(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Writes one record; `t` may be given for something that was seen earlier than it is told."""
        record = {"t": round(fields.pop("t", None) or self.clock.now(), 4), "kind": kind, **fields}
        line = json.dumps(record, default=str, separators=(",", ":")) + "\n"
        with self._lock:
            if self._fd >= 0:
                os.write(self._fd, line.encode())
            self.records.append(record)
        self.show(record)
        return record

    def show(self, record: dict[str, Any]) -> None:
        """Shows a record to the listeners only: for what is worth seeing live and kept elsewhere."""
        for listener in self._listeners:
            listener(record)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
