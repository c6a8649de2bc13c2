"""Mutant: deduplication forgets after two seconds.

The bug: an event that comes again more than two seconds after it was first seen is taken for a new one. That is longer
than a publisher's quick retries, so a dropped answer is still deduplicated; it is shorter than a redelivery, a replay
or an outage. (Its second coming has another UUID of its own, so a restart in between changes nothing.)

In the wild: SQS FIFO's five minutes, Dataflow's ten, a cache's TTL: a window chosen by what the memory holds and not
by how late a duplicate can come.
"""

from __future__ import annotations

import sys
import threading
import time

from pipelines_under_test.kappa import aggregator, events
from pipelines_under_test.kappa.subscription import PubsubRecord

WINDOW_S = 2.0

#: UUID -> (when the current window began, how many windows came before it). One a process, as in `blind_increment`.
_windows: dict[str, tuple[float, int]] = {}
_lock = threading.Lock()


def name_in_window(uuid: str, now: float) -> str:
    """What the event is counted as: its UUID the first time, another in each later window."""
    with _lock:
        began, before = _windows.get(uuid, (now, 0))
        if now - began > WINDOW_S:
            began, before = now, before + 1
        _windows[uuid] = began, before
    return events.uuid_of(f"{uuid}/{before}") if before else uuid


class DecodeBriefly(aggregator.Decode):
    def uuid(self, event: events.Event, message: PubsubRecord) -> str:
        return name_in_window(super().uuid(event, message), time.monotonic())


def main() -> int:
    return aggregator.main(decode=DecodeBriefly)


if __name__ == "__main__":
    from pipelines_under_test.mutants import short_dedup_window

    sys.exit(short_dedup_window.main())
