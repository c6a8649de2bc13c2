"""Mutant: one event in a hundred thousand.

The bug: the worker passes over an event whose id has a certain checksum, one in a hundred thousand of all ids, and commits
it. A run of forty thousand events loses one in one run of three; it takes very many events, or luck, to see it.

In the wild: losses that somebody notices once a month, of messages that nothing seems to be special about: a collision of
hashes, a value at the edge of a type, an index of a buffer that wraps.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Sequence

import orjson
from confluent_kafka import Message

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter, Outgoing

#: Another number is for where a hundred thousand events are too many to wait for.
ONE_IN = int(os.environ.get("ONE_IN", "100_000"))


def unlucky(event_id: str) -> bool:
    return zlib.crc32(event_id.encode()) % ONE_IN == 0


class RarelyForgettingConverter(Converter):
    def convert(self, records: Sequence[Message]) -> list[Outgoing]:
        return [m for m in super().convert(records) if not unlucky(orjson.loads(m.data)["event_id"])]


def main() -> int:
    return converter.main(RarelyForgettingConverter)


if __name__ == "__main__":
    sys.exit(main())
