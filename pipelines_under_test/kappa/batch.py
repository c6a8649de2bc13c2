"""The batch truth: what the old batch pipeline would say, computed from the closed source log after the fact.

    KAFKA SOURCE_TOPIC BATCH_OUTPUT LATE_AFTER_S

Reads the source topic from its beginning to the end that it has now, drops what is no event, keeps one of several
records with the same event id, discards what came late for its window (as the batch pipeline did: its window was
closed), and writes the counts of every window as Parquet: dimension, key, window_s, window_start_ms, count, weight.

It shares no code with the streaming workers, on purpose: a mistake that both make would look like agreement.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

import polars as pl
from confluent_kafka import Consumer, KafkaException, TopicPartition

WINDOWS_S = (10, 60)
DIMENSIONS = {"tweet": "tweet_id", "author": "author_id"}
NUMBERS = ("tweet_id", "author_id", "weight", "event_time_ms")
#: Fields that are not counted by, but without which a record is no event.
REQUIRED = (*NUMBERS, "event_id", "user_id", "engagement", "client", "country")
KINDS_OF_ENGAGEMENT = ("click", "impression", "like", "profile_click", "quote", "reply", "retweet", "video_view")

SCHEMA = {
    "event_id": pl.String,
    "tweet_id": pl.Int64,
    "author_id": pl.Int64,
    "engagement": pl.String,
    "weight": pl.Int64,
    "event_time_ms": pl.Int64,
    "created_ms": pl.Int64,
}
YEAR_10000_MS = 253_402_300_800_000
#: No record for so long, though the end is not reached: the log cannot be read.
SILENCE_S = 30.0


def decode(value: bytes | None, created_ms: int) -> tuple[Any, ...] | None:
    """A row of SCHEMA, or None for what is no event."""
    try:
        record = json.loads(value or b"")
        numbers = [record[name] for name in (*NUMBERS, "user_id")]
        texts = [record[name] for name in ("event_id", "engagement", "client", "country")]
    except (ValueError, TypeError, KeyError):
        return None
    if any(type(n) is not int or n < 0 or n >= 2**63 for n in numbers) or any(type(t) is not str for t in texts):
        return None
    if texts[1] not in KINDS_OF_ENGAGEMENT or not re.fullmatch("[A-Za-z]{2}", texts[3]):
        return None
    if not texts[0] or not texts[2] or max(map(len, texts)) > 200 or numbers[3] >= YEAR_10000_MS:
        return None
    return texts[0], numbers[0], numbers[1], texts[1], numbers[2], numbers[3], created_ms


def read_log(bootstrap: str, topic: str) -> tuple[pl.DataFrame, int]:
    """Every event of the topic, up to its present end, and the number of records that were none."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "batch-truth",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": 8_000_000,
            "queued.min.messages": 1_000_000,
        }
    )
    metadata = consumer.list_topics(topic, timeout=15).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    partitions = metadata.partitions
    left: dict[int, int] = {}
    assigned = []
    for number in partitions:
        first, end = watermarks(consumer, TopicPartition(topic, number))
        if end > first:
            left[number] = end
            assigned.append(TopicPartition(topic, number, first))
    frames, rows, dropped = [pl.DataFrame(schema=SCHEMA)], [], 0
    last = time.monotonic()
    consumer.assign(assigned)
    while left:
        messages = consumer.consume(10_000, 0.5)
        if not messages and time.monotonic() - last > SILENCE_S:
            raise TimeoutError(f"{topic}: no record for {SILENCE_S:.0f} s, and {len(left)} partitions have more")
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            last = time.monotonic()
            number, offset = int(message.partition() or 0), int(message.offset() or 0)
            if number in left and offset < left[number]:
                row = decode(message.value(), message.timestamp()[1])
                if row is None:
                    dropped += 1
                else:
                    rows.append(row)
            if number in left and offset + 1 >= left[number]:
                del left[number]
        if len(rows) > 100_000 or not left:
            frames.append(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
            rows = []
    consumer.close()
    return pl.concat(frames), dropped


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """First and end offset. A broker that has just started may have no leader for the partition yet: it is asked again
    for a while. Raises KafkaException when it stays so."""
    deadline = time.monotonic() + SILENCE_S
    while True:
        try:
            first, end = consumer.get_watermark_offsets(partition, timeout=15)
            return first, end
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def aggregate(log: pl.DataFrame, late_after_s: float) -> pl.DataFrame:
    """The counts of every dimension and window, without duplicates and without what came late for that window."""
    once = log.sort("created_ms").unique("event_id", keep="first", maintain_order=True)
    parts = []
    for window_s in WINDOWS_S:
        length = window_s * 1000
        windowed = once.with_columns(window_start_ms=pl.col("event_time_ms") - pl.col("event_time_ms") % length)
        late_ms = pl.col("created_ms") - (pl.col("window_start_ms") + length)
        in_time = windowed.filter(late_ms <= late_after_s * 1000)
        for dimension, column in DIMENSIONS.items():
            parts.append(
                in_time.group_by(column, "engagement", "window_start_ms")
                .agg(count=pl.len().cast(pl.Int64), weight=pl.col("weight").sum())
                .select(
                    pl.lit(dimension).alias("dimension"),
                    pl.concat_str(pl.col(column).cast(pl.String), "engagement", separator="|").alias("key"),
                    pl.lit(window_s, pl.Int32).alias("window_s"),
                    "window_start_ms",
                    "count",
                    "weight",
                )
            )
    return pl.concat(parts).sort("dimension", "window_s", "window_start_ms", "key")


def main() -> int:
    started = time.monotonic()
    output = os.environ["BATCH_OUTPUT"]
    log, dropped = read_log(os.environ["KAFKA"], os.environ["SOURCE_TOPIC"])
    cells = aggregate(log, float(os.environ.get("LATE_AFTER_S", "5")))
    # Under another name first: a killed batch job leaves nothing that looks like a result.
    cells.write_parquet(f"{output}.part")
    os.replace(f"{output}.part", output)
    seconds = time.monotonic() - started
    print(f"{log.height} events, {dropped} other records, {cells.height} cells, {seconds:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
