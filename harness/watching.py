"""Watching services that the harness did not start: it has no process to see die, so it asks them, twice a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from harness.history import History

EVERY_S = 0.5


class Watch:
    """`services`: name -> asks the service itself, past every fault; seconds that it took, None if it did not answer.

    The history is told when one stops answering (`service-away`) and answers again (`service-back`), and at the end of
    each how often it was asked (`service-watch`): what nobody asked was not seen alive.
    """

    def __init__(self, services: Mapping[str, Callable[[], float | None]], history: History) -> None:
        self._services, self._history = services, history
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(name, ask), name=f"watch-{name}", daemon=True)
            for name, ask in services.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _watch(self, name: str, ask: Callable[[], float | None]) -> None:
        asked = missed = 0
        away = False
        while not self._stop.is_set():
            due = time.monotonic() + EVERY_S
            begin = self._history.clock.now()
            answered = ask() is not None
            asked, missed = asked + 1, missed + (not answered)
            if answered is away:
                away = not answered
                self._history.add("service-away" if away else "service-back", t=begin, service=name)
            self._stop.wait(max(0.0, due - time.monotonic()))
        self._history.add("service-watch", service=name, asked=asked, missed=missed)

    def stop(self) -> None:
        """Ends it; the history has been told by then."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(10)
