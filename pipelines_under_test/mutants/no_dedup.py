"""Mutant: no deduplication.

The bug: what is counted is deliveries, not events: a message that was published twice, or delivered twice, counts
twice. Without a retry nothing shows.

In the wild: any at-least-once pipeline whose sink adds; Pub/Sub without exactly-once delivery and without an
insert id; a deduplication window that is shorter than the publisher's retries.
"""

from __future__ import annotations

import sys
import uuid

from pipelines_under_test.kappa import aggregator, events
from pipelines_under_test.kappa.subscription import PubsubRecord


class DecodeDeliveries(aggregator.Decode):
    def uuid(self, event: events.Event, message: PubsubRecord) -> str:
        return str(uuid.uuid4())


def main() -> int:
    return aggregator.main(decode=DecodeDeliveries)


if __name__ == "__main__":
    from pipelines_under_test.mutants import no_dedup

    sys.exit(no_dedup.main())
