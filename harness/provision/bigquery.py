"""The BigQuery emulator, for pipelines with a warehouse: $GAUNTLET_BIGQUERY_EMULATOR, the cache, or pip.

It is bqemulator, a Python program on DuckDB of 440 MB, so it is fetched only where it is needed, and into a virtual
environment of its own: what it needs would not go together with what this package needs.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from harness.errors import last_lines
from harness.provision.cache import Entry, Made
from harness.provision.programs import Program
from harness.provision.search import Search, architecture, operating_system
from harness.provision.trial import DoesNotRun, try_out

NAME = "bigquery"
PACKAGE = "bqemulator"
LOCK = Path(__file__).with_name("bigquery.lock")
LAUNCHER = Path(__file__).with_name("bigquery_launcher.py")
#: The Storage API's port is not used, so it may be any; each request would be a line of the log.
FLAGS = (
    *("start", "--ephemeral", "--log-level", "warning"),
    *("--rest-host", "{host}", "--rest-port", "{port}", "--grpc-port", "0"),
)
INSTALL_WITHIN_S = 900.0
ADVICE = (
    "let pip reach a package index and repeat it, or make a virtual environment by `pip install --no-deps -r "
    f"{LOCK}` and name its folder by GAUNTLET_BIGQUERY_EMULATOR."
)


def look(search: Search) -> Program | None:
    """What is there already. Raises ProvisionError for a wrong explicit path."""
    named = search.explicit(NAME, "GAUNTLET_BIGQUERY_EMULATOR")
    if named is not None:
        version = _version_in(named)
        if not version:
            why = f"{named} is no virtual environment with the package {PACKAGE}"
            raise search.unusable(NAME, "GAUNTLET_BIGQUERY_EMULATOR", why)
        return _program(named, version, "$GAUNTLET_BIGQUERY_EMULATOR")
    entry = search.cached(NAME, key())
    return _cached(entry) if entry is not None else None


def fetch(search: Search) -> Program:
    """Installs it. Raises ProvisionError."""
    return _cached(
        search.cache.make(NAME, key(), lambda folder: _make(search, folder), search.progress, search.cancelled)
    )


def pins() -> list[str]:
    """The lines of the lock file: `name==version`."""
    return [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]


def key() -> str:
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]
    return f"{_pinned_version()}-{operating_system()}-{architecture()}-{python}-{digest}"


def _pinned_version() -> str:
    return next(pin.split("==")[1] for pin in pins() if pin.startswith(f"{PACKAGE}=="))


def _make(search: Search, folder: Path) -> Made:
    try:
        if search.offline:
            raise DoesNotRun("GAUNTLET_OFFLINE forbids it")
        venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
        log = folder / "pip.log"
        pip = [sys.executable, "-m", "pip", "--python", str(_python(folder)), "--disable-pip-version-check"]
        _install(search, [*pip, "install", "--no-deps", "--progress-bar", "off", "--requirement", str(LOCK)], log)
        log.unlink()
        search.progress(NAME, "trying it out", None)
        try_out(search, _program(folder, _pinned_version(), ""), timeout_s=60)
    except DoesNotRun as error:
        search.refuse(NAME, "pip", str(error))
        raise search.missing(NAME, ADVICE) from error
    return Made(_pinned_version(), "pip")


def _install(search: Search, command: Sequence[str], log: Path) -> None:
    """Runs pip, and shows how far it is. Raises DoesNotRun with the end of what it wrote."""
    child = search.children.start(command, log)
    deadline = time.monotonic() + INSTALL_WITHIN_S
    wanted = len(pins())
    while (status := search.children.status(child)) is None:
        said = log.read_text(errors="replace")
        collected = len(re.findall(r"^(?:Collecting|Looking in|Requirement)", said, re.MULTILINE))
        text = "installing" if "Installing collected" in said else "downloading 150 MB"
        search.progress(NAME, text, min(1.0, collected / wanted))
        if search.cancelled() or time.monotonic() > deadline:
            search.children.stop(child, 1.0)
            if search.cancelled():
                raise InterruptedError("pip was cancelled")
            raise DoesNotRun(f"pip did not end within {INSTALL_WITHIN_S:.0f} s")
        time.sleep(0.1)
    if status:
        raise DoesNotRun(f"pip ended with status {status}:\n{last_lines(log, 6)}")


def _version_in(folder: Path) -> str:
    """The version of the emulator in a virtual environment; "" if there is none."""
    found = list(folder.glob(f"lib/python*/site-packages/{PACKAGE}-*.dist-info"))
    if not found or not _python(folder).exists():
        return ""
    return found[0].name.removeprefix(f"{PACKAGE}-").removesuffix(".dist-info")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _cached(entry: Entry) -> Program:
    return _program(entry.folder, entry.version, f"cache ({entry.origin})")


def _program(folder: Path, version: str, origin: str) -> Program:
    # -I: nothing of the environment's Python, and above all no module from beside the launcher.
    return Program(NAME, version, (str(_python(folder)), "-I", str(LAUNCHER)), origin, FLAGS, kind="emulator")
