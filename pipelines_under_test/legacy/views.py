"""What the query service answers from: the Lambda pair of stores, or Kappa's table. Both show the same cells.

`Lambda` merges: a window that the published version of the batch store covers is answered by the batch store alone,
every other by Redis alone; no window is ever taken from both, and none from neither. The version says in itself up to
which window ends it covers, so the question cannot be answered by one version and the border taken from another.

Which windows that is follows, when all is quiet, from the source topic alone: the batch job has published whatever its
closed log partitions make ready, and log partitions are closed by records and not by a clock (see `landing.py`). So the
windows that end in the last log partitions, or `$LATE_AFTER_S` before them, are the speed layer's for good, with what it
lost; those before are the batch job's, without what came late.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import grpc

from pipelines_under_test.kappa import rows, rpc
from pipelines_under_test.kappa.table import RawChunks, RawRead, StoredRow, assemble
from pipelines_under_test.kappa.worker import Fatal
from pipelines_under_test.legacy.cache import Away, Cache
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.store import Store, Unreadable, Version

ZERO = Count(0, 0)


class Unavailable(Exception):
    """There is no answer now; the message says why."""


class View(Protocol):
    """Every method raises Unavailable."""

    def cells(self) -> Iterable[tuple[Cell, Count]]:
        """Every cell that anything was counted in, each once."""
        ...

    def cell(self, cell: Cell) -> Count:
        """One cell; zero if nothing was counted in it."""
        ...

    def sightings(self) -> Iterable[tuple[str, float]]:
        """Event ids, each with the time at which it was counted, in epoch ms by the store's clock."""
        ...

    def state(self) -> dict[str, object]:
        """From what it answers now."""
        ...


class Lambda:
    def __init__(self, store: Store, cache: Cache) -> None:
        self._store, self._cache = store, cache

    def cells(self) -> Iterable[tuple[Cell, Count]]:
        try:
            covered_ms, batch = self._store.ask(lambda version: (version.covers_until_ms, version.cells())) or (0, {})
            return [*batch.items(), *self.from_speed(covered_ms)]
        except (Unreadable, Away) as error:
            raise Unavailable(str(error)) from error

    def from_speed(self, covered_ms: int) -> Iterable[tuple[Cell, Count]]:
        """The cells that Redis answers, when the batch store covers the windows that end until then. Raises Away."""
        return self._cache.cells(after_ms=covered_ms)

    def cell(self, cell: Cell) -> Count:
        def if_covered(version: Version) -> Count | None:
            return version.get(cell) or ZERO if cell.end_ms <= version.covers_until_ms else None

        try:
            found = self._store.ask(if_covered)
            return found if found is not None else self._cache.get(cell) or ZERO
        except (Unreadable, Away) as error:
            raise Unavailable(str(error)) from error

    def sightings(self) -> Iterable[tuple[str, float]]:
        try:
            return list(self._cache.sightings())
        except Away as error:
            raise Unavailable(str(error)) from error

    def state(self) -> dict[str, object]:
        try:
            number, covered_ms = self._store.ask(lambda version: (version.number, version.covers_until_ms)) or (0, 0)
            self._cache.ping()
        except (Unreadable, Away) as error:
            raise Unavailable(str(error)) from error
        return {"backend": "lambda", "version": number, "covers_until_ms": covered_ms}


class Kappa:
    """Reads what the Kappa pipeline wrote; see `kappa.rows` for the form of its rows."""

    def __init__(self, connection: rpc.Connection, table: str) -> None:
        self._connection, self._table = connection, table

    def cells(self) -> Iterable[tuple[Cell, Count]]:
        found: dict[Cell, Count] = {}
        for row in self._read(RawRead(table_name=self._table)):
            for c in rows.cells_of_row(row):
                cell = Cell(c.dimension, f"{c.key}|{c.engagement}", c.window_s, c.window_start_ms)
                before = found.get(cell, ZERO)
                found[cell] = Count(before.events + c.count, before.weight + c.weight)
        return found.items()

    def cell(self, cell: Cell) -> Count:
        name, engagement = cell.key.split("|", 1)
        request = RawRead(table_name=self._table)
        starts = range(cell.window_start_ms, cell.end_ms, rows.ROW_S * 1000)
        request.rows.row_keys.extend(rows.row_key(cell.dimension, name, start_ms) for start_ms in starts)
        totals = [rows.totals_of_row(row).get(engagement, ZERO) for row in self._read(request)]
        return Count(sum(count for count, _ in totals), sum(weight for _, weight in totals))

    def sightings(self) -> Iterable[tuple[str, float]]:
        """Each event has a row in both dimensions; those of the tweet are enough."""
        stored = self._read(RawRead(table_name=self._table))
        return [s for row in stored if rows.parse_key(row.key).dimension == "tweet" for s in rows.sightings_of_row(row)]

    def state(self) -> dict[str, object]:
        self._read(RawRead(table_name=self._table, rows_limit=1))
        return {"backend": "kappa"}

    def _read(self, request: RawRead) -> list[StoredRow]:  # type: ignore[valid-type]
        """Raises Unavailable. Once: who asks a query service would rather hear that it cannot answer than wait."""
        raw = request.SerializeToString()  # type: ignore[attr-defined]

        def attempt(channel: grpc.Channel) -> list[StoredRow]:
            call = channel.unary_stream("/google.bigtable.v2.Bigtable/ReadRows", None, RawChunks.FromString)
            return assemble(call(raw, timeout=rpc.ATTEMPT_S))

        try:
            found = self._connection.try_once("read rows", attempt)
        except Fatal as error:
            raise Unavailable(str(error)) from error
        if found is None:
            raise Unavailable(f"Bigtable at {self._connection.address} does not answer")
        return found
