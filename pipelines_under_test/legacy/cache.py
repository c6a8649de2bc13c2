"""The cache of recent counts, in Redis: the role of Nighthawk, Twitter's distributed cache of sharded Redis.

    <prefix>:<window in s>:<start in epoch ms>:<dimension>   hash: "<key>|n" -> count, "<key>|w" -> sum of weights
    <prefix>:seen                                            stream, with $SHOW_EVENTS: ids of events, as counted

Counts are increments, which cannot be repeated safely, and the answer to a transaction may be lost. So what is added is
added at most once: one MULTI/EXEC a batch, sent once, never again; when no answer comes nobody knows whether it was
counted (`Lost`). (redis-py would repeat it three times by itself.) Keys live for `$CACHE_KEEP_S` after the last write.

An entry of the stream has Redis's own time as its id, and is written in the same transaction as the counts: when an
event became visible, by one clock. It is there for whoever measures latency; Nighthawk had nothing of the kind.

Where this differs: Nighthawk sharded keys over many Redis processes behind a proxy and replicated them; this is one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipelines_under_test.legacy.cells import Cell, Count

#: Seconds to connect, and to wait for an answer.
ATTEMPT_S = 3.0
PAUSE_S = 0.1
#: Entries of the stream that are kept, about.
MOST_SEEN = 200_000


class Lost(Exception):
    """A batch of counts was not, or may not have been, added, and will not be tried again."""


class Away(Exception):
    """Redis does not answer."""


class Cache:
    """May be used by several threads; each bolt has one of its own all the same."""

    def __init__(self, address: str, prefix: str, keep_s: int = 86_400, show_events: bool = False) -> None:
        host, port = address.rsplit(":", 1)
        self.prefix, self.keep_s, self.show_events = prefix, keep_s, show_events
        self._redis: Any = redis.Redis(
            host=host,
            port=int(port),
            socket_timeout=ATTEMPT_S,
            socket_connect_timeout=ATTEMPT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    # -- writing

    def add(self, counts: Mapping[Cell, Count], event_ids: Sequence[str]) -> None:
        """Adds these counts, all or none, once. Raises Lost."""
        transaction = self._redis.pipeline(transaction=True)
        names = set()
        for cell, count in counts.items():
            names.add(name := self._name(cell))
            transaction.hincrby(name, f"{cell.key}|n", count.events)
            transaction.hincrby(name, f"{cell.key}|w", count.weight)
        for name in names:
            transaction.expire(name, self.keep_s)
        if self.show_events:
            seen = f"{self.prefix}:seen"
            transaction.xadd(seen, {"ids": ",".join(event_ids)}, maxlen=MOST_SEEN, approximate=True)
            transaction.expire(seen, self.keep_s)
        try:
            transaction.execute()
        except (redis.RedisError, OSError) as error:
            raise Lost(f"{type(error).__name__} {error}") from error

    def wait(self, stop: threading.Event) -> None:
        """Returns when Redis answers, or when asked to stop."""
        while not stop.is_set():
            try:
                self.ping()
                return
            except Away:
                stop.wait(PAUSE_S)

    # -- reading

    def ping(self) -> None:
        """Raises Away."""
        try:
            self._redis.ping()
        except (redis.RedisError, OSError) as error:
            raise Away(f"Redis: {error}") from error

    def cells(self, after_ms: int) -> Iterator[tuple[Cell, Count]]:
        """Every cell of the windows that end after that time. Raises Away."""
        try:
            for name in self._redis.scan_iter(match=f"{self.prefix}:*:*:*", count=1000):
                _, window_s, start_ms, dimension = name.decode().rsplit(":", 3)
                if int(start_ms) + int(window_s) * 1000 > after_ms:
                    yield from _cells(dimension, int(window_s), int(start_ms), self._redis.hgetall(name))
        except (redis.RedisError, OSError) as error:
            raise Away(f"Redis: {error}") from error

    def get(self, cell: Cell) -> Count | None:
        """Raises Away."""
        try:
            count, weight = self._redis.hmget(self._name(cell), f"{cell.key}|n", f"{cell.key}|w")
        except (redis.RedisError, OSError) as error:
            raise Away(f"Redis: {error}") from error
        return None if count is None else Count(int(count), int(weight))

    def sightings(self) -> Iterator[tuple[str, float]]:
        """Event id and when it was counted, in epoch ms by Redis's clock. Raises Away."""
        try:
            for entry, fields in self._redis.xrange(f"{self.prefix}:seen"):
                at_ms = float(entry.split(b"-")[0])
                yield from ((event_id, at_ms) for event_id in fields[b"ids"].decode().split(","))
        except (redis.RedisError, OSError) as error:
            raise Away(f"Redis: {error}") from error

    def _name(self, cell: Cell) -> str:
        return f"{self.prefix}:{cell.window_s}:{cell.window_start_ms}:{cell.dimension}"


def _cells(dimension: str, window_s: int, start_ms: int, fields: Mapping[bytes, bytes]) -> Iterator[tuple[Cell, Count]]:
    for field, value in fields.items():
        if field.endswith(b"|n"):
            weight = int(fields[field[:-1] + b"w"])
            yield Cell(dimension, field[:-2].decode(), window_s, start_ms), Count(int(value), weight)
