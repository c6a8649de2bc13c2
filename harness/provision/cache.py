"""The cache: one folder for each component and version, whole or not there at all.

    $GAUNTLET_CACHE, else $XDG_CACHE_HOME/gauntlet, else ~/.cache/gauntlet
        toxiproxy/2.12.0-linux-amd64/     a component: its files and manifest.json
        toxiproxy.lock                    held while somebody makes it
        staging/toxiproxy-…/              being made; renamed into place when it is whole
        build/                            Go's module and build caches while something is built

A component is made in a staging folder, written to the disk (fsync) and renamed to its place, so a kill at any moment
leaves either the whole component or none. Whoever makes one holds the component's lock (flock: the kernel frees it
with the process); the second one waits and then finds it there. Everything in `staging` whose lock is free is a
leftover and is removed by the next one that takes the lock.

`manifest.json` lists every file with its size, modification time and sha256. On use only sizes and times are compared
(a stat each); where a time differs the checksum decides, so a cache that was copied to another machine is good.
`gauntlet doctor` compares all checksums.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.provision.programs import Progress

MANIFEST = "manifest.json"


def cache_root(env: Mapping[str, str]) -> Path:
    """Where the cache is, by the environment. It need not exist."""
    if env.get("GAUNTLET_CACHE"):
        return Path(env["GAUNTLET_CACHE"]).expanduser().absolute()
    if env.get("XDG_CACHE_HOME"):
        return Path(env["XDG_CACHE_HOME"]).absolute() / "gauntlet"
    return Path(env.get("HOME") or Path.home()).absolute() / ".cache" / "gauntlet"


class Damaged(Exception):
    """A cached component is not what its manifest says; the message names the file and the difference."""


@dataclass(frozen=True)
class Entry:
    """A component in the cache. `origin` says how it was made; `facts` is whatever its maker wanted to keep."""

    folder: Path
    version: str
    origin: str
    made: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What a maker reports of the files that it put into the staging folder."""

    version: str
    origin: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Cache:
    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, component: str, key: str) -> Path:
        return self.root / component / key

    def get(self, component: str, key: str) -> Entry | None:
        """The component, if it is there and its files look untouched. None if it is not there. Raises Damaged."""
        return self._read(component, key, every_checksum=False)

    def verify(self, component: str, key: str) -> Entry | None:
        """As `get`, but compares every file's checksum."""
        return self._read(component, key, every_checksum=True)

    def make(
        self,
        component: str,
        key: str,
        maker: Callable[[Path], Made],
        progress: Progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Entry:
        """The component, made by `maker` if it is not there or damaged.

        `maker` gets an empty folder and fills it; only once it has returned does the component exist. Raises whatever
        `maker` raises, and OSError where the cache cannot be written.
        """
        with self.lock(component, progress, cancelled):
            self._sweep(component)
            try:
                entry = self.get(component, key)
            except Damaged as damage:
                progress(component, f"the cached {component} is damaged ({damage}); making it anew", None)
                shutil.rmtree(self.folder(component, key), ignore_errors=True)
                entry = None
            if entry is not None:
                return entry  # somebody else made it while we waited for the lock
            staging = self.root / "staging" / f"{component}-{os.getpid()}-{time.monotonic_ns()}"
            staging.mkdir(parents=True)
            try:
                made = maker(staging)
                _write_manifest(staging, component, made)
                _sync_tree(staging)
                target = self.folder(component, key)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(staging, target)
                _sync(target.parent)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        entry = self.get(component, key)
        assert entry is not None
        return entry

    @contextlib.contextmanager
    def lock(self, name: str, progress: Progress, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Holds this lock among all processes and threads that use this cache. Waits as long as it takes."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / f"{name}.lock"
        with open(path, "a+") as file:
            told = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancelled():
                        raise InterruptedError(f"waiting for the lock of {name} was cancelled") from None
                    if not told:
                        file.seek(0)
                        holder = file.read().strip() or "another process"
                        progress(name, f"process {holder} is making it already: waiting for it", None)
                        told = True
                    time.sleep(0.1)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield  # closing the file frees the lock

    def _read(self, component: str, key: str, every_checksum: bool) -> Entry | None:
        folder = self.folder(component, key)
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            files, version = manifest["files"], manifest["version"]
        except FileNotFoundError:
            if folder.exists():
                raise Damaged(f"{folder / MANIFEST} is missing") from None
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{folder / MANIFEST} cannot be read: {error}") from error
        for name, stored in files.items():
            path = folder / name
            try:
                stat = os.stat(path)
            except OSError as error:
                raise Damaged(f"{path}: {error.strerror}") from error
            if stat.st_size != stored["bytes"]:
                raise Damaged(f"{path} has {stat.st_size} bytes, not {stored['bytes']}")
            suspicious = stat.st_mtime_ns != stored["mtime_ns"]
            if (every_checksum or suspicious) and sha256_of(path) != stored["sha256"]:
                raise Damaged(f"{path} has another checksum than when it was made")
        return Entry(folder, version, manifest["origin"], manifest["made"], manifest.get("facts", {}))

    def _sweep(self, component: str) -> None:
        """Removes what an interrupted maker left behind. The lock is ours, so nobody is at work on this component."""
        for leftover in (self.root / "staging").glob(f"{component}-*"):
            if leftover.name.removeprefix(f"{component}-").replace("-", "").isdigit():
                shutil.rmtree(leftover, ignore_errors=True)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, component: str, made: Made) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stat = path.stat()
        name = str(path.relative_to(folder))
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_of(path)}
    manifest = {
        "component": component,
        "version": made.version,
        "origin": made.origin,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "facts": dict(made.facts),
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
