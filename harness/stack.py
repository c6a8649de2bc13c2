"""The services of a pipeline and the proxies before them: started once, used by many runs.

A stack is made for a pipeline's shape (its services and links). Mutants and repeated runs have the same shape, so one
stack serves a whole pytest session; what a run leaves in it (topics, subscriptions, tables) is made fresh for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from harness.backends.base import Child, Exit, Site
from harness.backends.leftovers import Leftovers
from harness.errors import HarnessFault, StartFailed, died, last_lines
from harness.services import bigquery, bigtable, files, hdfs, http, kafka, pubsub, redis, sqlite
from harness.services.base import Server, SinkTap, Tap
from harness.topology import (
    BigQuery,
    BigQueryHop,
    Bigtable,
    BigtableHop,
    CountedCell,
    Files,
    Hdfs,
    Hop,
    HttpHop,
    Kafka,
    KafkaHop,
    Link,
    Pipeline,
    PubSub,
    PubSubHop,
    Redis,
    Sqlite,
    SqliteHop,
    UsageError,
)
from harness.toxiproxy import ToxiproxyServer

#: What asks a service of a kind whether it answers; all others speak gRPC.
_PROBES = {"kafka": kafka.probe, "redis": redis.probe, "bigquery": bigquery.probe, "hadoop": hdfs.probe}

#: (event kind, fields) -> None: how a stack tells the run that uses it what happened to its services.
Tell = Callable[..., Any]


def shape(pipeline: Pipeline) -> str:
    """What a stack must have to serve this pipeline; equal shapes can share one."""
    services = [{"type": type(s).__name__, **dataclasses.asdict(s)} for s in pipeline.services]
    links = [link.name for link in pipeline.links()]
    return json.dumps([services, links, list(pipeline.serving())], sort_keys=True, default=str)


class Stack:
    """Start it with `start`, use it for one run after another, end it with `close`."""

    def __init__(self, pipeline: Pipeline, site: Site) -> None:
        self.shape = shape(pipeline)
        self.site = site
        self.links = pipeline.links()
        self._services, self._serving = pipeline.services, list(pipeline.serving())
        #: workers that serve -> (what each is to listen on, where the harness reaches it), "host:port"
        self.served: dict[str, tuple[str, str]] = {}
        self._tell: Tell = lambda kind, **fields: None
        self._asked: set[int] = set()
        self._children: dict[str, tuple[Child, str]] = {}
        self._lock = threading.Lock()
        self.servers: dict[str, Server] = {}
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="stack")
        self.ready: dict[str, Future[None]] = {}
        self._leftovers = Leftovers(site.existing) if site.existing else None
        #: runs of dead harnesses -> services that may still hold something of them
        self._dead: dict[str, set[str]] = {}

    @property
    def toxiproxy(self) -> ToxiproxyServer:
        return self.site.toxiproxy

    def _server(self, service: Any) -> Server:
        links = [link for link in self.links if link.service == service.name]
        if isinstance(service, Kafka):
            return kafka.KafkaServer(service, self.site, links, self._exited)
        if isinstance(service, PubSub):
            return pubsub.PubSubServer(service, self.site, self._exited)
        if isinstance(service, Bigtable):
            return bigtable.BigtableServer(service, self.site, self._exited)
        if isinstance(service, Redis):
            return redis.RedisServer(service, self.site, self._exited)
        if isinstance(service, BigQuery):
            return bigquery.BigQueryServer(service, self.site, self._exited)
        if isinstance(service, Hdfs):
            return hdfs.HdfsServer(service, self.site, self._exited)
        if isinstance(service, Sqlite):
            return sqlite.SqliteServer(service, self.site.folder)  # type: ignore[return-value]
        if isinstance(service, Files):
            return files.FilesServer(service, self.site)  # type: ignore[return-value]
        raise UsageError(f"The service {service.name!r} is of a kind that this version cannot run: {service.kind!r}.")

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self, tell: Tell) -> None:
        """Starts everything side by side and returns at once; `ready[service]` is done when that one answers."""
        self._tell = tell
        (self.site.folder / "logs").mkdir(parents=True)
        child = self.site.start_toxiproxy(self._log("toxiproxy"), lambda e: self._exited("toxiproxy", e))
        self._started("toxiproxy", child, self.site.version("toxiproxy"))
        self._know_servers()
        if self._leftovers is not None:
            self._dead = {run: set(self.site.existing) for run in self._leftovers.of_the_dead()}
        proxies = self._pool.submit(self._make_proxies)
        for name in self.servers:
            self.ready[name] = self._pool.submit(self._start_server, name, proxies)

    def _know_servers(self) -> None:
        self.servers = {service.name: self._server(service) for service in self._services}
        ports = {instance: self.site.port(instance, "serves") for instance in self._serving}
        self.served = {instance: (port.bind, self.site.direct(instance, port)) for instance, port in ports.items()}

    def take_over(self, tell: Tell) -> None:
        """As `start`, of services that run already: those of a harness that was killed. Whatever it had broken is healed, and a
        process that was killed is started again. Raises HarnessFault where one has ended that does not survive that."""
        self._tell = tell
        self._know_servers()
        of_whom = {"toxiproxy": "", **{p: s.name for s in self._services for p in s.processes()}}
        kept = {p for s in self._services if s.durable for p in s.processes()}
        joined = {p: self.site.join(p, self._log(p), partial(self._exited, p)) for p in of_whom}
        living = {process: child for process, child in joined.items() if child is not None}
        if lost := [process for process in of_whom if process not in living and process not in kept]:
            raise HarnessFault(f"{', '.join(lost)} ended, and what was in it is lost")
        for process, name in of_whom.items():
            if process in living:
                child = living[process]
                if name:
                    self.servers[name].children[process] = child
                self._started(process, child, self.version(name) if name else self.site.version(process))
        self.toxiproxy.reset()
        for process, name in of_whom.items():
            if process not in living:
                self.servers[name].start(process)
                self._started(process, self.servers[name].children[process], self.version(name))
        for name, server in self.servers.items():
            self.ready[name] = self._pool.submit(server.wait_until_ready)

    def listen(self, tell: Tell) -> None:
        """From now on, events of the services go to another run; it is told of those that are up."""
        self._tell = tell
        for name, (child, version) in list(self._children.items()):
            tell("service-start", service=name, pid=child.pid, started=child.started, version=version)

    def _log(self, name: str) -> Path:
        return self.site.folder / "logs" / f"{name}.log"

    def _make_proxies(self) -> None:
        try:
            self.toxiproxy.wait_until_ready()
        except HarnessFault as error:
            self.site.children.catch_up()
            how = self.site.children.ended(self._children["toxiproxy"][0].pid)
            if how is not None:
                raise died("toxiproxy", self.site.versions()["toxiproxy"], how, self._log("toxiproxy")) from error
            raise StartFailed(
                f"toxiproxy {self.site.versions()['toxiproxy']} was not ready: {error}\n"
                f"  its log ends:\n{last_lines(self._log('toxiproxy'))}"
            ) from error
        proxies = [
            (proxy, self.site.doors[proxy].listen, upstream)
            for link in self.links
            for proxy, upstream in zip(link.proxies, self.servers[link.service].upstreams(link), strict=True)
        ]
        self.toxiproxy.create([*self.site.standing_proxies(), *proxies])

    def _start_server(self, name: str, proxies: Future[None]) -> None:
        server = self.servers[name]
        server.start()
        for process, child in server.children.items():
            self._started(process, child, self.version(name))
        proxies.result(30)  # where the harness itself comes in by Toxiproxy, nothing answers before
        server.wait_until_ready()
        if name in self.site.existing:
            self._sweep_of_the_dead(name)

    def _sweep_of_the_dead(self, name: str) -> None:
        """Removes what killed runs left in a service that was there before."""
        for run, unswept in self._dead.items():
            try:
                self.servers[name].sweep(run)
            except Exception as error:  # no reason not to start; the next one tries again
                self._tell("note", text=f"{name} still holds something of the killed run {run}: {error}")
                continue
            with self._lock:
                unswept.discard(name)
                if not unswept and self._leftovers is not None:
                    self._leftovers.forget(run)

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
        return self.site.version(self.servers[service].service.kind)  # type: ignore[attr-defined]

    def kill_service(self, process: str) -> dict[str, Any]:
        """SIGKILL to a process of a service; returns when it has ended."""
        child = self._child(process)
        with self._lock:
            self._asked.add(child.pid)
        self.site.children.stop_now(child.pid)
        ended = self.site.children.ended(child.pid)
        return {"pid": child.pid, "status": ended.status if ended else None}

    def _child(self, process: str) -> Child:
        if process in self.site.existing:
            raise HarnessFault(f"{process} was there before this run, and is neither ended nor paused by it")
        return self._children[process][0]

    def start_service(self, process: str) -> dict[str, Any]:
        """Starts a process of a service again that was killed; returns when it answers."""
        name = next(s.name for s in self._services if process in s.processes())
        server = self.servers[name]
        server.start(process)
        child = server.children[process]
        self._started(process, child, self.version(name))
        server.wait_until_ready()
        return {"pid": child.pid, "started": child.started}

    def signal_service(self, process: str, number: int) -> dict[str, Any]:
        """SIGSTOP or SIGCONT to a process of a service; returns once the kernel says that it is so (2 s at most)."""
        child = self._child(process)
        self.site.children.signal(child.pid, number)
        deadline = time.monotonic() + 2.0
        wanted = number == signal.SIGSTOP
        while (self.site.children.state(child.pid) == "stopped") is not wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        return {"pid": child.pid, "state": self.site.children.state(child.pid)}

    def alive(self) -> dict[str, bool]:
        return {name: self.site.children.ended(child.pid) is None for name, (child, _) in self._children.items()}

    def check(self) -> bool:
        """Whether something kept the ends of children from being known, which they are now; the run is told of it.

        Raises HarnessFault where the run cannot go on: the backend has gone, or Toxiproxy has ended.
        """
        told = self.site.children.catch_up()
        for text in told:
            self._tell("error", text=text)
        child, version = self._children.get("toxiproxy", (None, ""))
        how = self.site.children.ended(child.pid) if child is not None else None
        if how is not None:
            before = "".join(f"{text}\n" for text in told)
            raise StartFailed(
                f"{before}toxiproxy {version} {how.told}, and every link with it; its log ends:\n"
                f"{last_lines(self._log('toxiproxy'))}"
            )
        return bool(told)

    def probe(self, link_name: str) -> float | None:
        """Seconds until the service answered through this link; None if none of its processes did."""
        link = self._link(link_name)
        return self._ask(link.service, [self.site.doors[proxy].harness for proxy in link.proxies])

    def ask(self, service: str) -> float | None:
        """As `probe`, by the harness's own way to the service, past every fault."""
        return self._ask(service, self.servers[service].direct.split(","))

    def ask_worker(self, hop: HttpHop) -> float | None:
        """Seconds until the worker that answers for a hop said that it can, past every fault; None if it did not."""
        begin = time.monotonic()
        answered = http.healthy(self.served[hop.worker][1], hop.health)
        return round(time.monotonic() - begin, 4) if answered else None

    def _ask(self, service: str, addresses: Sequence[str]) -> float | None:
        probe = _PROBES.get(self.servers[service].service.kind, pubsub.probe)  # type: ignore[attr-defined]

        def ask(address: str) -> float | None:
            try:
                return round(probe(address), 4)
            except HarnessFault:
                return None

        if len(addresses) == 1:
            return ask(addresses[0])
        with ThreadPoolExecutor(len(addresses)) as pool:
            return min((took for took in pool.map(ask, addresses) if took is not None), default=None)

    def close(self) -> None:
        with self._lock:
            self._asked.update(child.pid for child, _ in self._children.values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        with contextlib.ExitStack() as last:  # whatever becomes of what is done before
            last.callback(shutil.rmtree, self.site.folder, ignore_errors=True)
            last.callback(self.site.close)
            self.site.children.stop([child.pid for child, _ in self._children.values()], grace_s=0.0)

    # -- what a run needs of it ----------------------------------------------------------------------------------

    def address(self, worker: str, service: str) -> str:
        """Where a worker finds a service: the doors of its own link."""
        return ",".join(self.site.doors[proxy].client for proxy in self._link(f"{worker}->{service}").proxies)

    def _link(self, name: str) -> Link:
        return next(link for link in self.links if link.name == name)

    def names(self, run: str) -> dict[str, str]:
        """The run's own name of every topic, subscription, table, dataset and database."""
        found: dict[str, str] = {}
        for server in self.servers.values():
            found |= server.names(run)
        return found

    def make(self, service: str, run: str) -> None:
        self.ready[service].result()
        if self._leftovers is not None:
            self._leftovers.note(run)
        self.servers[service].make(self.servers[service].names(run))

    def remove(self, run: str) -> None:
        for server in self.servers.values():
            if self._leftovers is None:
                server.remove(server.names(run))
            else:
                server.sweep(run)
        if self._leftovers is not None:
            self._leftovers.forget(run)

    def tap(
        self, pipeline: Pipeline, hop: Hop, names: Mapping[str, str], run: str, now: Callable[[], float]
    ) -> Tap | SinkTap:
        if isinstance(hop, HttpHop):
            return http.http_tap(hop, self.served[hop.worker][1], pipeline.cells, now)
        server = self.servers[hop.service]

        def now_ms() -> float:
            return now() * 1000

        if isinstance(hop, KafkaHop) and isinstance(server, kafka.KafkaServer):
            return kafka.KafkaTap(hop, server, names[hop.topic], run, now_ms)
        if isinstance(hop, PubSubHop) and isinstance(server, pubsub.PubSubServer):
            return pubsub.PubSubTap(hop, server, names[hop.topic], run, now_ms)
        if isinstance(hop, BigtableHop) and isinstance(server, bigtable.BigtableServer):
            return bigtable.bigtable_tap(hop, server, names[hop.table], pipeline.cells, now)
        if isinstance(hop, BigQueryHop) and isinstance(server, bigquery.BigQueryServer):
            return bigquery.bigquery_tap(hop, server, names[hop.dataset], pipeline.cells, run, now)
        if isinstance(hop, SqliteHop) and isinstance(server, sqlite.SqliteServer):
            return sqlite.sqlite_tap(hop, names[hop.database], pipeline.cells, now)
        raise UsageError(f"The hop {hop.name!r} is of a kind that does not fit its service {hop.service!r}.")

    def trim(self, pipeline: Pipeline, names: Mapping[str, str], before_ms: float) -> dict[str, list[CountedCell]]:
        """Drops what a pipeline that stands still, with nothing left to read, has behind it: the records of its Kafka
        topics, and the rows of its tables whose windows had all ended before a moment (epoch milliseconds). Returns what
        those rows held, by hop."""
        for service in pipeline.services:
            server = self.servers[service.name]
            if isinstance(service, Kafka) and isinstance(server, kafka.KafkaServer):
                for topic in service.topics:
                    server.trim(names[topic])
        deleted = {}
        for hop in pipeline.hops:
            if isinstance(hop, BigtableHop):
                server = self.servers[hop.service]
                assert isinstance(server, bigtable.BigtableServer)
                deleted[hop.name] = bigtable.trim(hop, server, names[hop.table], before_ms)
        return deleted

    def logs(self) -> dict[str, Path]:
        folder = self.site.folder / "logs"
        return {path.stem: path for path in sorted(folder.glob("*.log"))}
