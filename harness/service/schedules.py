"""What is started by the clock: a cron expression in UTC and a request each, kept in `.service/schedules.json`."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from croniter import croniter
from pydantic import TypeAdapter, ValidationError

from harness.run_folder import write_json
from harness.service.index import OWN
from harness.service.jobs import Full, Jobs
from harness.service.requests import Request, command_of
from harness.topology import UsageError

MOST = 100
REQUEST: TypeAdapter[Any] = TypeAdapter(Request)


@dataclass(frozen=True)
class Schedule:
    """`cron`: minute hour day month weekday, UTC. `next`, `last`: ISO 8601; `note`: what came of the last time."""

    name: str
    cron: str
    request: dict[str, Any]
    next: str
    last: str = ""
    job: str = ""
    note: str = ""


def next_after(cron: str, now: datetime) -> str:
    """Raises UsageError for what is no cron expression of five fields, or never comes."""
    try:
        if len(cron.split()) != 5:
            raise ValueError("five fields are needed")
        return str(croniter(cron, now).get_next(datetime).isoformat(timespec="seconds"))
    except (ValueError, KeyError, AttributeError, OverflowError) as error:
        raise UsageError(
            f"{cron!r} is no time: {error}. Five fields, in UTC: minute hour day month weekday, as '30 1 * * *'."
        ) from error


class Schedules:
    """Of a store. A time that passed while the service was away is noted as missed and not made up for."""

    def __init__(self, store: Path, jobs: Jobs) -> None:
        self._store, self._jobs, self._file = store, jobs, store / OWN / "schedules.json"
        self._lock = threading.RLock()
        self._all: dict[str, Schedule] = {}
        with contextlib.suppress(FileNotFoundError):
            try:
                self._all = {one["name"]: Schedule(**one) for one in json.loads(self._file.read_bytes())["schedules"]}
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{self._file} cannot be read ({error!r}): mend it, or move it away.") from error
        now = datetime.now(UTC)
        for one in self.all():
            if datetime.fromisoformat(one.next) < now:
                missed = f"The service was away at {one.next}."
                self._all[one.name] = replace(one, next=next_after(one.cron, now), note=missed)

    def all(self) -> list[Schedule]:
        with self._lock:
            return sorted(self._all.values(), key=lambda one: one.next)

    def put(self, name: str, cron: str, request: Any) -> Schedule:
        """Adds a schedule, or changes one of that name. Raises UsageError."""
        with self._lock:
            if name not in self._all and len(self._all) >= MOST:
                raise UsageError(f"There are {MOST} schedules already.")
            one = Schedule(name, cron, request.model_dump(exclude_none=True), next_after(cron, datetime.now(UTC)))
            self._all[name] = one
            self._save()
            return one

    def remove(self, name: str) -> bool:
        with self._lock:
            found = self._all.pop(name, None) is not None
            self._save()
            return found

    def tick(self, now: datetime | None = None) -> None:
        """Submits what is due. What is due while its last job has not ended is left out, and said so."""
        now = now or datetime.now(UTC)
        with self._lock:
            due = [one for one in self._all.values() if datetime.fromisoformat(one.next) <= now]
            for one in due:
                self._all[one.name] = replace(self._begun(one, now), next=next_after(one.cron, now))
            if due:
                self._save()

    def _begun(self, one: Schedule, now: datetime) -> Schedule:
        last, at = self._jobs.get(one.job), now.isoformat(timespec="seconds")
        if last is not None and not last.over:
            return replace(one, note=f"Left out at {at}: its job of before was still under way.")
        try:
            request = REQUEST.validate_python(one.request)
            job = self._jobs.submit(one.request, lambda id_: command_of(request, self._store, id_), one.name)
        except Full as error:
            return replace(one, note=f"Left out at {at}: {error}")
        except ValidationError as error:  # kept by another version of this, or changed by hand
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return replace(
                one, note=f"Left out at {at}: what it asks for is nothing that can be done: {where}: {first['msg']}."
            )
        return replace(one, last=at, job=job.id, note="")

    def _save(self) -> None:
        write_json(self._file, {"schedules": [asdict(one) for one in self.all()]})
