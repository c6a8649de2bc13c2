"""What the load process is asked to do: one JSON file, and three files by which it and its parent talk.

spec     written by the parent; everything below, the profile as a dict
go       appears when the load shall start: {"t0_ms": epoch milliseconds}
stop     appears when the load shall end early
status   written by the load process, one JSON object a line: "ready", then "loading" every half second, then
         "done" (or "error" with a text)
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.topology import UsageError, unknown
from load import profiles
from load.plan import Plan
from load.profiles import Steady


@dataclass(frozen=True)
class LoadSpec:
    """bootstrap   host:port of Kafka; in a run the load's own link, that is a Toxiproxy proxy
    topic       the source topic; it must exist
    run         the run's tag, 8 hex digits
    seed        see load.plan.Plan
    users       producers that share the profile's rate
    ledger      path of the ledger file; made if there is none. Of several processes each writes one of its own beside it
                (`harness.ledger.ledgers`)
    processes   how many share the users, as Locust's master and workers; 1: this one alone
    encode      "module:function" of an encoder (see load.events), or None for the harness's own source form
    keyed       whether events in the harness's own form have a key (an encoder says so itself)
    drain_s     how long to wait at the end for the last delivery reports; what is out by then stays ambiguous
    """

    bootstrap: str
    topic: str
    run: str
    seed: int
    profile: Steady
    ledger: str
    users: int = 1
    status: str = ""
    go: str = ""
    stop: str = ""
    encode: str | None = None
    drain_s: float = 65.0
    processes: int = 1
    keyed: bool = True

    def plan(self, t0_ms: int) -> Plan:
        """The plan of this load, once it is known when it starts."""
        return Plan(self.profile, self.seed, self.users, t0_ms, self.run)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the spec for `python -m load.main PATH`."""
        values = {**dataclasses.asdict(self), "profile": self.profile.as_dict()}
        Path(path).write_text(json.dumps(values, indent=2) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LoadSpec:
        """The spec of a file. UsageError says what is wrong with it."""
        try:
            values = json.loads(Path(path).read_text())
        except OSError as error:
            raise UsageError(f"The load's spec {path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise UsageError(f"The load's spec {path} is no JSON: {error}.") from error
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LoadSpec:
        """The spec of a JSON object. UsageError for fields that are missing or do not exist."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown("field of the load's spec", name, fields)
        for name, field in fields.items():
            if field.default is dataclasses.MISSING and name not in values:
                raise UsageError(f"The load's spec lacks {name!r}.")
        spec = cls(**{**values, "profile": profiles.from_dict(values["profile"])})
        spec.plan(t0_ms=10**12)  # checks run, seed and users
        check_processes(spec.processes, spec.users)
        return spec


def check_processes(processes: int, users: int) -> None:
    """Raises UsageError unless so many users can be spread over so many processes."""
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise UsageError(f"The number of load processes must be 1 or more, not {processes!r}.")
    if processes > users:
        raise UsageError(f"{users} load user(s) cannot be spread over {processes} processes: take more users.")
