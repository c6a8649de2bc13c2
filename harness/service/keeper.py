"""What the service does by itself, once a second: jobs move on, the index follows the folders, schedules come due,
violations are told, and what is older than it may be goes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.service import retention
from harness.service.entries import Entry
from harness.service.index import Asked, Index
from harness.service.jobs import Jobs
from harness.service.retention import Keep
from harness.service.schedules import Schedules
from harness.service.webhook import Webhook

EVERY_S = 0.5
#: The folders' names and times are looked at so often, what is too old as well as old jobs so often.
INDEX_S, TIDY_S = 1.0, 600.0


class Keeper:
    """`tell` gets a line for the person at the terminal."""

    def __init__(
        self, store: Path, jobs: Jobs, keep: Keep, webhook_url: str | None, tell: Callable[[str], None]
    ) -> None:
        self.store, self.jobs, self.keep, self.tell = store, jobs, keep, tell
        self.webhook = Webhook(store, webhook_url, tell)
        self.index = Index(store, self._at_work, self._changed)
        self.schedules = Schedules(store, jobs)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._told_trouble = ""
        #: when each of the chores is next due, by the monotonic clock
        self._index_due = self._tidy_due = 0.0
        retention.empty_bin(store)
        if (unread := self.index.unread()) > 20:
            tell(f"serve: reads {unread} folders, every file against its manifest")
        # What was there before this service ever was is nobody's news.
        self.index.refresh(quietly=self.webhook.begins)
        self.webhook.begun([entry.name for entry in self.index.entries(Asked(standing="violation"), 1_000_000)])

    def alive(self) -> set[str]:
        """The folders on which jobs of the service are at work."""
        found = set()
        for job in self.jobs.under_way():
            entry = self.index.of_job(job.id)
            resumed = job.request.get("resume")
            found |= {entry.name} if entry else set()
            found |= {str(resumed)} if resumed else set()
        return found

    def _at_work(self, name: str, job_id: str) -> bool | None:
        if any(job.request.get("resume") == name for job in self.jobs.under_way()):
            return True
        job = self.jobs.get(job_id)
        return None if job is None else not job.over

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self.webhook.stop()
        self.index.close()

    def _changed(self, entry: Entry, before: str) -> None:
        if entry.standing == "violation":
            self.webhook.add(entry)

    def _work(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self.once()
                self._told_trouble = ""
            except Exception as error:
                # A full disk, say: the service must be there when it has been mended.
                if repr(error) != self._told_trouble:
                    self._told_trouble = repr(error)
                    self.tell(f"serve: {error!r}; it tries again")

    def once(self) -> None:
        now = time.monotonic()
        self.schedules.tick()
        self.jobs.tick()
        if now >= self._index_due:
            self.index.refresh()
            self._index_due = now + INDEX_S
        if now >= self._tidy_due:
            self.tidy()
            self._tidy_due = now + TIDY_S

    def tidy(self) -> None:
        self.jobs.forget()
        for name in retention.due(self.index, self.keep, self.alive()):
            with contextlib.suppress(OSError):
                retention.remove(self.store, name)
                self.tell(f"serve: {name} was older than it may be, and has been removed")
        self.index.refresh()
