"""Writing to the table of aggregates, until every row is durable.

`MutateRows` answers for each row by itself; rows that failed for a reason that may pass are written again, and rows
that the answer does not mention too. A request whose answer is lost may have arrived, or may arrive later still: the
cells are a set, so neither matters (see `rows.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
from google.cloud.bigtable_v2.types import MutateRowsRequest, MutateRowsResponse, ReadRowsRequest, ReadRowsResponse

from pipelines_under_test.kappa import rows, rpc
from pipelines_under_test.kappa.worker import Fatal

RawMutate, RawMutated = MutateRowsRequest.pb(), MutateRowsResponse.pb()
RawRead, RawChunks = ReadRowsRequest.pb(), ReadRowsResponse.pb()
RawEntry: Any = MutateRowsRequest.Entry.pb()
#: One row's mutations as they go over the wire: a RawEntry. (The classes of protobuf are made at run time.)
Entry = Any

#: Cells of `seen` to add to rows: row key -> [(qualifier, value)].
Cells = Mapping[bytes, Sequence[tuple[bytes, bytes]]]

ROWS_PER_REQUEST = 2000


class Table:
    def __init__(self, address: str, name: str, stop: threading.Event, log: logging.Logger) -> None:
        self.name, self.log = name, log
        self.connection = rpc.Connection(address, stop, log)

    def add_seen(self, cells: Cells, too_late: Callable[[], bool] = lambda: False) -> None:
        """Returns when all of them are durable. Raises Fatal, also when it became too late to write, or Stopped."""
        self.write([seen_entry(key, added) for key, added in cells.items()], too_late)

    def write(self, entries: Sequence[Entry], too_late: Callable[[], bool] = lambda: False) -> None:
        for i in range(0, len(entries), ROWS_PER_REQUEST):
            remaining = list(entries[i : i + ROWS_PER_REQUEST])
            self.connection.insist("write rows", partial(self.attempt, remaining, too_late))

    def attempt(self, remaining: list[Entry], too_late: Callable[[], bool], channel: grpc.Channel) -> None:
        """One request. Takes what became durable out of `remaining`; raises Unfinished when some did not."""
        if too_late():
            raise Fatal("the deduplication horizon overtook a write; its events are redelivered, and then refused")
        request = RawMutate(table_name=self.name, entries=remaining).SerializeToString()
        call = channel.unary_stream("/google.bigtable.v2.Bigtable/MutateRows", None, RawMutated.FromString)
        failed: dict[int, Any] = dict.fromkeys(range(len(remaining)))
        for part in call(request, timeout=rpc.ATTEMPT_S):
            for entry in part.entries:
                if entry.status.code == 0:
                    failed.pop(entry.index, None)
                elif entry.status.code in rpc.TRANSIENT_NUMBERS:
                    failed[entry.index] = entry.status
                else:
                    raise Fatal(f"row {remaining[entry.index].row_key!r} not accepted: {entry.status.message}")
        remaining[:] = [remaining[i] for i in failed]
        if remaining:
            why = next((s.message for s in failed.values() if s is not None), "no answer for them")
            raise rpc.Unfinished(f"{len(remaining)} rows were not written: {why}")

    def read(self, start: bytes, end: bytes, family: str) -> list[StoredRow]:
        """The rows of that range of keys which have cells of that family; all families of them. Raises as `write`."""
        return self.connection.insist("read rows", lambda channel: self._read(channel, start, end, family))

    def read_rows(self, keys: Sequence[bytes], family: str) -> list[StoredRow]:
        """Those of these rows that have cells of that family; no other families of them. Raises as `write`."""
        request = RawRead(table_name=self.name)
        request.rows.row_keys.extend(keys)
        request.filter.family_name_regex_filter = family
        raw = request.SerializeToString()

        def attempt(channel: grpc.Channel) -> list[StoredRow]:
            call = channel.unary_stream("/google.bigtable.v2.Bigtable/ReadRows", None, RawChunks.FromString)
            return assemble(call(raw, timeout=rpc.ATTEMPT_S))

        return self.connection.insist("read rows", attempt)

    def _read(self, channel: grpc.Channel, start: bytes, end: bytes, family: str) -> list[StoredRow]:
        request = RawRead(table_name=self.name)
        request.rows.row_ranges.add(start_key_closed=start, end_key_open=end)
        condition = request.filter.condition
        condition.predicate_filter.family_name_regex_filter = family
        condition.true_filter.pass_all_filter = True
        call = channel.unary_stream("/google.bigtable.v2.Bigtable/ReadRows", None, RawChunks.FromString)
        return assemble(call(request.SerializeToString(), timeout=10 * rpc.ATTEMPT_S))


def seen_entry(key: bytes, cells: Sequence[tuple[bytes, bytes]]) -> Entry:
    entry = RawEntry(row_key=key)
    add = entry.mutations.add
    for qualifier, value in cells:
        cell = add().set_cell
        cell.family_name = rows.SEEN
        cell.column_qualifier = qualifier
        cell.timestamp_micros = rows.SERVER_TIME
        cell.value = value
    return entry


class StoredRow:
    """A row as read, in the shape that `rows.py` wants."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.cells: dict[tuple[str, bytes], list[tuple[int, bytes]]] = {}


def assemble(answers: Any) -> list[StoredRow]:
    """Puts the chunks of ReadRows together again: a row may span answers, a value may span chunks."""
    found: list[StoredRow] = []
    row: StoredRow | None = None
    family, qualifier, timestamp, value = "", b"", 0, b""
    for answer in answers:
        for chunk in answer.chunks:
            if chunk.reset_row:
                row, value = None, b""
                continue
            if row is None:
                row = StoredRow(chunk.row_key)
            if chunk.HasField("family_name"):
                family = chunk.family_name.value
            if chunk.HasField("qualifier"):
                qualifier = chunk.qualifier.value
            if not value:
                timestamp = chunk.timestamp_micros
            value += chunk.value
            if chunk.value_size == 0:
                row.cells.setdefault((family, qualifier), []).append((timestamp, value))
                value = b""
            if chunk.commit_row:
                found.append(row)
                row = None
    return found
