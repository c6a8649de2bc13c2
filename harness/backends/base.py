"""What a backend offers: children that run (processes or containers), and a site on which a stack is built.

A stack (harness/stack.py) knows services, links and proxies; a site knows where they run. A third kind of site has to
offer what `Site` says, and to pass tests/conformance with it, and nothing else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from faults.base import Container
    from harness.backends.outlived import Outlived
    from harness.linkmeter import Flow
    from harness.topology import Batch, Worker
    from harness.toxiproxy import ToxiproxyServer


@dataclass(frozen=True)
class Child:
    """A process or container that was started. `pid` as the kernel of the daemon's machine knows it; `started` (epoch
    seconds) tells it from a later one."""

    pid: int
    started: float


@dataclass(frozen=True)
class Exit:
    """How a child ended: `status` as of `subprocess` (negative: the signal), `t` in epoch seconds."""

    pid: int
    status: int
    t: float
    oom_killed: bool = False

    @property
    def signal(self) -> str | None:
        return signal.Signals(-self.status).name if self.status < 0 else None

    @property
    def told(self) -> str:
        """As the predicate of a sentence."""
        if self.oom_killed:
            return "was killed for want of memory"
        return f"was ended by {self.signal}" if self.signal else f"ended with status {self.status}"


OnExit = Callable[[Exit], None]
#: Starts a child; called again for each restart.
Launch = Callable[[OnExit], Child]


class Children(Protocol):
    """Children by the pid of their life; a restart is another pid."""

    def signal(self, pid: int, number: int) -> bool:
        """False if it had ended. SIGSTOP and SIGCONT stop and continue all of it."""
        ...

    def ended(self, pid: int) -> Exit | None: ...
    def catch_up(self) -> list[str]:
        """Returns once every end that there was is known; a sentence for each time that it was not, since the last call.

        Raises BackendGone where no more will be known.
        """
        ...

    def state(self, pid: int) -> str:
        """ "running", "sleeping", "stopped" … or "gone"."""
        ...

    def stop(self, pids: Sequence[int], grace_s: float = 5.0) -> None:
        """SIGTERM to all, SIGKILL to those that are still there after the grace; returns when all have ended."""
        ...

    def stop_now(self, pid: int) -> None:
        """SIGKILL; returns when it has ended."""
        ...

    def outlive(self, seconds: float) -> None:
        """Should this harness be killed, all of them go on for so long, and another one may take them over; what it had stopped
        continues. 0: they end with it, as they do by default. Raises HarnessFault."""
        ...


@dataclass(frozen=True)
class Footprint:
    """What a worker takes with all that it has started: memory in bytes, and how many open files; None where that cannot be
    measured."""

    memory: int | None = None
    files: int | None = None


@dataclass(frozen=True)
class Port:
    """A port of a service: what the server binds, and where Toxiproxy reaches it; "host:port" each."""

    bind: str
    reach: str

    @property
    def number(self) -> int:
        return int(self.bind.rpartition(":")[2])


@dataclass(frozen=True)
class Door:
    """The front of a proxy of a link: what Toxiproxy binds, where the link's client finds it, where the harness does."""

    listen: str
    client: str
    harness: str


class Meter(Protocol):
    """See harness.linkmeter.LinkMeter."""

    def sample(self) -> Mapping[str, Flow]: ...
    def close(self) -> None: ...


class Site(Protocol):
    """Where one stack runs. Every address is known once `start_toxiproxy` has returned."""

    name: str

    @property
    def existing(self) -> Mapping[str, str]:
        """Services that were there before the stack, which never starts or ends them: name -> "host:port"."""
        ...

    @property
    def projects(self) -> Mapping[str, str]:
        """Of these, the ones that belong to a project of Google Cloud: name -> project."""
        ...

    @property
    def folder(self) -> Path: ...
    @property
    def children(self) -> Children: ...
    @property
    def toxiproxy(self) -> ToxiproxyServer: ...
    @property
    def doors(self) -> Mapping[str, Door]:
        """By the names of the links' proxies."""
        ...

    def start_toxiproxy(self, log: Path, on_exit: OnExit) -> Child: ...
    def port(self, process: str, what: str) -> Port:
        """A port of a process of a service, or of a worker that serves, for one purpose; the same one whenever it is
        asked for."""
        ...

    def direct(self, process: str, port: Port) -> str:
        """Where the harness reaches this port, past every fault."""
        ...

    def standing_proxies(self) -> list[tuple[str, str, str]]:
        """Proxies (name, listen, upstream) that belong to no link and are never disturbed."""
        ...

    def start_kafka(
        self, name: str, properties: Callable[[Path], str], log: Path, on_exit: OnExit, identity: str = ""
    ) -> Child | None:
        """`properties`: folder of the data -> the text of server.properties. Data survives a kill. None: it exists.

        `identity`: the text of meta.properties for a broker that is one of several; else the storage is formatted
        already, and more (see harness.provision.kafka).
        """
        ...

    def start_emulator(
        self, name: str, kind: str, port: Port, log: Path, on_exit: OnExit, args: Sequence[str] = ()
    ) -> Child | None:
        """A server that is told no more than a port, and `args`. What it writes where it is started survives a kill."""
        ...

    def start_hdfs(self, name: str, main: str, ports: Sequence[Port], log: Path, on_exit: OnExit) -> Child:
        """A process of an HDFS, which is made if it is not there: `main` is its Java class. Data survives a kill.

        Raises HarnessFault where there is no HDFS.
        """
        ...

    def shared_path(self, folder: str) -> str:
        """Where workers find a folder that they share."""
        ...

    def make_shared(self, path: str) -> None: ...
    def remove_shared(self, path: str) -> None:
        """With all that is in it; the workers that share it have ended."""
        ...

    def launch(
        self, instance: str, worker: Worker | Batch, env: Mapping[str, str], log: Path, output: Path | None = None
    ) -> tuple[Launch, str]:
        """What starts a worker, and its command as a person would write it. `output`: a file that it leaves behind."""
        ...

    def to_be_outlived(self) -> Outlived | None:
        """By what another harness finds this site again, should this one be killed; None where it cannot."""
        ...

    def join(self, name: str, log: Path, on_exit: OnExit) -> Child | None:
        """Of a site that is taken over: the process of a service or a worker that runs already, healed of what was done to it;
        None if it has ended."""
        ...

    def footprint(self, name: str, child: Child) -> Footprint:
        """Of a worker's process, by its name here, and its child. Raises nothing."""
        ...

    def container(self, instance: str) -> Container:
        """A worker's container. Raises HarnessFault where there are none."""
        ...

    def version(self, kind: str) -> str: ...
    def versions(self) -> dict[str, str]: ...
    def meter(self) -> Meter: ...
    def close(self) -> None: ...
