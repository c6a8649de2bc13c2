"""Folders of a run's own that workers share: raw logs, a store's versions. No server runs, so there is no link."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.backends.base import Child, Site
from harness.topology import Files, Link


class FilesServer:
    """`names` are paths as the workers see them; the site knows where they are kept."""

    def __init__(self, service: Files, site: Site) -> None:
        self.name, self.service = service.name, service
        self._site = site
        self.direct = self.inside = ""
        self.children: dict[str, Child] = {}

    def start(self, process: str = "") -> None:
        return

    def wait_until_ready(self) -> None:
        return

    def log(self, process: str = "") -> Path:
        return self._site.folder / "none.log"

    def upstreams(self, link: Link) -> list[str]:
        return []

    def names(self, run: str) -> dict[str, str]:
        return {folder: self._site.shared_path(f"{folder}-{run}") for folder in self.service.folders}

    def make(self, names: Mapping[str, str]) -> None:
        for path in names.values():
            self._site.make_shared(path)

    def sweep(self, run: str) -> None:
        self.remove(self.names(run))

    def remove(self, names: Mapping[str, str]) -> None:
        for path in names.values():
            self._site.remove_shared(path)
