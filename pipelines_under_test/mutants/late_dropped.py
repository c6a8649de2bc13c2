"""Mutant: the streaming job drops late events.

The bug: an event is dropped when the watermark, here the latest event time seen, is more than 5 s past the end of its
10 s window. It makes the stream agree better with the batch truth, which discards late events too: the loss must be
found where events are counted, not where two wrong results agree.

In the wild: Beam's and Flink's default of an allowed lateness of zero, with no side output for what is late; a
watermark that follows the wall clock, as Beam's `ReadFromPubSub` on the Python DirectRunner has it.
"""

from __future__ import annotations

import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.aggregator import Refused, Update
from pipelines_under_test.kappa.subscription import PubsubRecord

WINDOW_MS = 10_000
ALLOWED_LATENESS_MS = 5000


class DecodeInTime(aggregator.Decode):
    watermark_ms = 0

    def process(self, batch: list[PubsubRecord]):  # type: ignore[no-untyped-def]
        for decoded in super().process(batch):
            yield [one for one in decoded if self.in_time(one)]

    def in_time(self, one: Update | Refused) -> bool:
        if isinstance(one, Refused):
            return True
        at_ms = one.event.event_time_ms
        self.watermark_ms = max(self.watermark_ms, at_ms)
        return at_ms // WINDOW_MS * WINDOW_MS + WINDOW_MS + ALLOWED_LATENESS_MS > self.watermark_ms


def main() -> int:
    return aggregator.main(decode=DecodeInTime)


if __name__ == "__main__":
    from pipelines_under_test.mutants import late_dropped

    sys.exit(late_dropped.main())
