"""The index: what stands in which folder of the store, in SQLite, so that a page of a thousand runs costs nothing.

It is derived. Nothing is known only here: delete the file, or call `rebuild`, and it is made again from the folders.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.service.entries import Entry, kind_of, read, signature

#: What the service itself keeps, in the store beside the runs.
OWN = ".service"
_VERSION = 1
#: A folder whose files were held against its manifest so lately is not read once more; of so many folders.
CHECKED_S, MOST_CHECKED = 5.0, 200
_TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    name TEXT PRIMARY KEY, kind TEXT, standing TEXT, scenario TEXT, pipeline TEXT, backend TEXT, started TEXT,
    job TEXT, signature TEXT, entry TEXT
);
CREATE INDEX IF NOT EXISTS by_time ON entries (started, name);
CREATE INDEX IF NOT EXISTS by_scenario ON entries (scenario, started);
"""


@dataclass(frozen=True)
class Asked:
    """Which entries are asked for. `text` is looked for in name, scenario, pipeline and seed; "" asks for all."""

    kind: str = ""
    standing: str = ""
    scenario: str = ""
    pipeline: str = ""
    backend: str = ""
    text: str = ""


class Index:
    """Of the folders in `store`. Safe to use from any thread.

    `at_work` as `entries.read` takes it.
    """

    def __init__(
        self,
        store: Path,
        at_work: Callable[[str, str], bool | None] = lambda name, job: None,
    ) -> None:
        self.store, self._at_work = store, at_work
        self._lock, self._refreshing = threading.RLock(), threading.Lock()
        #: name -> signature, when it was read (by the monotonic clock), and what was found
        self._checked: dict[str, tuple[str, float, Entry]] = {}
        self._path = store / OWN / "index.sqlite"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.DatabaseError:
            self._forget()
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")  # what a power cut spoils is made again
            if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                db.execute("DROP TABLE IF EXISTS entries")
            db.executescript(f"{_TABLE} PRAGMA user_version = {_VERSION};")
            db.execute("SELECT count(entry) FROM entries").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def _forget(self) -> None:
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def rebuild(self) -> int:
        """Forgets everything and reads every folder again, every file against its manifest; how many there are."""
        with self._refreshing:
            with self._lock:
                self._db.close()
                self._forget()
                self._db = self._connected()
                self._checked.clear()
            self._refresh()
        return self.count(Asked())

    def refresh(self) -> None:
        """Brings the index up to date with the folders."""
        with self._refreshing:
            self._refresh()

    def unread(self) -> int:
        """How many folders the index does not know yet."""
        known = self._known()
        return sum(folder.name not in known for folder in self._folders())

    def _known(self) -> dict[str, tuple[str, str]]:
        with self._lock:
            rows = self._db.execute("SELECT name, signature, standing FROM entries").fetchall()
        return {name: (told, standing) for name, told, standing in rows}

    def _refresh(self) -> None:
        """Reads what has changed without holding up those who ask meanwhile."""
        known, there = self._known(), set()
        for folder in self._folders():
            there.add(folder.name)
            told, standing = known.get(folder.name, ("", ""))
            now = signature(folder)
            if told == now and standing != "running":
                continue
            entry = read(folder, self._at_work)
            if entry is None:
                continue
            self._keep(entry, now)
        with self._lock:
            for name in known.keys() - there:
                self._db.execute("DELETE FROM entries WHERE name = ?", (name,))

    def check(self, name: str) -> Entry | None:
        """Reads one folder again, every file against its manifest, whatever the index knows of it; not once more
        within CHECKED_S."""
        folder = self.folder(name)
        if folder is None:
            return None
        now = signature(folder)
        before = self._checked.get(name)
        if before is not None and before[0] == now and time.monotonic() - before[1] < CHECKED_S:
            return before[2]
        entry = read(folder, self._at_work)
        if entry is None:
            return None
        self._keep(entry, now)
        if entry.judged:
            self._checked = {**dict(list(self._checked.items())[-MOST_CHECKED:]), name: (now, time.monotonic(), entry)}
        return entry

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for path in self.store.iterdir():
                if not path.name.startswith(".") and not path.is_symlink() and path.is_dir() and kind_of(path):
                    yield path

    def _keep(self, entry: Entry, told: str) -> None:
        row = (entry.name, entry.kind, entry.standing, entry.scenario, entry.pipeline, entry.backend, entry.started,
               entry.job, told, json.dumps(entry.as_dict()))  # fmt: skip
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    # -- asking ---------------------------------------------------------------------------------------------------

    def folder(self, name: str) -> Path | None:
        """The folder of an entry; None for any other name, whatever it may look like."""
        with self._lock:
            known = self._db.execute("SELECT 1 FROM entries WHERE name = ?", (name,)).fetchone()
        path = self.store / name
        return path if known and path.parent == self.store and path.is_dir() and not path.is_symlink() else None

    def entry(self, name: str) -> Entry | None:
        with self._lock:
            row = self._db.execute("SELECT entry FROM entries WHERE name = ?", (name,)).fetchone()
        return Entry.from_dict(json.loads(row[0])) if row else None

    def of_job(self, job: str) -> Entry | None:
        """The entry of the folder that a job of the service made."""
        with self._lock:
            row = self._db.execute("SELECT entry FROM entries WHERE job = ? ORDER BY started", (job,)).fetchone()
        return Entry.from_dict(json.loads(row[0])) if row else None

    def entries(self, asked: Asked, limit: int = 100, offset: int = 0) -> list[Entry]:
        """The newest first."""
        where, values = _where(asked)
        order = f"SELECT entry FROM entries {where} ORDER BY started DESC, name DESC LIMIT ? OFFSET ?"
        with self._lock:
            rows = self._db.execute(order, (*values, limit, offset)).fetchall()
        return [Entry.from_dict(json.loads(row[0])) for row in rows]

    def names(self, standing: str) -> set[str]:
        with self._lock:
            rows = self._db.execute("SELECT name FROM entries WHERE standing = ?", (standing,)).fetchall()
        return {name for (name,) in rows}

    def count(self, asked: Asked) -> int:
        where, values = _where(asked)
        with self._lock:
            return int(self._db.execute(f"SELECT count(*) FROM entries {where}", values).fetchone()[0])

    def values(self, column: str) -> list[str]:
        """Every value of "kind", "standing", "scenario", "pipeline" or "backend" that there is."""
        if column not in ("kind", "standing", "scenario", "pipeline", "backend"):
            raise ValueError(column)
        with self._lock:
            rows = self._db.execute(f"SELECT DISTINCT {column} FROM entries WHERE {column} != '' ORDER BY 1").fetchall()
        return [row[0] for row in rows]

    def counts(self) -> dict[tuple[str, str], int]:
        """(kind, standing) -> how many."""
        with self._lock:
            rows = self._db.execute("SELECT kind, standing, count(*) FROM entries GROUP BY 1, 2").fetchall()
        return {(kind, standing): count for kind, standing, count in rows}


def _where(asked: Asked) -> tuple[str, list[str]]:
    parts, values = [], []
    for column in ("kind", "standing", "scenario", "pipeline", "backend"):
        if wanted := getattr(asked, column):
            parts.append(f"{column} = ?")
            values.append(wanted)
    if asked.text:
        sought = asked.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        parts.append(
            "(name LIKE ? ESCAPE '\\' OR scenario LIKE ? ESCAPE '\\' OR pipeline LIKE ? ESCAPE '\\'"
            " OR json_extract(entry, '$.seed') = ?)"
        )
        values += [f"%{sought}%"] * 3 + [asked.text]
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values
