"""How soon everything is ready, in containers: the whole stack, beside testcontainers' own Kafka alone.

The peer is `KafkaContainer` of testcontainers in KRaft mode, on the very Kafka that we run: confluent_style/ lays the
three files that it expects over our image. So it has our jars, our JVM with its start-up cache and our settings, and
what differs is how the two bring it up. It counts itself ready when the broker's log says so, we when every service has
answered through Toxiproxy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Benchmark, Side
from harness.backends import docker, images, ryuk
from harness.errors import HarnessFault
from harness.session import Session
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa

STACK = "Gauntlet: Kafka, Pub/Sub, Bigtable, Toxiproxy and every link's proxy"
RUN = "Gauntlet: from the command to the first event at the last hop"
PEER = "testcontainers: Kafka alone"
MOST_S = 8.0
#: KafkaContainer reads the version of Confluent's platform from the tag, and takes KRaft from 7.0.0 on.
PEER_IMAGE = "gauntlet/benchmark-kafka:7.0.0"
FIRST_EVENT_WITHIN_S = 120.0


def benchmark() -> Benchmark:
    """Raises UsageError where there is no daemon or where images are missing: they are to be there."""
    if reason := docker.why_not():
        raise UsageError(f"the start can only be measured where containers can be had: {reason}")
    daemon = docker.client()
    found = images.resolve(daemon)
    _build_peer(daemon, found["kafka"].ref)
    server = daemon.version()
    without = ryuk.why_not(daemon)
    return Benchmark(
        "start",
        "Time to be ready",
        "s",
        [Side(STACK, lambda: stack("docker"), most=MOST_S), Side(PEER, peer), Side(RUN, lambda: first_event("docker"))],
        PEER,
        [
            f"Docker {server['Version']}, Kafka {found['kafka'].version}, all images on the machine",
            "Ryuk was " + (f"not running: {without}" if without else "started beside the stack")
            + "; the peer was measured without it",
            "The figures depend on the processor first (three JVMs and Python start at once) and on how warm the disk's "
            "cache is; read the ratio",
        ],
    )  # fmt: skip


def stack(backend: str) -> float:
    """From a session that has found what it needs (images, programs) to every service ready."""
    with Session(backend) as session:
        session.prepare(kappa)
        begin = time.monotonic()
        session.stack(kappa)
        return time.monotonic() - begin


def peer() -> float:
    """From the constructor to the end of `start()`."""
    from testcontainers.community.kafka import KafkaContainer
    from testcontainers.core.config import testcontainers_config

    testcontainers_config.ryuk_disabled = True
    begin = time.monotonic()
    container = KafkaContainer(PEER_IMAGE).with_kraft()
    container.ports = {f"{container.port}/tcp": ("127.0.0.1",)}  # type: ignore[dict-item]
    try:
        container.start()
        took = time.monotonic() - begin
        _must_work(container.get_bootstrap_server())
        return took
    finally:
        container.stop()


def _must_work(bootstrap: str) -> None:
    """What does not serve a client was not started. Raises HarnessFault."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=20)
    except KafkaException as error:
        raise HarnessFault(f"the peer's Kafka at {bootstrap} says that it has started and does not answer") from error


def first_event(backend: str) -> float:
    """A whole `gauntlet run` on a backend, interrupted when the first event is at the last hop: the seconds till then."""
    with tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-") as out:
        log = Path(out) / "log"
        command = [sys.executable, "-m", "harness.cli", "run", "steady", "--backend", backend, "--out", f"{out}/runs"]
        with open(log, "wb") as to:
            begin = time.time()
            process = subprocess.Popen(command, stdout=to, stderr=subprocess.STDOUT)
        try:
            while (at := _first_event(Path(out) / "runs")) is None:
                if process.poll() is not None or time.time() - begin > FIRST_EVENT_WITHIN_S:
                    raise HarnessFault(f"the run came to nothing:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGINT)
            process.wait(120)
        return at - begin


def _first_event(runs: Path) -> float | None:
    """When the run's history says that the first event was at the last hop, in epoch seconds."""
    for history in runs.glob("*/history.jsonl"):
        for line in history.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                record = json.loads(line)
                if record["kind"] == "note" and "the first event was seen" in record["text"]:
                    return float(record["t"])
    return None


def _build_peer(daemon: Any, kafka: str) -> None:
    """A thin layer over our image of Kafka, made anew each time so that it is never of an older one."""
    own = daemon.api.inspect_image(kafka)["Config"]["Entrypoint"]
    if not own or "kafka.Kafka" not in own:
        raise UsageError(
            f"{kafka} does not start Kafka by itself; make the images on this machine: gauntlet images build"
        )
    daemon.images.build(
        path=str(Path(__file__).with_name("confluent_style")),
        tag=PEER_IMAGE,
        buildargs={"KAFKA": kafka, "START": " ".join(own)},
        rm=True,
    )
