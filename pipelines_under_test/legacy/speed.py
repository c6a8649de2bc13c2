"""The speed layer: source topic -> a topology of spout and bolts -> counts in Redis. The role of Summingbird on Heron.

    KAFKA SOURCE_TOPIC SPEED_GROUP REDIS REDIS_PREFIX DEAD_LETTER_TOPIC GAUNTLET_WORKER
    BOLTS QUEUE_DEPTH PER_TRIP TRIP_EVERY_S MOST_LAG_S CACHE_KEEP_S SHOW_EVENTS

At most once. The spout commits its offsets *before* it hands the records on, so that nothing is ever counted twice and
whatever is in a queue or on its way to Redis when the process ends is lost. (Automatic commits would lose less at times
and double more: they follow a clock and not what was done.)

Capacity: `BOLTS * PER_TRIP / max(TRIP_EVERY_S, a round trip to Redis)` events a second; 20,000 as set here, if the
machine can. Load above it, or a Redis that is far away, fills the queues (QUEUE_DEPTH tuples each); full queues stop the
spout, the rest waits in Kafka, and latency grows by as much; a bolt that lags longer than MOST_LAG_S makes the stream
manager die (exit status 1), and the queues are lost with it. See `bolts.py`.

When Redis is killed or cut off: the batches that are on their way, one a bolt, are lost, and said to be; nothing is
tried again. The bolts wait until Redis answers. If that takes longer than MOST_LAG_S the manager dies as above.

SIGTERM lets the queues run empty for a while. What cannot be read goes to DEAD_LETTER_TOPIC, if that is set: at most
once, too.

Where this differs: see `bolts.py` for Heron, `rollup.py` for TSAR, `cache.py` for Nighthawk. Summingbird would have kept
the offset in ZooKeeper and could have acknowledged tuples (at least once); Twitter ran these topologies without.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import ClassVar

from confluent_kafka import Message

from pipelines_under_test.kappa import events, kafka
from pipelines_under_test.kappa.preprocessor import dead_letter_headers
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals
from pipelines_under_test.legacy.bolts import Bolt, Manager
from pipelines_under_test.legacy.cache import Cache

AT_ONCE = 500
WAIT_S = 0.05
#: How long the queues may take to run empty after SIGTERM.
GRACE_S = 5.0


class Speed:
    source_kind: ClassVar[type[kafka.Source]] = kafka.Source

    def __init__(self) -> None:
        self.name = setting("GAUNTLET_WORKER", "speed")
        self.log = open_log(self.name)
        self.stop = stop_on_signals()
        self.progress = Progress(self.log)
        address, topic, redis = setting("KAFKA"), setting("SOURCE_TOPIC"), setting("REDIS")
        self.dead_letters = os.environ.get("DEAD_LETTER_TOPIC", "")
        self.bolts = [self.bolt(f"count-{number}", redis) for number in range(1, int(setting("BOLTS", "2")) + 1)]
        self.manager = Manager(self.bolts, float(setting("MOST_LAG_S", "10")), self.log, die)
        self.log.info("starts: %s at %s -> %d bolts -> %s", topic, address, len(self.bolts), redis)
        self.sink = kafka.Sink(address, self.name, self.stop, self.log)
        self.source = self.source_kind(address, topic, setting("SPEED_GROUP", "speed"), self.name, self.stop, self.log)

    def bolt(self, name: str, redis: str) -> Bolt:
        show_events = setting("SHOW_EVENTS", "0") == "1"
        cache = Cache(redis, setting("REDIS_PREFIX", "speed"), int(setting("CACHE_KEEP_S", "86400")), show_events)
        depth, per_trip = int(setting("QUEUE_DEPTH", "5000")), int(setting("PER_TRIP", "500"))
        return Bolt(name, cache, depth, per_trip, float(setting("TRIP_EVERY_S", "0.05")), self.log, self.progress)

    def run(self) -> None:
        for bolt in self.bolts:
            bolt.start()
        self.manager.start()
        while not self.stop.is_set():
            records = self.source.take(AT_ONCE, WAIT_S)
            if records:
                self.step(records)
        self.finish()
        self.source.close()

    def step(self, records: Sequence[Message]) -> None:
        """One batch of the spout, in the order that makes it at most once: commit, then hand on."""
        if not self.source.commit(records):
            return  # the next owner of the partitions reads them
        self.progress.add(read=len(records))
        for event in self.readable(records):
            self.emit(event)

    def readable(self, records: Iterable[Message]) -> Iterable[events.Event]:
        for record in records:
            try:
                yield events.from_source(record.value())
            except events.Poison as poison:
                self.progress.add(refused=1)
                if self.dead_letters:
                    headers = dead_letter_headers(record, str(poison), self.name)
                    self.sink.write(self.dead_letters, record.value(), record.key(), headers)

    def emit(self, event: events.Event) -> None:
        """Grouped by tweet, so that a bolt can combine what belongs together. Waits for room: back-pressure."""
        bolt = self.bolts[event.tweet_id % len(self.bolts)]
        while not bolt.queue.put(event, 0.5):
            if self.stop.is_set():
                raise Stopped(f"{bolt.name} has no room")

    def finish(self) -> None:
        until = time.monotonic() + GRACE_S
        while any(len(bolt.queue) for bolt in self.bolts) and time.monotonic() < until:
            time.sleep(0.02)
        self.sink.settle()


def die() -> None:
    """As a container does when its stream manager is gone: at once, whatever its threads are at."""
    os._exit(1)


def main(kind: type[Speed] = Speed) -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    worker = kind()
    try:
        worker.run()
    except Stopped as stopped:
        worker.log.warning("stopped in mid-batch: %s", stopped)
    except Fatal as fatal:
        worker.log.error("%s", fatal)
        return 1
    finally:
        for bolt in worker.bolts:
            bolt.abandon()
        if lost := sum(len(bolt.queue) for bolt in worker.bolts):
            worker.log.warning("%d tuples in the queues are lost", lost)
    worker.log.info("ends: %s", worker.progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
