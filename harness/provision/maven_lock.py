"""Which jars make up a program, with their checksums: written to a lock once for each version, read by everybody else.

    python -m harness.provision.maven_lock kafka 4.3.0 > harness/provision/kafka.lock

resolves the dependencies as Maven would and compares every jar with the checksum that Maven Central publishes. With the
lock nothing has to be resolved any more: that many downloads in parallel, each checked against a sha256 that is ours.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Lock:
    """The jars of one program. `main`: the artifact whose version is the program's; `roots`: group:artifact of what
    depends on all the others; `bindings`: what no one depends on, group:artifact -> the artifact whose version it has.
    """

    name: str
    main: str
    roots: tuple[str, ...]
    bindings: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.lock")

    def jars(self) -> list[tuple[str, str]]:
        """(group:artifact:version, sha256) of every jar, in the order of the file."""
        lines = self.path.read_text().splitlines()
        pairs = [line.split() for line in lines if line and not line.startswith("#")]
        return [(coordinate, sha256) for coordinate, sha256 in pairs]

    def version(self) -> str:
        """The version of the program in the lock."""
        for coordinate, _ in self.jars():
            _, artifact, version = coordinate.split(":")
            if artifact == self.main:
                return version
        raise ValueError(f"{self.path} names no {self.main}")

    def key(self) -> str:
        """Of the cache: another lock is another program."""
        return f"{self.version()}-{hashlib.sha256(self.path.read_bytes()).hexdigest()[:8]}"


# Without a binding of slf4j a program logs nothing; its own dependencies hold none.
KAFKA = Lock(
    "kafka",
    "kafka_2.13",
    ("org.apache.kafka:kafka_2.13",),
    (("org.apache.logging.log4j:log4j-slf4j-impl", "log4j-core"),),
)
#: Of its parts, which call each other "provided".
HADOOP = Lock(
    "hadoop",
    "hadoop-hdfs",
    ("org.apache.hadoop:hadoop-hdfs", "org.apache.hadoop:hadoop-hdfs-client", "org.apache.hadoop:hadoop-common"),
    (("org.slf4j:slf4j-reload4j", "slf4j-api"),),
)
LOCKS = {lock.name: lock for lock in (KAFKA, HADOOP)}


def resolve(lock: Lock, version: str) -> list[tuple[str, str]]:
    """Asks Maven Central what the program of this version needs, and downloads it: some 20 s. Native code, which has a
    classifier, is left out; both programs do without."""
    from jgo.maven import MavenContext, PythonResolver

    with tempfile.TemporaryDirectory(prefix="gauntlet-lock-") as folder:
        context = MavenContext(repo_cache=Path(folder), resolver=PythonResolver())
        roots = [context.create_dependency(f"{root}:{version}") for root in lock.roots]
        inputs, dependencies = context.resolver.resolve(roots)
        found = [d for d in (*inputs, *dependencies) if not d.classifier]
        for binding, like in lock.bindings:
            version_of = next(d.version for d in found if d.artifactId == like)
            found.append(context.create_dependency(f"{binding}:{version_of}"))
        return sorted(_checked(context, Path(folder), dependency) for dependency in found)


def _checked(context: Any, folder: Path, dependency: Any) -> tuple[str, str]:
    """Raises ValueError for a jar that is not what is published."""
    import requests

    jar = dependency.artifact.resolve()
    published = ""
    for repository in context.remote_repos.values():
        answer = requests.get(f"{repository}/{jar.relative_to(folder)}.sha1", timeout=20)
        published = answer.text.split()[0] if answer.ok else ""
    if hashlib.sha1(jar.read_bytes()).hexdigest() != published:
        raise ValueError(f"{jar.name} does not have the checksum that is published for it")
    coordinate = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
    return coordinate, hashlib.sha256(jar.read_bytes()).hexdigest()


if __name__ == "__main__":
    print("# Written by harness/provision/maven_lock.py. group:artifact:version and the sha256 of its jar.")
    for name, checksum in resolve(LOCKS[sys.argv[1]], sys.argv[2]):
        print(name, checksum)
