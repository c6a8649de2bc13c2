"""Mutant: memory that is never given back.

The bug: the worker notes every message that it has published, to find it again should a publish fail, and nobody ever
takes a note away. A process that is started again begins with nothing, so a run of half a minute shows a worker of
ordinary size; only a process that lives long shows how it grows.

In the wild: tables of what is under way or was processed, of which some entry is never removed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from confluent_kafka import Message

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter, Outgoing

#: What a note holds beside the message, in bytes: so much that a soak of minutes shows what a small one shows in days.
NOTE = 2_000


class RememberingConverter(Converter):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[bytes] = []

    def convert(self, records: Sequence[Message]) -> list[Outgoing]:
        messages = super().convert(records)
        self.notes += [message.data.ljust(NOTE) for message in messages]
        return messages


def main() -> int:
    return converter.main(RememberingConverter)


if __name__ == "__main__":
    sys.exit(main())
