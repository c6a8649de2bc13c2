"""Mutant: deduplication by Pub/Sub's message id.

The bug: what is deduplicated are deliveries of one message. A publish that is repeated because its answer was lost
makes a second message with an id of its own, and its events are counted twice.

In the wild: Dataflow's default, which takes Pub/Sub's id unless an id attribute is named; idempotent subscribers that
remember `message.message_id`.
"""

from __future__ import annotations

import sys

from pipelines_under_test.kappa import aggregator, events
from pipelines_under_test.kappa.subscription import PubsubRecord


class DecodeByMessage(aggregator.Decode):
    def uuid(self, event: events.Event, message: PubsubRecord) -> str:
        return events.uuid_of(message.message_id)


def main() -> int:
    return aggregator.main(decode=DecodeByMessage)


if __name__ == "__main__":
    from pipelines_under_test.mutants import dedup_by_message_id

    sys.exit(dedup_by_message_id.main())
