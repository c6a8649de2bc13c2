"""Containers through testcontainers: what starts them, ends them and tells how they ended.

testcontainers is set up here and nowhere else, before its import (docs/dependencies.md tells why): every address is
127.0.0.1, also where the harness itself is in a container that shares the host's network, and it starts no reaper by
itself: `Containers` has two, reaper.py everywhere and ryuk.py where it can run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from faults.base import Fault
from harness.backends import images, reaper, ryuk
from harness.backends.base import Child, Exit, OnExit, Site
from harness.backends.outlived import Outlived, OutlivedContainers
from harness.backends.process import Processes, start_time
from harness.backends.reaper_line import ReaperLine
from harness.errors import BackendGone, HarnessFault
from harness.topology import BigQuery, Hdfs, Pipeline, Sqlite, UsageError

LABEL = reaper.LABEL
#: What a container is of its site: the name by which the others on its network know it.
PART = "gauntlet.part"
DEFAULT_HOST = "unix:///var/run/docker.sock"
#: So long may the daemon be away before a run is broken off.
AWAY_AT_MOST_S = 20.0
#: How long a log may trail the end of its container before the exit is told without its last lines.
LOG_WITHIN_S = 3.0

#: Exit statuses above 128 that stand for a signal; others are the program's own.
_SIGNALS = {int(number) for number in signal.Signals}

os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")


def client(timeout_s: float = 60) -> Any:
    """The daemon's client. Raises UsageError where no daemon answers, or only one whose ports are out of reach."""
    import docker
    from docker.errors import DockerException

    # testcontainers would follow Docker's current context instead, and end up with another daemon than the reaper.
    address = os.environ.setdefault("DOCKER_HOST", DEFAULT_HOST)
    if not address.startswith(("unix://", "tcp://127.", "tcp://localhost", "http+unix://")):
        raise UsageError(
            f"The Docker daemon at {address} is on another machine, which publishes its ports where this one cannot "
            "reach them. Mount a daemon's socket, or take --backend process."
        )
    try:
        made = docker.from_env(timeout=timeout_s)
        made.ping()
    except DockerException as error:
        raise UsageError(
            f"No Docker daemon answers at {address} ({_plainly(error)}). Start one, or point DOCKER_HOST at it, or take "
            "--backend process."
        ) from error
    return made


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Around every question to the daemon: what it answers amiss, or that it does not, becomes an error of the harness.

    Raises BackendGone where it does not answer, HarnessFault where it refuses.
    """
    import docker.errors
    import requests
    import urllib3.exceptions

    silence = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
    try:
        yield
    except docker.errors.APIError as error:  # one of requests' too, but an answer
        raise HarnessFault(f"the Docker daemon refused: {error.explanation or error}") from error
    except (docker.errors.DockerException, *silence) as error:
        if isinstance(error, silence) or isinstance(error.__cause__, silence):
            raise BackendGone(f"the Docker daemon at {_address()} does not answer: {_plainly(error)}") from error
        raise HarnessFault(f"the Docker daemon could not be asked: {error}") from error


def _address() -> str:
    return os.environ.get("DOCKER_HOST", DEFAULT_HOST)


def _plainly(error: BaseException) -> str:
    """The system's own word for what went wrong, which the libraries wrap several times."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)


def why_not() -> str | None:
    """Why containers cannot be had at once on this machine; None if they can. Cheap where there is no daemon."""
    if "DOCKER_HOST" not in os.environ and not Path(DEFAULT_HOST.removeprefix("unix://")).exists():
        return "no Docker daemon answers"
    try:
        daemon = client(5)
    except UsageError as error:
        return "the Docker daemon is on another machine" if "machine" in str(error) else "no Docker daemon answers"
    return _not_here(images.missing(daemon))


def lacks(pipeline: Pipeline) -> str | None:
    """Why what this pipeline needs beside all others cannot be had at once in containers; None if it can."""
    kinds = images.needed(pipeline)
    return _not_here(images.missing_of(client(5), kinds)) if kinds else None


def _not_here(missing: Sequence[str]) -> str | None:
    return f"{', '.join(missing)} not on this machine yet (`gauntlet images build` makes them)" if missing else None


def cannot_hold(pipeline: Pipeline) -> str:
    """Why a pipeline cannot live in containers, or ""."""
    for service in pipeline.services:
        if isinstance(service, Sqlite):
            return f"{service.name} of {pipeline.name} is a file on this machine, which containers do not share."
        if isinstance(service, BigQuery):
            return f"{service.name} of {pipeline.name} is BigQuery, of whose emulator there is no image."
        if isinstance(service, Hdfs):
            return f"{service.name} of {pipeline.name} is HDFS, which runs as plain processes only."
    for worker in pipeline.workers:
        if not worker.image and not images.holds(worker.command):
            return f"The worker {worker.name} of {pipeline.name} declares no image."
    if pipeline.batch is not None and not pipeline.batch.image and not images.holds(pipeline.batch.command):
        return f"The batch job of {pipeline.name} declares no image."
    return ""


class DockerBackend:
    """Every part in a container, on a network of the stack's own."""

    name, where = "docker", "in containers"

    def __init__(self, processes: Processes, outlived: Outlived | None = None) -> None:
        """`outlived`: what a harness that was killed has left, whose containers are taken over. Raises HarnessFault where there
        are none any more."""
        daemon = client()
        with asking():
            self.images = images.resolve(daemon)
            self.containers = Containers(daemon, outlived if isinstance(outlived, OutlivedContainers) else None)
        self.notes = list(self.images.notes)
        self._processes = processes
        self._numbers = itertools.count(1)
        self._fetched: set[str] = set()

    def fetch_images(self, pipeline: Pipeline) -> None:
        """Those that not every pipeline needs, so that none is missed in the middle of a run. Raises UsageError."""
        if kinds := images.needed(pipeline) - self.images.keys():
            with asking():
                self.images.update(images.resolve_services(self.containers.client, kinds))
        declared = {w.image for w in pipeline.workers} | {pipeline.batch.image if pipeline.batch else ""}
        if not declared <= self._fetched:
            with asking():
                images.fetch_declared(self.containers.client, pipeline)
            self._fetched |= declared

    def site(self, pipeline: Pipeline, outlived: OutlivedContainers | None = None) -> Site:
        from harness.backends.docker_site import DockerSite

        folder = Path(outlived.folder) if outlived else self._processes.temp / f"containers-{next(self._numbers)}"
        return DockerSite(pipeline, self.images, self.containers, folder, outlived)

    def refuses(self, fault: Fault, pipeline: Pipeline) -> str:
        return ""

    def close(self) -> None:
        self.containers.close()


@dataclass(frozen=True)
class _Life:
    """A container from one start to its end."""

    pid: int
    started: float
    writer: threading.Thread
    on_exit: OnExit | None


class Containers:
    """All containers of one harness, labelled with it, and removed with it. Safe to use from any thread."""

    def __init__(self, daemon: Any, outlived: OutlivedContainers | None = None) -> None:
        """`outlived`: those of a harness that was killed are taken over. Raises HarnessFault where there are none any more."""
        self.client = daemon
        self._api = daemon.api
        # One a keeper, not one a process: a process may have several, and each removes only its own.
        own = f"{_machine()}/{os.getpid()}/{start_time(os.getpid())}/{secrets.token_hex(4)}"
        self.owner = outlived.owner if outlived is not None else own
        _sweep_of_the_dead(self._api)
        self._lock = threading.Lock()
        self._ids: dict[int, str] = {}
        self._exits: dict[int, Exit] = {}
        self._lives: dict[str, _Life] = {}
        self._early: dict[str, Mapping[str, Any]] = {}
        self._stopped: set[int] = set()
        self._invented = itertools.count(-1, -1)
        self._closing = self._removed = False
        self._creating = 0
        self._reaper = ReaperLine.started(self.owner) if outlived is None else ReaperLine.joined(self.owner)
        self._events = self._ends(time.time())
        # While `_hearing` is set, every end is known, unless `_gone` says why not.
        self._hearing = threading.Event()
        self._hearing.set()
        self._gone = ""
        self._told: list[str] = []
        self._tellers = ThreadPoolExecutor(8, "container-exit")
        threading.Thread(target=self._listen, name="docker-events", daemon=True).start()
        self._to_ryuk: socket.socket | None = None
        #: Its port on loopback; 0 where it does not watch.
        self.ryuks_port = outlived.ryuk if outlived is not None else 0
        self._outlives = outlived is not None
        #: Done when Ryuk watches too, with None, or with the reason why it does not.
        self.ryuk: Future[str | None] = Future()
        if outlived is not None and not self.ryuks_port:
            self.ryuk.set_result("it did not watch before")
        elif outlived is None and (reason := ryuk.why_not(daemon)):
            self.ryuk.set_result(reason)
        else:  # beside the first containers, which wait for nothing: the reaper watches already
            threading.Thread(target=self._start_ryuk, name="ryuk", daemon=True).start()

    def _start_ryuk(self) -> None:
        try:
            if not self.ryuks_port:
                with self._making():
                    self.ryuks_port = ryuk.start(self.owner)
            self._to_ryuk = ryuk.hand_over(self.ryuks_port, self.owner, lambda: self._closing)
            self.ryuk.set_result(None)
        except Exception as error:  # whatever it is, the run goes on: the reaper watches
            if not self._closing:
                print(f"  Ryuk does not watch ({error}); the harness's own reaper does", file=sys.stderr, flush=True)
            self.ryuks_port = 0
            self.ryuk.set_result(str(error))

    def outlive(self, seconds: float) -> None:
        """See harness.backends.base.Children."""
        if seconds:
            try:
                self.ryuk.result(ryuk.READY_WITHIN_S + 30)  # whoever lets them live has to hold it back
            except TimeoutError as error:
                raise HarnessFault("Ryuk neither watches nor says why not") from error
        self._outlives = bool(seconds)
        self._reaper.outlive(seconds, self.ryuks_port)

    # -- making ------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> dict[str, str]:
        return {LABEL: self.owner}

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """Around every creation: none is begun once all is being removed."""
        from testcontainers.core.config import testcontainers_config

        # Whoever imported it before us may have set it up otherwise.
        testcontainers_config.ryuk_disabled = True
        testcontainers_config.hub_image_name_prefix = ""
        with self._lock:
            if self._closing:
                raise HarnessFault("containers are being removed; none is made any more")
            self._creating += 1
        try:
            with asking():
                yield
        finally:
            with self._lock:
                self._creating -= 1

    def network(self, outlived: str = "") -> Any:
        """A network of this harness's own; or, by its id, the one of a harness that was killed."""
        from testcontainers.core.network import Network

        with self._making():
            if not outlived:
                return Network(docker_network_kw={"labels": self.labels}).create()
            joined = Network()
            joined._network = self.client.networks.get(outlived)
            joined.name = joined._network.name
            return joined

    def volume(self) -> str:
        """A volume of this harness's own: its name."""
        with self._making(), asking():
            return str(self._api.create_volume(labels=self.labels)["Name"])

    def remove_volume(self, name: str) -> None:
        import docker.errors

        with asking(), contextlib.suppress(docker.errors.APIError):
            self._api.remove_volume(name)

    def run(
        self,
        image: str,
        command: Sequence[str],
        log: Path,
        on_exit: OnExit | None = None,
        *,
        network: Any = None,
        alias: str = "",
        env: Mapping[str, str] | None = None,
        ports: Sequence[int] = (),
        files: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> tuple[str, Child]:
        """Makes and starts a container: its id and its first life. What it writes goes to the end of `log`.

        `ports` are published on loopback, at ports that are free; `files` (path -> text) are there before it starts.
        Raises HarnessFault.
        """
        from testcontainers.core.container import DockerContainer

        try:
            with self._making():
                labels = self.labels | ({PART: alias} if alias else {})
                made = DockerContainer(
                    image, docker_client_kw={"timeout": 60}, env=dict(env or {}), labels=labels, **kwargs
                )
                if command:
                    made.with_command(list(command))  # type: ignore[arg-type]
                if network is not None:
                    made.with_network(network).with_network_aliases(alias)
                for port in ports:
                    made.ports[f"{port}/tcp"] = ("127.0.0.1",)  # type: ignore[assignment]
                for path, text in (files or {}).items():
                    made.with_copy_into_container(text.encode(), path)
                made.start()
                container = str(made.get_wrapped_container().id)
                stream = self._api.logs(container, stdout=True, stderr=True, stream=True, follow=True)
                return container, self._live(container, stream, log, on_exit)
        except HarnessFault as error:
            raise type(error)(f"a container of {image} could not be started: {error}") from error

    def stream(self, image: str, command: Sequence[str], **kwargs: Any) -> tuple[str, Iterator[bytes]]:
        """Makes and starts a container whose output is read line by line. Raises HarnessFault."""
        container, child = self.run(image, command, Path(os.devnull), **kwargs)
        with asking():
            stream = self._api.logs(container, stdout=True, stderr=False, stream=True, follow=True)
        return container, _lines(self._follow(container, child.pid, stream, stderr=False))

    def start(self, container: str, log: Path, on_exit: OnExit | None = None) -> Child:
        """Starts a container that had ended. Raises HarnessFault."""
        with self._making():
            stream = self._api.attach(container, stdout=True, stderr=True, stream=True, logs=False)
            self._api.start(container)
            return self._live(container, stream, log, on_exit)

    def parts(self) -> dict[str, str]:
        """Every container, whether it runs or has ended: what it is of its site (its id, where it is nothing) -> its id."""
        with asking():
            found = self._api.containers(all=True, filters={"label": f"{LABEL}={self.owner}"})
        return {c["Labels"].get(PART, c["Id"]): c["Id"] for c in found}

    def join(self, container: str, log: Path, on_exit: OnExit | None = None) -> Child | None:
        """The life of a container that runs since before this harness, which hears from now on how it ends, and has what it
        writes in `log`; None if it has ended."""
        with asking():
            state = self._api.inspect_container(container)["State"]
            if not state["Running"]:
                return None
            if state["Paused"]:
                self._api.unpause(container)
            last = log.stat().st_mtime if log.exists() else 0.0
            stream = self._api.logs(container, stdout=True, stderr=True, stream=True, follow=True, since=last)
            return self._live(container, stream, log, on_exit)

    def _live(self, container: str, stream: Iterator[bytes], log: Path, on_exit: OnExit | None) -> Child:
        state = self._api.inspect_container(container)["State"]
        pid = int(state["Pid"]) or next(self._invented)  # 0: it has ended already
        started = _epoch(state["StartedAt"])
        writer = threading.Thread(
            target=_write, args=(self._follow(container, pid, stream), log), name="container-log", daemon=True
        )
        writer.start()
        with self._lock:
            self._exits.pop(pid, None)
            self._ids[pid] = container
            self._lives[container] = _Life(pid, started, writer, on_exit)
            died = self._early.pop(container, None)
        if died is not None:
            self._ended(container, int(died["Actor"]["Attributes"]["exitCode"]), died["timeNano"] / 1e9)
        elif not state["Running"]:  # its end may have been told while nobody could hear it
            self._ended(container, int(state["ExitCode"]), max(started, _epoch(state["FinishedAt"])))
        return Child(pid, started)

    def _follow(self, container: str, pid: int, stream: Iterator[bytes], stderr: bool = True) -> Iterator[bytes]:
        """What a container writes in one life; it goes on where it broke off if the daemon was away."""
        import docker.errors

        last = time.time()
        while True:
            broken = False
            try:
                for piece in stream:
                    last = time.time()
                    yield piece
            except Exception:  # whatever the connection dies of
                broken = True
            over = time.monotonic() + 1  # the end of an attached stream says nothing of the reason
            while not broken and not self._closing and self._lives_on(container, pid):
                if time.monotonic() > over:
                    broken = True
                time.sleep(0.01)
            self._hearing.wait()
            if not broken or self._closing or self._gone:
                return
            try:
                stream = self._api.logs(container, stdout=True, stderr=stderr, stream=True, follow=True, since=last)
            except docker.errors.NotFound:
                return
            except Exception:  # it is away, and that has not been noticed yet
                stream = iter(())

    def _lives_on(self, container: str, pid: int) -> bool:
        life = self._lives.get(container)
        return life is not None and life.pid == pid

    def published(self, container: str) -> dict[int, int]:
        """Container port -> port on loopback."""
        with asking():
            ports = self._api.inspect_container(container)["NetworkSettings"]["Ports"]
        return {int(name.split("/")[0]): int(where[0]["HostPort"]) for name, where in ports.items() if where}

    def fetch(self, pid: int, path: str, to: Path) -> bool:
        """Copies a file out of a container; False if there is none."""
        import io
        import tarfile

        import docker.errors

        with asking():
            try:
                pieces, _ = self._api.get_archive(self._ids[pid], path)
            except docker.errors.NotFound:
                return False
            whole = b"".join(pieces)
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            member = tar.extractfile(tar.getmembers()[0])
            assert member is not None
            to.write_bytes(member.read())
        return True

    # -- Children ----------------------------------------------------------------------------------------------

    def signal(self, pid: int, number: int) -> bool:
        import docker.errors

        container = self._ids.get(pid)
        if container is None or pid in self._exits:
            return False
        with asking():
            try:
                if number == signal.SIGSTOP:
                    self._api.pause(container)
                    self._stopped.add(pid)
                elif number == signal.SIGCONT:
                    if pid in self._stopped:
                        self._stopped.discard(pid)
                        self._api.unpause(container)
                else:
                    if pid in self._stopped:  # the daemon does not signal what is frozen
                        self.signal(pid, signal.SIGCONT)
                    self._api.kill(container, signal.Signals(number).name)
            except docker.errors.APIError:
                return False  # it has just ended
        return True

    def ended(self, pid: int) -> Exit | None:
        if self._gone and not self._closing:
            raise BackendGone(self._gone)
        how = self._exits.get(pid)
        if how is None and self._removed:
            # Of what is removed nobody hears. Whoever still waits for it to come up would hold up the end.
            return Exit(pid, -signal.SIGKILL, time.time())
        return how

    def catch_up(self) -> list[str]:
        self._hearing.wait()  # not for ever: the listener gives up for a while
        if self._gone and not self._closing:
            raise BackendGone(self._gone)
        with self._lock:
            told, self._told = self._told, []
        return told

    def state(self, pid: int) -> str:
        if pid in self._exits or pid not in self._ids:
            return "gone"
        with asking():
            state = self._api.inspect_container(self._ids[pid])["State"]
        return "stopped" if state["Paused"] else "sleeping" if state["Running"] else "gone"

    def stop(self, pids: Sequence[int], grace_s: float = 5.0) -> None:
        for pid in pids:
            self.signal(pid, signal.SIGCONT)
            if grace_s > 0:
                self.signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and any(self.ended(p) is None for p in pids):
            time.sleep(0.01)
        for pid in pids:
            if self.ended(pid) is None:
                self.signal(pid, signal.SIGKILL)
        self._wait(pids)

    def stop_now(self, pid: int) -> None:
        self.signal(pid, signal.SIGKILL)
        self._wait([pid])

    def _wait(self, pids: Sequence[int]) -> None:
        deadline = time.monotonic() + 30
        while any(self.ended(p) is None for p in pids):
            if time.monotonic() > deadline:
                raise HarnessFault("the Docker daemon does not say that a killed container has ended")
            time.sleep(0.005)

    # -- hearing of ends ---------------------------------------------------------------------------------------

    def _ends(self, since: float) -> Any:
        filters = {"label": f"{LABEL}={self.owner}", "event": ["die"]}
        return self.client.events(decode=True, since=since, filters=filters)

    def _listen(self) -> None:
        """Hears of every end. A daemon that goes away and comes back in time has what it did not tell looked up: one that
        was started again has forgotten what it had to tell, and may have ended every container at its own end."""
        since, lost, lost_at = time.time(), -AWAY_AT_MOST_S, 0.0
        while True:
            opened = time.monotonic()
            problem: object = "its stream of events ends at once"
            try:
                for event in self._events:
                    since = event["timeNano"] / 1e9
                    with self._lock:
                        known = event["id"] in self._lives
                        if not known:
                            self._early[event["id"]] = event
                    if known:
                        self._ended(event["id"], int(event["Actor"]["Attributes"]["exitCode"]), since)
            except Exception as error:  # whatever the connection dies of
                problem = _plainly(error)
            self._hearing.clear()
            if time.monotonic() - opened > 1 or not lost_at:  # it was there, and is not any more
                lost, lost_at = time.monotonic(), time.time()
            while not self._closing:
                away = time.monotonic() - lost
                if away > AWAY_AT_MOST_S and not self._gone:
                    self._gone = (
                        f"the Docker daemon at {_address()} went away at {_clock(lost_at)} and was not back within "
                        f"{AWAY_AT_MOST_S:g} s ({problem})"
                    )
                    self._hearing.set()  # whoever waits is told
                time.sleep(0.1)
                try:
                    self._events = self._ends(since)
                    ended = self._look_up_ends()
                except Exception as error:
                    problem = _plainly(error)
                    continue
                if time.monotonic() - opened > 1:
                    self._gone = ""  # for the next run
                    with self._lock:
                        self._told.append(
                            f"the Docker daemon went away at {_clock(lost_at)} and was back after {away:.1f} s; "
                            f"containers that had ended meanwhile: {ended}"
                        )
                break
            self._hearing.set()
            if self._closing:
                return

    def _look_up_ends(self) -> int:
        """Tells of those that have ended and of which nothing was told; how many."""
        import docker.errors

        with self._lock:
            lives = dict(self._lives)
        found = 0
        for container, life in lives.items():
            try:
                state = self._api.inspect_container(container)["State"]
            except docker.errors.NotFound:  # somebody has removed it, which kills
                state = {"Running": False, "ExitCode": 128 + signal.SIGKILL, "FinishedAt": None}
            if not state["Running"]:
                found += 1
                at = _epoch(state["FinishedAt"]) if state["FinishedAt"] else time.time()
                self._ended(container, int(state["ExitCode"]), max(at, life.started))
        return found

    def _ended(self, container: str, code: int, at: float) -> None:
        with self._lock:
            life = self._lives.get(container)
            if life is None or at < life.started:
                return  # of an earlier life: told again after the stream broke off
            del self._lives[container]
        pid, writer, on_exit = life.pid, life.writer, life.on_exit
        status = 128 - code if code - 128 in _SIGNALS else code
        how = Exit(pid, status, at, status == -signal.SIGKILL and self._oom_killed(container))
        self._stopped.discard(pid)
        if self._closing:
            self._exits[pid] = how
        else:
            self._tellers.submit(self._tell, writer, on_exit, how)

    def _tell(self, writer: threading.Thread, on_exit: OnExit | None, how: Exit) -> None:
        """Once its last lines are in its log: whoever hears of an end reads them."""
        writer.join(LOG_WITHIN_S)
        self._exits[how.pid] = how
        if on_exit is not None and not self._closing:
            on_exit(how)

    def _oom_killed(self, container: str) -> bool:
        try:
            return bool(self._api.inspect_container(container)["State"]["OOMKilled"])
        except Exception:  # it was removed already, or the daemon is away: its end must be told all the same
            return False

    # -- the end -----------------------------------------------------------------------------------------------

    def remove(self, containers: Sequence[str], network: Any = None) -> None:
        import docker.errors

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._remove_one, containers))
        if network is not None:
            with asking(), contextlib.suppress(docker.errors.APIError):
                network.remove()

    def _remove_one(self, container: str) -> None:
        import docker.errors

        with asking(), contextlib.suppress(docker.errors.APIError):
            self._api.remove_container(container, force=True, v=True)

    def close(self) -> None:
        """Removes everything; returns when it is gone."""
        with self._lock:
            self._closing = True
        if self._outlives:  # Ctrl-C once more, in the middle of this, is not outlived
            with contextlib.suppress(HarnessFault):
                self.outlive(0)
        with contextlib.suppress(Exception):
            self._events.close()
        deadline = time.monotonic() + 30
        while self._creating and time.monotonic() < deadline:  # what was begun lands first
            time.sleep(0.02)
        gone = False
        with contextlib.suppress(Exception):
            while not gone and time.monotonic() < deadline:
                gone = reaper.sweep(self._api, self.owner) == 0
        self._removed = gone
        self._reaper.close(all_done=gone and not self._creating)
        if self._to_ryuk is not None:
            self._to_ryuk.close()
        if gone or self._answers():
            self._reaper.wait(120)
        else:
            print(
                f"  the Docker daemon at {_address()} is away: what is left in it goes when it is back within two minutes, "
                "or else with the next start of --backend docker",
                file=sys.stderr,
                flush=True,
            )
        self._tellers.shutdown(wait=False)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self._api.ping())
        return False


def _write(stream: Iterator[bytes], log: Path) -> None:
    with open(log, "ab", buffering=0) as file, contextlib.suppress(Exception):
        for piece in stream:
            file.write(piece)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    with contextlib.suppress(Exception):  # the stream breaks off when its container is removed
        for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole


def _clock(t: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(t))


def _epoch(text: str) -> float:
    """The daemon writes nanoseconds, which datetime does not read."""
    whole, _, rest = text.partition(".")
    fraction = rest.rstrip("Z")[:6] if rest else "0"
    return datetime.fromisoformat(f"{whole.rstrip('Z')}+00:00").timestamp() + float(f"0.{fraction or 0}")


def _machine() -> str:
    """Whose pids these are: the boot and the pid namespace. Another machine may use the same daemon."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def _sweep_of_the_dead(api: Any) -> None:
    """Removes what a harness left whose reaper was killed with it."""
    labels = {c["Labels"].get(LABEL, "") for c in api.containers(all=True, filters={"label": LABEL})}
    labels |= {n["Labels"].get(LABEL, "") for n in api.networks(filters={"label": LABEL})}
    labels |= {c["Labels"].get(reaper.RYUK, "") for c in api.containers(all=True, filters={"label": reaper.RYUK})}
    for owner in labels:
        machine, pid, started = [*owner.rsplit("/", 3), "", ""][:3]
        if machine != _machine() or reaper.stays(owner):
            continue
        try:
            alive = start_time(int(pid)) == int(started)
        except (OSError, ValueError, IndexError):
            alive = False
        if not alive:
            reaper.sweep(api, owner)
