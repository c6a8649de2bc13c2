"""What a pipeline declares about itself: services, workers, links, hops and cells.

Everything here is a frozen value without behaviour that touches the outside world, so that a declaration can be
imported, compared, printed and checked without starting anything. `Pipeline.validate` is called by whoever is about
to use a declaration; it names the wrong name, the nearest right one and the list.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


class UsageError(Exception):
    """The person asked for something that cannot be: exit status 2. The message says what to do."""


def unknown(kind: str, name: str, known: Iterable[str], plural: str = "") -> UsageError:
    """An error for a wrong name, with the nearest right one and the whole list (of `plural`: kind + "s")."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listing = ", ".join(names) if names else "(none)"
    return UsageError(f"There is no {kind} {name!r}.{hint} The {plural or f'{kind}s'} are: {listing}.")


# ---------------------------------------------------------------------------------------------------- services


@dataclass(frozen=True)
class Service:
    """A backing system. `kind`: which file of `harness/services/` runs it; `durable`: whether a kill keeps its data."""

    name: str
    kind: str = ""
    durable: bool = False
    #: Whether it has an address, and so links, proxies and processes.
    networked: ClassVar[bool] = True

    def processes(self) -> list[str]:
        """Names of the processes that the service consists of."""
        return [self.name]


@dataclass(frozen=True)
class Kafka(Service):
    """Kafka in KRaft mode. `topics`: name -> number of partitions; made fresh for each run.

    `brokers`: with more than one each topic has a replica on every broker, of which a write with `acks=all` waits for
    a majority (`min.insync.replicas`).
    """

    kind: str = "kafka"
    durable: bool = True
    topics: Mapping[str, int] = field(default_factory=dict)
    brokers: int = 1

    def processes(self) -> list[str]:
        """The service's own name, or name-1 … name-n."""
        return _numbered(self.name, self.brokers)


@dataclass(frozen=True)
class PubSub(Service):
    """Google Cloud Pub/Sub emulator. `topics`: names; `subscriptions`: name -> topic. All in memory."""

    kind: str = "pubsub"
    durable: bool = False
    topics: Sequence[str] = ()
    subscriptions: Mapping[str, str] = field(default_factory=dict)
    ack_deadline_s: int = 10


@dataclass(frozen=True)
class Bigtable(Service):
    """Google Cloud Bigtable emulator. `tables`: name -> column families. All in memory."""

    kind: str = "bigtable"
    durable: bool = False
    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class BigQuery(Service):
    """Google BigQuery, or its emulator. `datasets`: names; the tables in them are the pipeline's own to make. All in
    memory.

    `{name}` of a dataset stands for "project.dataset". A worker's variable holds `host:port` of an emulator, to be asked
    in plain text without credentials; of the real service its URL.
    """

    kind: str = "bigquery"
    durable: bool = False
    datasets: Sequence[str] = ()


@dataclass(frozen=True)
class Sqlite(Service):
    """A database file in the run's work folder; `databases`: names. No network, so no link and no fault on one."""

    kind: str = "sqlite"
    durable: bool = True
    databases: Sequence[str] = ()
    networked: ClassVar[bool] = False


@dataclass(frozen=True)
class Redis(Service):
    """Redis, or Valkey. `prefixes`: names of key spaces; a run's keys begin with its own name of one, and go with it.

    `durable`: it appends every write to a file, which a kill leaves whole; without it a kill loses everything.
    """

    kind: str = "redis"
    durable: bool = True
    prefixes: Sequence[str] = ()


@dataclass(frozen=True)
class Hdfs(Service):
    """Apache Hadoop's file system, over WebHDFS: a NameNode and a DataNode. `folders`: names.

    `{name}` of a folder stands for its path. A worker's variable holds "<namenode>,<datanode>", `host:port` each: of its own
    proxies, to the second of which it must go for whatever the NameNode would send it to (see harness/services/hdfs.py).
    """

    kind: str = "hadoop"
    durable: bool = True
    folders: Sequence[str] = ()

    def processes(self) -> list[str]:
        """<name>-namenode and <name>-datanode."""
        return [f"{self.name}-namenode", f"{self.name}-datanode"]


@dataclass(frozen=True)
class Files(Service):
    """Folders of the run's own that workers share; `folders`: names. No network, so no link and no fault on one."""

    kind: str = "files"
    durable: bool = True
    folders: Sequence[str] = ()
    networked: ClassVar[bool] = False


# ----------------------------------------------------------------------------------------------------- workers


@dataclass(frozen=True)
class Worker:
    """A process of the pipeline: any command in any language.

    `command` is started without a shell, in a process group of its own; the word `{python}` stands for the
    interpreter that runs the harness. `uses` maps an environment variable to a service: the variable will hold
    `host:port` of this worker's own proxy to that service (its link). `env` holds further variables; in their values
    `{name}` stands for the run's own name of a declared topic, subscription, table, dataset, database, prefix, folder or
    consumer group.
    `reads` and `writes` name hops: they say what waits for the worker and what it has done. `group` names the Kafka
    consumer group whose lag tells whether the worker is done. `image` is the container image in which the Docker
    backend runs it ("": this package's own, which holds the reference pipelines and nothing of yours). `serves` names
    the environment variable that will hold the `host:port` on which the worker is to listen, for an `HttpHop`.
    """

    name: str
    command: Sequence[str]
    uses: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    reads: str = ""
    writes: Sequence[str] = ()
    group: str = ""
    replicas: int = 1
    cwd: str | None = None
    image: str = ""
    serves: str = ""

    def instances(self) -> list[str]:
        """Names of the processes: the worker's own name, or name-1 … name-n for replicas."""
        return _numbered(self.name, self.replicas)


@dataclass(frozen=True)
class Link:
    """One directed connection from a worker's process to a service, always through a Toxiproxy proxy of its own: one
    for each of the service's `processes`."""

    worker: str
    service: str
    processes: int = 1

    @property
    def name(self) -> str:
        return f"{self.worker}->{self.service}"

    @property
    def proxies(self) -> list[str]:
        """Names of its proxies, in the order of the service's processes: the link's own, or name@1 … name@n."""
        return _numbered(self.name, self.processes, "@")


def link_of(proxy: str) -> str:
    """The name of the link that a proxy belongs to."""
    return proxy.partition("@")[0]


# -------------------------------------------------------------------------------------------------------- hops

#: What a hop can be in a pipeline; see `Hop`.
ROLES = ("source", "path", "sink", "dead-letter", "export")

#: The fields of an event's content, in their canonical names; a hop's `content` function returns these.
CONTENT_FIELDS: dict[str, type] = {
    "tweet_id": int,
    "author_id": int,
    "user_id": int,
    "engagement": str,
    "weight": int,
    "event_time_ms": int,
    "client": str,
    "country": str,
}


@dataclass(frozen=True)
class Hop:
    """A place where events can be seen on their way.

    `role`: "source" (what load writes), "path" (every event passes here), "sink" (the last hop: counts), "dead-letter"
    (poison must end here, nothing else may), or "export" (a copy of another hop, beside the path: it is waited for and
    read, and judged by the assertions of the warehouse).
    """

    name: str
    service: str = ""
    role: str = "path"

    @property
    def kind(self) -> str:
        raise NotImplementedError


#: Shows the event id of a record: (value, attributes or headers) -> id, or None where there is none to be read.
EventId = Callable[[bytes, Mapping[str, str]], str | None]
#: Shows the content of a record in canonical names; only the fields that the record still carries.
Content = Callable[[bytes, Mapping[str, str]], Mapping[str, Any]]


@dataclass(frozen=True)
class KafkaHop(Hop):
    """A Kafka topic. `event_id` and `content` say how a record shows its event's id and content. `keyed`, of a source:
    whether the harness's own events bear their tweet as the key; without one Kafka's client spreads them by the batch
    (KIP-480)."""

    topic: str = ""
    event_id: EventId | None = None
    content: Content | None = None
    keyed: bool = True

    @property
    def kind(self) -> str:
        return "kafka"


@dataclass(frozen=True)
class PubSubHop(Hop):
    """A Pub/Sub topic, seen by a subscription of the harness's own."""

    topic: str = ""
    event_id: EventId | None = None
    content: Content | None = None

    @property
    def kind(self) -> str:
        return "pubsub"


@dataclass(frozen=True)
class CountedCell:
    """What a sink says of one cell. `key` are the values of the cell's key fields, in the declared order, as text."""

    dimension: str
    key: tuple[str, ...]
    window_s: int
    window_start_ms: int
    count: int
    weight: int


@dataclass(frozen=True)
class Sighting:
    """When one event became visible in a sink that shows single events (for latency only, never for counting)."""

    event_id: str
    seen_ms: float


@dataclass(frozen=True)
class Row:
    """A Bigtable row as read: cells by (family, qualifier) -> [(timestamp in micros, value)], newest first."""

    key: bytes
    cells: Mapping[tuple[str, bytes], Sequence[tuple[int, bytes]]]


@dataclass(frozen=True)
class BigtableHop(Hop):
    """A Bigtable table of counts. `cells` turns a row into counts; several rows may add to one cell.

    `sightings`, where the rows show single events, yields when each became durable by the server's clock, once for
    each time that it is counted.
    """

    table: str = ""
    cells: Callable[[Row], Iterable[CountedCell]] | None = None
    sightings: Callable[[Row], Iterable[Sighting]] | None = None
    role: str = "sink"

    @property
    def kind(self) -> str:
        return "bigtable"


@dataclass(frozen=True)
class SqliteHop(Hop):
    """A table of counts in SQLite. `query` selects the columns that `cells` turns into counts, a row at a time."""

    database: str = ""
    query: str = ""
    cells: Callable[[Sequence[Any]], Iterable[CountedCell]] | None = None
    role: str = "sink"

    @property
    def kind(self) -> str:
        return "sqlite"


@dataclass(frozen=True)
class HttpHop(Hop):
    """Counts that a worker of the pipeline answers with: the query service in front of its stores.

    `GET path` answers newline-delimited JSON, an object a cell: {"dimension", "key" (the values of the cell's key fields
    joined by "|"), "window_s", "window_start_ms", "count", "weight"}; several may add to one cell. `GET health` answers
    200 when the worker can answer. `GET sightings`, where it is declared, answers an object each time that a single event
    was counted: {"event_id", "seen_ms"}, by the clock of the store.
    """

    worker: str = ""
    path: str = "/cells"
    health: str = "/healthz"
    sightings: str = ""
    role: str = "sink"

    @property
    def kind(self) -> str:
        return "http"


@dataclass(frozen=True)
class BigQueryHop(Hop):
    """What a query over the tables of a BigQuery dataset shows, in standard SQL.

    Of single messages it selects message_id and event_id (text), created_ms (of the message) and seen_ms (when it came
    into the table), each message once, in epoch ms. Of counts (`counts`) it selects dimension, key (the values joined by
    "|"), window_s, window_start_ms, count and weight.
    """

    dataset: str = ""
    query: str = ""
    counts: bool = False
    role: str = "export"

    @property
    def kind(self) -> str:
        return "bigquery"


# -------------------------------------------------------------------------------- cells, batch, warehouse, pipeline


@dataclass(frozen=True)
class Cells:
    """What the sink counts: a dimension, its key (canonical field names) and its windows of event time in seconds."""

    dimension: str
    key: Sequence[str]
    windows_s: Sequence[int]


@dataclass(frozen=True)
class Batch:
    """The batch truth: a program that reads the closed source log and writes cells as Parquet to $BATCH_OUTPUT.

    Columns: dimension (str), key (str: the values of the key fields joined by "|"), window_s (i32),
    window_start_ms (i64), count (i64), weight (i64). It gets $LATE_AFTER_S, and its links as a worker does, but direct.
    """

    command: Sequence[str]
    uses: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    image: str = ""


@dataclass(frozen=True)
class Warehouse:
    """What a pipeline exports to BigQuery for analytics, and the SQL that says there how it does.

    dataset     of the BigQuery service; the SQL names tables without it
    messages    the hop that the raw export copies, and the BigQueryHop that is its copy
    counts      the same of the export of counts: the sink, and its copy
    duplicates  a file of SQL that selects one row: messages, events (of `messages`, distinct), before (the duplicate rate
                of these), settled (those of the events that are compared), counted (the same by `counts`), after
                ((counted - settled) / settled). It gets @behind_ms: only windows are compared that ended so long before
                the newest message; in the end all are.
    series      the table to which the pipeline itself appends the same, with its time in epoch ms, `at_ms`
    batch       the table into which the harness loads the batch truth for the file `parity`
    parity      a file of SQL that selects a row for each cell of either side: dimension, key, window_s, window_start_ms,
                stream, stream_weight, batch, batch_weight, late, late_weight, kind (exact, explained, wrong). It gets
                @late_after_ms, and @closed_ms: only windows that ended by then are compared.
    """

    dataset: str
    messages: tuple[str, str]
    counts: tuple[str, str]
    duplicates: str
    parity: str
    series: str = "duplicates"
    batch: str = "batch"


@dataclass(frozen=True)
class Pipeline:
    """A pipeline under test. See docs/bring-your-own-pipeline.md for a walk through every field.

    `warehouse` says what it exports to BigQuery, if it does. `encode` turns generated events into the bytes of the
    pipeline's own source form ("module:function"; None: the form of `load.events`). `max_quiet_s` is the longest wait
    that the pipeline declares for itself (redelivery deadline, session timeout, retry cap). `late_after_s` is L of the
    batch truth: an event is late for a window if its intended send time is more than L after the window's end.
    `leaves_out_late`: the pipeline declares that its sink may leave out events that are late for a window, as a batch
    job does; a cell that lacks exactly these is then right.
    """

    name: str
    services: Sequence[Service]
    workers: Sequence[Worker]
    hops: Sequence[Hop]
    cells: Sequence[Cells] = ()
    batch: Batch | None = None
    warehouse: Warehouse | None = None
    encode: str | None = None
    max_quiet_s: float = 12.0
    late_after_s: float = 5.0
    about: str = ""
    leaves_out_late: bool = False

    # -- looking things up -------------------------------------------------------------------------------------

    def service(self, name: str) -> Service:
        return _find("service", name, self.services)

    def service_of(self, process: str) -> Service:
        """The service of that name, or the one of which a process has it."""
        for service in self.services:
            if process in (service.name, *service.processes()):
                return service
        raise unknown("service", process, {name for s in self.services for name in (s.name, *s.processes())})

    def worker(self, name: str) -> Worker:
        return _find("worker", name, self.workers)

    def hop(self, name: str) -> Hop:
        return _find("hop", name, self.hops)

    def hops_of_role(self, role: str) -> list[Hop]:
        return [h for h in self.hops if h.role == role]

    @property
    def source(self) -> Hop:
        return self.hops_of_role("source")[0]

    @property
    def sink(self) -> Hop | None:
        sinks = self.hops_of_role("sink")
        return sinks[0] if sinks else None

    def instances(self) -> dict[str, Worker]:
        """Every process of the pipeline: its name -> the worker that it is an instance of."""
        return {name: worker for worker in self.workers for name in worker.instances()}

    def serving(self) -> dict[str, Worker]:
        """Every process that is given an address to listen on."""
        return {name: worker for name, worker in self.instances().items() if worker.serves}

    def hops_of_workers(self) -> list[HttpHop]:
        """Hops that a worker answers for, and no service."""
        return [hop for hop in self.hops if isinstance(hop, HttpHop)]

    def needs(self, worker: Worker) -> set[str]:
        """The services that must be there before a worker is started: those that it uses, or knows a name of."""
        named = {name for value in worker.env.values() for name in _NAME.findall(value)}
        return {*worker.uses.values()} | {s.name for s in self.services if named & {*_resources_of(s)}}

    def group_readers(self) -> list[tuple[Worker, KafkaHop]]:
        """Workers with a consumer group, each with the Kafka hop that it reads: how far they are can be asked of Kafka."""
        reading = [(worker, self.hop(worker.reads)) for worker in self.workers if worker.group and worker.reads]
        return [(worker, hop) for worker, hop in reading if isinstance(hop, KafkaHop)]

    def links(self) -> list[Link]:
        """Every link, the load's own first. A service without a network (SQLite, files) has none."""
        processes = {s.name: len(s.processes()) for s in self.services if s.networked}
        source = self.source.service
        found = [Link("load", source, processes.get(source, 1))]
        for name, worker in self.instances().items():
            for service in dict.fromkeys(worker.uses.values()):
                if service in processes:
                    found.append(Link(name, service, processes[service]))
        return found

    def link(self, name: str) -> Link:
        return _find("link", name, self.links())

    def resources(self) -> list[str]:
        """Names of all that a run makes fresh (`RESOURCES`) and of all consumer groups."""
        names = [name for service in self.services for name in _resources_of(service)]
        # Workers may share a group.
        return names + list(dict.fromkeys(w.group for w in self.workers if w.group))

    def replicas(self, **counts: int) -> Pipeline:
        """The same pipeline with another number of processes for the named workers."""
        for name in counts:
            self.worker(name)
        workers = [dataclasses.replace(w, replicas=counts.get(w.name, w.replicas)) for w in self.workers]
        return dataclasses.replace(self, workers=workers)

    def brokers(self, **counts: int) -> Pipeline:
        """The same pipeline with another number of brokers for the named Kafkas."""
        for name in counts:
            if not isinstance(self.service(name), Kafka):
                raise UsageError(f"{self.name}: the service {name!r} is no Kafka and has no brokers.")
        services = [
            dataclasses.replace(s, brokers=counts.get(s.name, s.brokers)) if isinstance(s, Kafka) else s
            for s in self.services
        ]
        return dataclasses.replace(self, services=services)

    # -- checking ----------------------------------------------------------------------------------------------

    def validate(self) -> Pipeline:
        """Raises UsageError at the first thing that cannot work; returns the pipeline itself."""
        for kind, things in (("service", self.services), ("worker", self.workers), ("hop", self.hops)):
            names = [t.name for t in things]
            for name in names:
                if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                    raise UsageError(
                        f"{self.name}: the {kind} name {name!r} must be lower case letters, digits, - or _."
                    )
                if names.count(name) > 1:
                    raise UsageError(f"{self.name}: two {kind}s are named {name!r}; names must differ.")
        for service in self.services:
            if isinstance(service, Kafka) and service.brokers < 1:
                raise UsageError(f"{self.name}: the Kafka {service.name!r} needs at least one broker.")
        for hop in self.hops:
            if hop.role not in ROLES:
                raise unknown("role", hop.role, ROLES)
        if len(self.hops_of_role("source")) != 1:
            raise UsageError(f"{self.name}: exactly one hop must have the role 'source'.")
        if not isinstance(self.source, KafkaHop):
            raise UsageError(f"{self.name}: the source hop must be a Kafka topic; load writes there.")
        if self.encode and not self.source.keyed:
            raise UsageError(
                f"{self.name}: `keyed` is for the harness's own form; `encode` says itself what has a key."
            )
        if len(self.hops_of_role("sink")) > 1:
            raise UsageError(f"{self.name}: at most one hop may have the role 'sink'.")
        if self.sink is not None and not self.cells:
            raise UsageError(f"{self.name}: a sink needs `cells`, which say what it counts.")
        for hop in self.hops:
            if isinstance(hop, HttpHop):
                self._check_http(hop)
                continue
            self.service(hop.service)
            resource = next((r for a in _ONE for r in [getattr(hop, a, "")] if r), "")
            owned = _resources_of(self.service(hop.service))
            if resource not in owned:
                plural = f"topics, tables, datasets and databases of {hop.service}"
                raise unknown(f"topic, table, dataset or database of {hop.service}", resource, owned, plural)
            if isinstance(hop, BigQueryHop) != (hop.role == "export") and hop.role in ("source", "export"):
                raise UsageError(
                    f"{self.name}: the hop {hop.name!r} cannot be of the role {hop.role!r}: an export is a "
                    "BigQueryHop, and the source is none."
                )
            if isinstance(hop, BigQueryHop) and not hop.query:
                raise UsageError(f"{self.name}: the hop {hop.name!r} needs a `query`, which says what its table holds.")
            if hop.role == "sink" and getattr(hop, "cells", None) is None and not getattr(hop, "counts", False):
                raise UsageError(f"{self.name}: the sink {hop.name!r} needs `cells`: how a row shows its counts.")
            if hop.role != "sink" and not isinstance(hop, BigQueryHop) and getattr(hop, "event_id", None) is None:
                raise UsageError(f"{self.name}: the hop {hop.name!r} needs `event_id`: how a record shows its id.")
        for worker in self.workers:
            if worker.replicas < 1:
                raise UsageError(f"{self.name}: the worker {worker.name!r} needs at least one replica.")
            if worker.serves and worker.serves in {*worker.uses, *worker.env}:
                raise UsageError(f"{self.name}: the worker {worker.name!r} has two meanings for {worker.serves}.")
            for hop_name in [worker.reads, *worker.writes]:
                if hop_name:
                    self.hop(hop_name)
            self._check_program(f"the worker {worker.name!r}", worker)
        if self.batch is not None:
            self._check_program("the batch truth", self.batch)
        self._check_warehouse()
        self._check_names()
        for cells in self.cells:
            for key in cells.key:
                if key not in CONTENT_FIELDS:
                    raise unknown("content field", key, CONTENT_FIELDS)
            if not cells.windows_s or any(w <= 0 for w in cells.windows_s):
                raise UsageError(f"{self.name}: the cells {cells.dimension!r} need windows of more than 0 seconds.")
        if self.max_quiet_s <= 0 or self.late_after_s < 0:
            raise UsageError(f"{self.name}: max_quiet_s must be more than 0 seconds, late_after_s 0 or more.")
        return self

    def _check_http(self, hop: HttpHop) -> None:
        if hop.role != "sink":
            raise UsageError(f"{self.name}: the hop {hop.name!r} shows counts, so its role must be 'sink'.")
        worker = self.worker(hop.worker)
        if hop.service:
            raise UsageError(f"{self.name}: the hop {hop.name!r} is answered by a worker and is of no service.")
        if not worker.serves:
            raise UsageError(
                f"{self.name}: the hop {hop.name!r} is answered by the worker {worker.name!r}, which serves nothing: name "
                "the variable that shall hold its address, as Worker(..., serves='LISTEN')."
            )
        if worker.replicas > 1:
            raise UsageError(
                f"{self.name}: the hop {hop.name!r} asks one process, and {worker.name!r} has {worker.replicas} replicas."
            )
        for path in (hop.path, hop.health, hop.sightings or hop.path):
            if not path.startswith("/"):
                raise UsageError(f"{self.name}: the path {path!r} of the hop {hop.name!r} must begin with a slash.")

    def _check_program(self, what: str, program: Worker | Batch) -> None:
        if not program.command:
            raise UsageError(f"{self.name}: {what} has no command.")
        for variable, name in program.uses.items():
            service = self.service(name)
            if not service.networked:
                has, one = _PATHS[service.kind]
                raise UsageError(
                    f"{self.name}: {what} uses {name!r} by {variable}, but {has} no address: give the path of a {one} "
                    f"instead, as env={{...: '{{{one}}}'}}."
                )
        known = self.resources()
        for value in program.env.values():
            for name in _NAME.findall(value):
                if name not in known:
                    raise unknown(f"{', '.join(RESOURCES.values())} or group", name, known, _EVERYTHING)

    def _check_warehouse(self) -> None:
        house = self.warehouse
        if house is None:
            return
        datasets = [d for s in self.services if isinstance(s, BigQuery) for d in s.datasets]
        if house.dataset not in datasets:
            raise unknown("dataset", house.dataset, datasets)
        for original, copy in (house.messages, house.counts):
            self.hop(original)
            if self.hop(copy).role != "export":
                raise UsageError(
                    f"{self.name}: the warehouse needs an export for a copy of {original!r}, not {copy!r}."
                )
        if (
            self.sink is None
            or house.counts[0] != self.sink.name
            or not getattr(self.hop(house.counts[1]), "counts", False)
        ):
            raise UsageError(f"{self.name}: the warehouse's counts must be the sink, and a copy of counts.")
        for file in (house.duplicates, house.parity):
            if not Path(file).is_file():
                raise UsageError(f"{self.name}: there is no file {file} with the warehouse's SQL.")

    def _check_names(self) -> None:
        """Names that would stand for two things: in an `env`, or in a run's logs and links."""
        names = self.resources()
        for name in names:
            if names.count(name) > 1:
                raise UsageError(
                    f"{self.name}: two of the {_EVERYTHING} are named {name!r}; names must differ, or {{{name}}} could "
                    "mean either."
                )
        taken = ["load", "batch", "toxiproxy", *(s.name for s in self.services)]
        for name in (p for s in self.services for p in s.processes() if p != s.name):
            if name in taken:
                raise UsageError(f"{self.name}: a service is named {name!r}, and so would be a broker of another one.")
            taken.append(name)
        for name in (i for w in self.workers for i in w.instances()):
            if name in taken:
                raise UsageError(
                    f"{self.name}: no process of a worker can be named {name!r}: a service, another worker, or the "
                    "harness's own load, batch or toxiproxy has that name."
                )
            taken.append(name)


#: A name in the value of a worker's variable, which stands for the run's own.
_NAME = re.compile(r"\{([A-Za-z0-9._-]+)\}")
#: What a run makes fresh in its services, under a name of its own: where a service declares them -> what one is.
RESOURCES = {
    "topics": "topic",
    "subscriptions": "subscription",
    "tables": "table",
    "datasets": "dataset",
    "databases": "database",
    "prefixes": "prefix",
    "folders": "folder",
}
_EVERYTHING = f"{', '.join(RESOURCES)} and groups"
#: Attributes of hops that name one of these.
_ONE = ("topic", "table", "dataset", "database")
#: Of services without an address: how that is told, and what has a path there.
_PATHS = {"sqlite": ("SQLite has", "database"), "files": ("folders have", "folder")}


def _resources_of(service: Service) -> list[str]:
    return [n for a in RESOURCES for n in getattr(service, a, ())]


def _numbered(name: str, count: int, mark: str = "-") -> list[str]:
    """Names of so many of a kind: that of one is its own."""
    return [name] if count == 1 else [f"{name}{mark}{i}" for i in range(1, count + 1)]


def _find(kind: str, name: str, things: Iterable[Any]) -> Any:
    things = list(things)
    for thing in things:
        if thing.name == name:
            return thing
    raise unknown(kind, name, [t.name for t in things])
