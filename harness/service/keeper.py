"""What the service does by itself, once a second: jobs move on, the index follows the folders, schedules come due,
violations are told, and what is older than it may be goes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.service import retention
from harness.service.index import Index
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
        self.index = Index(store, self._at_work)
        self.schedules = Schedules(store, jobs)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._told_trouble = ""
        #: when each of the chores is next due, by the monotonic clock
        self._index_due = self._tidy_due = 0.0
        retention.empty_bin(store)
        if (unread := self.index.unread()) > 20:
            tell(f"serve: reads {unread} folders, every file against its manifest")
        self.index.refresh()
        # What was there before this service ever was is nobody's news.
        self.webhook.begun(self.index.names("violation"))

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

    def _tell_violations(self) -> None:
        """All that the index shows and of which nobody was told, whoever has read them first: a page, this, or an earlier
        service that was killed before it could tell."""
        for name in sorted(self.index.names("violation") - self.webhook.known()):
            if (entry := self.index.entry(name)) is not None:
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
        """Every chore that is due, whatever becomes of the others. Raises what the first of them raised that failed."""
        failed = []
        for chore in (self.schedules.tick, self.jobs.tick, self._follow, self._tidy_if_due):
            try:
                chore()
            except Exception as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _follow(self) -> None:
        if time.monotonic() >= self._index_due:
            self.index.refresh()
            self._tell_violations()
            self._index_due = time.monotonic() + INDEX_S

    def _tidy_if_due(self) -> None:
        if time.monotonic() >= self._tidy_due:
            self.tidy()
            self._tidy_due = time.monotonic() + TIDY_S

    def tidy(self) -> None:
        self.jobs.forget()
        for name in retention.due(self.index, self.keep, self.alive()):
            with contextlib.suppress(OSError):
                retention.remove(self.store, name)
                self.tell(f"serve: {name} was older than it may be, and has been removed")
        self.index.refresh()
