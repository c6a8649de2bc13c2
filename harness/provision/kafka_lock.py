"""Which jars make up Kafka, with their checksums: written to kafka.lock once for each version, read by everybody else.

    python -m harness.provision.kafka_lock 4.3.0 > harness/provision/kafka.lock

resolves Kafka's dependencies as Maven would and compares every jar with the checksum that Maven Central publishes. With
the lock nothing has to be resolved any more: 46 downloads in parallel, each checked against a sha256 that is ours.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).with_name("kafka.lock")
#: Kafka's own dependencies hold no binding of slf4j, and without one Kafka logs nothing. (artifact; log4j's version.)
_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"


def locked() -> list[tuple[str, str]]:
    """(group:artifact:version, sha256) of every jar, in the order of the file."""
    lines = LOCK.read_text().splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    return [(coordinate, sha256) for coordinate, sha256 in pairs]


def locked_version() -> str:
    """The version of Kafka in the lock."""
    for coordinate, _ in locked():
        _, artifact, version = coordinate.split(":")
        if artifact.startswith("kafka_2."):
            return version
    raise ValueError(f"{LOCK} names no Kafka")


def resolve(version: str) -> list[tuple[str, str]]:
    """Asks Maven Central what Kafka of this version needs. Some 20 s and 42 MB."""
    import requests
    from jgo.maven import MavenContext, PythonResolver

    found = []
    with tempfile.TemporaryDirectory(prefix="gauntlet-lock-") as folder:
        context = MavenContext(repo_cache=Path(folder), resolver=PythonResolver())
        inputs, dependencies = context.resolver.resolve(
            [context.create_dependency(f"org.apache.kafka:kafka_2.13:{version}")]
        )
        log4j = next(d.version for d in dependencies if d.artifactId == "log4j-core")
        for dependency in [*inputs, *dependencies, context.create_dependency(f"{_BINDING}:{log4j}")]:
            jar = dependency.artifact.resolve()
            published = ""
            for repository in context.remote_repos.values():
                answer = requests.get(f"{repository}/{jar.relative_to(folder)}.sha1", timeout=20)
                published = answer.text.split()[0] if answer.ok else ""
            if hashlib.sha1(jar.read_bytes()).hexdigest() != published:
                raise ValueError(f"{jar.name} does not have the checksum that is published for it")
            coordinate = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
            found.append((coordinate, hashlib.sha256(jar.read_bytes()).hexdigest()))
    return sorted(found)


if __name__ == "__main__":
    print("# Written by harness/provision/kafka_lock.py. group:artifact:version and the sha256 of its jar.")
    for name, checksum in resolve(sys.argv[1]):
        print(name, checksum)
