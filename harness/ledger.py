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

# Status of an event. Not intended is 0, so that fresh arrays hold it.
_AMBIGUOUS, _ACKED, _FAILED = 1, 2, 3


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
    numbered = re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}")
    found = [(int(match[1]), other) for other in path.parent.glob("*") if (match := numbered.fullmatch(other.name))]
    return [*([path] if path.exists() else []), *(other for _, other in sorted(found))]


@dataclass(frozen=True)
class Ledger:
    """A ledger as read: per producer, which events were acked, ambiguous or failed.

    run       the run's tag
    records   every record in the order of its file (fields kind, producer, code, lo, n, t_us), for whoever needs times
    torn      how many of the files ended in a torn record
    """

    run: str
    records: NDArray[np.void]
    torn: int
    _status: dict[int, NDArray[np.uint8]]

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
        status = {int(p): _settle(name, int(p), records[records["producer"] == p]) for p in _unique(records)}
        return cls(runs.pop(), records, sum(torn for _, _, torn in parts), status)

    @property
    def producers(self) -> list[int]:
        """Numbers of the producers that intended anything, in order."""
        return sorted(self._status)

    def intended(self, producer: int) -> NDArray[np.int64]:
        """Sequences of all events that this producer meant to send, in order."""
        return np.flatnonzero(self._of(producer))

    def acked(self, producer: int) -> NDArray[np.int64]:
        """Sequences that Kafka acknowledged, in order."""
        return np.flatnonzero(self._of(producer) == _ACKED)

    def ambiguous(self, producer: int) -> NDArray[np.int64]:
        """Sequences that may have been sent, with unknown outcome, in order."""
        return np.flatnonzero(self._of(producer) == _AMBIGUOUS)

    def failed(self, producer: int) -> NDArray[np.int64]:
        """Sequences that surely were not sent, in order."""
        return np.flatnonzero(self._of(producer) == _FAILED)

    def totals(self) -> dict[str, int]:
        """Events over all producers: sent (acked or ambiguous), acked, ambiguous, failed."""
        by_status = sum((np.bincount(s, minlength=4) for s in self._status.values()), np.zeros(4, dtype=np.int64))
        acked, ambiguous, failed = (int(by_status[s]) for s in (_ACKED, _AMBIGUOUS, _FAILED))
        return {"sent": acked + ambiguous, "acked": acked, "ambiguous": ambiguous, "failed": failed}

    def error_codes(self) -> dict[int, int]:
        """How many events were reported with which of librdkafka's codes (negative: the client's own)."""
        found = self.records[(self.records["kind"] == ERROR) | (self.records["kind"] == FAILED)]
        codes, inverse = np.unique(found["code"], return_inverse=True)
        return {int(code): int(found["n"][inverse == i].sum()) for i, code in enumerate(codes)}

    def _of(self, producer: int) -> NDArray[np.uint8]:
        return self._status.get(producer, np.zeros(0, dtype=np.uint8))


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


def _settle(name: str, producer: int, records: NDArray[np.void]) -> NDArray[np.uint8]:
    """Status by sequence of one producer."""
    size = int((records["lo"] + records["n"]).max())
    times = {kind: _times_named(records[records["kind"] == kind], size) for kind in _KINDS}
    intended = times[INTENT] > 0

    def demand(fine: NDArray[np.bool_], what: str) -> None:
        if not fine.all():
            wrong = np.flatnonzero(~fine)
            raise LedgerDamaged(f"{name}: {len(wrong):,} events of producer {producer} {what}, first {wrong[0]}.")

    demand(times[INTENT] <= 1, "were intended twice")
    demand(intended | (times[ACK] + times[ERROR] + times[FAILED] == 0), "have an outcome but were never intended")
    demand((times[ACK] <= 1) & (times[ERROR] + times[FAILED] <= 1), "have two outcomes")

    status = np.zeros(size, dtype=np.uint8)
    status[intended] = _AMBIGUOUS
    status[times[ACK] > 0] = _ACKED
    status[times[ERROR] > 0] = _AMBIGUOUS
    status[times[FAILED] > 0] = _FAILED
    return status


def _times_named(records: NDArray[np.void], size: int) -> NDArray[np.int64]:
    """How many of these records name each of the sequences 0 … size-1."""
    starts = np.bincount(records["lo"], minlength=size + 1)
    ends = np.bincount(records["lo"] + records["n"], minlength=size + 1)
    return np.cumsum(starts - ends)[:size]
