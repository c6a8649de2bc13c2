"""What provisioning hands over: programs that are ready to be started, and the error when one is not to be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessFault

if TYPE_CHECKING:
    from harness.provision.hadoop import HadoopProgram

#: (component, what is going on in a few words, how much of it is done from 0 to 1, or None where nobody can know).
Progress = Callable[[str, str, "float | None"], None]


@dataclass(frozen=True)
class Program:
    """A server that speaks for itself once it is started with a host and a port.

    `flags` are format strings for these two; `origin` says in a few words where the program came from. `kind` tells
    apart programs that offer the same service: for Pub/Sub "emulator" (Google's) or "pstest".
    """

    name: str
    version: str
    command: tuple[str, ...]
    origin: str
    flags: tuple[str, ...] = ("-host", "{host}", "-port", "{port}")
    kind: str = ""

    def start_args(self, host: str, port: int) -> list[str]:
        """The whole command line that makes it listen on host:port."""
        return [*self.command, *(flag.format(host=host, port=port) for flag in self.flags)]


@dataclass(frozen=True)
class KafkaProgram:
    """Apache Kafka as jars, a Java to run them, and storage that was formatted once and is copied for each broker.

    Start it with `[java, *jvm_flags, "-cp", classpath, "kafka.Kafka", <server.properties>]`. The class path must be
    handed over as it stands: the start-up (AOT) cache in `jvm_flags` is void with any other. What server.properties
    must agree on with the template is told in `harness/provision/kafka.py`.
    """

    version: str
    java: Path
    classpath: str
    jvm_flags: tuple[str, ...]
    template: Path
    cluster_id: str
    origin: str

    def start_args(self, server_properties: Path) -> list[str]:
        """The whole command line of a broker."""
        return [str(self.java), *self.jvm_flags, "-cp", self.classpath, "kafka.Kafka", str(server_properties)]


@dataclass(frozen=True)
class Programs:
    """Everything that a stack of plain processes is made of. `notes` say what a run must tell about them.

    None: only some pipelines need it, and none has so far (`harness.provision.BY_NEED`).
    """

    kafka: KafkaProgram
    toxiproxy: Program
    bigtable: Program
    pubsub: Program
    bigquery: Program | None = None
    redis: Program | None = None
    hadoop: HadoopProgram | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Attempt:
    """One place where a component was looked for, and what was wrong with it."""

    where: str
    reason: str


class ProvisionError(HarnessFault):
    """A component cannot be had. The message says what is missing, what was tried in order and what to do."""

    def __init__(self, component: str, tried: Sequence[Attempt], advice: str) -> None:
        self.component, self.tried, self.advice = component, tuple(tried), advice
        lines = [f"{component} is missing. Tried, in this order:"]
        lines += [f"  {i}. {a.where}: {a.reason}" for i, a in enumerate(self.tried, 1)]
        lines += [f"What to do: {advice}"]
        super().__init__("\n".join(lines))


class SeveralMissing(ProvisionError):
    """More than one component cannot be had; `errors` holds each one's own error."""

    def __init__(self, errors: Sequence[ProvisionError]) -> None:
        self.errors = tuple(errors)
        self.component = " and ".join(e.component for e in errors)
        self.tried = tuple(a for e in errors for a in e.tried)
        self.advice = " ".join(e.advice for e in errors)
        Exception.__init__(self, "\n\n".join(str(e) for e in errors))
