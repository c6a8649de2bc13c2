"""The ledger: what load did with each event, written so that a SIGKILL of the load process loses nothing of it.

Every event that load meant to send ends as one of three:

    acked       Kafka said that it has it
    ambiguous   it may have been sent and the outcome is unknown
    failed      it surely was not sent, because it never entered the client's queue

**How it is written.** One os.write for each record, straight to the page cache, which survives the death of the
process. INTENT for a batch is written *before* the batch is handed to the client; when the batch's last delivery
report is in, an ERROR record for each event that was reported as failed, then ACK for the batch as a whole. FAILED is
written for events that the client refused to enqueue. So INTENT over-approximates what was sent (a kill may come
between the record and the call) and ACK under-approximates what was acknowledged (a kill may come between the report
and the record). Two checks against the source log follow, and both differences must be empty: acked minus log
(something acknowledged was lost) and log minus intended (something was sent that load never meant to send).

**What is ambiguous.** Whatever was intended and neither acked nor failed: after a SIGKILL every batch without ACK; and
every ERROR, whichever its code: a delivery that timed out (`_MSG_TIMED_OUT`) may have reached the log all the same.
Only what was never enqueued (`_QUEUE_FULL`, or refused at once) surely failed.

**Format**, version 1, little endian. A header of 32 bytes: magic, version, record size, the run's tag, when the file
was made (epoch microseconds), CRC-32 of the foregoing. Then records of 32 bytes: kind, a zero byte, producer, code,
first sequence, number of events, when (epoch microseconds), CRC-32. A rest shorter than a record at the end is a torn
tail: the process, or the disk, ended in the middle of a write; what it would have said is unknown and so left out,
which is safe because of the order above. Anything else that does not check is damage, and an error.
"""

from __future__ import annotations

import os
import re
import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessFault

INTENT, ACK, ERROR, FAILED = 1, 2, 3, 4
_KINDS = {INTENT: "INTENT", ACK: "ACK", ERROR: "ERROR", FAILED: "FAILED"}

_MAGIC = b"GLEDGER\n"
_VERSION = 1
_HEADER = struct.Struct("<8sHH8sqI")
_RECORD = struct.Struct("<BBHiqIqI")
_CRC = struct.Struct("<I")
_DTYPE = np.dtype(
    [
        ("kind", "u1"),
        ("zero", "u1"),
        ("producer", "<u2"),
        ("code", "<i4"),
        ("lo", "<i8"),
        ("n", "<u4"),
        ("t_us", "<i8"),
        ("crc", "<u4"),
    ]
)
assert _RECORD.size == _HEADER.size == _DTYPE.itemsize == 32

#: Status of an event; of one that was never intended it is 0.
AMBIGUOUS, ACKED, FAILED_TO_SEND = 1, 2, 3


class LedgerDamaged(HarnessFault):
    """A ledger says what no load can have done: bytes that do not check, or records that contradict each other."""


class LedgerWriter:
    """Appends to a ledger file; makes it if there is none. Never yields, so it may be used in a delivery callback.

    A torn tail that an earlier process left is cut off first. One writer a file: give each process its own, and
    read them together. Not safe for threads.
    """

    def __init__(self, path: str | os.PathLike[str], run: str) -> None:
        if not re.fullmatch("[0-9a-f]{8}", run):
            raise ValueError(f"the run's tag must be 8 hex digits, not {run!r}")
        self.path = Path(path)
        self._fd = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._resume(run)
        except BaseException:
            self.close()
            raise

    def _resume(self, run: str) -> None:
        size = os.fstat(self._fd).st_size
        if size < _HEADER.size:  # new, or the process before died within its first write
            os.ftruncate(self._fd, 0)
            head = _HEADER.pack(_MAGIC, _VERSION, _RECORD.size, run.encode(), time.time_ns() // 1000, 0)[:-4]
            self._append(head)
            return
        theirs = _check_header(self.path, os.pread(self._fd, _HEADER.size, 0))
        if theirs != run:
            raise LedgerDamaged(f"{self.path} is the ledger of run {theirs}, not of {run}.")
        os.ftruncate(self._fd, size - (size - _HEADER.size) % _RECORD.size)

    def intent(self, producer: int, lo: int, n: int) -> None:
        """Events lo … lo+n-1 are about to be handed to the client. Call it before that."""
        self._write(INTENT, producer, lo, n, 0)

    def error(self, producer: int, sequence: int, code: int) -> None:
        """The delivery report of this event says that it failed, by librdkafka's code: its outcome is unknown."""
        self._write(ERROR, producer, sequence, 1, code)

    def failed(self, producer: int, lo: int, n: int, code: int) -> None:
        """These events never entered the client's queue."""
        self._write(FAILED, producer, lo, n, code)

    def ack(self, producer: int, lo: int, n: int) -> None:
        """Every event of the batch is settled: acknowledged, but for those that `error` or `failed` named before."""
        self._write(ACK, producer, lo, n, 0)

    def _write(self, kind: int, producer: int, lo: int, n: int, code: int) -> None:
        self._append(_RECORD.pack(kind, 0, producer, code, lo, n, time.time_ns() // 1000, 0)[:-4])

    def _append(self, body: bytes) -> None:
        record = body + _CRC.pack(zlib.crc32(body))
        written = os.write(self._fd, record)
        if written != len(record):  # only a full disk does this; what follows would not be aligned
            raise HarnessFault(f"{self.path}: {written} of {len(record)} bytes could be written; is the disk full?")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def ledger_of_worker(path: str | os.PathLike[str], index: int) -> Path:
    """Where a worker process of a load keeps its own: `ledger-0.bin` in the place of `ledger.bin`."""
    path = Path(path)
    return path.with_name(f"{path.stem}-{index}{path.suffix}")


def ledgers(path: str | os.PathLike[str]) -> list[Path]:
    """All the ledgers of one load: the file itself, and those of its worker processes, as far as they are there."""
    path = Path(path)
    return [path.with_name(name) for name in ledgers_among((other.name for other in path.parent.glob("*")), path.name)]


def ledgers_among(names: Iterable[str], name: str) -> list[str]:
    """Of these files, the ledgers of the load that keeps its own in `name`: it, then those of the worker processes."""
    stem, suffix = os.path.splitext(name)
    numbered = re.compile(rf"{re.escape(stem)}(?:-(\d+))?{re.escape(suffix)}")
    found = [(int(match[1] or -1), other) for other in names if (match := numbered.fullmatch(other))]
    return [other for _, other in sorted(found)]


@dataclass(frozen=True)
class Stretches:
    """What became of the sequences of one producer: from `lo` up to and without `hi` each has the same status. In order,
    and without what was never intended. A load that goes well is a handful of them, however long it is."""

    lo: NDArray[np.int64]
    hi: NDArray[np.int64]
    status: NDArray[np.uint8]

    def of(self, *statuses: int) -> Stretches:
        some = np.isin(self.status, statuses)
        return Stretches(self.lo[some], self.hi[some], self.status[some])

    def __len__(self) -> int:
        """How many events."""
        return int((self.hi - self.lo).sum())

    def sequences(self) -> NDArray[np.int64]:
        """Each of them, in order."""
        lengths = self.hi - self.lo
        before = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum(), dtype=np.int64) + np.repeat(self.lo - before, lengths)

    def mask(self, size: int) -> NDArray[np.bool_]:
        """Of the sequences 0 … size-1, which are among them."""
        found = np.zeros(size, dtype=bool)
        for lo, hi in zip(self.lo.tolist(), self.hi.tolist(), strict=True):
            found[lo:hi] = True
        return found


_NOTHING = Stretches(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8))


@dataclass(frozen=True)
class Ledger:
    """A ledger as read: per producer, which events were acked, ambiguous or failed.

    run    the run's tag
    torn   how many of the files ended in a torn record
    """

    run: str
    torn: int
    _paths: tuple[Path, ...]
    _found: dict[int, Stretches]
    _codes: dict[int, int]

    @classmethod
    def read(cls, *paths: str | os.PathLike[str]) -> Ledger:
        """The ledgers of one run, each written by a process of its own, as one. LedgerDamaged if they do not check."""
        if not paths:
            raise ValueError("no ledger to read")
        parts = [_read_file(Path(path)) for path in paths]
        runs = {run for run, _, _ in parts}
        if len(runs) > 1:
            raise LedgerDamaged(f"Ledgers of several runs cannot be read as one: {', '.join(sorted(runs))}.")
        records = np.concatenate([found for _, found, _ in parts])
        name = ", ".join(str(path) for path in paths)
        found = {int(p): _settle(name, int(p), records[records["producer"] == p]) for p in _unique(records)}
        torn = sum(torn for _, _, torn in parts)
        return cls(runs.pop(), torn, tuple(map(Path, paths)), found, _codes_of(records))

    @property
    def records(self) -> NDArray[np.void]:
        """Every record in the order of its file (fields kind, producer, code, lo, n, t_us), for whoever needs times: read
        again, because they take a hundred times the memory of all else."""
        return np.concatenate([_read_file(path)[1] for path in self._paths])

    @property
    def producers(self) -> list[int]:
        """Numbers of the producers that intended anything, in order."""
        return sorted(self._found)

    def of(self, producer: int) -> Stretches:
        return self._found.get(producer, _NOTHING)

    def intended(self, producer: int) -> NDArray[np.int64]:
        """Sequences of all events that this producer meant to send, in order."""
        return self.of(producer).sequences()

    def acked(self, producer: int) -> NDArray[np.int64]:
        """Sequences that Kafka acknowledged, in order."""
        return self.of(producer).of(ACKED).sequences()

    def ambiguous(self, producer: int) -> NDArray[np.int64]:
        """Sequences that may have been sent, with unknown outcome, in order."""
        return self.of(producer).of(AMBIGUOUS).sequences()

    def failed(self, producer: int) -> NDArray[np.int64]:
        """Sequences that surely were not sent, in order."""
        return self.of(producer).of(FAILED_TO_SEND).sequences()

    def totals(self) -> dict[str, int]:
        """Events over all producers: sent (acked or ambiguous), acked, ambiguous, failed."""
        acked, ambiguous, failed = (
            sum(len(found.of(status)) for found in self._found.values())
            for status in (ACKED, AMBIGUOUS, FAILED_TO_SEND)
        )
        return {"sent": acked + ambiguous, "acked": acked, "ambiguous": ambiguous, "failed": failed}

    def error_codes(self) -> dict[int, int]:
        """How many events were reported with which of librdkafka's codes (negative: the client's own)."""
        return dict(self._codes)


def _codes_of(records: NDArray[np.void]) -> dict[int, int]:
    found = records[(records["kind"] == ERROR) | (records["kind"] == FAILED)]
    codes, inverse = np.unique(found["code"], return_inverse=True)
    return {int(code): int(found["n"][inverse == i].sum()) for i, code in enumerate(codes)}


def _check_header(path: Path, header: bytes) -> str:
    magic, version, record_size, run, _, crc = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise LedgerDamaged(f"{path} is no ledger: it starts with {magic!r}.")
    if crc != zlib.crc32(header[:-4]):
        raise LedgerDamaged(f"{path}: the header does not match its checksum.")
    if version != _VERSION or record_size != _RECORD.size:
        raise LedgerDamaged(f"{path} is a ledger of version {version}; this program reads version {_VERSION}.")
    return str(run.decode())


def _read_file(path: Path) -> tuple[str, NDArray[np.void], bool]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LedgerDamaged(f"The ledger {path} cannot be read: {error.strerror}.") from error
    if len(data) < _HEADER.size:
        raise LedgerDamaged(f"{path} is no ledger: {len(data)} bytes, and the header alone has {_HEADER.size}.")
    run = _check_header(path, data[: _HEADER.size])
    rest = (len(data) - _HEADER.size) % _RECORD.size
    body = memoryview(data)[_HEADER.size : len(data) - rest]
    records = np.frombuffer(body, dtype=_DTYPE)
    for i, crc in enumerate(records["crc"].tolist()):
        at = i * _RECORD.size
        if zlib.crc32(body[at : at + _RECORD.size - 4]) != crc:
            raise LedgerDamaged(
                f"{path}: record {i:,} of {len(records):,} (byte {at + _HEADER.size:,}) does not match its checksum."
            )
    if not np.isin(records["kind"], list(_KINDS)).all():
        raise LedgerDamaged(f"{path}: it holds records of an unknown kind.")
    if len(records) and ((records["lo"] < 0).any() or (records["n"] < 1).any()):
        raise LedgerDamaged(f"{path}: it holds records without an event.")
    return run, records, rest > 0


def _unique(records: NDArray[np.void]) -> Iterable[int]:
    return np.unique(records["producer"]).tolist()


def _settle(name: str, producer: int, records: NDArray[np.void]) -> Stretches:
    """What became of one producer's events: between any two neighbours of the places at which records begin and end,
    it is the same for all."""
    begins, ends = records["lo"], records["lo"] + records["n"]
    places = np.unique(np.concatenate([begins, ends]))
    lo, hi = places[:-1], places[1:]

    def times_named(kind: int) -> NDArray[np.int64]:
        some = records["kind"] == kind
        begun, ended = np.sort(begins[some]), np.sort(ends[some])
        return np.searchsorted(begun, lo, side="right") - np.searchsorted(ended, lo, side="right")

    intents, acks, errors, failures = (times_named(kind) for kind in (INTENT, ACK, ERROR, FAILED))

    def demand(fine: NDArray[np.bool_], what: str) -> None:
        if not fine.all():
            wrong = int((hi - lo)[~fine].sum())
            raise LedgerDamaged(f"{name}: {wrong:,} events of producer {producer} {what}, first {lo[~fine][0]}.")

    demand(intents <= 1, "were intended twice")
    demand((intents > 0) | (acks + errors + failures == 0), "have an outcome but were never intended")
    demand((acks <= 1) & (errors + failures <= 1), "have two outcomes")

    status = np.zeros(len(lo), dtype=np.uint8)
    status[intents > 0] = AMBIGUOUS
    status[acks > 0] = ACKED
    status[errors > 0] = AMBIGUOUS
    status[failures > 0] = FAILED_TO_SEND
    first = np.concatenate([[True], status[1:] != status[:-1]])  # neighbours of one status are one stretch
    last = np.concatenate([first[1:], [True]])
    whole = Stretches(lo[first], hi[last], status[first])
    return whole.of(AMBIGUOUS, ACKED, FAILED_TO_SEND)
