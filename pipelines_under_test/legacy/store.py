"""The batch store: versions of the batch job's counts, published as a whole, on several replicas. Manhattan's role.

    <replica>/v<number>/    a RocksDB with one table file, never written to again
    <replica>/CURRENT       the number of the version that is served
    <replica>/.tmp-v<number>/   what is being built

A version holds every cell that the batch job ever counted, and says in itself up to which time it covers the windows:
one cannot be had without the other. It is built aside, forced to disk, renamed, and only then is CURRENT replaced, by
a rename too; so a kill at any instant leaves either the old version or the new one. Each replica gets its own copy. A
replica that is missing, damaged or behind is passed over by readers and made whole by the next `publish` or `heal`.

    window in s, 10 digits | window start in s, 10 digits | dimension | key   ->   count | weight
    00 (sorts first)   ->   {"version", "covers_until_ms", "cells"}

RocksDB's iterator in `rocksdict` ends early and in silence at a damaged block (a look-up raises); hence the number of
cells, against which every scan is checked.

Where this differs: Manhattan is a distributed service with several engines; its read-only one (seadb) took whole data
sets from Hadoop as here, in versions that were switched atomically. Here a replica is a folder, and there is no server:
who reads opens the folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rocksdict import AccessType, Options, Rdict, SstFileWriter

from pipelines_under_test.legacy.cells import Cell, Count

META = b"\x00"
#: Beside the version that is served, for readers that are about to open it.
VERSIONS_KEPT = 2

Answer = TypeVar("Answer")


class Unreadable(Exception):
    """No replica has a version that can be read, though one has been published."""


class Damaged(Exception):
    """A version of one replica cannot be read."""


@dataclass(frozen=True)
class Contents:
    """A whole version in memory: its cells as they are stored, and the last moment at which a window ends in it."""

    number: int
    covers_until_ms: int
    items: Mapping[bytes, bytes]


NOTHING = Contents(0, 0, {})


class Version:
    """One version on one replica, opened for reading; threads may share it. Raises Damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._db: Any = Rdict(str(folder), Options(raw_mode=True), access_type=AccessType.read_only())
            meta = json.loads(self._db[META] or b"")
            self.number, self.covers_until_ms = int(meta["version"]), int(meta["covers_until_ms"])
            self._cells = int(meta["cells"])
        except Exception as error:  # the binding raises plain Exception
            raise Damaged(f"{folder}: {error}") from error

    def cells(self) -> dict[Cell, Count]:
        """Every cell. Raises Damaged."""
        return {_cell(key): _count(value) for key, value in self.items().items()}

    def get(self, cell: Cell) -> Count | None:
        """One cell. Raises Damaged."""
        try:
            value = self._db.get(_key(cell))
        except Exception as error:
            raise Damaged(f"{self.folder}: {error}") from error
        return None if value is None else _count(value)

    def items(self) -> dict[bytes, bytes]:
        """Every cell as it is stored. Raises Damaged."""
        try:
            found = {key: value for key, value in self._db.items() if key != META}
        except Exception as error:
            raise Damaged(f"{self.folder}: {error}") from error
        if len(found) != self._cells:
            raise Damaged(f"{self.folder}: {len(found)} of {self._cells} cells can be read")
        return found


class Store:
    """All replicas. One process publishes; any number read."""

    def __init__(self, replicas: Sequence[Path], log: logging.Logger) -> None:
        self.replicas, self._log = replicas, log
        self._opened: dict[Path, Version] = {}

    @classmethod
    def at(cls, folders: str, log: logging.Logger) -> Store:
        """The store whose replicas are these folders, separated by commas."""
        return cls([Path(folder) for folder in folders.split(",") if folder], log)

    # -- reading

    def ask(self, question: Callable[[Version], Answer]) -> Answer | None:
        """What the newest version that can be read answers; None before the first is published. Raises Unreadable."""
        reasons = []
        for replica in sorted(self.replicas, key=_current, reverse=True):
            if (number := _current(replica)) == NEVER:
                continue
            try:
                return question(self._version(replica, number))
            except Damaged as damage:
                self._log.warning("passed over: %s", damage)
                self._opened.pop(replica, None)
                reasons.append(str(damage))
        if reasons:
            raise Unreadable("; ".join(reasons))
        return None

    def _version(self, replica: Path, number: int) -> Version:
        opened = self._opened.get(replica)
        if opened is None or opened.folder != _folder(replica, number) or not opened.folder.exists():
            self._opened[replica] = opened = Version(_folder(replica, number))
        return opened

    # -- publishing

    def newest(self) -> Contents:
        """The newest version that can be read as a whole; NOTHING before the first. Raises Unreadable."""
        return self.ask(lambda v: Contents(v.number, v.covers_until_ms, v.items())) or NOTHING

    def publish(self, base: Contents, cells: Mapping[Cell, Count], covers_until_ms: int) -> int:
        """Publishes a version with these cells beside all those of `base`, and returns its number.

        Done when at least one replica has it. Raises OSError when no replica can be written to.
        """
        number = 1 + max((n for replica in self.replicas for n in _numbers(replica)), default=0)
        items = {**base.items, **{_key(cell): _value(count) for cell, count in cells.items()}}
        self._replicate(self.replicas, Contents(number, covers_until_ms, items))
        return number

    def heal(self) -> None:
        """Gives the newest version to the replicas that are behind, or have none that can be read. Raises as the others
        do."""
        newest = self.newest()
        behind = [replica for replica in self.replicas if not self._readable(replica, newest.number)]
        if newest is not NOTHING and behind:
            self._replicate(behind, newest)

    def _readable(self, replica: Path, number: int) -> bool:
        try:
            return _current(replica) == number and len(Version(_folder(replica, number)).items()) >= 0
        except Damaged:
            return False

    def _replicate(self, replicas: Sequence[Path], contents: Contents) -> None:
        failed = []
        for replica in replicas:
            try:
                _write(replica, contents)
                self._log.info("version %d is on %s", contents.number, replica)
            except Exception as error:  # OSError of ours, plain Exception of the binding
                self._log.warning("version %d is not on %s: %s", contents.number, replica, error)
                failed.append(error)
        if len(failed) == len(replicas):
            raise OSError(f"no replica could be written to: {failed[0]}") from failed[0]


# ------------------------------------------------------------------------------------------------- one replica

#: The version of a replica that has none.
NEVER = 0


def _current(replica: Path) -> int:
    """The version that this replica serves, NEVER if none; its folder may be damaged all the same."""
    try:
        return int((replica / "CURRENT").read_text())
    except FileNotFoundError:
        return NEVER
    except (OSError, ValueError):
        return max(_numbers(replica), default=NEVER)  # an unreadable CURRENT: what there is may still do


def _folder(replica: Path, number: int) -> Path:
    return replica / f"v{number}"


def _numbers(replica: Path) -> list[int]:
    """Of all versions that a replica has, or had begun to publish."""
    try:
        return [int(name[1:]) for name in os.listdir(replica) if re.fullmatch(r"v\d+", name)]
    except OSError:
        return []


def _write(replica: Path, contents: Contents) -> None:
    """Builds a version and switches the replica to it."""
    number, items = contents.number, contents.items
    meta = {"version": number, "covers_until_ms": contents.covers_until_ms, "cells": len(items)}
    replica.mkdir(parents=True, exist_ok=True)
    for leftover in replica.glob(".tmp-v*"):
        shutil.rmtree(leftover)
    building, final = replica / f".tmp-v{number}", _folder(replica, number)
    building.mkdir()
    options = Options(raw_mode=True)
    table = building / "cells.sst"
    writer = SstFileWriter(options)
    writer.open(str(table))
    writer[META] = json.dumps(meta).encode()
    for key in sorted(items):
        writer[key] = items[key]
    writer.finish()
    db = Rdict(str(building), options)
    db.ingest_external_file([str(table)])
    db.close()
    table.unlink(missing_ok=True)
    for file in [*building.iterdir(), building]:
        _sync(file)
    if final.exists():  # damaged, or renamed by a publisher that was killed before it switched
        shutil.rmtree(final)
    building.rename(final)
    _sync(replica)
    pointer = replica / ".tmp-CURRENT"
    pointer.write_text(str(number))
    _sync(pointer)
    pointer.replace(replica / "CURRENT")
    _sync(replica)
    for old in sorted(_numbers(replica))[:-VERSIONS_KEPT]:
        shutil.rmtree(_folder(replica, old), ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -------------------------------------------------------------------------------------------------- keys and values


def _key(cell: Cell) -> bytes:
    return f"{cell.window_s:010d}|{cell.window_start_ms // 1000:010d}|{cell.dimension}|{cell.key}".encode()


def _cell(key: bytes) -> Cell:
    window_s, start_s, dimension, name = key.decode().split("|", 3)
    return Cell(dimension, name, int(window_s), int(start_s) * 1000)


def _value(count: Count) -> bytes:
    return f"{count.events}|{count.weight}".encode()


def _count(value: bytes) -> Count:
    return Count(*map(int, value.split(b"|")))
