"""Mutant: windows that hold their end instead of their start.

The bug: an event is in a window if start < time <= end. The declared windows, and the batch truth's, are start <= time
< end. Only events of the very millisecond in which a window begins are in the wrong one.

In the wild: InfluxDB's window tables while they were written (`start < ts && ts <= stop`); SQL's BETWEEN; a pandas
`resample` with `closed="right"`.
"""

from __future__ import annotations

import dataclasses
import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.aggregator import Refused, Update
from pipelines_under_test.kappa.subscription import PubsubRecord


class DecodeWithClosedEnds(aggregator.Decode):
    def decode(self, message: PubsubRecord, now_ms: float) -> Update | Refused:
        decoded = super().decode(message, now_ms)
        if isinstance(decoded, Refused):
            return decoded
        inside = decoded.event.event_time_ms - 1  # the last millisecond of what is then the event's window
        return dataclasses.replace(decoded, event=dataclasses.replace(decoded.event, event_time_ms=inside))


def main() -> int:
    return aggregator.main(decode=DecodeWithClosedEnds)


if __name__ == "__main__":
    from pipelines_under_test.mutants import window_boundary

    sys.exit(window_boundary.main())
