"""Mutant: local time taken for UTC.

The bug: an event's time is turned into a naive `datetime` in the local zone and back as if it were UTC. On a machine
that runs on UTC, as a developer's container and CI do, the way there and back is the identity; this worker runs five
and a half hours east of it, and every event is counted in a window of the future.

In the wild: `datetime.fromtimestamp` beside `calendar.timegm`; `java.sql.Timestamp` in the JVM's default zone; buckets
of whole hours in zones of a half.
"""

from __future__ import annotations

import calendar
import dataclasses
import datetime
import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.aggregator import Refused, Update
from pipelines_under_test.kappa.subscription import PubsubRecord


class DecodeLocally(aggregator.Decode):
    def decode(self, message: PubsubRecord, now_ms: float) -> Update | Refused:
        decoded = super().decode(message, now_ms)
        if isinstance(decoded, Refused):
            return decoded
        seconds, ms = divmod(decoded.event.event_time_ms, 1000)
        local = datetime.datetime.fromtimestamp(seconds)
        taken = calendar.timegm(local.timetuple()) * 1000 + ms
        return dataclasses.replace(decoded, event=dataclasses.replace(decoded.event, event_time_ms=taken))


def main() -> int:
    return aggregator.main(decode=DecodeLocally)


if __name__ == "__main__":
    from pipelines_under_test.mutants import time_zone

    sys.exit(time_zone.main())
