"""One search for the programs: where to look, what was tried, and the tools that fetching needs.

A component's module has `look`, which only looks (environment, PATH or Cloud SDK, cache) and is cheap, and `fetch`,
which downloads or builds. Both note every place that did not do with `refuse`, so that an error can tell the story.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.provision.cache import Cache, Damaged, Entry, cache_root
from harness.provision.programs import Attempt, Progress, ProvisionError

if TYPE_CHECKING:
    from harness.provision.children import Children
    from harness.provision.download import Downloads

#: Where Google Cloud SDK is put by Debian's package, by the installer and by snap, beside what `gcloud` points to.
_SDK_PLACES = ("/usr/lib/google-cloud-sdk", "/usr/lib/google-cloud-cli", "/opt/google-cloud-sdk", "~/google-cloud-sdk",
               "/snap/google-cloud-cli/current", "/snap/google-cloud-sdk/current")  # fmt: skip


def silent(component: str, text: str, fraction: float | None) -> None:
    """A `Progress` that shows nothing."""


class Search:
    def __init__(self, env: Mapping[str, str] | None = None, progress: Progress = silent) -> None:
        self.env: Mapping[str, str] = os.environ if env is None else env
        self.progress = progress
        self.cache = Cache(cache_root(self.env))
        self._tried: dict[str, list[Attempt]] = defaultdict(list)
        self._cancelled = threading.Event()
        self._lock = threading.Lock()

    # -- where to look -----------------------------------------------------------------------------------------

    @property
    def offline(self) -> bool:
        """GAUNTLET_OFFLINE forbids every download and every build."""
        return self.env.get("GAUNTLET_OFFLINE", "") not in ("", "0")

    def explicit(self, component: str, variable: str) -> Path | None:
        """The path that the environment names. Raises ProvisionError if there is nothing: it was asked for."""
        value = self.env.get(variable)
        if not value:
            return None
        path = Path(value).expanduser().absolute()
        if not path.exists():
            raise self.unusable(component, variable, f"{path} does not exist")
        return path

    def unusable(self, component: str, variable: str, reason: str) -> ProvisionError:
        """The error for a place that was named explicitly and does not do; nothing else is tried then."""
        attempt = Attempt(f"${variable} = {self.env.get(variable)}", reason)
        return ProvisionError(component, [attempt], f"correct {variable}, or unset it to let Gauntlet look itself.")

    def which(self, name: str) -> Path | None:
        found = shutil.which(name, path=self.env.get("PATH", os.defpath))
        return Path(found).absolute() if found else None

    def cached(self, component: str, key: str) -> Entry | None:
        """The component in the cache, if it is there and undamaged; otherwise the reason is noted."""
        try:
            entry = self.cache.get(component, key)
        except Damaged as damage:
            self.refuse(component, f"cache ({self.cache.root})", f"damaged: {damage}")
            return None
        if entry is None:
            self.refuse(component, f"cache ({self.cache.root})", "not there")
        return entry

    @cached_property
    def sdk(self) -> Path | None:
        """The root of an installed Google Cloud SDK; `gcloud` itself is never run, it takes a second."""
        named = self.env.get("GAUNTLET_CLOUD_SDK")
        if named:
            return None if named == "none" else Path(named).expanduser()
        gcloud = self.which("gcloud")
        beside = [gcloud.resolve().parent.parent] if gcloud else []
        for place in [*beside, *(Path(p).expanduser() for p in _SDK_PLACES)]:
            if (place / "platform").is_dir():
                return place
        return None

    # -- what was tried ----------------------------------------------------------------------------------------

    def refuse(self, component: str, where: str, reason: str) -> None:
        """Notes that a place does not do; the search goes on."""
        with self._lock:
            if (attempt := Attempt(where, reason)) not in self._tried[component]:
                self._tried[component].append(attempt)

    def tried(self, component: str) -> list[Attempt]:
        return list(self._tried[component])

    def missing(self, component: str, advice: str) -> ProvisionError:
        return ProvisionError(component, self.tried(component), advice)

    # -- tools of fetching -------------------------------------------------------------------------------------

    @cached_property
    def downloads(self) -> Downloads:
        from harness.provision.download import Downloads

        return Downloads(self.cancelled)

    @cached_property
    def children(self) -> Children:
        from harness.provision.children import Children

        return Children(self.cancelled)

    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Makes everything that is under way in other threads give up soon."""
        self._cancelled.set()

    def close(self) -> None:
        """Ends the processes that fetching has started."""
        if "children" in self.__dict__:
            self.children.close()

    def remembered(self, program: Path, find_out: Callable[[], str]) -> str:
        """What `find_out` says of a program (its version), asked once for each state of the file.

        Asking means starting the program, and the start of a run has no time for that.
        """
        stat = program.stat()
        key = f"{program}|{stat.st_size}|{stat.st_mtime_ns}"
        memo = self.cache.root / "versions.json"
        try:
            known = json.loads(memo.read_bytes())
        except (OSError, ValueError):
            known = {}
        if not isinstance(known, dict) or key not in known:
            with self._lock:
                known = {**known, key: find_out()} if isinstance(known, dict) else {key: find_out()}
                try:
                    self.cache.root.mkdir(parents=True, exist_ok=True)
                    part = memo.with_suffix(f".{os.getpid()}.part")
                    part.write_text(json.dumps(known, indent=1))
                    part.replace(memo)
                except OSError:
                    pass  # a cache that cannot be written only costs the question again
        return str(known[key])


def operating_system() -> str:
    """As release files name it: linux or darwin."""
    return "darwin" if sys.platform == "darwin" else "linux"


def architecture() -> str:
    """As release files name it: amd64 or arm64 (or whatever the machine calls itself)."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
