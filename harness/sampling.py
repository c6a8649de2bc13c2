"""Sampling: what flows over the links and arrives at the hops, five times a second; what processor time is used by workers
without a link; what the consumer groups have committed, ten times a second; and how the machine is."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from harness.activity import Activity
from harness.backends.base import Meter
from harness.history import History
from harness.services.base import Tap
from harness.store import COMMITS, LINKS, PROGRESS, WORK, RunFolder

EVERY_S = 0.2
COMMITS_EVERY_S = 0.1
#: How long a killed worker's return may be put off to learn what it had committed.
BEFORE_RETURN_S = 0.5
#: Below this the disk counts as full: Kafka's next segment and a run folder would not fit.
DISK_FULL_BYTES = 256 << 20

#: (who asks, for how many seconds at most) -> the committed offset of each partition; None where the broker is away.
AskCommitted = Callable[[str, float], "Mapping[int, int] | None"]


class Sampler:
    """`groups`: (worker, hop that it reads) -> how to ask what its consumer group has committed there. `unlinked`: workers
    without a link, of whose work nothing else is seen -> the pid of the process, None while there is none."""

    def __init__(
        self,
        meter: Meter,
        taps: Mapping[str, Tap],
        history: History,
        groups: Mapping[tuple[str, str], AskCommitted] | None = None,
        activity: Activity | None = None,
        unlinked: Mapping[str, Callable[[], int | None]] | None = None,
    ) -> None:
        self._meter = meter
        self._groups = dict(groups or {})
        self._commits: list[tuple[Any, ...]] = []
        # A thread of its own: a broker that is away keeps it waiting for seconds.
        self._asking = threading.Thread(target=self._ask, name="commits", daemon=True)
        self._taps, self._history = taps, history
        self._links: list[tuple[Any, ...]] = []
        self._activity = activity or Activity()
        self._progress: list[tuple[Any, ...]] = []
        self._unlinked, self._work = dict(unlinked or {}), list[tuple[Any, ...]]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="sampler", daemon=True)
        self._oom_before = _oom_kills()
        self._drift = 0.0

    def start(self) -> None:
        self._thread.start()
        if self._groups:
            self._asking.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + COMMITS_EVERY_S
            for worker, hop in self._groups:
                try:
                    self._sample_group("samples", worker, hop, 5.0)
                except Exception as error:
                    self._history.add("error", text=f"the committed offsets of {worker} cannot be sampled: {error!r}")
                    return
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _sample_group(self, use: str, worker: str, hop: str, within_s: float) -> None:
        asked = round(self._history.clock.now(), 4)
        offsets = self._groups[worker, hop](use, within_s) or {}
        now = round(self._history.clock.now(), 4)
        self._commits.extend((asked, now, worker, hop, p, offset) for p, offset in offsets.items())

    def before_return(self, worker: str) -> None:
        """Samples what a worker's group has committed while one of its processes is dead and not yet started again:
        nothing else tells for sure what that process had committed when it ended."""
        for name, hop in self._groups:
            if name == worker:
                with contextlib.suppress(Exception):
                    self._sample_group(f"return of {worker}", worker, hop, BEFORE_RETURN_S)

    def _sample(self) -> None:
        told = 0.0
        metering = True
        while not self._stop.is_set():
            due = time.monotonic() + EVERY_S
            now = round(self._history.clock.now(), 4)
            if metering:
                try:
                    for link, f in self._meter.sample().items():
                        self._links.append((now, link, f.connections, f.opened, f.closed, f.requests, f.responses))
                        self._activity.add(now, link, f.requests + f.responses, f.opened)
                except OSError as error:
                    metering = False
                    self._history.add("error", text=f"links cannot be measured on this machine: {error}")
            for worker, pid_of in self._unlinked.items():
                if (pid := pid_of()) is not None and (used := _cpu_s(pid)) is not None:
                    self._work.append((now, worker, pid, used))
                    self._activity.worked(now, worker, pid, used)
            counts = {hop: tap.count() for hop, tap in list(self._taps.items())}
            self._progress.extend((now, hop, count) for hop, count in counts.items())
            drift = self._history.clock.drift_ms()
            if abs(drift) > abs(self._drift):
                self._drift = drift
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                for hop, count in counts.items():
                    self._history.show({"t": now, "kind": "progress", "hop": hop, "count": count})
            self._stop.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        self._stop.set()
        for thread in (self._thread, self._asking):
            if thread.ident is not None:
                thread.join(6)
        self._meter.close()

    def finish(self, folder: RunFolder) -> None:
        """Stops and writes links.parquet, progress.parquet and, where there are consumer groups, commits.parquet."""
        self.stop()
        pl.DataFrame(self._links, schema=LINKS, orient="row").write_parquet(folder.links)
        pl.DataFrame(self._progress, schema=PROGRESS, orient="row").write_parquet(folder.progress)
        if self._unlinked:
            pl.DataFrame(self._work, schema=WORK, orient="row").write_parquet(folder.work)
        if self._groups:
            pl.DataFrame(self._commits, schema=COMMITS, orient="row").write_parquet(folder.commits)

    def record_machine(self, folder: Path) -> None:
        """Tells the history how steady the clock was, and whether the machine ran out of something."""
        self._history.add("clock", wall_minus_mono_ms_drift=round(self._drift, 3))
        free = shutil.disk_usage(folder).free
        self._history.add(
            "machine",
            oom_kills=_oom_kills() - self._oom_before,
            disk_free_bytes=free,
            disk_full=free < DISK_FULL_BYTES,
            load_average=os.getloadavg()[0],
            cores=os.cpu_count(),
        )


def _cpu_s(pid: int) -> float | None:
    """Processor time of a process and its children in seconds; None where it cannot be seen: it has ended, or is a
    container's on another machine."""
    try:
        process = psutil.Process(pid)
        times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    except psutil.Error:
        return None
    return round(sum(t.user + t.system for t in times), 3)


def _oom_kills() -> int:
    """Processes that the kernel has killed for memory since boot (0 where it does not say)."""
    total = 0
    for path, key in (("/proc/vmstat", "oom_kill"), ("/sys/fs/cgroup/memory.events", "oom_kill")):
        try:
            with open(path) as file:
                for line in file:
                    words = line.split()
                    if words and words[0] == key:
                        total = max(total, int(words[1]))
        except (OSError, ValueError):
            continue
    return total
