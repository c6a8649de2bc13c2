"""What three mutants share: writing the rows that `totals` reads."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from pipelines_under_test.kappa import aggregator, rows, rpc
from pipelines_under_test.kappa.aggregator import Update
from pipelines_under_test.kappa.table import Entry, RawChunks, RawRead, Table, assemble, seen_entry
from pipelines_under_test.mutants.totals import Held

#: One a process: the runner may have several instances of a DoFn.
_lock = threading.Lock()


class WriteTotals(aggregator.Write):
    def held(self, keys: set[bytes]) -> dict[bytes, Held]:
        """What these rows hold, as far as this worker knows. It is brought up to date by `count`."""
        raise NotImplementedError

    def count(self, updates: list[Update]) -> None:
        with _lock:
            held = self.held({key for update in updates for key, _ in update.cells()})
            new: dict[bytes, dict[bytes, bytes]] = {}
            for update in updates:
                for key, (qualifier, value) in update.cells():
                    row = held[key]
                    if qualifier in row.seen:
                        continue
                    engagement = update.event.engagement
                    count, weight = row.totals.get(engagement, (0, 0))
                    row.totals[engagement] = count + 1, weight + update.event.weight
                    row.seen.add(qualifier)
                    new.setdefault(key, {})[qualifier] = value
            self.table.write([entry(key, cells, held[key]) for key, cells in new.items()])


def entry(key: bytes, cells: dict[bytes, bytes], held: Held) -> Entry:
    """One atomic mutation: new `seen` cells, and the totals with them."""
    made = seen_entry(key, list(cells.items()))
    for engagement in {qualifier.split(b"|", 1)[0].decode() for qualifier in cells}:
        cell = made.mutations.add().set_cell
        cell.family_name = rows.AGG
        cell.column_qualifier = rows.agg_qualifier(engagement)
        cell.timestamp_micros = rows.SERVER_TIME
        cell.value = rows.agg_value(*held.totals[engagement])
    return made


def read(table: Table, keys: set[bytes]) -> dict[bytes, Held]:
    """What these rows hold now. Raises as `Table.read`."""
    request = RawRead(table_name=table.name)
    request.rows.row_keys.extend(keys)
    raw = request.SerializeToString()

    def attempt(channel: grpc.Channel) -> Any:
        call = channel.unary_stream("/google.bigtable.v2.Bigtable/ReadRows", None, RawChunks.FromString)
        return assemble(call(raw, timeout=rpc.ATTEMPT_S))

    found = {row.key: Held.of(row) for row in table.connection.insist("read rows", attempt)}
    return {key: found.get(key) or Held() for key in keys}
