"""The run folder as files: where everything stands, how it is written, sealed, and checked against its manifest.

A folder of its own for each run; `manifest.json` is written last and at once, with the length and SHA-256 of every file
on which a verdict depends. No manifest: the run never came to its end. Any difference from it: the folder is damaged.
`docs/run-folder.md` describes the files; `store.SavedRun` reads what is in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import HarnessFault
from harness.ledger import ledgers, ledgers_among
from harness.topology import UsageError

#: Version of the run folder's layout, as `run.json` states it.
FORMAT = 1
#: Names the job of `gauntlet serve` that made a folder; the job is told to the command by the variable `JOB_VARIABLE`.
JOB, JOB_VARIABLE = "job.txt", "GAUNTLET_JOB"


class UnfinishedRun(Exception):
    """The folder has no manifest: the run was stopped before its end. Exit status 3."""


class DamagedRun(HarnessFault):
    """A file of the folder is not what the manifest says, or cannot be read. Exit status 4. Names the file."""


@contextlib.contextmanager
def under_way(folder: Path, kind: str) -> Iterator[None]:
    """While this lasts, nobody else goes on with the soak or the comparison (`kind`) in a folder; the kernel ends it with the
    process. Raises UsageError where somebody does already."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"The {kind} in {folder} is under way already, in another process.") from error
        yield
    finally:
        os.close(descriptor)


class RunFolder:
    """Where one run writes. All paths are properties, so that nobody spells a file name twice."""

    def __init__(self, path: Path, tag: str = "", started: datetime | None = None) -> None:
        self.path = Path(path)
        self.tag = tag
        self.started = started or datetime.now(UTC)

    @classmethod
    def create(cls, out: Path, scenario: str, tag: str | None = None) -> RunFolder:
        """Makes `<out>/<UTC time>-<scenario>-<run tag>`; a name that is taken gets another tag, never another's folder.

        `tag`: eight hexadecimal digits, random unless given (then a taken name is an error).
        """
        made = cls(*new_folder(out, scenario, tag))
        (made.path / "hops").mkdir()
        (made.path / "logs").mkdir()
        return made

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.bin"

    @property
    def warmup_ledger(self) -> Path:
        return self.path / "warmup.bin"

    @property
    def batch(self) -> Path:
        return self.path / "batch.parquet"

    @property
    def warehouse_folder(self) -> Path:
        return self.path / "warehouse"

    @property
    def links(self) -> Path:
        return self.path / "links.parquet"

    @property
    def progress(self) -> Path:
        return self.path / "progress.parquet"

    @property
    def work(self) -> Path:
        return self.path / "work.parquet"

    @property
    def commits(self) -> Path:
        return self.path / "commits.parquet"

    @property
    def attribution(self) -> Path:
        return self.path / "attribution.parquet"

    @property
    def verdict(self) -> Path:
        return self.path / "verdict.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def junit(self) -> Path:
        return self.path / "junit.xml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def load_log(self) -> Path:
        return self.logs / "load.log"

    def hop(self, name: str) -> Path:
        return self.path / "hops" / f"{name}.parquet"

    def sightings(self, sink: str) -> Path:
        return self.path / "hops" / f"{sink}.seen.parquet"

    def appearances(self, sink: str) -> Path:
        return self.path / "hops" / f"{sink}.appeared.parquet"

    def before(self, sink: str) -> Path:
        """What a sink held before the run, where the pipeline was at work already."""
        return self.path / "hops" / f"{sink}.before.parquet"

    def warehouse(self, name: str) -> Path:
        """What the warehouse answered at the end: "duplicates" or "parity"."""
        return self.warehouse_folder / f"{name}.parquet"

    def worker_log(self, name: str) -> Path:
        """The log of a worker's process, or of a service."""
        return self.logs / f"{name}.log"

    def write_json(self, name: str, obj: object) -> Path:
        """Writes a JSON file that is either the old one or the whole new one, also after a power cut."""
        return write_json(self.path / name, obj)

    def sealed_files(self) -> list[Path]:
        """The files on which a verdict depends, and which the manifest therefore covers."""
        return _evidence_files(self.path)

    def seal(self) -> None:
        """Writes the manifest: from here on the folder is a finished run. Nothing it covers may change afterwards."""
        for path in (self.run_json, self.history, *(ledgers(self.ledger) or [self.ledger])):
            if not path.is_file():
                raise HarnessFault(f"{self.path}: cannot be sealed, {path.name} was never written.")
        write_manifest(self.path, self.sealed_files())


def new_folder(out: Path, scenario: str, tag: str | None = None) -> tuple[Path, str, datetime]:
    """Makes `<out>/<UTC time>-<scenario>-<tag>`: its path, tag and time. See `RunFolder.create`."""
    if tag is not None and not re.fullmatch(r"[0-9a-f]{8}", tag):
        raise ValueError(f"a run tag is eight hexadecimal digits, not {tag!r}")
    started = datetime.now(UTC)
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", scenario).strip("-.") or "run"
    Path(out).mkdir(parents=True, exist_ok=True)
    while True:
        name = tag or secrets.token_hex(4)
        path = Path(out) / f"{started:%Y%m%dT%H%M%SZ}-{plain}-{name}"
        try:
            path.mkdir()
        except FileExistsError:
            if tag is not None:
                raise
            continue
        if job := os.environ.get(JOB_VARIABLE):
            (path / JOB).write_text(f"{job}\n")
        return path, name, started


def write_json(target: Path, obj: object) -> Path:
    """Writes a JSON file that is either the old one or the whole new one, also after a power cut."""
    write_whole(target, (json.dumps(obj, indent=2, default=_plain) + "\n").encode())
    return target


def write_manifest(folder: Path, paths: Iterable[Path]) -> None:
    """Writes size and sum of these files of a folder, which may not change afterwards."""
    files = {}
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    write_json(folder / "manifest.json", {"format": FORMAT, "files": files})


def _evidence_files(folder: Path) -> list[Path]:
    found = [folder / "run.json", folder / "history.jsonl"]
    for pattern in ("*.bin", "*.parquet", "hops/*.parquet", "warehouse/*.parquet"):
        found += sorted(folder.glob(pattern))
    return [path for path in found if path.is_file()]


def write_whole(target: Path, data: bytes) -> None:
    """A file with exactly this content, or, should the machine or the process end, as it was before."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: object) -> object:
    """What JSON does not know: numpy's numbers, paths, sets, frozen values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def must_be_folder(path: Path) -> None:
    if not path.is_dir():
        raise UsageError(f"There is no run folder {str(path)!r}.")


def read_json(path: Path) -> dict[str, Any]:
    try:
        obj = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DamagedRun(f"{path}: is missing.") from error
    except ValueError as error:
        raise DamagedRun(f"{path}: is not JSON: {error}") from error
    if not isinstance(obj, dict):
        raise DamagedRun(f"{path}: is not a JSON object.")
    return obj


def check_manifest(folder: Path) -> None:
    """Compares every file with the manifest: first names and lengths, which cost nothing, then the contents."""
    path = folder / "manifest.json"
    files = _files_in(path)
    for name in ("run.json", "history.jsonl", "ledger.bin"):
        if not (ledgers_among(files, name) if name == "ledger.bin" else name in files):
            raise DamagedRun(f"{path}: does not list {name}, without which nothing can be judged.")
    _check_sizes(path, files)
    for target in _evidence_files(folder):
        if target.relative_to(folder).as_posix() not in files:
            raise DamagedRun(f"{target}: is not listed in the manifest; it was added after the run.")
    _check_contents(path, files)


def check_listed(folder: Path, *needed: str) -> None:
    """Compares what the manifest of a folder lists with what is there; `needed` must be listed. As `check_manifest`."""
    path = folder / "manifest.json"
    files = _files_in(path)
    for name in needed:
        if name not in files:
            raise DamagedRun(f"{path}: does not list {name}, without which nothing can be judged.")
    _check_sizes(path, files)
    _check_contents(path, files)


def _files_in(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UnfinishedRun(
            f"{path.parent}: this run was never finished (there is no manifest.json), so it has no verdict. "
            "Its logs and history can still be read."
        )
    files = read_json(path).get("files")
    if not isinstance(files, dict):
        raise DamagedRun(f"{path}: does not list the run's files.")
    return files


def _check_sizes(path: Path, files: Mapping[str, Any]) -> None:
    for name, size, _digest in _listed(path, files):
        target = path.parent / name
        if not target.is_file():
            raise DamagedRun(f"{target}: is missing; the manifest lists it with {size} bytes.")
        actual = target.stat().st_size
        if actual != size:
            raise DamagedRun(f"{target}: has {actual} bytes; the manifest says {size}.")


def _check_contents(path: Path, files: Mapping[str, Any]) -> None:
    for name, _size, digest in _listed(path, files):
        actual_digest = _sha256(path.parent / name)
        if actual_digest != digest:
            raise DamagedRun(
                f"{path.parent / name}: its content has changed (SHA-256 {actual_digest[:12]}…; "
                f"the manifest says {digest[:12]}…)."
            )


def _listed(path: Path, files: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    for name, entry in files.items():
        try:
            size, digest = int(entry["bytes"]), str(entry["sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRun(f"{path}: says nothing usable about {name}.") from error
        if name.startswith("/") or ".." in name.split("/"):
            raise DamagedRun(f"{path}: names a file outside the run folder: {name}.")
        yield name, size, digest
