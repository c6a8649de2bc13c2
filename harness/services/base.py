"""What every running service offers to a stack, and what every tap offers to a run."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from harness.backends.base import Child, Exit, Site
from harness.errors import BackendGone, HarnessFault, StartFailed, UsageError, died, last_lines
from harness.store import APPEARED, CELL, CELLS, SEEN
from harness.topology import Cells, CountedCell, Link, Sighting

#: Called when a service's process ends: (service name, how).
ServiceExit = Callable[[str, Exit], None]


class Server(Protocol):
    """A running service. Addresses are "host:port", joined by commas where it has several processes; `direct` is the
    harness's own way in, past every fault, and `inside` that of a program which runs where the service does (the batch
    job). `children`: its processes by name; none if it was there before."""

    name: str
    direct: str
    inside: str
    children: dict[str, Child]

    def start(self, process: str = "") -> None:
        """Starts one process of it, or all ("")."""
        ...

    def wait_until_ready(self) -> None: ...
    def upstreams(self, link: Link) -> list[str]:
        """Where each of the link's proxies leads to."""
        ...

    def names(self, run: str) -> dict[str, str]: ...
    def make(self, names: Mapping[str, str]) -> None: ...
    def remove(self, names: Mapping[str, str]) -> None: ...
    def sweep(self, run: str) -> None:
        """Removes whatever there is of a run, found by the tag in which its names end, and raises where it cannot."""
        ...

    def log(self, process: str = "") -> Path: ...


class Tap(Protocol):
    """The reader that collects a hop while the run goes on."""

    hop: str

    def pass_over(self) -> None:
        """Leaves out all that is there already, which must stand still, and sees to it that whatever comes after that can be
        read a second time. Call it before `start`, if at all."""
        ...

    def start(self) -> None: ...

    def count(self) -> int:
        """Messages of load (not of the warm-up) that were seen so far."""
        ...

    def warm(self) -> bool:
        """Whether a warm-up event was seen."""
        ...

    def distinct(self) -> int:
        """Distinct events of load seen so far."""
        ...

    def trouble(self) -> str:
        """Why no warm-up event may have been seen, as far as the tap can tell; "" if it cannot."""
        ...

    def broken(self) -> str:
        """Why it sees nothing of what may be there; "" if it looks."""
        ...

    def last_moved(self) -> float:
        """When the last message was seen, in seconds of the monotonic clock."""
        ...

    def hurry(self) -> None:
        """From now on nobody else needs the processor: do all that was put off."""
        ...

    def finish(self) -> TapResult:
        """Reads to the end and stops. Call it once, when the workers were stopped."""
        ...

    def abandon(self) -> None:
        """Stops without a result; after `finish` it does nothing."""
        ...


class TapResult:
    """What a tap brought home: the frame to save, and whether it can swear that it is all."""

    def __init__(self, frame: pl.DataFrame, certified: bool, reason: str, **figures: Any) -> None:
        self.frame, self.certified, self.reason, self.figures = frame, certified, reason, figures


def wait_until_up(server: Any, site: Site, answers: Callable[[], bool], timeout_s: float) -> None:
    """Polls `answers` (False or an exception: not yet) until the service of a server is up.

    Raises StartFailed that says which program or image it was, how it ended and its log's last lines. The silence of a
    service that was there before is soon sure, and a UsageError: its address is the person's.
    """
    existing = site.existing.get(server.name, "")
    program = "" if existing else f"{server.name} {site.versions()[server.service.kind]}"
    timeout_s = min(timeout_s, 10.0) if existing else timeout_s
    deadline = time.monotonic() + timeout_s
    reason: object = "it did not answer"
    while time.monotonic() < deadline:
        for name, child in server.children.items():
            if how := site.children.ended(child.pid):
                raise died(name, site.versions()[server.service.kind], how, server.log(name))
        try:
            if answers():
                return
        except BackendGone:
            raise
        except Exception as error:
            reason = error
        time.sleep(0.02)
    if existing:
        raise UsageError(f"No {server.name} answers at {existing}, where the endpoints file says that it is: {reason}")
    logs = "\n".join(
        f"  {'its log' if name == server.name else f'the log of {name}'} ends:\n{last_lines(server.log(name))}"
        for name in server.children or [server.name]
    )
    raise StartFailed(f"{program} was not ready within {timeout_s:g} s: {reason}\n{logs}")


def answer_to(question: bytes, address: str, until: bytes, timeout_s: float) -> tuple[float, bytes]:
    """(seconds, answer) of a server that is sent these bytes on a fresh connection: what it says until that is in it, or less
    where it ends the connection. Raises HarnessFault where it does not answer."""
    host, port = address.split(":")
    start = time.monotonic()
    answer = b""
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
            connection.sendall(question)
            while until not in answer and (more := connection.recv(4096)):
                answer += more
    except OSError as error:
        raise HarnessFault(f"{address} did not answer: {error}") from error
    return time.monotonic() - start, answer


# ------------------------------------------------------------------------------------------------- taps of sinks


class SinkReading:
    """A sink read once: its cells as counted, and, where it shows single events, when each became visible."""

    def __init__(self, cells: Sequence[CountedCell], sightings: Sequence[Sighting] | None) -> None:
        self.cells, self.sightings = cells, sightings


class PolledTap:
    """The tap of what can only be read as a whole. That costs more the more there is, so it rests `rests` times as long, and
    `rests_s` at least.

    Whoever derives one says in `_look` how much there is now, and in `finish` what there was in the end.
    """

    def __init__(self, hop: str, rests_s: float = 1.0, rests: float = 8.0) -> None:
        self.hop = hop
        self._rests_s, self._rests = rests_s, rests
        self._counted = 0
        self._moved = time.monotonic()
        self._known_until = 0.0
        self._error: str | None = None
        self._unread = ""
        self._hurry = threading.Event()
        self._again = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name=f"tap-{hop}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hurry(self) -> None:
        """From now on, the present rest included, rest only as long as a reading takes: somebody waits for the result."""
        if not self._hurry.is_set():
            self._hurry.set()
            self._again.set()

    def look_again(self) -> None:
        """Read once more without any rest: nothing but a reading that begins now is waited for."""
        self._again.set()

    def _look(self) -> int:
        """A number that changes whenever something came; 0: nothing yet."""
        raise NotImplementedError

    def _poll(self) -> None:
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                counted = self._look()
                if counted != self._counted:
                    self._counted, self._moved = counted, time.monotonic()
                self._unread = ""
                self._known_until = start  # last: whoever sees it sees what that reading has shown
            except Exception as error:  # the final reading decides; until then it is only progress
                self._unread = f"It cannot be read: {error!r}."
            took = time.monotonic() - start
            if self._counted == 0:
                self._again.wait(max(0.05, took))
            elif self._hurry.is_set():
                self._again.wait(max(0.2, took))
            else:
                self._again.wait(max(self._rests_s, self._rests * took))
            self._again.clear()

    def trouble(self) -> str:
        return self._unread or self._error or ""

    def broken(self) -> str:
        return self._unread

    def last_moved(self) -> float:
        return self._moved

    def known_until(self) -> float:
        """When the last reading that succeeded began, in seconds of the monotonic clock: what came later is unseen."""
        return self._known_until

    def abandon(self) -> None:
        self._stop.set()
        self._again.set()


class SinkTap(PolledTap):
    """Polls a sink of counts.

    `glance` reads enough to see how far it is, and `recount` all cells without single events, where either is cheaper than
    `read`. `dates`: it tells when each cell appeared, for a sink that does not show single events.
    """

    def __init__(
        self,
        hop: str,
        read: Callable[[], SinkReading],
        cells: Sequence[Cells],
        now: Callable[[], float],
        glance: Callable[[], SinkReading] | None = None,
        rests_s: float = 1.0,
        rests: float = 8.0,
        dates: bool = False,
        recount: Callable[[], SinkReading] | None = None,
    ) -> None:
        super().__init__(hop, rests_s, rests)
        self._read, self._glance, self._recount = read, glance or read, recount or read
        self._now, self._dates = now, dates
        first = cells[0]
        self._first = (first.dimension, first.windows_s[0])
        #: (key, window's start) of the first dimension and window -> when a reading that first showed it ended, ms
        self._appeared: dict[tuple[str, int], float] = {}
        #: what was counted before, and is left out
        self._before = summed([])
        self._counted_before = 0
        self._there: set[tuple[str, int]] = set()
        #: what it held when it was read as a whole at the end; None before that, and where it could not be read
        self.held: pl.DataFrame | None = None

    def pass_over(self, held: pl.DataFrame | None = None) -> None:
        """`held`: what it should hold, where that is known (see `held` above). It is then not read, and whatever it holds
        more shows as gained. Raises HarnessFault if two readings differ."""
        if held is None:
            held = summed(self._recount().cells)
            if not held.equals(summed(self._recount().cells)):
                raise HarnessFault(f"{self.hop} does not stand still: two readings one after the other differ")
        dimension, window_s = self._first
        first = held.filter((pl.col("dimension") == dimension) & (pl.col("window_s") == window_s))
        self._before, self._counted_before = held, int(first["count"].sum())
        self._there = set(first.filter(pl.col("count") > 0).select("key", "window_start_ms").iter_rows())

    @property
    def before(self) -> pl.DataFrame:
        """What was counted before, and is left out."""
        return self._before

    def _look(self) -> int:
        cells = self._glance().cells
        counted = self._total(cells)
        self._note(cells)
        self._error = self._strange(cells) if not counted else None
        return counted

    def _note(self, cells: Iterable[CountedCell]) -> None:
        seen_ms = self._now() * 1000
        for c in cells if self._dates else ():
            which = ("|".join(c.key), c.window_start_ms)
            if (c.dimension, c.window_s) == self._first and c.count > 0 and which not in self._there:
                self._appeared.setdefault(which, seen_ms)

    def _total(self, cells: Iterable[CountedCell]) -> int:
        return sum(c.count for c in cells if (c.dimension, c.window_s) == self._first) - self._counted_before

    def _strange(self, cells: Sequence[CountedCell]) -> str | None:
        found = {(c.dimension, c.window_s) for c in cells}
        if not found or self._first in found:
            return None
        return f"Its rows show cells of {sorted(found)}, and none of the first that is declared, {self._first}."

    def count(self) -> int:
        """Events counted in the first dimension and window, those of the warm-up included."""
        return self._counted

    distinct = count

    def warm(self) -> bool:
        return self._counted != 0  # below 0: it has lost what it held, which is for the assertions to say

    def finish(self) -> SinkResult:
        """Reads once more, after the workers were stopped. Two readings that differ are no census."""
        self.abandon()
        self._thread.join(90)
        reason = ""
        reading = SinkReading([], None)
        frame = summed([])
        try:
            reading = self._read()
            self._note(reading.cells)
            self.held = frame = summed(reading.cells)
            if not frame.equals(summed(self._recount().cells)):
                reason = "two readings one after the other differ, though every worker was stopped"
        except Exception as error:
            reason = f"the sink could not be read: {error!r}"
        told = reason or "two whole readings agree"
        frame = less(frame, self._before)
        return SinkResult(frame, reading.sightings, not reason, told, self._appearances(), cells=len(frame))

    def _appearances(self) -> pl.DataFrame | None:
        if not self._dates:
            return None
        dimension, window_s = self._first
        rows = [(dimension, key, window_s, start, ms) for (key, start), ms in self._appeared.items()]
        return pl.DataFrame(rows, schema=APPEARED, orient="row").sort("seen_ms", maintain_order=True)


def summed(cells: Iterable[CountedCell]) -> pl.DataFrame:
    """A row a cell, with count and weight, sorted: of a sink in which several rows may count for one cell."""
    rows = [(c.dimension, "|".join(c.key), c.window_s, c.window_start_ms, c.count, c.weight) for c in cells]
    frame = pl.DataFrame(rows, schema=CELLS, orient="row")
    return frame.group_by(CELL).agg(pl.col("count").sum(), pl.col("weight").sum()).sort(CELL)


def less(frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """What the first of two frames of cells (`summed`) holds beyond the other; where it holds less, that is below 0."""
    if other.is_empty():
        return frame
    both = frame.join(other, on=CELL, how="full", coalesce=True, suffix="_other")
    beyond = both.with_columns(
        (pl.col(c).fill_null(0) - pl.col(f"{c}_other").fill_null(0)).alias(c) for c in ("count", "weight")
    )
    return beyond.filter((pl.col("count") != 0) | (pl.col("weight") != 0)).select(frame.columns).sort(CELL)


class SinkResult(TapResult):
    """`appearances`, of a tap that dates: when each cell of the first dimension and window was first seen to hold anything
    (`seen_ms`: the end of the reading that showed it, so not before it was there)."""

    def __init__(
        self,
        frame: pl.DataFrame,
        sightings: Sequence[Sighting] | None,
        certified: bool,
        reason: str,
        appearances: pl.DataFrame | None = None,
        **figures: Any,
    ) -> None:
        super().__init__(frame, certified, reason, **figures)
        self._sightings, self.appearances = sightings, appearances

    def sightings(self, run: str) -> pl.DataFrame | None:
        """When each event of this run was counted, a row each time; None where the sink does not show single events."""
        from load.events import parse_event_id

        if self._sightings is None:
            return None
        rows = [
            (parsed[1], parsed[2], sighting.seen_ms)
            for sighting in self._sightings
            if (parsed := parse_event_id(sighting.event_id)) and parsed[0] == run
        ]
        return pl.DataFrame(rows, schema=SEEN, orient="row").sort("seen_ms", maintain_order=True)
