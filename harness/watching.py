"""Watching what has no other sign of life: services that the harness did not start, of which it has no process to see
die, and workers that answer for a hop, whose answers are all that shows whether they are at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from harness.history import History

Ask = Callable[[], "float | None"]
EVERY_S = 0.5
#: A worker may be back before long.
WORKER_EVERY_S = 0.1


class Watch:
    """`services`, `workers`: name -> asks it itself, past every fault; seconds that it took, None if it did not answer.

    The history is told when one stops answering (`service-away`, `worker-away`) and answers again (`service-back`,
    `worker-back`: `t` is when it was asked, `told` when that was known), and at the end of each how often it was asked (`service-watch`, `worker-watch`): what nobody asked
    was not seen alive.
    """

    def __init__(self, services: Mapping[str, Ask], history: History, workers: Mapping[str, Ask] | None = None) -> None:
        self._history = history
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(kind, every, name, ask), name=f"watch-{name}", daemon=True)
            for kind, every, asks in (("service", EVERY_S, services), ("worker", WORKER_EVERY_S, workers or {}))
            for name, ask in asks.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _watch(self, kind: str, every_s: float, name: str, ask: Ask) -> None:
        asked = missed = 0
        away = False
        while not self._stop.is_set():
            due = time.monotonic() + every_s
            begin = self._history.clock.now()
            answered = ask() is not None
            told = round(self._history.clock.now(), 4)
            asked, missed = asked + 1, missed + (not answered)
            if answered is away:
                away = not answered
                self._history.add(f"{kind}-{'away' if away else 'back'}", t=begin, told=told, **{kind: name})
            self._stop.wait(max(0.0, due - time.monotonic()))
        self._history.add(f"{kind}-watch", **{kind: name}, asked=asked, missed=missed)

    def stop(self) -> None:
        """Ends it; the history has been told by then."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(10)
