"""A site on this machine: every part a plain process on 127.0.0.1, with the programs that provisioning found."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from faults.base import Container
from harness import versions
from harness.backends.base import Child, Door, Launch, OnExit, Port
from harness.backends.process import Ports, Processes
from harness.errors import HarnessFault
from harness.linkmeter import LinkMeter
from harness.provision import Programs
from harness.topology import Batch, Pipeline, Worker
from harness.toxiproxy import ToxiproxyServer


class ProcessSite:
    """See harness.backends.base.Site."""

    name = "process"

    def __init__(self, pipeline: Pipeline, programs: Programs, processes: Processes, folder: Path) -> None:
        self.folder, self.children = folder, processes
        self._programs, self._processes = programs, processes
        self._free = Ports()
        self._taken: dict[tuple[str, str], Port] = {}
        self._doors = {link.name: self._free.take() for link in pipeline.links()}
        addresses = {name: f"127.0.0.1:{port}" for name, port in self._doors.items()}
        self.doors = {name: Door(address, address, address) for name, address in addresses.items()}
        self._api = self._free.take()
        self.toxiproxy = ToxiproxyServer("127.0.0.1", self._api)

    def start_toxiproxy(self, log: Path, on_exit: OnExit) -> Child:
        argv = [*self._programs.toxiproxy.start_args("127.0.0.1", self._api), "-proxy-metrics"]
        return self._processes.spawn(argv, log, on_exit=on_exit)

    def port(self, service: str, what: str) -> Port:
        if (service, what) not in self._taken:
            address = f"127.0.0.1:{self._free.take()}"
            self._taken[service, what] = Port(address, address)
        return self._taken[service, what]

    def direct(self, service: str, port: Port) -> str:
        return port.reach

    def standing_proxies(self) -> list[tuple[str, str, str]]:
        return []

    def start_kafka(self, name: str, properties: Callable[[Path], str], log: Path, on_exit: OnExit) -> Child:
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir(parents=True)
            shutil.copytree(self._programs.kafka.template, folder / "data")
        file = folder / "server.properties"
        file.write_text(properties(folder / "data"))
        return self._processes.spawn(self._programs.kafka.start_args(file), log, cwd=folder, on_exit=on_exit)

    def start_emulator(self, name: str, kind: str, port: Port, log: Path, on_exit: OnExit) -> Child:
        host, number = port.bind.rsplit(":", 1)
        argv = getattr(self._programs, kind).start_args(host, int(number))
        return self._processes.spawn(argv, log, on_exit=on_exit)

    def launch(
        self, instance: str, worker: Worker | Batch, env: Mapping[str, str], log: Path, output: Path | None = None
    ) -> tuple[Launch, str]:
        argv = [word.replace("{python}", sys.executable) for word in worker.command]
        own = {**os.environ, **env} | ({"BATCH_OUTPUT": str(output)} if output is not None else {})

        def start(on_exit: OnExit) -> Child:
            return self._processes.spawn(argv, log, own, worker.cwd, on_exit)

        return start, " ".join(argv)

    def container(self, instance: str) -> Container:
        raise HarnessFault(f"{instance} is a process of this machine and no container")

    def version(self, kind: str) -> str:
        program = getattr(self._programs, kind, None)
        return program.version if program is not None else ""

    def versions(self) -> dict[str, str]:
        return versions.of_programs(self._programs)

    def meter(self) -> LinkMeter:
        return LinkMeter(self._doors)

    def close(self) -> None:
        self._free.close()
