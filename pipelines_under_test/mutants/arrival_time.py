"""Mutant: windows of processing time.

The bug: an event is counted in the window in which the aggregator sees it. On a quiet day almost nothing is in a
wrong window except what is late; after a stop of some seconds everything is.

In the wild: `Window.into(FixedWindows(...))` on elements whose timestamps nobody set, so that they carry the time at
which Pub/Sub got them; Spark's and Flink's `processing_time()` taken for the wrong default.
"""

from __future__ import annotations

import dataclasses
import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.aggregator import Refused, Update
from pipelines_under_test.kappa.subscription import PubsubRecord


class DecodeOnArrival(aggregator.Decode):
    def decode(self, message: PubsubRecord, now_ms: float) -> Update | Refused:
        decoded = super().decode(message, now_ms)
        if isinstance(decoded, Refused):
            return decoded
        return dataclasses.replace(decoded, event=dataclasses.replace(decoded.event, event_time_ms=int(now_ms)))


def main() -> int:
    return aggregator.main(decode=DecodeOnArrival)


if __name__ == "__main__":
    from pipelines_under_test.mutants import arrival_time

    sys.exit(arrival_time.main())
