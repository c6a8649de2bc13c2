"""A worker of the reference pipeline that loses or doubles the events that it is told, and is sound otherwise.

    python meddler.py preprocessor|converter|aggregator

LOSE and DOUBLE hold sequences of producer 1, apart by commas. Everything else is as for the real worker.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import uuid
from collections.abc import Sequence

from confluent_kafka import Message

from load.events import parse_event_id
from pipelines_under_test.kappa import aggregator, converter, events, preprocessor
from pipelines_under_test.kappa.aggregator import Update


def _told(variable: str) -> frozenset[int]:
    return frozenset(int(word) for word in os.environ.get(variable, "").split(",") if word)


LOSE, DOUBLE = _told("LOSE"), _told("DOUBLE")


def times(event_id: str) -> int:
    """How often an event is to be passed on."""
    parsed = parse_event_id(event_id)
    if parsed is None or parsed[1] != 1:
        return 1
    return 0 if parsed[2] in LOSE else 2 if parsed[2] in DOUBLE else 1


class MeddlingPreprocessor(preprocessor.Preprocessor):
    def handle(self, record: Message) -> None:
        try:
            again = times(events.from_source(record.value()).event_id)
        except events.Poison:
            again = 1
        for _ in range(again):
            super().handle(record)


class MeddlingConverter(converter.Converter):
    def convert(self, records: Sequence[Message]) -> list[converter.Outgoing]:
        return super().convert([r for r in records for _ in range(times(events.from_intermediate(r.value()).event_id))])


class MeddlingWrite(aggregator.Write):
    def count(self, updates: list[Update]) -> None:
        kept = [u for u in updates if times(u.event.event_id)]
        # Under another UUID, always the same, so that a replay counts it no third time.
        kept += [
            dataclasses.replace(u, uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, u.uuid)))
            for u in kept
            if times(u.event.event_id) == 2
        ]
        if kept:
            super().count(kept)


def main(worker: str) -> int:
    if worker == "preprocessor":
        return preprocessor.main(MeddlingPreprocessor)
    if worker == "converter":
        return converter.main(MeddlingConverter)
    return aggregator.main(write=MeddlingWrite)


if __name__ == "__main__":
    # Under its own name, or what Beam pickles would belong to `__main__` and be copied.
    import meddler

    sys.exit(meddler.main(sys.argv[1]))
