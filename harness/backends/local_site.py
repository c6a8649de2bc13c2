"""What every site on this machine has: Toxiproxy and the workers as plain processes on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from faults.base import Container
from harness.backends.base import Child, Door, Footprint, Launch, OnExit, Port
from harness.backends.outlived import OutlivedProcesses
from harness.backends.process import Ports, Processes
from harness.errors import HarnessFault
from harness.linkmeter import LinkMeter
from harness.provision.programs import Program
from harness.topology import Batch, Pipeline, Worker
from harness.toxiproxy import ToxiproxyServer


class LocalSite:
    """`doors`: ports that links must have; the others get free ones."""

    def __init__(
        self,
        pipeline: Pipeline,
        toxiproxy: Program,
        processes: Processes,
        folder: Path,
        doors: Mapping[str, int] | None = None,
        outlived: OutlivedProcesses | None = None,
    ) -> None:
        self.folder, self.children = folder, processes
        self._program, self._processes = toxiproxy, processes
        self._free = Ports()
        proxies = [proxy for link in pipeline.links() for proxy in link.proxies]
        if outlived is not None:
            self._doors = {proxy: self._free.hold(outlived.doors[proxy]) for proxy in proxies}
        else:
            self._doors = {proxy: (doors or {}).get(proxy) or self._free.take() for proxy in proxies}
        addresses = {name: f"127.0.0.1:{port}" for name, port in self._doors.items()}
        self.doors = {name: Door(address, address, address) for name, address in addresses.items()}
        self._api = self._free.take() if outlived is None else self._free.hold(outlived.api)
        self.toxiproxy = ToxiproxyServer("127.0.0.1", self._api)
        self._taken: dict[tuple[str, str], Port] = {}
        for process, what, port in () if outlived is None else outlived.taken:
            self._taken[process, what] = _port(self._free.hold(port))

    def to_be_outlived(self) -> OutlivedProcesses | None:
        taken = [(process, what, port.number) for (process, what), port in self._taken.items()]
        return OutlivedProcesses(str(self.folder), self._doors, self._api, taken)

    def join(self, name: str, log: Path, on_exit: OnExit) -> Child | None:
        child = dict(self._processes.living()).get(log)
        if child is not None:
            self._processes.signal(child.pid, signal.SIGCONT)
            self._processes.watch(child.pid, on_exit)
        return child

    def start_toxiproxy(self, log: Path, on_exit: OnExit) -> Child:
        argv = [*self._program.start_args("127.0.0.1", self._api), "-proxy-metrics"]
        return self._processes.spawn(argv, log, on_exit=on_exit)

    def port(self, process: str, what: str) -> Port:
        if (process, what) not in self._taken:
            self._taken[process, what] = _port(self._free.take())
        return self._taken[process, what]

    def direct(self, process: str, port: Port) -> str:
        return port.reach

    def standing_proxies(self) -> list[tuple[str, str, str]]:
        return []

    def launch(
        self, instance: str, worker: Worker | Batch, env: Mapping[str, str], log: Path, output: Path | None = None
    ) -> tuple[Launch, str]:
        argv = [word.replace("{python}", sys.executable) for word in worker.command]
        own = {**os.environ, **env} | ({"BATCH_OUTPUT": str(output)} if output is not None else {})

        def start(on_exit: OnExit) -> Child:
            return self._processes.spawn(argv, log, own, worker.cwd, on_exit)

        return start, " ".join(argv)

    def shared_path(self, folder: str) -> str:
        return str(self.folder / "shared" / folder)

    def make_shared(self, path: str) -> None:
        Path(path).mkdir(parents=True)

    def remove_shared(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def footprint(self, name: str, child: Child) -> Footprint:
        """A program that a shell has started is its child, and so are the processes that it forks."""
        memory, files = 0, 0
        try:
            first = psutil.Process(child.pid)
            for process in (first, *first.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                    memory += process.memory_info().rss
                    files += process.num_fds()
        except psutil.Error:
            return Footprint()
        return Footprint(memory, files) if memory else Footprint()

    def container(self, instance: str) -> Container:
        raise HarnessFault(f"{instance} is a process of this machine and no container")

    def meter(self) -> LinkMeter:
        return LinkMeter(self._doors)

    def close(self) -> None:
        self._free.close()


def _port(number: int) -> Port:
    return Port(f"127.0.0.1:{number}", f"127.0.0.1:{number}")
