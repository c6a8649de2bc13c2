"""Mutant: deduplication by content.

The bug: the UUID is derived from what an event says (who did what to which tweet, when) and not from its id. Two
events that say the same are one to the sink, and the second is lost: two impressions in one millisecond, say.

In the wild: Kafka records deduplicated by a hash of their value; BigQuery insert ids made of the row; SELECT DISTINCT.
"""

from __future__ import annotations

import dataclasses
import sys

from pipelines_under_test.kappa import converter, events
from pipelines_under_test.kappa.converter import Converter


class HashingConverter(Converter):
    def uuid(self, event: events.Event) -> str:
        content = dataclasses.replace(event, event_id="")
        return events.uuid_of(events.to_message(content).decode())


def main() -> int:
    return converter.main(HashingConverter)


if __name__ == "__main__":
    sys.exit(main())
