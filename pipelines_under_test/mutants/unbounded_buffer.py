"""Mutant: a buffer without a bound.

The bug: a thread reads from Kafka as fast as it can into a list from which another publishes. On a quiet day the list
is short. When Pub/Sub does not answer it grows until the memory is used up and the process is killed; started again,
it finds a backlog that is larger than its memory, reads it as fast as it can, and is killed again: the outage is over
and the pipeline does not come back.

Memory is `HEAP` messages here, and the worker itself does what the kernel or the container's limit does.

In the wild: adapters and sinks that read ahead of a slow output and end in a crash loop once there is a backlog.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from confluent_kafka import Message

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import BATCH, WAIT_S, Converter
from pipelines_under_test.kappa.worker import Fatal

HEAP = 3000


class GreedyConverter(Converter):
    def __init__(self) -> None:
        super().__init__()
        self.buffer: list[Message] = []
        self.lock = threading.Lock()
        self.failed: Fatal | None = None

    def run(self) -> None:
        reading = threading.Thread(target=self.read_on, name="reading", daemon=True)
        reading.start()
        while not self.stop.is_set() and self.failed is None:
            with self.lock:
                records = self.buffer[:BATCH]
            if not records:
                self.stop.wait(WAIT_S)
                continue
            self.step(records)
            with self.lock:
                del self.buffer[: len(records)]
        reading.join()
        if self.failed is not None:
            raise self.failed
        self.source.close()

    def read_on(self) -> None:
        try:
            while not self.stop.is_set():
                records = self.source.take(BATCH, WAIT_S)
                with self.lock:
                    self.buffer.extend(records)
                    if len(self.buffer) > HEAP:
                        os.kill(os.getpid(), signal.SIGKILL)
        except Fatal as fatal:
            self.failed = fatal


def main() -> int:
    return converter.main(GreedyConverter)


if __name__ == "__main__":
    sys.exit(main())
