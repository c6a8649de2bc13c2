"""Services that are there already (a staging Kafka, Pub/Sub, Bigtable); Toxiproxy and the workers run on this machine.

What this backend did not start it never ends, so a fault on a service is refused. Kafka leads its clients on to the
addresses that it advertises, so a link to it goes through its proxy only if Kafka has a listener for it that advertises
the proxy (harness.backends.endpoints); a link without one is *open*, and what cannot be done to it, or proven of it, is
refused with the reason before anything starts.
"""

from __future__ import annotations

import dataclasses
import itertools
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from faults.base import Fault
from harness.backends.base import Child, OnExit, Port, Site
from harness.backends.endpoints import Endpoints
from harness.backends.local_site import LocalSite
from harness.backends.process import Processes
from harness.errors import HarnessFault
from harness.provision.programs import Program
from harness.topology import Pipeline, UsageError


class ExternalBackend:
    name = "external"

    def __init__(self, processes: Processes, endpoints: Endpoints) -> None:
        from harness.provision import provision_one
        from harness.provision.show import Shown

        with Shown() as shown:
            self._toxiproxy = provision_one("toxiproxy", shown)
        self._processes, self._endpoints = processes, endpoints
        self.where = f"as processes, on the services of {endpoints.path}"
        self.notes: list[str] = []
        self._numbers = itertools.count(1)

    def site(self, pipeline: Pipeline, outlived: None = None) -> Site:
        self._endpoints.check(pipeline)
        folder = self._processes.temp / f"external-{next(self._numbers)}"
        return ExternalSite(pipeline, self._toxiproxy, self._processes, folder, self._endpoints)

    def refuses(self, fault: Fault, pipeline: Pipeline) -> str:
        self._endpoints.check(pipeline)
        targets = fault.targets(pipeline)
        if fault.acts_on == "service":
            return f"{targets[0]} was there before this run, and this backend neither ends nor starts it"
        opened = self._endpoints.open_links(pipeline)
        if fault.acts_on == "link":
            link = next((link for link in targets if link in opened), None)
            if link is not None and "://" in self._endpoints.services[opened[link]].address:
                return f"{opened[link]} is asked by its URL, by TLS and past the proxy"
            if link is not None:
                return (
                    f"{opened[link]} leads the client of {link} on to an address of its own, past the proxy; give the "
                    f"link a listener that advertises its proxy, and name it in {self._endpoints.path} "
                    f'([{opened[link]}.links."{link}"])'
                )
        if fault.acts_on == "worker":
            for instance in targets:
                links = [link.name for link in pipeline.links() if link.worker == instance]
                if links and all(link in opened for link in links):
                    return (
                        f"nothing could prove that it bit: all that {instance} does goes past its proxies "
                        f"({', '.join(links)} have no listener in {self._endpoints.path})"
                    )
        return ""

    def close(self) -> None:
        return


class ExternalSite(LocalSite):
    """See harness.backends.base.Site. Services are never started here: what would start one answers None."""

    name = "external"

    def __init__(
        self, pipeline: Pipeline, toxiproxy: Program, processes: Processes, folder: Path, endpoints: Endpoints
    ) -> None:
        fixed = {link: x.port for e in endpoints.services.values() for link, x in e.links.items()}
        for link, port in fixed.items():
            _must_be_free(link, port, endpoints.path)
        super().__init__(pipeline, toxiproxy, processes, folder, fixed)
        self._endpoints = endpoints
        self.existing = {name: e.address for name, e in endpoints.services.items()}
        self.projects = {name: e.project for name, e in endpoints.services.items() if e.project}
        for link, service in endpoints.open_links(pipeline).items():
            if "://" in self.existing[service]:
                self.doors[link] = dataclasses.replace(self.doors[link], client=self.existing[service])

    def to_be_outlived(self) -> None:
        """What runs beside the services of others ends with its harness, which is who sweeps there."""

    def port(self, process: str, what: str) -> Port:
        endpoint = self._endpoints.services.get(process)
        if endpoint is None:  # of a worker that serves, which runs here
            return super().port(process, what)
        listener = endpoint.links.get(what)
        return Port("", listener.upstream if listener is not None else endpoint.address)

    def direct(self, process: str, port: Port) -> str:
        endpoint = self._endpoints.services.get(process)
        return endpoint.address if endpoint is not None else super().direct(process, port)

    def start_kafka(
        self, name: str, properties: Callable[[Path], str], log: Path, on_exit: OnExit, identity: str = ""
    ) -> Child | None:
        return None

    def start_emulator(
        self, name: str, kind: str, port: Port, log: Path, on_exit: OnExit, args: Sequence[str] = ()
    ) -> Child | None:
        return None

    def start_hdfs(self, name: str, main: str, ports: Sequence[Port], log: Path, on_exit: OnExit) -> Child:
        raise HarnessFault(f"{name} is HDFS, which runs as plain processes of the harness only")

    def version(self, kind: str) -> str:
        return self._program.version if kind == "toxiproxy" else ""

    def versions(self) -> dict[str, str]:
        found = {"toxiproxy": f"{self._program.version} ({self._program.origin})"}
        return found | {name: f"at {address}" for name, address in self.existing.items()}


def _must_be_free(link: str, port: int, path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"The port {port} of the link {link} ({path}) is taken: {error.strerror}. Another run with the same "
                "endpoints file? One at a time; or give each a file, and Kafka a listener for each link, of its own."
            ) from error
