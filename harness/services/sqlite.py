"""SQLite: a database file in the run's work folder, for pipelines that count into a table without a server."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.backends.base import Child
from harness.services.base import SinkReading, SinkTap
from harness.topology import Cells, Link, Sqlite, SqliteHop


class SqliteServer:
    """Nothing runs; `names` are paths of database files, which the pipeline itself creates."""

    def __init__(self, service: Sqlite, folder: Path) -> None:
        self.name, self.service = service.name, service
        self._folder = folder / service.name
        # At once and not at `start`: a worker waits for the services that it uses, and SQLite has no address to use.
        self._folder.mkdir(parents=True, exist_ok=True)
        self.direct = self.inside = ""
        self.children: dict[str, Child] = {}

    def start(self, process: str = "") -> None:
        return

    def wait_until_ready(self) -> None:
        return

    def log(self, process: str = "") -> Path:
        return self._folder / "none.log"

    def upstreams(self, link: Link) -> list[str]:
        return []

    def names(self, run: str) -> dict[str, str]:
        return {database: str(self._folder / f"{database}-{run}.sqlite") for database in self.service.databases}

    def make(self, names: Mapping[str, str]) -> None:
        return

    def sweep(self, run: str) -> None:
        self.remove(self.names(run))

    def remove(self, names: Mapping[str, str]) -> None:
        for name in names.values():
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(name + suffix).unlink(missing_ok=True)


def sqlite_tap(hop: SqliteHop, database: str, cells: Sequence[Cells], now: Callable[[], float]) -> SinkTap:
    """Reads the table by the hop's query; a file or table that is not there yet holds nothing."""
    assert hop.cells is not None
    to_cells = hop.cells

    def read() -> SinkReading:
        if not Path(database).exists():
            return SinkReading([], None)
        # Not mode=ro: half a transaction of a killed worker must be rolled back first, which SQLite leaves to writers.
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=10)) as connection:
            try:
                rows = connection.execute(hop.query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return SinkReading([], None)
                raise
        return SinkReading([cell for row in rows for cell in to_cells(row)], None)

    return SinkTap(hop.name, read, cells, now)
