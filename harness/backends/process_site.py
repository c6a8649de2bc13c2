"""A site on this machine: every part a plain process on 127.0.0.1, with the programs that provisioning found."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from harness import versions
from harness.backends.base import Child, Exit, OnExit, Port
from harness.backends.local_site import LocalSite
from harness.backends.outlived import OutlivedProcesses
from harness.backends.process import Processes
from harness.errors import StartFailed, last_lines
from harness.provision import Programs
from harness.provision.hadoop import Hdfs
from harness.topology import Pipeline

FORMAT_WITHIN_S = 60.0


class ProcessSite(LocalSite):
    """See harness.backends.base.Site."""

    name = "process"
    existing: Mapping[str, str] = {}
    projects: Mapping[str, str] = {}

    def __init__(
        self,
        pipeline: Pipeline,
        programs: Programs,
        processes: Processes,
        folder: Path,
        doors: Mapping[str, int] | None = None,
        outlived: OutlivedProcesses | None = None,
    ) -> None:
        super().__init__(pipeline, programs.toxiproxy, processes, folder, doors, outlived)
        self._programs = programs

    def start_kafka(
        self, name: str, properties: Callable[[Path], str], log: Path, on_exit: OnExit, identity: str = ""
    ) -> Child:
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir(parents=True)
            if identity:
                (folder / "data").mkdir()
                (folder / "data" / "meta.properties").write_text(identity)
            else:
                shutil.copytree(self._programs.kafka.template, folder / "data")
        file = folder / "server.properties"
        file.write_text(properties(folder / "data"))
        return self._processes.spawn(self._programs.kafka.start_args(file), log, cwd=folder, on_exit=on_exit)

    def start_emulator(
        self, name: str, kind: str, port: Port, log: Path, on_exit: OnExit, args: Sequence[str] = ()
    ) -> Child:
        host = port.bind.rpartition(":")[0]
        argv = getattr(self._programs, kind).start_args(host, port.number)
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return self._processes.spawn([*argv, *args], log, cwd=folder, on_exit=on_exit)

    def start_hdfs(self, name: str, main: str, ports: Sequence[Port], log: Path, on_exit: OnExit) -> Child:
        program = self._programs.hadoop
        assert program is not None  # the backend got it for a pipeline that has an HDFS
        folder = self.folder / name
        web, data_web, rpc, data, data_rpc = (port.number for port in ports)
        hdfs = Hdfs(program, folder, (web, rpc, data, data_web, data_rpc))
        if not folder.exists():
            folder.mkdir(parents=True)
            hdfs.configure()
            self._format(hdfs, log)
        return self._processes.spawn(hdfs.args(main), log, cwd=folder, on_exit=on_exit)

    def _format(self, hdfs: Hdfs, log: Path) -> None:
        ended: Future[Exit] = Future()
        self._processes.spawn(hdfs.format_args(), log, cwd=hdfs.folder, on_exit=ended.set_result)
        how = ended.result(FORMAT_WITHIN_S)
        if how.status != 0:
            raise StartFailed(f"HDFS could not be formatted: it {how.told}\n  its log ends:\n{last_lines(log)}")

    def version(self, kind: str) -> str:
        program = getattr(self._programs, kind, None)
        return program.version if program is not None else ""

    def versions(self) -> dict[str, str]:
        return versions.of_programs(self._programs)
