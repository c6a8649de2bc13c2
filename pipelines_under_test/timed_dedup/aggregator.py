"""Aggregator that deduplicates in a window of time: as that of `kappa`, and

    DEDUP_WINDOW_S      an id that comes again so many seconds after it was first seen counts again

An event counts once each *pass*: the first time, and again whenever it comes after the window of its last pass. The
pass is part of the qualifier of its `seen` cell (`<uuid>`, then `<uuid>~2`, ...), so a write of the same pass may be
repeated, by a retry, a restart or a redelivery within the window, and stays one.

When a pass began is read from the server's time on the `seen` cells of a row that is first touched, and remembered: the
window outlives the worker, as Dataflow's state does. Unlike Dataflow, which forgets an id, the number of its last pass
is kept: else a pass that was half written when the worker was killed could not be told from a new one.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from pipelines_under_test.kappa import aggregator, rows
from pipelines_under_test.kappa.aggregator import Update
from pipelines_under_test.kappa.table import StoredRow
from pipelines_under_test.kappa.worker import setting

MOST_EVENTS_REMEMBERED = 1_000_000


class Pass(NamedTuple):
    """The last time that an event counted: the number of it, and when it began in ms since the epoch."""

    number: int
    began_ms: float

    def uuid(self, uuid: str) -> str:
        return uuid if self.number == 1 else f"{uuid}~{self.number}"


class Window:
    """Which pass each event is in. One a process: the runner may have several instances of a DoFn."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._passes: dict[str, Pass] = {}
        self._rows: set[bytes] = set()

    def unknown(self, keys: Iterable[bytes]) -> list[bytes]:
        """The rows whose events were never looked up."""
        if len(self._passes) > MOST_EVENTS_REMEMBERED:
            self._passes.clear()
            self._rows.clear()
        return sorted(set(keys) - self._rows)

    def learn(self, keys: Iterable[bytes], found: Iterable[StoredRow]) -> None:
        """These rows were looked up, and so many of them are there."""
        for row in found:
            for (_, qualifier), versions in row.cells.items():
                uuid, _, number = qualifier.decode().split("|", 1)[1].partition("~")
                oldest = Pass(int(number or 1), min(timestamp for timestamp, _ in versions) / 1000)
                self._passes[uuid] = max(oldest, self._passes.get(uuid, oldest))
        self._rows.update(keys)

    def pass_of(self, uuid: str, now_ms: float, window_s: float) -> Pass:
        """The pass in which an event that comes now counts: the one it is in, or the next."""
        last = self._passes.get(uuid)
        if last is None or now_ms - last.began_ms > window_s * 1000:
            last = self._passes[uuid] = Pass(last.number + 1 if last else 1, now_ms)
        return last


_window = Window()


class WriteInWindow(aggregator.Write):
    def setup(self) -> None:
        super().setup()
        self.window_s = float(setting("DEDUP_WINDOW_S"))

    def count(self, updates: list[Update]) -> None:
        with _window.lock:
            # The tweet's row knows each event; the author's says the same.
            keys = [rows.row_key("tweet", str(u.event.tweet_id), u.event.event_time_ms) for u in updates]
            missing = _window.unknown(keys)
            if missing:
                _window.learn(missing, self.table.read_rows(missing, rows.SEEN))
            now_ms = time.time() * 1000
            passed = [
                dataclasses.replace(u, uuid=_window.pass_of(u.uuid, now_ms, self.window_s).uuid(u.uuid))
                for u in updates
            ]
        super().count(passed)


def main() -> int:
    return aggregator.main(write=WriteInWindow)


if __name__ == "__main__":
    # Under its own name, or what Beam pickles would belong to `__main__` and be copied.
    from pipelines_under_test.timed_dedup import aggregator as this

    sys.exit(this.main())
