"""Mutant: increments that are repeated blindly.

The bug: deduplication is by a cache of each row's `seen` cells (read when the row is first touched), the count by
AddToCell in the same atomic mutation. That is exact when the worker is killed at any point, and tested so. But a write
whose answer is lost has been done, and its retry adds again: the mutation is atomic, not idempotent.

In the wild: counters by HBase `Increment` or Bigtable `ReadModifyWriteRow` with the client's retries on; Redis INCR
behind a retrying proxy; Summingbird's online half on Memcached. Bigtable's own clients refuse to retry these calls.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import Any

import grpc
from google.cloud.bigtable_admin_v2.types import ColumnFamily, ModifyColumnFamiliesRequest

from pipelines_under_test.kappa import aggregator, rpc
from pipelines_under_test.kappa.aggregator import Update
from pipelines_under_test.kappa.table import seen_entry
from pipelines_under_test.mutants import sums

RawModify: Any = ModifyColumnFamiliesRequest.pb()
MOST_ROWS_CACHED = 100_000

#: Row key -> qualifiers of its `seen` cells. One a process: the runner may have several instances of a DoFn.
_seen: dict[bytes, set[bytes]] = {}
_lock = threading.Lock()


class Increment(aggregator.Write):
    def setup(self) -> None:
        super().setup()
        self.table.connection.insist("add a column family", self.add_family)

    def add_family(self, channel: grpc.Channel) -> None:
        request = RawModify(name=self.settings.table)
        change = request.modifications.add(id=sums.SUM)
        aggregate = ColumnFamily.pb()().value_type.aggregate_type
        aggregate.input_type.int64_type.encoding.big_endian_bytes.SetInParent()
        aggregate.sum.SetInParent()
        change.create.value_type.aggregate_type.CopyFrom(aggregate)
        method = "/google.bigtable.admin.v2.BigtableTableAdmin/ModifyColumnFamilies"
        try:
            channel.unary_unary(method, None, None)(request.SerializeToString(), timeout=rpc.ATTEMPT_S)
        except grpc.RpcError as error:
            if rpc.status_of(error) is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    def count(self, updates: list[Update]) -> None:
        with _lock:
            self.load({key for update in updates for key, _ in update.cells()})
            new: dict[bytes, dict[bytes, tuple[bytes, Update]]] = defaultdict(dict)
            for update in updates:
                for key, (qualifier, value) in update.cells():
                    if qualifier not in _seen[key]:
                        new[key][qualifier] = (value, update)
            self.table.write([increment(key, cells) for key, cells in new.items()])
            for key, cells in new.items():
                _seen[key].update(cells)

    def load(self, keys: set[bytes]) -> None:
        """Reads the `seen` cells of rows that are not in the cache."""
        if len(_seen) > MOST_ROWS_CACHED:
            _seen.clear()
        missing = [key for key in keys if key not in _seen]
        if missing:
            for row in self.table.read_rows(missing, "seen"):
                _seen[row.key] = {qualifier for family, qualifier in row.cells if family == "seen"}
            for key in missing:
                _seen.setdefault(key, set())


def increment(key: bytes, cells: dict[bytes, tuple[bytes, Update]]) -> Any:
    """One atomic mutation: the `seen` cells, and what they add to the sums."""
    entry = seen_entry(key, [(qualifier, value) for qualifier, (value, _) in cells.items()])
    totals: dict[bytes, int] = defaultdict(int)
    for _, update in cells.values():
        totals[sums.count_qualifier(update.event.engagement)] += 1
        totals[sums.weight_qualifier(update.event.engagement)] += update.event.weight
    for qualifier, amount in totals.items():
        cell = entry.mutations.add().add_to_cell
        cell.family_name = sums.SUM
        cell.column_qualifier.raw_value = qualifier
        cell.timestamp.raw_timestamp_micros = 0
        cell.input.int_value = amount
    return entry


def main() -> int:
    return aggregator.main(write=Increment)


if __name__ == "__main__":
    from pipelines_under_test.mutants import blind_increment

    sys.exit(blind_increment.main())
