"""The services of a pipeline and the proxies before them: started once, used by many runs.

A stack is made for a pipeline's shape (its services and links). Mutants and repeated runs have the same shape, so one
stack serves a whole pytest session; what a run leaves in it (topics, subscriptions, tables) is made fresh for each.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.backends.process import Child, Exit, Ports, Processes
from harness.errors import HarnessFault
from harness.provision import Programs
from harness.services import bigtable, kafka, pubsub, sqlite
from harness.services.base import Server, SinkTap, Tap
from harness.topology import (
    Bigtable,
    BigtableHop,
    Hop,
    Kafka,
    KafkaHop,
    Pipeline,
    PubSub,
    PubSubHop,
    Sqlite,
    SqliteHop,
    UsageError,
)
from harness.toxiproxy import ToxiproxyServer

_numbers = itertools.count(1)

#: (event kind, fields) -> None: how a stack tells the run that uses it what happened to its services.
Tell = Callable[..., Any]


def shape(pipeline: Pipeline) -> str:
    """What a stack must have to serve this pipeline; equal shapes can share one."""
    services = [{"type": type(s).__name__, **dataclasses.asdict(s)} for s in pipeline.services]
    return json.dumps([services, [link.name for link in pipeline.links()]], sort_keys=True, default=str)


class Stack:
    """Start it with `start`, use it for one run after another, end it with `close`."""

    def __init__(self, pipeline: Pipeline, programs: Programs, processes: Processes) -> None:
        self.shape = shape(pipeline)
        self.programs, self.processes = programs, processes
        self._ports = Ports()
        self._tell: Tell = lambda kind, **fields: None
        self._asked: set[int] = set()
        self._children: dict[str, tuple[Child, str]] = {}
        self._lock = threading.Lock()
        self.folder = processes.temp / f"stack-{next(_numbers)}"
        (self.folder / "logs").mkdir(parents=True)
        self.links = pipeline.links()
        self.proxy_ports = {link.name: self._ports.take() for link in self.links}
        self._api_port = self._ports.take()
        self.toxiproxy = ToxiproxyServer("127.0.0.1", self._api_port)
        self.servers: dict[str, Server] = {s.name: self._server(s) for s in pipeline.services}
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="stack")
        self.ready: dict[str, Future[None]] = {}

    def _server(self, service: Any) -> Server:
        links = [link for link in self.links if link.service == service.name]
        if isinstance(service, Kafka):
            return kafka.KafkaServer(
                service,
                self.programs.kafka,
                self.processes,
                self.folder,
                self._ports,
                links,
                self.proxy_ports,
                self._exited,
            )
        if isinstance(service, PubSub):
            return pubsub.PubSubServer(
                service, self.programs.pubsub, self.processes, self.folder, self._ports, self._exited
            )
        if isinstance(service, Bigtable):
            return bigtable.BigtableServer(
                service, self.programs.bigtable, self.processes, self.folder, self._ports, self._exited
            )
        if isinstance(service, Sqlite):
            return sqlite.SqliteServer(service, self.folder)  # type: ignore[return-value]
        raise UsageError(f"The service {service.name!r} is of a kind that this version cannot run: {service.kind!r}.")

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self, tell: Tell) -> None:
        """Starts everything side by side and returns at once; `ready[service]` is done when that one answers."""
        self._tell = tell
        self._start_toxiproxy()
        proxies = self._pool.submit(self._make_proxies)
        for name in self.servers:
            self.ready[name] = self._pool.submit(self._start_server, name, proxies)

    def listen(self, tell: Tell) -> None:
        """From now on, events of the services go to another run; it is told of those that are up."""
        self._tell = tell
        for name, (child, version) in list(self._children.items()):
            tell("service-start", service=name, pid=child.pid, started=child.started, version=version)

    def _start_toxiproxy(self) -> None:
        program = self.programs.toxiproxy
        log = self.folder / "logs" / "toxiproxy.log"
        argv = [*program.start_args("127.0.0.1", self._api_port), "-proxy-metrics"]
        child = self.processes.spawn(argv, log, on_exit=lambda e: self._exited("toxiproxy", e))
        self._started("toxiproxy", child, program.version)

    def _make_proxies(self) -> None:
        self.toxiproxy.wait_until_ready()
        self.toxiproxy.create(
            [
                (link.name, f"127.0.0.1:{self.proxy_ports[link.name]}", self.servers[link.service].upstream(link))
                for link in self.links
            ]
        )

    def _start_server(self, name: str, proxies: Future[None]) -> None:
        server = self.servers[name]
        server.start()
        child = getattr(server, "child", None)
        if child is not None:
            self._started(name, child, self.version(name))
        server.wait_until_ready()
        proxies.result(30)

    def _started(self, name: str, child: Child, version: str) -> None:
        self._children[name] = (child, version)
        self._tell("service-start", service=name, pid=child.pid, started=child.started, version=version)

    def _exited(self, name: str, how: Exit) -> None:
        with self._lock:
            asked = how.pid in self._asked
        self._tell(
            "service-exit", t=how.t, service=name, pid=how.pid, status=how.status, signal=how.signal, asked=asked
        )

    def version(self, service: str) -> str:
        program = getattr(self.programs, self.servers[service].service.kind, None)  # type: ignore[attr-defined]
        return program.version if program is not None else ""

    def kill_service(self, name: str) -> dict[str, Any]:
        """SIGKILL; returns when it has ended."""
        child, _ = self._children[name]
        with self._lock:
            self._asked.add(child.pid)
        self.processes.stop_now(child.pid)
        ended = self.processes.ended(child.pid)
        return {"pid": child.pid, "status": ended.status if ended else None}

    def start_service(self, name: str) -> dict[str, Any]:
        """Starts a service again that was killed; returns when it answers."""
        server = self.servers[name]
        server.start()
        child: Child = server.child  # type: ignore[attr-defined]
        self._started(name, child, self.version(name))
        server.wait_until_ready()
        return {"pid": child.pid, "started": child.started}

    def alive(self) -> dict[str, bool]:
        return {name: self.processes.ended(child.pid) is None for name, (child, _) in self._children.items()}

    def probe(self, link_name: str) -> float | None:
        """Seconds until the service answered through this link's proxy; None if it did not."""
        link = next(link for link in self.links if link.name == link_name)
        address = f"127.0.0.1:{self.proxy_ports[link_name]}"
        is_kafka = isinstance(self.servers[link.service], kafka.KafkaServer)
        try:
            return round((kafka.probe if is_kafka else pubsub.probe)(address), 4)
        except HarnessFault:
            return None

    def close(self) -> None:
        with self._lock:
            self._asked.update(child.pid for child, _ in self._children.values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.processes.stop([child.pid for child, _ in self._children.values()], grace_s=0.0)
        self._ports.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what a run needs of it ----------------------------------------------------------------------------------

    def address(self, worker: str, service: str) -> str:
        """Where a worker finds a service: the listen address of its own proxy."""
        return f"127.0.0.1:{self.proxy_ports[f'{worker}->{service}']}"

    def names(self, run: str) -> dict[str, str]:
        """The run's own name of every topic, subscription, table and database."""
        found: dict[str, str] = {}
        for server in self.servers.values():
            found |= server.names(run)
        return found

    def make(self, service: str, run: str) -> None:
        self.ready[service].result()
        self.servers[service].make(self.servers[service].names(run))

    def remove(self, run: str) -> None:
        for server in self.servers.values():
            server.remove(server.names(run))

    def tap(
        self, pipeline: Pipeline, hop: Hop, names: Mapping[str, str], run: str, now: Callable[[], float]
    ) -> Tap | SinkTap:
        server = self.servers[hop.service]

        def now_ms() -> float:
            return now() * 1000

        if isinstance(hop, KafkaHop) and isinstance(server, kafka.KafkaServer):
            return kafka.KafkaTap(hop, server, names[hop.topic], run, now_ms)
        if isinstance(hop, PubSubHop) and isinstance(server, pubsub.PubSubServer):
            return pubsub.PubSubTap(hop, server, names[hop.topic], run, now_ms)
        if isinstance(hop, BigtableHop) and isinstance(server, bigtable.BigtableServer):
            return bigtable.bigtable_tap(hop, server, names[hop.table], pipeline.cells, now)
        if isinstance(hop, SqliteHop) and isinstance(server, sqlite.SqliteServer):
            return sqlite.sqlite_tap(hop, names[hop.database], pipeline.cells, now)
        raise UsageError(f"The hop {hop.name!r} is of a kind that does not fit its service {hop.service!r}.")

    def logs(self) -> dict[str, Path]:
        folder = self.folder / "logs"
        return {path.stem: path for path in sorted(folder.glob("*.log"))}
