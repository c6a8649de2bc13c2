"""Landing, the log collector: source topic -> raw logs. The role of Scribe and Flume, which filled HDFS at Twitter.

    KAFKA SOURCE_TOPIC LANDING_GROUP RAW_LOGS LOG_PARTITION_S LOG_SLACK_S LAND_EVERY_S GAUNTLET_WORKER

Loop: gather records for a second (a small write costs HDFS 250 ms), publish one file for each Kafka partition and log
partition (see `logs.py`), commit the offsets, close what can be closed. A kill before the commit replays records, of
which those that have landed are known by the files' names and left out: the logs hold every record exactly once.

A log partition is closed by records alone, never by a clock: once every Kafka partition was read past its end, by
`$LOG_SLACK_S` more than its end, since records that several producers create do not come quite in order. So what is
closed when all is quiet follows from the source topic and from nothing else; the last log partitions stay open until
another record comes. (A Kafka partition that never has a record therefore keeps all of them open.) What comes still
later for a log partition that is closed goes, unchanged, into the oldest that is open: nothing is left out of the logs,
and the batch job counts it for the windows that it has not published yet.

One process: what has landed is remembered from the start of the process.

Where this differs: Scribe's daemons took log lines from the hosts that made them and could lose them; here the logs are
a copy of the Kafka topic that the speed layer reads, so that whatever the two layers disagree about is theirs.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Protocol, TypeVar

import polars as pl
from confluent_kafka import KafkaException, Message, TopicPartition

from pipelines_under_test.kappa import kafka
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals
from pipelines_under_test.legacy.logs import AWAY, SCHEMA, LogFile, raw_logs

AT_ONCE = 2000
WAIT_S = 0.1
#: As many records are landed before the time is over.
MOST_HELD = 50_000
#: Files that are published at the same time.
WRITERS = 4
#: Longest pause between two attempts on a file system that is away.
LONGEST_DELAY_S = 2.0

Answer = TypeVar("Answer")


class CollectorSource(kafka.Source):
    """A source that can be asked where it stands."""

    def positions(self) -> dict[int, int]:
        """Kafka partition -> committed offset, 0 without one. Raises KafkaException."""
        metadata = self._consumer.list_topics(self._topic, timeout=10).topics[self._topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        asked = [TopicPartition(self._topic, number) for number in metadata.partitions]
        return {p.partition: max(0, p.offset) for p in self._consumer.committed(asked, timeout=10)}


class RecordLike(Protocol):
    """What a record must be able to say."""

    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def value(self) -> bytes | None: ...


class Landed:
    """What the logs hold, as their listing says; decides where a record goes and which log partitions can be closed.

    Pure: it reads nothing and writes nothing.
    """

    def __init__(
        self, files: Iterable[LogFile], closed_ms: int, kafka_partitions: Iterable[int], length_ms: int
    ) -> None:
        self.closed_ms, self.length_ms = closed_ms, length_ms
        self._last: dict[tuple[int, int], int] = {}
        self._newest = dict.fromkeys(kafka_partitions, -1)
        for file in files:
            self.add(file)

    def add(self, file: LogFile) -> None:
        place = (file.log_partition_ms, file.kafka_partition)
        self._last[place] = max(self._last.get(place, -1), file.last)
        self._newest[file.kafka_partition] = max(self._newest.get(file.kafka_partition, -1), file.newest_ms)

    def to_land(self, records: Iterable[RecordLike]) -> dict[LogFile, pl.DataFrame]:
        """The files that these records make, without those that have landed; the oldest log partition first."""
        rows: dict[tuple[int, int], list[tuple[int, int, bytes]]] = defaultdict(list)
        for record in records:
            number, offset, created = int(record.partition() or 0), int(record.offset() or 0), record.timestamp()[1]
            start = max(created // self.length_ms * self.length_ms, self.closed_ms, 0)
            if offset > self._last.get((start, number), -1):
                rows[start, number].append((offset, created, record.value() or b""))
        files = {}
        for (start, number), some in sorted(rows.items()):
            file = LogFile(start, number, some[0][0], some[-1][0], max(0, *(created for _, created, _ in some)))
            files[file] = pl.DataFrame(some, schema=SCHEMA, orient="row")
        return files

    def settled(self, committed: dict[int, int]) -> bool:
        """Whether nothing that has landed will be replayed."""
        return all(last < committed.get(number, 0) for (_, number), last in self._last.items())

    def closable_ms(self, slack_ms: int) -> int:
        """Every log partition before this time was read past its end, and past the slack, in every Kafka partition."""
        oldest = min(self._newest.values(), default=-1) - slack_ms
        return max(self.closed_ms, oldest // self.length_ms * self.length_ms)

    def close(self, time_ms: int) -> None:
        self.closed_ms = time_ms
        self._last = {place: last for place, last in self._last.items() if place[0] >= time_ms}


class Landing:
    source_kind: ClassVar[type[CollectorSource]] = CollectorSource

    def __init__(self) -> None:
        self.name = setting("GAUNTLET_WORKER", "landing")
        self.log = open_log(self.name)
        self.stop = stop_on_signals()
        self.progress = Progress(self.log)
        address, topic = setting("KAFKA"), setting("SOURCE_TOPIC")
        self.logs = raw_logs()
        self.length_ms = round(float(setting("LOG_PARTITION_S", "10")) * 1000)
        self.slack_ms = round(float(setting("LOG_SLACK_S", "2")) * 1000)
        self.every_s = float(setting("LAND_EVERY_S", "1"))
        self.log.info("starts: %s at %s -> %s", topic, address, self.logs.root)
        self.source = self.source_kind(
            address, topic, setting("LANDING_GROUP", "landing"), self.name, self.stop, self.log
        )
        self.pool = ThreadPoolExecutor(WRITERS, "land")

    def run(self) -> None:
        self.insist("clearing", self.logs.clear_unfinished)
        self.committed = self.insist("asking Kafka", self.source.positions)
        closed_ms = self.insist("listing", self.logs.closed_until)
        # Of the closed ones nothing will be replayed: they were closed after the commit.
        files = self.insist("listing", lambda: self.logs.files(since_ms=closed_ms))
        self.landed = Landed(files, closed_ms, self.committed, self.length_ms)
        self.log.info("%d files are in open log partitions, closed until %d", len(files), closed_ms)
        self.close()
        held: list[Message] = []
        since = time.monotonic()
        while not self.stop.is_set():
            held += self.source.take(AT_ONCE, WAIT_S)
            if not held:
                since = time.monotonic()
            elif len(held) >= MOST_HELD or time.monotonic() - since >= self.every_s:
                self.step(held)
                held, since = [], time.monotonic()
        if held:
            self.step(held)
        self.source.close()

    def step(self, records: Sequence[Message]) -> None:
        """One batch, in the order that makes it safe: publish, commit, close."""
        files = self.landed.to_land(records)
        for job in [self.pool.submit(self.publish, file, frame) for file, frame in files.items()]:
            job.result()
        for file in files:
            self.landed.add(file)
        self.progress.add(read=len(records), landed=sum(map(len, files.values())), files=len(files))
        if self.source.commit(records):
            for record in records:
                self.committed[int(record.partition() or 0)] = int(record.offset() or 0) + 1
            self.close()

    def publish(self, file: LogFile, records: pl.DataFrame) -> None:
        self.insist(f"landing {file.path}", lambda: self.logs.publish(file, records))

    def close(self) -> None:
        """Closes what can be closed; nothing while records are replayed, which must find the places that they had."""
        until = self.landed.closable_ms(self.slack_ms)
        if until > self.landed.closed_ms and self.landed.settled(self.committed):
            self.insist("closing", lambda: self.logs.close_until(until))
            self.landed.close(until)
            self.log.info("log partitions are closed until %d", until)

    def insist(self, what: str, attempt: Callable[[], Answer]) -> Answer:
        """Tries until it succeeds. Raises Stopped when asked to stop meanwhile."""
        delay = 0.1
        while True:
            try:
                return attempt()
            except (*AWAY, KafkaException) as error:
                self.log.warning("%s: %s %.200s; trying again", what, type(error).__name__, error)
                if self.stop.wait(delay):
                    raise Stopped(f"{what}: {error}") from error
                delay = min(delay * 2, LONGEST_DELAY_S)


def main(kind: type[Landing] = Landing) -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    worker = kind()
    try:
        worker.run()
    except Stopped as stopped:
        worker.log.warning("stopped in mid-batch, which will be replayed: %s", stopped)
    except Fatal as fatal:
        worker.log.error("%s", fatal)
        return 1
    finally:
        worker.pool.shutdown(wait=False, cancel_futures=True)
    worker.log.info("ends: %s", worker.progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
