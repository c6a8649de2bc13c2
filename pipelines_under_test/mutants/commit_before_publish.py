"""Mutant: commit the Kafka offset before the publish is acknowledged.

The bug: messages go into a buffer from which a thread publishes twice a second, and the offsets are committed at
once. A kill loses the buffer, which Kafka will not send again. A run without faults, and a graceful stop, lose nothing.

In the wild: `publisher.publish(...)` whose future nobody waits for, beside a consumer with automatic commits; any
producer with a linger time in front of which offsets are committed by the clock.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from confluent_kafka import Message

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter, Outgoing
from pipelines_under_test.kappa.worker import Fatal, Stopped

LINGER_S = 0.5
MOST_BUFFERED = 50_000


class HastyConverter(Converter):
    def __init__(self) -> None:
        super().__init__()
        self.buffer: list[Outgoing] = []
        self.lock = threading.Lock()
        self.failed: Fatal | None = None

    def run(self) -> None:
        publishing = threading.Thread(target=self.publish_on, name="linger", daemon=True)
        publishing.start()
        super().run()
        publishing.join()

    def step(self, records: Sequence[Message]) -> None:
        messages = self.convert(records)
        while len(self.buffer) > MOST_BUFFERED and not self.stop.is_set() and self.failed is None:
            time.sleep(0.05)
        if self.failed is not None:
            raise self.failed
        with self.lock:
            self.buffer.extend(messages)
        self.source.commit(records)
        self.progress.add(read=len(records))

    def publish_on(self) -> None:
        try:
            while not self.stop.wait(LINGER_S):
                self.publish_buffer()
            self.publish_buffer()
        except Stopped as stopped:
            self.log.warning("stopped with unpublished messages: %s", stopped)
        except Fatal as fatal:
            self.failed = fatal

    def publish_buffer(self) -> None:
        with self.lock:
            messages, self.buffer = self.buffer, []
        self.publish(messages)


def main() -> int:
    return converter.main(HastyConverter)


if __name__ == "__main__":
    sys.exit(main())
