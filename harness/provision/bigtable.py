"""The Bigtable emulator: $GAUNTLET_BIGTABLE_EMULATOR, the PATH, the Cloud SDK, the cache, a build with Go.

`cbtemulator` of the Cloud SDK and what is built here are the same program, the command of the Go package
cloud.google.com/go/bigtable/cmd/emulator. There is no release of it outside the SDK.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.provision import go_build
from harness.provision.cache import Entry, Made
from harness.provision.programs import Program
from harness.provision.search import Search, architecture, operating_system
from harness.provision.trial import DoesNotRun, try_out

NAME = "bigtable"
VERSION = "1.58.0"
BINARY = "cbtemulator"
PACKAGE = "cloud.google.com/go/bigtable/cmd/emulator"


def look(search: Search) -> Program | None:
    """What is there already. Raises ProvisionError for a wrong explicit path."""
    named = search.explicit(NAME, "GAUNTLET_BIGTABLE_EMULATOR")
    if named is not None:
        if not os.access(named, os.X_OK) or named.is_dir():
            raise search.unusable(NAME, "GAUNTLET_BIGTABLE_EMULATOR", f"{named} is no program")
        return _program(named, "(not told)", "$GAUNTLET_BIGTABLE_EMULATOR")
    found = search.which(BINARY)
    if found is not None:
        return _program(found, "(not told)", f"PATH ({found})")
    search.refuse(NAME, "PATH", f"no {BINARY} there")
    if search.sdk is None:
        search.refuse(NAME, "Google Cloud SDK", "not installed")
    else:
        program = search.sdk / "platform" / "bigtable-emulator" / BINARY
        if os.access(program, os.X_OK):
            return _program(program, f"of Cloud SDK {sdk_version(search.sdk)}", f"Google Cloud SDK ({search.sdk})")
        search.refuse(NAME, f"Google Cloud SDK ({search.sdk})", "its component 'bigtable' is not installed")
    entry = search.cached(NAME, key())
    return _cached(entry) if entry is not None else None


def fetch(search: Search) -> Program:
    """Builds it. Raises ProvisionError."""
    return _cached(
        search.cache.make(NAME, key(), lambda folder: _make(search, folder), search.progress, search.cancelled)
    )


def key() -> str:
    return f"{VERSION}-{operating_system()}-{architecture()}"


def sdk_version(sdk: Path) -> str:
    try:
        return (sdk / "VERSION").read_text().strip()
    except OSError:
        return "(unknown)"


def _make(search: Search, folder: Path) -> Made:
    advice = "install the Cloud SDK's component 'bigtable', or name a cbtemulator by GAUNTLET_BIGTABLE_EMULATOR."
    try:
        go = go_build.install(search, NAME, PACKAGE, f"v{VERSION}", folder / BINARY)
        try_out(search, _program(folder / BINARY, VERSION, ""))
    except (go_build.CannotBuild, DoesNotRun) as error:
        search.refuse(NAME, "build with Go", str(error))
        raise search.missing(NAME, advice) from error
    return Made(VERSION, f"built with {go.version}")


def _cached(entry: Entry) -> Program:
    return _program(entry.folder / BINARY, entry.version, f"cache ({entry.origin})")


def _program(path: Path, version: str, origin: str) -> Program:
    return Program(NAME, version, (str(path),), origin, kind="emulator")
