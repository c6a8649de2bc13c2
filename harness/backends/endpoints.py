"""The endpoints file: which services are there already, for the external backend.

    [kafka]                                 # a service's name in the pipeline
    address = "kafka.staging.example:9092"  # the harness's own way in

    [kafka.links."converter->kafka"]        # a listener of this link's own (Kafka only)
    upstream = "kafka.staging.example:9102" # what Toxiproxy dials
    port = 21002                            # the listener advertises 127.0.0.1:21002, where the worker finds the proxy

    [bigquery]
    address = "https://bigquery.googleapis.com"    # or "host:port" of an emulator
    project = "my-project"                         # where the run makes its datasets

docs/external.md walks through it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.topology import Pipeline, UsageError, unknown

_URL = re.compile(r"https?://[^/\s]+/?")


@dataclass(frozen=True)
class Listener:
    """A listener that Kafka has for one link: its address ("host:port"), and the port of the proxy that it advertises."""

    upstream: str
    port: int


@dataclass(frozen=True)
class Endpoint:
    """A service that is there already, at "host:port", in plain text, or at a URL. `links`: link -> the listener of its
    own; `project`: of Google Cloud."""

    address: str
    links: Mapping[str, Listener] = field(default_factory=dict)
    project: str = ""


@dataclass(frozen=True)
class Endpoints:
    """`services`: by the name that a pipeline gives them."""

    path: Path
    services: Mapping[str, Endpoint]

    @classmethod
    def read(cls, path: Path) -> Endpoints:
        """Raises UsageError that says what is wrong in the file and where."""
        try:
            found = tomllib.loads(path.read_text())
        except OSError as error:
            raise UsageError(f"The endpoints file {path} cannot be read: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"The endpoints file {path} is no TOML: {error}.") from error
        return cls(path, {name: _endpoint(path, name, table) for name, table in found.items()})

    def check(self, pipeline: Pipeline) -> None:
        """Raises UsageError if a service of the pipeline has no endpoint here, or a name fits nothing in it."""
        networked = {s.name: s for s in pipeline.services if s.networked}
        for name in networked:
            if name not in self.services:
                raise UsageError(
                    f"{self.path} does not say where the service {name!r} of {pipeline.name} is. Add to it:\n"
                    f'  [{name}]\n  address = "host:port"'
                )
        for name, endpoint in self.services.items():
            if name not in networked:
                raise unknown(f"service of {pipeline.name}", name, networked, f"services of {pipeline.name}")
            if networked[name].kind == "hadoop":
                raise UsageError(
                    f"{name} of {pipeline.name} is HDFS, which leads its clients on from one address to another: it is started "
                    "and ended by the harness itself. Run it with --backend process."
                )
            if len(networked[name].processes()) > 1:
                raise UsageError(
                    f"{pipeline.name} has {len(networked[name].processes())} brokers of its own in {name}, and "
                    f"{self.path} knows one address of it. Services that are there already keep their brokers to "
                    "themselves: declare Kafka without `brokers`."
                )
            if networked[name].kind == "bigquery":
                if not endpoint.project:
                    raise UsageError(
                        f"{self.path} does not say in which project of BigQuery {name} a run may make its datasets. Add to "
                        f'[{name}]: project = "my-project"'
                    )
            elif endpoint.project or "://" in endpoint.address:
                raise UsageError(
                    f"{self.path}: [{name}]: only BigQuery has a project and may be at a URL; {networked[name].kind} needs "
                    'address = "host:port".'
                )
            links = [link.name for link in pipeline.links() if link.service == name]
            for link in endpoint.links:
                if link not in links:
                    raise unknown(f"link to {name}", link, links, f"links to {name}")
                if networked[name].kind != "kafka":
                    raise UsageError(
                        f"{self.path}: only Kafka needs a listener for each link; {name} ({networked[name].kind}) needs "
                        f"no [{name}.links]."
                    )

    def open_links(self, pipeline: Pipeline) -> dict[str, str]:
        """Links that go past their proxy: link -> service. Kafka leads the client of one that has no listener of its own
        on to another address, and the real BigQuery is asked by its URL."""
        kafka = {s.name for s in pipeline.services if s.kind == "kafka"}
        return {
            link.name: link.service
            for link in pipeline.links()
            if (link.service in kafka and link.name not in self.services[link.service].links)
            or "://" in self.services[link.service].address
        }


def _endpoint(path: Path, name: str, table: Any) -> Endpoint:
    where = f"{path}: [{name}]"
    _only(where, table, ("address", "links", "project"))
    links = table.get("links", {})
    if not isinstance(links, dict):
        raise UsageError(f'{where}: links are tables, such as [{name}.links."worker->{name}"].')
    project = table.get("project", "")
    if not isinstance(project, str):
        raise UsageError(f"{where}: project must be the name of a project of Google Cloud, not {project!r}.")
    address = table.get("address")
    return Endpoint(
        address if isinstance(address, str) and _URL.fullmatch(address) else _address(where, "address", address),
        {link: _listener(f'{path}: [{name}.links."{link}"]', listener) for link, listener in links.items()},
        project,
    )


def _listener(where: str, table: Any) -> Listener:
    _only(where, table, ("upstream", "port"))
    port = table.get("port")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise UsageError(f"{where}: port must be the number of the port that the listener advertises, not {port!r}.")
    return Listener(_address(where, "upstream", table.get("upstream")), port)


def _only(where: str, table: Any, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table, not {table!r}.")
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: {unknown('setting', key, known)}")


def _address(where: str, key: str, given: Any) -> str:
    host, _, port = str(given or "").rpartition(":")
    if not isinstance(given, str) or not host or not port.isdigit():
        raise UsageError(f'{where}: {key} must be "host:port", not {given!r}.')
    return given
