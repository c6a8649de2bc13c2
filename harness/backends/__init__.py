"""Where the parts of a run live: plain processes on this machine, containers, or services that are there already."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any, Protocol

from faults.base import Fault
from harness.backends.base import Site
from harness.backends.outlived import Outlived, OutlivedProcesses
from harness.backends.process import Processes
from harness.topology import Pipeline, UsageError

NAMES = ("auto", "process", "docker", "external")


class Backend(Protocol):
    """What a session builds its stacks with. `notes` are told in the run, `where` (in a few words) in its first line."""

    name: str
    where: str
    notes: list[str]

    def site(self, pipeline: Pipeline, outlived: Any = None) -> Site:
        """`outlived`: of a harness that was killed, what it left of one that is to be taken over (see outlived.py)."""
        ...

    def refuses(self, fault: Fault, pipeline: Pipeline) -> str:
        """Why a fault cannot be done to this pipeline here, or ""."""
        ...

    def close(self) -> None: ...


class ProcessBackend:
    """Plain processes, with programs that provisioning finds or fetches."""

    name = "process"

    def __init__(self, processes: Processes, why: str = "", forgets: bool = False) -> None:
        from harness.provision import provision, pubsub
        from harness.provision.show import Shown

        with Shown() as shown:
            self._programs = provision(shown, pubsub.that_forgets(os.environ) if forgets else None)
        self._processes = processes
        self.where = f"as processes: {why}" if why else "as processes"
        self.notes = list(self._programs.notes)
        self._numbers = itertools.count(1)

    def fetch_programs(self, pipeline: Pipeline) -> None:
        """What this pipeline needs beside the programs of every other."""
        from harness.provision import BY_NEED, provision_one
        from harness.provision.show import Shown

        for name in BY_NEED:
            if any(s.kind == name for s in pipeline.services) and getattr(self._programs, name) is None:
                with Shown() as shown:
                    self._programs = dataclasses.replace(self._programs, **{name: provision_one(name, shown)})

    def site(self, pipeline: Pipeline, outlived: OutlivedProcesses | None = None) -> Site:
        from harness.backends.process_site import ProcessSite

        folder = Path(outlived.folder) if outlived else self._processes.temp / f"stack-{next(self._numbers)}"
        return ProcessSite(pipeline, self._programs, self._processes, folder, outlived=outlived)

    def refuses(self, fault: Fault, pipeline: Pipeline) -> str:
        return ""

    def close(self) -> None:
        return


class Backends:
    """Makes each backend when a pipeline first needs it. `wanted`: one of NAMES; `endpoints`: for "external"; `forgets`: of
    the programs that do the same, those are taken that do not keep everything for ever; `outlived`: what a harness that was
    killed has left."""

    def __init__(
        self,
        wanted: str,
        processes: Processes,
        endpoints: Path | None = None,
        forgets: bool = False,
        outlived: Outlived | None = None,
    ) -> None:
        if wanted not in NAMES:
            raise UsageError(f"There is no backend {wanted!r}; there are {', '.join(NAMES)}.")
        if wanted == "external" and endpoints is None:
            raise UsageError(
                "The backend external runs on services that are there already, and an endpoints file says where. "
                "Give it one with --endpoints FILE (docs/external.md shows how it looks)."
            )
        if wanted != "external" and endpoints is not None:
            raise UsageError(f"The endpoints file {endpoints} is for --backend external, not {wanted}.")
        self._wanted, self._processes, self._endpoints, self._forgets = wanted, processes, endpoints, forgets
        self._outlived = outlived
        self._made: dict[str, Backend] = {}
        self._why_not: str | bool | None = False

    def of(self, pipeline: Pipeline) -> Backend:
        """ "auto": Docker where it can be had at once and the pipeline can live in containers, else processes.

        Raises UsageError where Docker was asked for and cannot be had, and says what to do.
        """
        from harness.backends import docker

        if self._endpoints is not None:
            return self._external(self._endpoints)
        reason = ""
        if self._wanted == "docker":
            reason = docker.cannot_hold(pipeline)
            if reason:
                raise UsageError(f"{reason} Run it with --backend process.")
        elif self._wanted == "auto":
            if self._why_not is False:
                self._why_not = docker.why_not()
            reason = str(self._why_not or docker.cannot_hold(pipeline) or docker.lacks(pipeline) or "")
        name = "process" if self._wanted == "process" or reason else "docker"
        if name not in self._made:
            self._made[name] = (
                ProcessBackend(self._processes, reason, self._forgets)
                if name == "process"
                else docker.DockerBackend(self._processes, self._outlived)
            )
        made = self._made[name]
        if isinstance(made, docker.DockerBackend):
            made.fetch_images(pipeline)
        elif isinstance(made, ProcessBackend):
            made.fetch_programs(pipeline)
        return made

    def _external(self, endpoints: Path) -> Backend:
        from harness.backends.endpoints import Endpoints
        from harness.backends.external import ExternalBackend

        if "external" not in self._made:
            self._made["external"] = ExternalBackend(self._processes, Endpoints.read(endpoints))
        return self._made["external"]

    def close(self) -> None:
        for backend in self._made.values():
            backend.close()
        self._made.clear()
