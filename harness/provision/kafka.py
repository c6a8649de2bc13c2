"""Apache Kafka: its jars, storage that is formatted already, and a start-up cache for the JVM.

Jars: $GAUNTLET_KAFKA (a folder of jars, or a Kafka distribution with libs/), a distribution whose
`kafka-server-start.sh` is on the PATH, the cache, Maven Central (46 jars, 42 MB, pinned in kafka.lock).

Then, once for each set of jars and Java, in the cache as `kafka-start`:

* *Template*: a storage folder to copy for each broker. It was formatted and then served one short life of a broker in
  which the internal topics were made, because a broker that has yet to make them lets its first consumer wait for up to
  three seconds. What a server.properties must have in common with it:

      process.roles=broker,controller    node.id=1    log.dirs=<the copy, and only that>
      offsets.topic.replication.factor=1    transaction.state.log.replication.factor=1

  The numbers of partitions of the internal topics are the template's: 4 each. Cluster id and directory id are in its
  meta.properties. Nothing in it pins an address: listeners, advertised listeners and the port in
  `controller.quorum.voters=1@127.0.0.1:<port>` may be others at each start (the quorum is static, so the voters'
  addresses are never stored; the broker's own listeners are registered anew at each start).

* *AOT cache* (Java 25 and later): what the JVM would load, link and profile at each start, from a training run in which
  a broker creates a topic, serves a producer, a transaction and a consumer group, and stops. Void unless jars, class
  path, Java and collector are the same as in the training, so all of them go into its key. Port open after 0.9 s
  instead of 2.2 s (two cores).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import last_lines
from harness.provision import maven
from harness.provision.cache import Entry, Made
from harness.provision.java import QUIET, SHORT_LIVED, Java, find_java
from harness.provision.maven_lock import KAFKA as LOCK
from harness.provision.programs import KafkaProgram, ProvisionError
from harness.provision.search import Search
from harness.provision.trial import DoesNotRun, wait_for_port

NAME = "kafka"
START = "kafka-start"
#: KRaft alone, log4j 2 and today's group coordinator came with 4.0.
LEAST = (4, 0)
#: A broker's heap. A run of a minute at some thousand events a second needs a fifth of it.
HEAP = ("-Xms128m", "-Xmx512m")
FLAGS = (*HEAP, *SHORT_LIVED, "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")
#: Part of the key of the start cache: raise it when what is prepared changes.
FORMAT = 2
#: Seconds in which a broker must be up, on a slow machine and without any cache.
START_TIMEOUT_S = 90.0

_LOG4J = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.name = stdout
appender.stdout.type = Console
appender.stdout.target = SYSTEM_OUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
"""


@dataclass(frozen=True)
class Jars:
    """Where Kafka's jars are. `files` in the order of the class path."""

    version: str
    files: tuple[Path, ...]
    origin: str

    @property
    def classpath(self) -> str:
        return ":".join(str(f) for f in self.files)


def look(search: Search) -> KafkaProgram | None:
    """The whole program, if jars and start cache are there already. Raises ProvisionError."""
    java = find_java(search)
    jars = look_for_jars(search)
    return ready(search, jars, java) if jars is not None else None


def fetch(search: Search) -> KafkaProgram:
    """Downloads the jars if they are not there, and prepares them. Raises ProvisionError."""
    java = find_java(search)
    return prepare(search, look_for_jars(search) or fetch_jars(search), java)


# ------------------------------------------------------------------------------------------------------- the jars


def look_for_jars(search: Search) -> Jars | None:
    """Jars that are there already. Raises ProvisionError for a wrong explicit path."""
    named = search.explicit(NAME, "GAUNTLET_KAFKA")
    if named is not None:
        jars = _jars_in(named, "$GAUNTLET_KAFKA")
        if jars is None:
            reason = f"neither {named} nor {named / 'libs'} holds a kafka_2.13-<version>.jar"
            raise search.unusable(NAME, "GAUNTLET_KAFKA", reason)
        if _numbers(jars.version) < LEAST:
            raise search.unusable(
                NAME, "GAUNTLET_KAFKA", f"it is Kafka {jars.version}; {LEAST[0]}.{LEAST[1]} is needed"
            )
        return jars
    script = search.which("kafka-server-start.sh") or search.which("kafka-server-start")
    if script is None:
        search.refuse(NAME, "PATH", "no kafka-server-start.sh there")
    else:
        home = script.resolve().parent.parent
        jars = _jars_in(home, f"PATH ({home})") or _jars_in(home / "libexec", f"PATH ({home})")
        if jars is not None and _numbers(jars.version) >= LEAST:
            return jars
        reason = f"is Kafka {jars.version}; {LEAST[0]}.{LEAST[1]} is needed" if jars else "has no libs with a Kafka"
        search.refuse(NAME, f"PATH ({home})", reason)
    entry = search.cached(NAME, LOCK.key())
    return _cached(entry) if entry is not None else None


def fetch_jars(search: Search) -> Jars:
    """Downloads the pinned jars from Maven Central. Raises ProvisionError."""
    return _cached(maven.fetch(search, LOCK, "unpack a Kafka 4 and name its folder by GAUNTLET_KAFKA"))


def _cached(entry: Entry) -> Jars:
    jars = _jars_in(entry.folder, f"cache ({entry.origin})")
    assert jars is not None  # the manifest was checked, and it is only written for a whole set
    return jars


def _jars_in(folder: Path, origin: str) -> Jars | None:
    for place in (folder / "libs", folder):
        files = tuple(
            sorted(f for f in place.glob("*.jar") if not f.stem.endswith(("-sources", "-javadoc", "-scaladoc")))
        )
        for file in files:
            found = re.fullmatch(r"kafka_2\.\d+-(\d+\.\d+\.\d+\S*)\.jar", file.name)
            if found and not file.stem.endswith("-test"):
                return Jars(found.group(1), files, origin)
    return None


# ------------------------------------------------------------------------------------- the template and the AOT cache


def ready(search: Search, jars: Jars, java: Java) -> KafkaProgram | None:
    """The whole program, if its start cache is there already."""
    entry = search.cached(START, start_key(jars, java))
    return _program(jars, java, entry) if entry is not None else None


def prepare(search: Search, jars: Jars, java: Java) -> KafkaProgram:
    """Formats and trains. Raises ProvisionError. Some 15 s, once; nothing is downloaded."""
    maker = lambda folder: _prepare(search, jars, java, folder)  # noqa: E731
    entry = search.cache.make(START, start_key(jars, java), maker, search.progress, search.cancelled)
    return _program(jars, java, entry)


def start_key(jars: Jars, java: Java) -> str:
    """Names all that the start cache depends on; the JVM checks path, size and time of each jar as well."""
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in jars.files]
    identity = json.dumps(
        [FORMAT, stats, str(java.path.resolve()), java.version, java.path.stat().st_mtime_ns, FLAGS, _LOG4J]
    )
    return f"{jars.version}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _program(jars: Jars, java: Java, entry: Entry) -> KafkaProgram:
    return KafkaProgram(
        version=jars.version,
        java=java.path,
        classpath=jars.classpath,
        jvm_flags=_jvm_flags(entry.folder, aot=bool(entry.facts["aot"])),
        template=entry.folder / "template",
        cluster_id=entry.facts["cluster_id"],
        origin=jars.origin,
    )


def _jvm_flags(folder: Path, aot: bool) -> tuple[str, ...]:
    cache = (f"-XX:AOTCache={folder / 'kafka.aot'}",) if aot else ()
    return (*FLAGS, *QUIET, f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}", *cache)


def _prepare(search: Search, jars: Jars, java: Java, folder: Path) -> Made:
    (folder / "log4j2.properties").write_text(_LOG4J)
    log = folder / "preparation.log"
    broker = _Broker(search, jars, java, folder, log)
    try:
        search.progress(START, "formatting Kafka's storage", None)
        cluster_id = broker.format(folder / "formatted")
        facts: dict[str, object] = {"cluster_id": cluster_id, "java": java.version, "aot": False}
        if java.makes_aot_caches:
            search.progress(START, "training Kafka's start-up cache (once, about 15 s)", None)
            facts["aot_missing"] = _train(broker, folder)
            facts["aot"] = facts["aot_missing"] is None
        else:
            facts["aot_missing"] = f"Java {java.version} cannot make one"
        search.progress(START, "making Kafka's internal topics", None)
        shutil.move(folder / "formatted", folder / "template")
        facts["port_open_s"] = broker.live(folder / "template", _make_internal_topics, aot=bool(facts["aot"]))
    except (DoesNotRun, subprocess.TimeoutExpired) as error:
        search.refuse(
            START, f"Kafka {jars.version} ({jars.origin}) on Java {java.version}", f"{error}\n{last_lines(log)}"
        )
        advice = "name another Java by GAUNTLET_JAVA or another Kafka by GAUNTLET_KAFKA."
        raise ProvisionError("a Kafka that starts", search.tried(START)[-1:], advice) from error
    (folder / "template" / ".lock").unlink(missing_ok=True)
    (folder / "server.properties").unlink()
    return Made(jars.version, f"Kafka {jars.version} on Java {java.version}", facts)


def _train(broker: _Broker, folder: Path) -> str | None:
    """Makes the AOT cache and proves that the JVM takes it; otherwise says why not (the broker starts without, too)."""
    cache = folder / "kafka.aot"
    shutil.copytree(folder / "formatted", folder / "training")
    try:
        broker.live(folder / "training", _exercise, extra=[f"-XX:AOTCacheOutput={cache}"], grace_s=120.0)
        if not cache.exists():
            return "the JVM wrote none"
        shutil.rmtree(folder / "training")
        shutil.copytree(folder / "formatted", folder / "training")
        broker.live(folder / "training", lambda port: None, extra=[f"-XX:AOTCache={cache}", "-XX:AOTMode=on"])
    except (DoesNotRun, subprocess.TimeoutExpired) as error:
        cache.unlink(missing_ok=True)
        return str(error)
    finally:
        shutil.rmtree(folder / "training", ignore_errors=True)
    return None


class _Broker:
    """A broker for the preparation: started on a storage folder, used, stopped."""

    def __init__(self, search: Search, jars: Jars, java: Java, folder: Path, log: Path) -> None:
        self._search, self._jars, self._java, self._folder, self._log = search, jars, java, folder, log

    def format(self, storage: Path) -> str:
        """Formats a storage folder; returns the cluster id. Raises DoesNotRun."""

        cluster_id = new_uuid()
        properties = self._properties(storage, 1, 2)
        argv = self._argv(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)])
        status = self._search.children.run(argv, self._log, START_TIMEOUT_S)
        if status != 0 or not (storage / "meta.properties").exists():
            raise DoesNotRun(f"the storage tool ended with status {status}")
        return cluster_id

    def live(
        self,
        storage: Path,
        use: Callable[[int], None],
        extra: Sequence[str] = (),
        aot: bool = False,
        grace_s: float = 30.0,
    ) -> float:
        """One life of a broker; returns the seconds until its port was open. Raises DoesNotRun."""
        children = self._search.children
        port, controller = children.port(), children.port()
        argv = self._argv(["kafka.Kafka", str(self._properties(storage, port, controller))], extra, aot)
        child = children.start(argv, self._log)
        try:
            seconds = wait_for_port(self._search, port, lambda: children.status(child), START_TIMEOUT_S)
            use(port)
        finally:
            children.stop(child, grace_s)
        if children.status(child) not in (0, 143):
            raise DoesNotRun(f"the broker ended with status {children.status(child)}")
        return round(seconds, 2)

    def _argv(self, main: Sequence[str], extra: Sequence[str] = (), aot: bool = False) -> list[str]:
        return [str(self._java.path), *_jvm_flags(self._folder, aot), *extra, "-cp", self._jars.classpath, *main]

    def _properties(self, storage: Path, port: int, controller: int) -> Path:
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"BROKER://127.0.0.1:{port}",
            "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKER",
            "log.dirs": storage,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 200,
        }
        path = self._folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path


#: Clients of the preparation are silent; what matters is whether they get through.
_CLIENT: dict[str, str | int | float | bool] = {"log_level": 0, "socket.timeout.ms": 10_000}


def _exercise(port: int) -> None:
    """What a run asks of a broker: topics, a producer, a transaction, a consumer group. Raises DoesNotRun."""
    from confluent_kafka import Consumer, KafkaException, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    address = {**_CLIENT, "bootstrap.servers": f"127.0.0.1:{port}"}
    try:
        admin = AdminClient(address)
        for made in admin.create_topics([NewTopic("training", 4, 1)]).values():
            made.result(60)
        producer = Producer({**address, "acks": "all", "enable.idempotence": True, "linger.ms": 5})
        for number in range(2000):
            producer.produce("training", b"x" * 187, key=str(number))
        if producer.flush(30):
            raise DoesNotRun("the broker did not take the records of the training")
        transactional = Producer({**address, "transactional.id": "training"})
        transactional.init_transactions(30)
        transactional.begin_transaction()
        transactional.produce("training", b"x")
        transactional.commit_transaction(30)
        consumer = Consumer({**address, "group.id": "training", "auto.offset.reset": "earliest"})
        try:
            consumer.subscribe(["training"])
            got, deadline = 0, time.monotonic() + 60
            while got < 2000 and time.monotonic() < deadline:
                got += sum(1 for m in consumer.consume(1000, 0.1) if m.error() is None)
            if got < 2000:
                raise DoesNotRun(f"the broker gave {got} of 2000 records back")
            consumer.commit(asynchronous=False)
        finally:
            consumer.close()
        for deleted in admin.delete_topics(["training"]).values():
            deleted.result(30)
    except KafkaException as error:
        raise DoesNotRun(f"the broker failed in its training: {error}") from error


def _make_internal_topics(port: int) -> None:
    """Asks for a group's offsets and for a transaction, which makes the broker create the topics for both."""
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

    # By a consumer that never joins: the admin client's list_consumer_group_offsets (confluent-kafka 2.16) crashes the
    # process on some error answers, which a broker gives as long as the coordinator comes up.
    consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "preparation", **_CLIENT})
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                consumer.committed([TopicPartition("preparation", 0)], timeout=10)
                break
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise DoesNotRun(f"the broker did not make its offsets topic: {error}") from error
                time.sleep(0.1)
    finally:
        consumer.close()
    try:
        producer = Producer({"bootstrap.servers": f"127.0.0.1:{port}", **_CLIENT, "transactional.id": "preparation"})
        producer.init_transactions(30)
    except KafkaException as error:
        raise DoesNotRun(f"the broker did not make its transactions topic: {error}") from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def new_uuid() -> str:
    """A UUID in base64 for URLs, as Kafka makes them; like Kafka, none that begins with "-": its tools would take that
    for an option, once in 64 times (org.apache.kafka.common.Uuid.randomUuid)."""
    import base64
    import uuid

    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made
