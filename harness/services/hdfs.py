"""HDFS: a real NameNode and DataNode, spoken to over WebHDFS. What they wrote survives a kill of either.

A write or a read begins at the NameNode, which answers with the address of the DataNode that has, or gets, the contents:
so a client could go past its proxy there, as with Kafka's brokers. HDFS knows one such address for all clients, and no
setting advertises another one to each. Therefore a worker is told both of its proxies, "<namenode>,<datanode>", and goes
to its own for whatever the NameNode sends it to: clients of WebHDFS have an option for clusters behind a proxy
(`data_proxy` of fsspec). A link to HDFS is both proxies, so that a fault on it cuts off names and contents at once.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.backends.base import Child, Exit, Site
from harness.errors import HarnessFault
from harness.provision.hadoop import DATANODE, NAMENODE
from harness.services.base import ServiceExit, answer_to, wait_until_up
from harness.topology import Hdfs, Link

_STATE = "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"


class HdfsServer:
    """`names` are folders by their paths in it."""

    def __init__(self, service: Hdfs, site: Site, on_exit: ServiceExit) -> None:
        self.name, self.service = service.name, service
        self._site, self._on_exit = site, on_exit
        self._namenode, self._datanode = service.processes()
        self._mains = {self._namenode: NAMENODE, self._datanode: DATANODE}
        self._web = [site.port(process, "web") for process in self._mains]
        others = [(self._namenode, "rpc"), (self._datanode, "data"), (self._datanode, "rpc")]
        self._ports = [self._web[0], self._web[1], *(site.port(process, what) for process, what in others)]
        self.direct = ",".join(site.direct(p, port) for p, port in zip(self._mains, self._web, strict=True))
        self.inside = ",".join(port.reach for port in self._web)
        self.children: dict[str, Child] = {}

    def start(self, process: str = "") -> None:
        for name in [process] if process else self._mains:
            self.children[name] = self._site.start_hdfs(
                self.name, self._mains[name], self._ports, self.log(name), self._exited(name)
            )

    def _exited(self, process: str) -> Any:
        def tell(how: Exit) -> None:
            self._on_exit(process, how)

        return tell

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        wait_until_up(self, self._site, self._answers, timeout_s)

    def _answers(self) -> bool:
        """The NameNode is out of safe mode and knows a DataNode, and that answers."""
        namenode, datanode = self.direct.split(",")
        with urllib.request.urlopen(f"http://{namenode}{_STATE}", timeout=2) as answer:
            state = json.load(answer)["beans"][0]
        return state["NumLiveDataNodes"] == 1 and state["FSState"] == "Operational" and probe(datanode, 1.0) >= 0

    def log(self, process: str = "") -> Path:
        return self._site.folder / "logs" / f"{process or self.name}.log"

    def upstreams(self, link: Link) -> list[str]:
        return [port.reach for port in self._web]

    def names(self, run: str) -> dict[str, str]:
        return {folder: f"/{folder}-{run}" for folder in self.service.folders}

    def make(self, names: Mapping[str, str]) -> None:
        for path in names.values():
            self._ask("PUT", path, "MKDIRS")

    def remove(self, names: Mapping[str, str]) -> None:
        for path in names.values():
            self._ask("DELETE", path, "DELETE&recursive=true")

    def sweep(self, run: str) -> None:
        self.remove(self.names(run))

    def _ask(self, method: str, path: str, operation: str) -> None:
        namenode, _ = self.direct.split(",")
        url = f"http://{namenode}/webhdfs/v1{path}?op={operation}&user.name=gauntlet"
        try:
            urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20).close()
        except OSError as error:
            raise HarnessFault(f"{self.name} did not {operation} {path}: {error}") from error


def probe(address: str, timeout_s: float = 5.0) -> float:
    """Seconds that a NameNode or DataNode takes to answer HTTP on a fresh connection, whatever it says."""
    question = f"GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
    took, answer = answer_to(question, address, b"\n", timeout_s)
    if not answer.startswith(b"HTTP/"):
        raise HarnessFault(f"{address} answered {answer!r} to an HTTP request")
    return took
