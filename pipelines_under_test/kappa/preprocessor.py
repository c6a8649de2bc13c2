"""Preprocessor: source topic -> validate, re-map -> intermediate topic. What cannot be read goes to the dead letters.

    KAFKA SOURCE_TOPIC INTERMEDIATE_TOPIC DEAD_LETTER_TOPIC PREPROCESSOR_GROUP BATCH RELEASE GAUNTLET_WORKER

Loop: take a batch, write everything that follows from it, wait until all of that is acknowledged, commit. A kill at
any point replays the batch; the duplicates carry the same event ids and vanish at the sink.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import ClassVar

from confluent_kafka import Message

from pipelines_under_test.kappa import events, kafka
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals

BATCH = 1000
WAIT_S = 0.05


class Preprocessor:
    sink_kind: ClassVar[type[kafka.Sink]] = kafka.Sink

    def __init__(self) -> None:
        self.name = setting("GAUNTLET_WORKER", "preprocessor")
        self.intermediate = setting("INTERMEDIATE_TOPIC")
        self.dead_letters = setting("DEAD_LETTER_TOPIC")
        self.batch = int(setting("BATCH", str(BATCH)))
        self.log = open_log(self.name)
        self.stop = stop_on_signals()
        self.progress = Progress(self.log)
        address, topic = setting("KAFKA"), setting("SOURCE_TOPIC")
        self.log.info("starts: %s -> %s at %s", topic, self.intermediate, address)
        self.sink = self.sink_kind(address, self.name, self.stop, self.log)
        self.source = kafka.Source(
            address, topic, setting("PREPROCESSOR_GROUP", "preprocessor"), self.name, self.stop, self.log
        )

    def run(self) -> None:
        while not self.stop.is_set():
            records = self.source.take(self.batch, WAIT_S)
            if records:
                self.step(records)
        self.source.close()

    def step(self, records: Sequence[Message]) -> None:
        """One batch, in the order that makes it safe: write, settle, commit."""
        for record in records:
            self.handle(record)
        self.sink.settle()
        self.source.commit(records)
        self.progress.add(read=len(records))

    def handle(self, record: Message) -> None:
        try:
            event = events.from_source(record.value())
        except events.Poison as poison:
            self.refuse(record, str(poison))
            return
        # The key keeps the events of one tweet in order; what follows from a record is as old as that is.
        key, created_ms = str(event.tweet_id).encode(), max(0, record.timestamp()[1])
        self.sink.write(self.intermediate, self.remapped(event), key, created_ms=created_ms)

    def remapped(self, event: events.Event) -> bytes:
        return events.to_intermediate(event)

    def refuse(self, record: Message, reason: str) -> None:
        """The original bytes, and beside them why and where from."""
        self.sink.write(self.dead_letters, record.value(), record.key(), dead_letter_headers(record, reason, self.name))
        self.progress.add(refused=1)


def dead_letter_headers(record: Message, reason: str, worker: str) -> kafka.Headers:
    return {
        "reason": reason.encode(),
        "worker": worker.encode(),
        "topic": str(record.topic()).encode(),
        "partition": str(record.partition()).encode(),
        "offset": str(record.offset()).encode(),
    }


def main(kind: type[Preprocessor] = Preprocessor) -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    worker = kind()
    try:
        worker.run()
    except Stopped as stopped:
        worker.log.warning("stopped in mid-batch, which will be replayed: %s", stopped)
    except Fatal as fatal:
        worker.log.error("%s", fatal)
        return 1
    worker.log.info("ends: %s", worker.progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
