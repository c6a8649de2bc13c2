"""Worker 2: priced -> a table in SQLite: orders and revenue per country and channel, in windows of 30 s. No framework.

KAFKA PRICED GROUP DATABASE

Twice a second, what was read is counted in one transaction; then its offsets are committed. A kill in between makes
Kafka deliver it again; the table `seen`, written in the same transaction, makes each order count once.

With --commit-first it commits what it has read instead of what it has counted: a planted bug, for the tests to catch.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from clients import commit, consumer, read_all_partitions

WINDOW_S = 30
COUNT_EVERY_S = 0.5

TABLES = """
CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sales (
    country TEXT, channel TEXT, window_start INTEGER, orders INTEGER, cents INTEGER,
    PRIMARY KEY (country, channel, window_start)
);
"""
COUNT = """
INSERT INTO sales VALUES (:country, :channel, :window_start, 1, :cents)
ON CONFLICT DO UPDATE SET orders = orders + 1, cents = cents + excluded.cents
"""


def count(database: sqlite3.Connection, records: Iterable[bytes]) -> None:
    """Counts each order that was not counted before; all of it or nothing."""
    with database:
        for record in map(json.loads, records):
            order, shop = record["order"], record["shop"]
            if database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [order["id"]]).rowcount:
                database.execute(COUNT, {**shop, "window_start": window_of(order["placed"]), "cents": record["cents"]})


def window_of(placed: str) -> int:
    """Start of the window of event time, in epoch seconds."""
    return int(datetime.fromisoformat(placed).timestamp()) // WINDOW_S * WINDOW_S


def main(commit_first: bool) -> None:
    database = sqlite3.connect(os.environ["DATABASE"], timeout=10)
    database.executescript(TABLES)
    topic = os.environ["PRICED"]
    reader = consumer(os.environ["KAFKA"], os.environ["GROUP"])
    read_all_partitions(reader, topic)
    read: list[Any] = []
    due = time.monotonic()
    while True:
        read += [record for record in reader.consume(500, timeout=0.05) if not record.error()]
        if commit_first:
            commit(reader, topic, places(read))
        if read and time.monotonic() >= due:
            count(database, [record.value() for record in read])
            commit(reader, topic, places(read))
            read, due = [], time.monotonic() + COUNT_EVERY_S


def places(records: Iterable[Any]) -> dict[int, int]:
    """The last offset of each partition; records of one come in order."""
    return {record.partition(): record.offset() for record in records}


if __name__ == "__main__":
    main("--commit-first" in sys.argv[1:])
