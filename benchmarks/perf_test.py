"""Kafka's own producer benchmark, kafka-producer-perf-test, at its own best settings: the peer of the load."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from harness.errors import HarnessFault
from harness.provision.programs import KafkaProgram

#: Measured as its best on two cores, of batch sizes from 16 KiB to 1 MiB and lingers of 0 to 100 ms.
SETTINGS = ("acks=all", "batch.size=524288", "linger.ms=50", "buffer.memory=268435456")
_TOLD = re.compile(r"(\d+) records sent, ([\d.]+) records/sec")


def tools(kafka: KafkaProgram, folder: Path) -> Path:
    """The jar in which the program is, of the same version. Raises HarnessFault where it cannot be had."""
    from jgo.maven import MavenContext, PythonResolver

    try:
        project = MavenContext(repo_cache=folder, resolver=PythonResolver()).project("org.apache.kafka", "kafka-tools")
        return Path(project.at_version(kafka.version).artifact().resolve())
    except Exception as error:
        raise HarnessFault(f"kafka-tools {kafka.version} could not be downloaded: {error}") from error


def produce(kafka: KafkaProgram, jar: Path, bootstrap: str, topic: str, records: int, size: int) -> float:
    """Records a second, as the program itself tells it."""
    done = subprocess.run(
        [
            *(str(kafka.java), "-Xmx1g", "-cp", f"{kafka.classpath}:{jar}"),
            *("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", str(records)),
            *("--record-size", str(size), "--throughput", "-1"),
            *("--producer-props", f"bootstrap.servers={bootstrap}", *SETTINGS),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = _TOLD.findall(done.stdout)
    if done.returncode or not told or int(told[-1][0]) != records:
        raise HarnessFault(f"kafka-producer-perf-test came to nothing:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return float(told[-1][1])
