"""How soon the first event is through, as plain processes: `gauntlet run` from the command on, warm.

The peer is what a person would type instead: the same services as their vendors start them, one after another, each
waited for until it answers. Kafka by what its own kafka-storage.sh and kafka-server-start.sh run (their JVM, their
settings), the emulators by `gcloud beta emulators`. It starts no pipeline, no proxies and no load, and ends when the last
service answers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Benchmark, Side
from benchmarks.start import first_event, stack
from harness.errors import HarnessFault, last_lines
from harness.provision import provision
from harness.provision.programs import KafkaProgram
from harness.services import kafka as kafka_service
from harness.services import pubsub as pubsub_service
from harness.topology import UsageError

RUN = "Gauntlet: from the command to the first event at the last hop"
STACK = "Gauntlet: every service and every link's proxy"
PEER = "the vendors' own commands, one after another"
MOST_S = 5.0
_UP_WITHIN_S = 90.0
#: What kafka-run-class.sh and kafka-server-start.sh of Kafka 4.3 hand to the JVM.
_VENDORS_JVM = (
    *("-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    *("-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"),
)


def benchmark() -> Benchmark:
    """Raises UsageError where there is no gcloud with both emulators."""
    programs = provision()
    if shutil.which("gcloud") is None:
        raise UsageError("the peer needs `gcloud` with its Pub/Sub and Bigtable emulators on the PATH")
    return Benchmark(
        "start_processes",
        "Time to the first event, as processes",
        "s",
        [
            Side(RUN, lambda: first_event("process"), most=MOST_S),
            Side(STACK, lambda: stack("process")),
            Side(PEER, lambda: vendors(programs.kafka)),
        ],
        PEER,
        [f"Kafka {programs.kafka.version}, everything provisioned before", "The peer starts no proxy, worker or load"],
    )


def vendors(kafka: KafkaProgram) -> float:
    """From the first command to the answer of the last service."""
    with tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-") as folder, contextlib.ExitStack() as ended:
        begin = time.monotonic()
        address = _free()
        properties = Path(folder) / "server.properties"
        properties.write_text(_properties(address, _free(), Path(folder) / "kafka"))
        java = [str(kafka.java), *_VENDORS_JVM, "-cp", kafka.classpath]
        identity = ["-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(properties)]
        subprocess.run([*java, "kafka.tools.StorageTool", "format", *identity], check=True, capture_output=True)
        ended.enter_context(_running([*java, "kafka.Kafka", str(properties)], Path(folder) / "kafka.log"))
        _until(lambda: kafka_service.advertised(address), Path(folder) / "kafka.log")
        for name in ("pubsub", "bigtable"):
            at, log = _free(), Path(folder) / f"{name}.log"
            command = ["gcloud", "beta", "emulators", name, "start", f"--host-port={at}", "--quiet"]
            if name == "pubsub":
                (data := Path(folder) / name).mkdir()
                command.append(f"--data-dir={data}")
            ended.enter_context(_running(command, log))
            _until(partial(pubsub_service.probe, at, 2.0), log)
        return time.monotonic() - begin


def _properties(address: str, controller: str, data: Path) -> str:
    return "\n".join(
        [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@{controller}",
            f"listeners=PLAINTEXT://{address},CONTROLLER://{controller}",
            f"advertised.listeners=PLAINTEXT://{address}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "offsets.topic.replication.factor=1",
            f"log.dirs={data}",
        ]
    )


def _free() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    """A program in a session of its own, which ends with all that it started."""
    with open(log, "wb") as to:
        process = subprocess.Popen(command, stdout=to, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _until(answers: Callable[[], object], log: Path) -> None:
    end = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < end:
        with contextlib.suppress(HarnessFault):
            answers()
            return
        time.sleep(0.02)
    raise HarnessFault(f"a service of the peer did not answer within {_UP_WITHIN_S:g} s:\n{last_lines(log)}")
