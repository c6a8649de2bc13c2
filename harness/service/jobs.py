"""Commands that the service starts, and that outlive it.

A job is a folder `.service/jobs/<id>/`: `job.json` says what was asked and how far it is, `stdout` and `stderr` are the
command's. The command runs in a session of its own and writes into files, so that nothing of it depends on the service. After
the service was killed, the next one finds each job's process by its pid and start time and follows it on; one whose
process has gone is recorded as ended, with what its output says.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from harness.run_folder import JOB_VARIABLE, write_json
from harness.service.access import TOKEN_VARIABLE
from harness.service.index import OWN

#: Of the last so many jobs that ended the output is kept.
KEPT = 500
#: A job waits while so many others are under way: two full stacks share their machine, and judge each other's load.
AT_ONCE = 1
#: Jobs that may wait.
MOST_WAITING = 100


class Full(Exception):
    """So many jobs wait that another one would be no help to anybody."""


@dataclass(frozen=True)
class Job:
    """A command of the service.

    state    waiting, starting, running, ended
    status   the command's exit status; None while it runs, and of one whose end nobody saw
    note     what a person should know of its end
    verdict  of its last line of output, or ""
    origin   what asked for it: "api", "page", or the name of a schedule
    """

    id: str
    request: dict[str, Any]
    words: tuple[str, ...]
    state: str
    created: str
    origin: str = "api"
    pid: int | None = None
    process_started: float | None = None
    started: str = ""
    ended: str = ""
    status: int | None = None
    verdict: str = ""
    note: str = ""
    cancelled: str = ""

    @property
    def over(self) -> bool:
        return self.state == "ended"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Job:
        return cls(**{**saved, "words": tuple(saved["words"])})


class Jobs:
    """All jobs of a store. `tick` moves them on and must be called every second or so, by one thread."""

    def __init__(
        self, store: Path, at_once: int = AT_ONCE, program: Sequence[str] = (sys.executable, "-m", "harness.cli")
    ) -> None:
        self._folder = store / OWN / "jobs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._at_once, self._program = at_once, list(program)
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._jobs: dict[str, Job] = {}
        #: what was found when the service started, in words
        self.found: list[str] = []
        self._load()

    def _load(self) -> None:
        for path in sorted(self._folder.iterdir()):
            try:
                job = Job.from_dict(json.loads((path / "job.json").read_bytes()))
            except (OSError, ValueError, TypeError, KeyError):
                continue  # the service was killed before it had written what was asked
            self._jobs[job.id] = job
            if job.state in ("starting", "running"):
                self._find(job)

    def _find(self, job: Job) -> None:
        """After a restart of the service: is the process of this job still there?"""
        process = self._process(job) if job.pid is not None else _by_environment(job.id)
        if process is not None:
            self._put(replace(job, state="running", pid=process.pid, process_started=process.create_time()))
            self.found.append(f"{job.id} ({job.request['kind']}) goes on as process {process.pid}")
            return
        self._end(job, None, "It ended while the service was away.")
        self.found.append(f"{job.id} ({job.request['kind']}) ended while the service was away")

    def path(self, job: Job) -> Path:
        return self._folder / job.id

    # -- asking ---------------------------------------------------------------------------------------------------

    def all(self) -> list[Job]:
        """The newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    def get(self, id_: str) -> Job | None:
        with self._lock:
            return self._jobs.get(id_)

    def under_way(self) -> list[Job]:
        return [job for job in self.all() if job.state in ("starting", "running")]

    def output(self, job: Job, name: str = "stderr", most: int = 20_000) -> str:
        """The end of what the command wrote to "stderr" or "stdout"."""
        try:
            with (self.path(job) / name).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - most))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    # -- changing -------------------------------------------------------------------------------------------------

    def submit(self, request: dict[str, Any], words_of: Callable[[str], Sequence[str]], origin: str = "api") -> Job:
        """A new job, which waits for its turn; `words_of` makes its command from its id. Raises Full."""
        with self._lock:
            if sum(job.state == "waiting" for job in self._jobs.values()) >= MOST_WAITING:
                raise Full(f"{MOST_WAITING} jobs wait already; cancel some, or wait.")
            now = datetime.now(UTC)
            # By the microsecond, so that jobs sort in the order in which they came.
            id_ = f"{now:%Y%m%dT%H%M%S}-{now.microsecond:06d}-{secrets.token_hex(3)}"
            job = Job(id_, request, tuple(words_of(id_)), "waiting", _now(), origin)
            self.path(job).mkdir()
            return self._put(job)

    def cancel(self, id_: str) -> Job | None:
        """A waiting job ends at once; a running one is interrupted, heals what it broke and cleans up by itself."""
        with self._lock:
            job = self._jobs.get(id_)
            if job is None or job.over:
                return job
            if job.state == "waiting":
                return self._put(replace(job, state="ended", ended=_now(), cancelled=_now(), note="It never started."))
            if not job.cancelled:
                self._interrupt(job)
                job = self._put(replace(job, cancelled=_now(), note="It was interrupted, and cleans up."))
            return job

    def _interrupt(self, job: Job) -> None:
        process = self._process(job)
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGINT)

    def tick(self) -> None:
        """Notes which jobs have ended, and starts those whose turn it is."""
        with self._lock:
            for job in self.under_way():
                self._follow(job)
            free = self._at_once - len(self.under_way())
            waiting = sorted((j for j in self._jobs.values() if j.state == "waiting"), key=lambda j: j.id)
            for job in waiting[: max(0, free)]:
                self._start(job)

    def _start(self, job: Job) -> None:
        # Written first: should the service die in the next moment, the process is found by its environment.
        self._put(replace(job, state="starting", started=_now()))
        folder = self.path(job)
        try:
            with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
                child = subprocess.Popen(
                    [*self._program, *job.words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                    env={k: v for k, v in os.environ.items() if k != TOKEN_VARIABLE} | {JOB_VARIABLE: job.id},
                )
        except OSError as error:
            self._end(job, None, f"It could not be started: {error}")
            return
        self._children[job.id] = child
        with contextlib.suppress(psutil.Error):
            since = psutil.Process(child.pid).create_time()
            self._put(replace(self._jobs[job.id], state="running", pid=child.pid, process_started=since))

    def _follow(self, job: Job) -> None:
        child = self._children.get(job.id)
        if child is not None:
            status = child.poll()
            if status is not None:
                self._end(job, status, "")
                del self._children[job.id]
        elif self._process(job) is None:
            self._end(job, None, "Its end was not seen, because the service had been started anew meanwhile.")

    def _process(self, job: Job) -> psutil.Process | None:
        """The job's process, unless it has ended: a pid alone may be another's by now."""
        try:
            process = psutil.Process(job.pid)
            same = job.process_started is not None and abs(process.create_time() - job.process_started) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, ValueError, TypeError):
            return None

    def _end(self, job: Job, status: int | None, note: str) -> None:
        verdict = _verdict_in(self.output(job, "stdout", 4 * 2**20))
        if status is not None and status < 0:
            note = f"It was ended by signal {-status}."
        elif status == 130:
            note = "It was interrupted; it healed what it had broken and cleaned up."
        elif status == 2:
            note = "It could not be done as it was asked for; its output says why."
        elif status == 4:
            note = "The harness failed; its output says why."
        self._put(replace(job, state="ended", ended=_now(), status=status, verdict=verdict, note=note))

    def _put(self, job: Job) -> Job:
        write_json(self.path(job) / "job.json", job.as_dict())
        self._jobs[job.id] = job
        return job

    def forget(self, but: int = KEPT) -> None:
        """Drops the oldest jobs that ended long ago; their run folders stay."""
        import shutil

        with self._lock:
            for job in [job for job in self.all() if job.over][but:]:
                del self._jobs[job.id]
                shutil.rmtree(self.path(job), ignore_errors=True)


def _by_environment(id_: str) -> psutil.Process | None:
    """The process that was started for a job, by the variable that tells it which one: of several the eldest."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(JOB_VARIABLE) == id_ and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return min(found, key=lambda process: process.create_time(), default=None)


def _verdict_in(stdout: str) -> str:
    """The verdict in the JSON object that the command ends with; "" if it did not come to that."""
    try:
        found = json.loads(stdout.strip().splitlines()[-1])
        return str(found["verdict"]) if found["verdict"] in ("pass", "violation", "inconclusive") else ""
    except (ValueError, IndexError, KeyError, TypeError):
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def age_s(iso: str) -> float:
    """Seconds since a time of `_now`; 0 for none."""
    return time.time() - datetime.fromisoformat(iso).timestamp() if iso else 0.0
