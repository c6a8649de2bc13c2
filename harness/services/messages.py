"""Messages as a tap sees them, kept by the column; shared by the taps of Kafka and Pub/Sub.

A tap shares the machine with the pipeline that it watches, so it does at once only what the run needs to know (whose
message it is), by the batch; what the messages carry is read in the quiet at a run's end, when the pipeline has nothing left
to do (`hurry`), or as soon as `MOST_UNREAD` messages wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.topology import CONTENT_FIELDS, Content, EventId

#: So many messages may wait for their content to be read, of so many bytes in all.
MOST_UNREAD, MOST_UNREAD_BYTES = 200_000, 64 << 20
#: And so many are read at a time by a tap that has nothing else to do: about 50 ms.
READ_AT_ONCE = 10_000
#: Bytes that are kept of a message without a readable id.
RAW_BYTES = 200

#: Events of a page of an `EventSet`: small, so that ids which were garbled into sequences far and wide stay cheap.
_PAGE_BITS = 10


class EventSet:
    """A set of events by producer and sequence: a byte for each event of every page that holds any."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], NDArray[np.bool_]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, producer: NDArray[np.int32], sequence: NDArray[np.int64]) -> None:
        for one in np.unique(producer).tolist():
            of_one = sequence[producer == one]
            page = of_one >> _PAGE_BITS
            for number in np.unique(page).tolist():
                held = self._pages.setdefault((one, number), np.zeros(1 << _PAGE_BITS, dtype=bool))
                before = np.count_nonzero(held)
                held[of_one[page == number] & ((1 << _PAGE_BITS) - 1)] = True
                self._size += int(np.count_nonzero(held) - before)

    def by_producer(self) -> dict[int, NDArray[np.int64]]:
        """The sequences of each producer, ascending."""
        found: dict[int, list[NDArray[np.int64]]] = {}
        for (producer, number), held in sorted(self._pages.items()):
            found.setdefault(producer, []).append(np.flatnonzero(held) + (number << _PAGE_BITS))
        return {producer: np.concatenate(parts) for producer, parts in found.items()}


@dataclass(frozen=True)
class _Unread:
    """A batch whose content is still to be read."""

    values: Sequence[bytes]
    attributes: Sequence[Mapping[str, str]]
    bytes: int


class MessageLog:
    """One row a message: the columns of docs/run-folder.md. One thread adds; any may ask."""

    def __init__(self, run: str, event_id: EventId, content: Content | None, keys: Mapping[str, Any]) -> None:
        """`keys`: the columns by which a message is known, and their types."""
        self._run, self._event_id, self._content, self._keys = run, event_id, content, dict(keys)
        self._rows: list[pl.DataFrame] = []
        self._contents: list[pl.DataFrame] = []
        self._unread: deque[_Unread] = deque()
        self._waiting = self._waiting_bytes = 0
        self._load, self._warmup = EventSet(), EventSet()
        self._strange: bytes | None = None
        self._count = self._unreadable = 0
        self._error = ""
        self._moved = time.monotonic()
        self._hurried = False
        self._lock = threading.Lock()

    def add(
        self,
        keys: Sequence[Sequence[Any]],
        values: Sequence[bytes],
        attributes: Sequence[Mapping[str, str]],
        created_ms: Sequence[int],
        seen_ms: float,
    ) -> None:
        """A batch of messages; `keys`: a sequence for each column of the constructor's `keys`."""
        if not values:
            return
        producer, sequence, error = self._ids(values, attributes)
        unreadable = np.flatnonzero(producer < 0)
        raw: list[bytes | None] = [None] * len(values)
        for i in unreadable.tolist():
            raw[i] = values[i][:RAW_BYTES]
        rows = pl.DataFrame(
            {
                **{
                    name: pl.Series(name, column, dtype=kind)
                    for (name, kind), column in zip(self._keys.items(), keys, strict=True)
                },
                "created_ms": pl.Series("created_ms", created_ms, dtype=pl.Int64),
                "seen_ms": np.full(len(values), seen_ms, dtype=np.float64),
                "producer": producer,
                "sequence": sequence,
                "raw": pl.Series("raw", raw, dtype=pl.Binary),
            }
        )
        with self._lock:
            self._rows.append(rows)
            if self._content is not None:
                size = sum(map(len, values))
                self._unread.append(_Unread(values, attributes, size))
                self._waiting, self._waiting_bytes = self._waiting + len(values), self._waiting_bytes + size
            if len(unreadable):
                self._unreadable += len(unreadable)
                self._strange = self._strange or values[unreadable[0]]
                self._error = error or self._error
            warm = producer == 0
            self._count += int(np.count_nonzero(~warm))
            self._warmup.add(producer[warm], sequence[warm])
            self._load.add(producer[~warm], sequence[~warm])
            self._moved = time.monotonic()
        while self._waiting > MOST_UNREAD or self._waiting_bytes > MOST_UNREAD_BYTES:
            self.read_on()

    def _ids(
        self, values: Sequence[bytes], attributes: Sequence[Mapping[str, str]]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], str]:
        """(producer and sequence of each message, -1 where it shows no id of this run; the last error of `event_id`)"""
        from load.events import parse_event_ids

        texts: list[str | None] = []
        error = ""
        event_id = self._event_id
        for value, attribute in zip(values, attributes, strict=True):
            try:
                text = event_id(value, attribute)
                if text and not isinstance(text, str):
                    raise TypeError(f"it returned {text!r}, which is no text")
            except Exception as e:  # a declaration that raises on garbage still must not stop the tap
                text, error = None, repr(e)
            texts.append(text)
        producer, sequence = parse_event_ids(texts, self._run)
        return producer, sequence, error

    def hurry(self) -> None:
        """From now on the content is read whenever nothing comes: nobody else needs the processor."""
        self._hurried = True

    def idle(self) -> None:
        """Call it whenever nothing came."""
        if self._hurried:
            self.read_on()

    def read_on(self, most: int = READ_AT_ONCE) -> bool:
        """Reads the content of some of the messages that wait for it, the oldest first; False if none waits."""
        with self._lock:
            batches: list[_Unread] = []
            taken = 0
            for batch in self._unread:
                if taken >= most:
                    break
                batches.append(batch)
                taken += len(batch.values)
        if not batches:
            return False
        assert self._content is not None
        fields: list[Mapping[str, Any] | None] = []
        shown: object
        content = self._content
        for batch in batches:
            for value, attribute in zip(batch.values, batch.attributes, strict=True):
                try:
                    shown = content(value, attribute)
                except Exception:
                    shown = None
                fields.append(shown if type(shown) is dict or isinstance(shown, Mapping) else None)
        frame = pl.DataFrame(
            [
                *(_content_column(name, kind, fields) for name, kind in CONTENT_FIELDS.items()),
                pl.Series("content_read", [f is not None for f in fields], dtype=pl.Boolean),
            ]
        )
        with self._lock:
            # Only now, so that what could not be read is still there: a row without its content would shift all others.
            self._contents.append(frame)
            for _ in batches:
                self._waiting_bytes -= self._unread.popleft().bytes
            self._waiting -= len(fields)
        return True

    def count(self) -> int:
        """Messages of load (not of the warm-up) that were seen so far."""
        return self._count

    def warm(self) -> bool:
        return len(self._warmup) > 0

    def distinct(self) -> int:
        """Distinct events of load seen so far; all unreadable ids count as one."""
        return len(self._load)

    def last_moved(self) -> float:
        return self._moved

    def trouble(self) -> str:
        with self._lock:
            if not self._unreadable:
                return ""
            return (
                f"{self._unreadable} messages came, of which `event_id` shows no id of this run, such as "
                f"{(self._strange or b'')[:RAW_BYTES]!r}{f' ({self._error})' if self._error else ''}."
            )

    def events_by_producer(self) -> dict[int, NDArray[np.int64]]:
        """Sequences of the distinct events seen so far (-1: ids that could not be read)."""
        with self._lock:
            return self._load.by_producer() | self._warmup.by_producer()

    def frame(self) -> pl.DataFrame:
        """All rows, once nothing is added any more."""
        while self.read_on():
            pass
        with self._lock:
            rows = pl.concat(self._rows) if self._rows else self._empty()
            if self._content is None:
                return rows
            contents = pl.concat(self._contents) if self._contents else _NO_CONTENT
            return pl.concat([rows, contents], how="horizontal")

    def _empty(self) -> pl.DataFrame:
        columns = {"created_ms": pl.Int64, "seen_ms": pl.Float64, "producer": pl.Int32, "sequence": pl.Int64}
        return pl.DataFrame(schema={**self._keys, **columns, "raw": pl.Binary})


_POLARS = {int: pl.Int64, str: pl.String}
_NO_CONTENT = pl.DataFrame(schema={**{n: _POLARS[k] for n, k in CONTENT_FIELDS.items()}, "content_read": pl.Boolean})


def _content_column(name: str, kind: type, fields: Sequence[Mapping[str, Any] | None]) -> pl.Series:
    """A content field by column. A value of the wrong type is shown as missing, which `content` then finds."""
    values = [None if f is None else f.get(name) for f in fields]
    if not set(map(type, values)) <= {kind, type(None)}:
        values = [v if type(v) is kind else None for v in values]
    if kind is int:
        try:
            return pl.Series(name, values, dtype=pl.Int64)
        except (OverflowError, TypeError, pl.exceptions.PolarsError):
            values = [v if v is not None and -(2**63) <= v < 2**63 else None for v in values]
    return pl.Series(name, values, dtype=_POLARS[kind])
