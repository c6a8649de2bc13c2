"""Provisioning as a person sees it: a bar for each component in a terminal, a line a step elsewhere, on stderr."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Shown:
    """Use it as a context manager and hand it to `provision` as its `progress`. Shows nothing if nothing is done."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the bars; what is shown later begins anew."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars, self._tasks = None, {}

    def __call__(self, component: str, text: str, fraction: float | None) -> None:
        with self._lock:
            if self._stream.isatty():
                self._show_bar(component, text, fraction)
            else:
                self._tell_line(component, text, fraction)

    def _show_bar(self, component: str, text: str, fraction: float | None) -> None:
        if self._bars is None:
            columns = (TextColumn("{task.fields[component]:<12}"), BarColumn(24), TextColumn("{task.description}"))
            self._bars = Progress(*columns, TimeElapsedColumn(), console=Console(file=self._stream), transient=False)
            self._bars.start()
        if component not in self._tasks:
            self._tasks[component] = self._bars.add_task(text, total=None, component=component)
        if fraction is None:
            self._bars.update(self._tasks[component], description=text, total=None)
        else:
            self._bars.update(self._tasks[component], description=text, total=1.0, completed=fraction)

    def _tell_line(self, component: str, text: str, fraction: float | None) -> None:
        """A line where something new begins, and one for each quarter of it that is done."""
        quarter = 0 if fraction is None else int(fraction * 4)
        if self._told.get(component) == (text, quarter):
            return
        begins = self._told.get(component, ("", 0))[0] != text
        self._told[component] = (text, quarter)
        share = "" if begins or fraction is None else f" {quarter * 25} %"
        print(f"  {component}: {text}{share}", file=self._stream, flush=True)
