"""Mutant: the UUID is where a record stands, not what it is.

The bug: the UUID that deduplication goes by is derived from topic, partition and offset of the intermediate record. It
survives every retry and restart of the converter. But a preprocessor that is killed between writing and committing
writes its batch again, at new offsets, and the sink counts both.

In the wild: Kafka Connect's sinks that make document ids of topic+partition+offset; any key that numbers a copy
instead of naming the original.
"""

from __future__ import annotations

import sys

from confluent_kafka import Message

from pipelines_under_test.kappa import converter, events
from pipelines_under_test.kappa.converter import Converter, Outgoing


class NumberingConverter(Converter):
    def message(self, record: Message, now_ms: int) -> Outgoing:
        message = super().message(record, now_ms)
        message.attributes["uuid"] = events.uuid_of(message.attributes["source"])
        return message


def main() -> int:
    return converter.main(NumberingConverter)


if __name__ == "__main__":
    sys.exit(main())
