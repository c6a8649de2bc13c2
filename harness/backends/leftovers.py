"""What runs make in services that outlive the harness, so that a killed harness leaves nothing there for ever.

A run on existing services makes topics, subscriptions and tables whose names end in its tag. Before the first of them a
note is written (one file a run, with the harness's pid), and removed with the last; the next harness that uses the same
services removes what a dead one left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping

from harness.backends.process import start_time
from harness.provision.cache import cache_root


class Leftovers:
    """Notes of the runs on these services (name -> "host:port")."""

    def __init__(self, services: Mapping[str, str]) -> None:
        self._services = sorted(services.values())
        self._folder = cache_root(os.environ) / "runs-on-existing-services"

    def note(self, tag: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        pid = os.getpid()
        text = json.dumps({"services": self._services, "pid": pid, "started": start_time(pid)})
        part = self._folder / f"{tag}.part"
        part.write_text(text)
        part.rename(self._folder / f"{tag}.json")

    def forget(self, tag: str) -> None:
        (self._folder / f"{tag}.json").unlink(missing_ok=True)

    def of_the_dead(self) -> Iterator[str]:
        """Tags of runs on these services whose harness is gone."""
        for file in sorted(self._folder.glob("*.json")):
            try:
                noted = json.loads(file.read_text())
                same = noted["services"] == self._services
                alive = start_time(noted["pid"]) == noted["started"]
            except FileNotFoundError:  # the process has gone, or the note has meanwhile
                alive = False
            except (OSError, ValueError, KeyError, TypeError, IndexError):
                continue
            if same and not alive and file.exists():
                yield file.stem
