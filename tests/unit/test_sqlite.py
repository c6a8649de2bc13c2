"""The tap of SQLite reads what was committed, whatever a killed worker left beside it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.services.base import SinkResult
from harness.services.sqlite import SqliteServer, sqlite_tap
from harness.topology import Cells, CountedCell, Sqlite, SqliteHop

#: Commits a row, then dies within a transaction so large that SQLite has begun to write it to the file.
KILLED_WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute(f"PRAGMA journal_mode={sys.argv[2]}")
connection.execute("PRAGMA cache_size=2")
connection.execute("CREATE TABLE counts (country TEXT, count INTEGER)")
connection.execute("INSERT INTO counts VALUES ('US', 5)")
connection.commit()
connection.executemany("INSERT INTO counts VALUES (?, 1)", [("JP" * 250,)] * 2000)
os.kill(os.getpid(), 9)
"""
HOP = SqliteHop(
    "counts",
    "sqlite",
    database="shop",
    query="SELECT country, count FROM counts",
    cells=lambda row: [CountedCell("country", (row[0],), 10, 0, row[1], 0)],
)


@pytest.mark.parametrize(("journal", "left"), [("delete", "-journal"), ("wal", "-wal")])
def test_half_a_transaction_of_a_killed_worker_is_not_counted(tmp_path: Path, journal: str, left: str) -> None:
    path = SqliteServer(Sqlite("sqlite", databases=("shop",)), tmp_path).names("1a2b3c4d")["shop"]
    ended = subprocess.run([sys.executable, "-c", KILLED_WRITER, path, journal], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert Path(path + left).exists()  # the transaction is half written, which is what this is about
    tap = sqlite_tap(HOP, path, [Cells("country", ("country",), (10,))], time.time)
    tap.start()
    result = tap.finish()
    assert isinstance(result, SinkResult)
    assert result.certified, result.reason
    assert result.frame.select("key", "count").rows() == [("US", 5)]


def test_the_databases_have_a_folder_before_any_worker_starts_and_leave_nothing(tmp_path: Path) -> None:
    server = SqliteServer(Sqlite("sqlite", databases=("shop",)), tmp_path)
    names = server.names("1a2b3c4d")
    path = Path(names["shop"])
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").touch()  # the folder is there
    server.remove(names)
    assert list(path.parent.iterdir()) == []
