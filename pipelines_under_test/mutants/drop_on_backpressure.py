"""Mutant: what does not fit is dropped.

The bug: between the consumer and the publisher stands a bounded queue, and a batch that comes when it is full is thrown
away, with a count in the log. The queue holds about a second and a half, so that only a stop of the other side fills it. (Offsets
are committed after the publish, so a kill loses nothing; but later ones cover those of what was dropped.)

In the wild: log shippers and appenders with a "drop when full" policy (Logback's `neverBlock`, Fluentd's
`overflow_action`, `OverflowStrategy.dropNew`); an actor's bounded mailbox; load shedding in front of a slow bolt.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Sequence

from confluent_kafka import Message

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import BATCH, WAIT_S, Converter
from pipelines_under_test.kappa.worker import Fatal, Stopped

#: Batches; one comes every WAIT_S.
MOST_WAITING = 60


class SheddingConverter(Converter):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: queue.Queue[Sequence[Message]] = queue.Queue(MOST_WAITING)
        self.failed: Fatal | Stopped | None = None

    def run(self) -> None:
        publishing = threading.Thread(target=self.publish_on, name="publishing", daemon=True)
        publishing.start()
        while not self.stop.is_set() and publishing.is_alive():
            records = self.source.take(BATCH, WAIT_S)
            if records:
                self.enqueue(records)
        publishing.join()
        if self.failed is not None:
            raise self.failed
        self.source.close()

    def enqueue(self, records: Sequence[Message]) -> None:
        try:
            self.waiting.put_nowait(records)
        except queue.Full:
            self.progress.add(dropped=len(records))

    def publish_on(self) -> None:
        try:
            while not (self.stop.is_set() and self.waiting.empty()):
                try:
                    records = self.waiting.get(timeout=0.1)
                except queue.Empty:
                    continue
                self.step(records)
        except (Fatal, Stopped) as failed:
            self.failed = failed


def main() -> int:
    return converter.main(SheddingConverter)


if __name__ == "__main__":
    sys.exit(main())
