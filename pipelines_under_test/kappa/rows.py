"""The rows of the table of aggregates: the one place that knows their format.

One row a (dimension, key, 2 s of event time):

    <salt 00-15>#<start of the 2 s, seconds since the epoch, 10 digits>#<dimension>#<key>
                                                  e.g. 07#1790000012#tweet#1234567890123456789
    seen:<engagement>|<uuid>  =  <weight>|<event id>     one cell an event
    agg:<engagement>          =  <count>|<weight>        what compaction made of `seen` cells past the horizon

The count of a cell is the number of distinct `seen` qualifiers, plus what `agg` holds, over the rows of its window. A
row is thus a set that only grows: a replay, another replica, or a timed-out write that lands late adds what is there
already. Nothing is read before it is written, nothing is cached, and an increment, which could not be repeated, does
not exist. Deduplication and count are the same cell, so they cannot disagree.

Both granularities, 10 s and 60 s, are sums over rows. The rows are shorter than either so that the row of a much
loved tweet stays narrow: what a write costs grows with the width of the row (measured on the emulator: 10 µs a cell
up to some hundred cells, 40 µs and more from some thousand).

Cells of `seen` carry the server's own time (timestamp -1 in the request): a repeated write makes a second version of
the same qualifier, which the count does not see, and the *oldest* version says when the event first became durable,
by one clock that is not the worker's. So the family needs a garbage collection rule that keeps all versions, or none.

The salt spreads one moment's writes; time in the key's second place lets compaction scan old rows as 16 ranges.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

SEEN = "seen"
AGG = "agg"
SALTS = 16
#: Event time that one row holds, in seconds; every window is a multiple of it.
ROW_S = 2
WINDOWS_S = (10, 60)

#: Asks the server to put its own time on a cell.
SERVER_TIME = -1


class RowLike(Protocol):
    """A row as read: (family, qualifier) -> [(timestamp in micros, value)]."""

    @property
    def key(self) -> bytes: ...

    @property
    def cells(self) -> Mapping[tuple[str, bytes], Sequence[tuple[int, bytes]]]: ...


class RowKey(NamedTuple):
    salt: int
    start_s: int
    dimension: str
    key: str


@dataclass(frozen=True, slots=True)
class Count:
    """One cell of the aggregates as one row shows it."""

    dimension: str
    key: str
    engagement: str
    window_s: int
    window_start_ms: int
    count: int
    weight: int


class Seen(NamedTuple):
    """One event in one row, and when it first became durable by the server's clock, in ms since the epoch."""

    event_id: str
    seen_ms: float


# ---------------------------------------------------------------------------------------------------- writing


def row_key(dimension: str, key: str, event_time_ms: int) -> bytes:
    name = b"%s#%s" % (dimension.encode(), key.encode())
    start_s = event_time_ms // 1000 // ROW_S * ROW_S
    return b"%02d#%010d#%s" % (zlib.crc32(name) % SALTS, start_s, name)


def seen_qualifier(engagement: str, uuid: str) -> bytes:
    return f"{engagement}|{uuid}".encode()


def seen_value(weight: int, event_id: str) -> bytes:
    return f"{weight}|{event_id}".encode()


def agg_qualifier(engagement: str) -> bytes:
    return engagement.encode()


def agg_value(count: int, weight: int) -> bytes:
    return f"{count}|{weight}".encode()


def agg_timestamp(count: int) -> int:
    """The version of an `agg` cell, in micros: its count, so that an older compaction which lands late never wins."""
    return count * 1000


def first_key(salt: int, start_s: int) -> bytes:
    """The least possible row key of that salt and second: an end for a range of keys."""
    return b"%02d#%010d" % (salt, max(0, start_s))


# ---------------------------------------------------------------------------------------------------- reading


def parse_key(key: bytes) -> RowKey:
    """Raises ValueError for what is no key of this format."""
    salt, start_s, dimension, name = key.split(b"#", 3)
    return RowKey(int(salt), int(start_s), dimension.decode(), name.decode())


def totals_of_row(row: RowLike) -> dict[str, tuple[int, int]]:
    """Engagement -> (count, weight), over `seen` and `agg`."""
    totals: dict[str, tuple[int, int]] = {}
    for (family, qualifier), versions in row.cells.items():
        if not versions:
            continue
        if family == SEEN:
            count, weight = 1, int(versions[0][1].split(b"|", 1)[0])
        elif family == AGG:
            _, newest = max(versions, key=lambda version: version[0])
            count, weight = map(int, newest.split(b"|", 1))
        else:
            continue
        engagement = qualifier.split(b"|", 1)[0].decode()
        before = totals.get(engagement, (0, 0))
        totals[engagement] = (before[0] + count, before[1] + weight)
    return totals


def cells_of_row(row: RowLike) -> Iterator[Count]:
    """What a row adds to the cells of both granularities."""
    _, start_s, dimension, key = parse_key(row.key)
    for engagement, (count, weight) in totals_of_row(row).items():
        for window_s in WINDOWS_S:
            yield Count(dimension, key, engagement, window_s, start_s // window_s * window_s * 1000, count, weight)


def sightings_of_row(row: RowLike) -> Iterator[Seen]:
    """The single events of a row that is not compacted yet. Rows of one dimension are enough: each event has two."""
    for (family, _), versions in row.cells.items():
        if family == SEEN and versions:
            _, event_id = versions[0][1].split(b"|", 1)
            yield Seen(event_id.decode(), min(timestamp for timestamp, _ in versions) / 1000)
