"""A site of containers: all on a network of their own, and Toxiproxy the only one that can be reached from outside.

Random published ports change when a container is started again, so only Toxiproxy publishes, and it is never
restarted. The harness reaches each service by a standing proxy that no fault disturbs; workers reach them by Toxiproxy's
alias. Toxiproxy's sockets are in its own network namespace, so that is where the meter of the links runs.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.backends.base import Child, Door, Exit, Footprint, Launch, OnExit, Port
from harness.backends.docker import Containers
from harness.backends.images import Images, local_ref
from harness.backends.outlived import OutlivedContainers
from harness.backends.worker_container import WorkerContainer
from harness.errors import HarnessFault, died
from harness.linkmeter import Flow
from harness.topology import Batch, Pipeline, Worker
from harness.toxiproxy import ToxiproxyServer

TOXIPROXY = "toxiproxy"
API_PORT = 8474
FIRST_DOOR, FIRST_STANDING = 20001, 21001
#: Where the official image of Kafka takes its configuration from, and where it keeps its data; ours does the same.
KAFKA_CONFIG = "/mnt/shared/config/server.properties"
KAFKA_DATA = Path("/tmp/kraft-combined-logs")
#: Where a broker that is one of several keeps it: in our image the other folder is formatted for one that is alone.
KAFKA_DATA_OF_SEVERAL = Path("/tmp/gauntlet-kafka")
OUTPUT = "/tmp/gauntlet-output"
#: Where workers find the folders that they share.
SHARED = "/gauntlet"
#: A sample older than this is none: it would look like links that fell silent.
STALE_S = 1.0


class DockerSite:
    """See harness.backends.base.Site."""

    name = "docker"
    existing: Mapping[str, str] = {}
    projects: Mapping[str, str] = {}

    def __init__(
        self,
        pipeline: Pipeline,
        images: Images,
        containers: Containers,
        folder: Path,
        outlived: OutlivedContainers | None = None,
    ) -> None:
        self.folder, self.children = folder, containers
        self._containers, self._images = containers, images
        self._network = containers.network(outlived.network if outlived is not None else "")
        self._made: dict[str, str] = {}
        self._workers: dict[str, WorkerContainer] = {}
        self._ports: dict[tuple[str, str], Port] = {}
        self._numbers = itertools.count(9001)
        self._proxies = [proxy for link in pipeline.links() for proxy in link.proxies]
        self._processes = [p for s in pipeline.services if s.networked for p in s.processes()] + list(
            pipeline.serving()
        )
        self._instances = set(pipeline.instances())
        self._shared: dict[str, str] = {}  # path in the workers' containers -> volume
        self._outside: dict[int, int] = {}
        self._directs: dict[str, tuple[int, Port]] = {}
        self.doors: Mapping[str, Door] = {}
        self.toxiproxy = ToxiproxyServer("127.0.0.1", 0)
        if outlived is not None:
            self._take_over(pipeline, outlived)

    def _take_over(self, pipeline: Pipeline, outlived: OutlivedContainers) -> None:
        known = {TOXIPROXY, *self._instances, *(p for s in pipeline.services for p in s.processes())}
        parts = self._containers.parts()
        self._made = {part: container for part, container in parts.items() if part in known}
        # What belonged to the run alone in which the harness was killed: its meter, its batch truth, a second process.
        self._containers.remove([container for part, container in parts.items() if part not in known])
        self._shared = dict(outlived.shared)
        for process, what, number in outlived.ports:
            self._ports[process, what] = _port(process, number)
        self._numbers = itertools.count(max([9000, *(number for *_, number in outlived.ports)]) + 1)
        if TOXIPROXY in self._made:
            self._know_doors()
        if not self.doors and self._proxies:
            raise HarnessFault("toxiproxy ended, and every link with it")

    def to_be_outlived(self) -> OutlivedContainers:
        ports = [(process, what, port.number) for (process, what), port in self._ports.items()]
        c = self._containers
        return OutlivedContainers(str(self.folder), c.owner, c.ryuks_port, self._network.id, ports, dict(self._shared))

    def join(self, name: str, log: Path, on_exit: OnExit) -> Child | None:
        if name not in self._made:
            return None
        child = self._containers.join(self._made[name], log, on_exit)
        if child is not None and name in self._instances:
            self._know_worker(name).heal()
        return child

    def start_toxiproxy(self, log: Path, on_exit: OnExit) -> Child:
        inside = [API_PORT]
        inside += [FIRST_DOOR + i for i in range(len(self._proxies))]
        inside += [FIRST_STANDING + i for i in range(len(self._processes))]
        image = self._images["toxiproxy"]
        container, child = self._containers.run(
            image.ref,
            image.command,
            log,
            on_exit,
            network=self._network,
            alias=TOXIPROXY,
            ports=inside,
            # The name of a killed service is unknown for a while, and Toxiproxy accepts nobody while it looks it up.
            dns_opt=["timeout:1", "attempts:1"],
        )
        self._made[TOXIPROXY] = container
        self._know_doors()
        if API_PORT not in self._outside:
            self._containers.stop_now(child.pid)  # it has ended, and its last lines are in the log once that is told
            raise died("toxiproxy", self.versions()["toxiproxy"], self._containers.ended(child.pid), log)
        return child

    def _know_doors(self) -> None:
        """Where what Toxiproxy listens at is to be found, if it has not ended."""
        self._outside = self._containers.published(self._made[TOXIPROXY])
        if API_PORT in self._outside:
            self.toxiproxy = ToxiproxyServer("127.0.0.1", self._outside[API_PORT])
            self.doors = {proxy: self._door(proxy, FIRST_DOOR + i) for i, proxy in enumerate(self._proxies)}

    def _door(self, proxy: str, port: int) -> Door:
        outside = f"127.0.0.1:{self._outside[port]}"
        # The load is the harness's own process, on this side of the network.
        return Door(f"0.0.0.0:{port}", outside if proxy.startswith("load->") else f"{TOXIPROXY}:{port}", outside)

    def port(self, process: str, what: str) -> Port:
        if (process, what) not in self._ports:
            self._ports[process, what] = _port(process, next(self._numbers))
        return self._ports[process, what]

    def direct(self, process: str, port: Port) -> str:
        inside = FIRST_STANDING + self._processes.index(process)
        self._directs[process] = (inside, port)
        return f"127.0.0.1:{self._outside[inside]}"

    def standing_proxies(self) -> list[tuple[str, str, str]]:
        return [(f"harness->{name}", f"0.0.0.0:{n}", port.reach) for name, (n, port) in self._directs.items()]

    def start_kafka(
        self, name: str, properties: Callable[[Path], str], log: Path, on_exit: OnExit, identity: str = ""
    ) -> Child:
        files = {KAFKA_CONFIG: properties(KAFKA_DATA)}
        if identity:
            files = {KAFKA_CONFIG: properties(KAFKA_DATA_OF_SEVERAL)}
            # The official image formats what is not formatted, by a cluster id of its own, and may not write to a
            # folder that was copied into it; ours starts Kafka and nothing else.
            if self._images["kafka"].ref == local_ref("kafka"):
                files[str(KAFKA_DATA_OF_SEVERAL / "meta.properties")] = identity
        return self._start(name, "kafka", (), log, on_exit, files)

    def start_emulator(
        self, name: str, kind: str, port: Port, log: Path, on_exit: OnExit, args: Sequence[str] = ()
    ) -> Child:
        command = [*(word.format(port=port.number) for word in self._images[kind].command), *args]
        return self._start(name, kind, command, log, on_exit, {})

    def start_hdfs(self, name: str, main: str, ports: Sequence[Port], log: Path, on_exit: OnExit) -> Child:
        raise HarnessFault(f"{name} is HDFS, which runs as plain processes of the harness only")

    def shared_path(self, folder: str) -> str:
        return f"{SHARED}/{folder}"

    def make_shared(self, path: str) -> None:
        """A volume, which the daemon can give to any container and remove whoever has written there."""
        self._shared[path] = self._containers.volume()
        ended = threading.Event()
        container, _ = self._containers.run(
            self._images["worker"].ref,
            ["chmod", "1777", path],  # an image of the pipeline's own may run as anybody
            self.folder / "logs" / "shared.log",
            lambda how: ended.set(),
            volumes=self._mounts(),
            user="0",
        )
        ended.wait(30)
        self._containers.remove([container])

    def remove_shared(self, path: str) -> None:
        """With the ended workers' containers, which would keep it."""
        if path in self._shared:
            self._containers.remove([self._made.pop(name) for name in list(self._workers) if name in self._made])
            self._workers.clear()
            self._containers.remove_volume(self._shared.pop(path))

    def _mounts(self) -> list[tuple[str, str, str]]:
        return [(volume, path, "rw") for path, volume in self._shared.items()]

    def _start(
        self,
        name: str,
        kind: str,
        command: tuple[str, ...] | list[str],
        log: Path,
        on_exit: OnExit,
        files: dict[str, str],
    ) -> Child:
        if name in self._made:
            return self._containers.start(self._made[name], log, on_exit)
        self._made[name], child = self._containers.run(
            self._images[kind].ref, command, log, on_exit, network=self._network, alias=name, files=files
        )
        return child

    def launch(
        self, instance: str, worker: Worker | Batch, env: Mapping[str, str], log: Path, output: Path | None = None
    ) -> tuple[Launch, str]:
        argv = [word.replace("{python}", "python3") for word in worker.command]
        image = worker.image or self._images["worker"].ref
        own = dict(env) | ({"BATCH_OUTPUT": OUTPUT} if output is not None else {})
        made: list[str] = []

        def start(on_exit: OnExit) -> Child:
            ended = on_exit if output is None else lambda how: on_exit(self._bring(how, output))
            if made:
                return self._containers.start(made[0], log, ended)
            if instance in self._made:  # of the run before
                self._containers.remove([self._made.pop(instance)])
            container, child = self._containers.run(
                image,
                argv[1:],
                log,
                ended,
                entrypoint=argv[:1],  # the command is the worker's whole, whatever its image starts by itself
                network=self._network,
                alias=instance,
                env=own,
                init=True,
                working_dir=worker.cwd,
                volumes=self._mounts(),
            )
            made.append(container)
            self._made[instance] = container
            self._know_worker(instance)
            return child

        return start, f"{' '.join(argv)} (in {image})"

    def _know_worker(self, instance: str) -> WorkerContainer:
        made = WorkerContainer(self._containers.client.api, self._made[instance], self._network.id, instance)
        self._workers[instance] = made
        return made

    def _bring(self, how: Exit, output: Path) -> Exit:
        self._containers.fetch(how.pid, OUTPUT, output)
        return how

    def footprint(self, name: str, child: Child) -> Footprint:
        """Of the container: its child here is only the init that Docker gives it."""
        return self._workers[name].footprint()

    def container(self, instance: str) -> WorkerContainer:
        return self._workers[instance]

    def version(self, kind: str) -> str:
        return self._images[kind].version if kind in self._images else ""

    def versions(self) -> dict[str, str]:
        return {image.kind: f"{image.version} ({image.ref})" for image in self._images.values()}

    def meter(self) -> ContainerMeter:
        return ContainerMeter(self._containers, self._images["worker"].ref, self._made[TOXIPROXY], self._proxies)

    def close(self) -> None:
        self._containers.remove(list(self._made.values()), self._network)


def _port(process: str, number: int) -> Port:
    return Port(f"0.0.0.0:{number}", f"{process}:{number}")


class ContainerMeter:
    """The link meter in Toxiproxy's network namespace, read from the output of its container (see harness.linkmeter)."""

    def __init__(self, containers: Containers, image: str, beside: str, proxies: list[str]) -> None:
        self._containers = containers
        doors = {proxy: FIRST_DOOR + i for i, proxy in enumerate(proxies)}
        self._latest: dict[str, Flow] = {}
        self._at = 0.0
        self._container, self._there = "", threading.Event()
        self._error: str | None = None
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(image, doors, beside), name="meter", daemon=True)
        self._thread.start()

    def _read(self, image: str, doors: dict[str, int], beside: str) -> None:
        """Starts the container too, while the run is being deployed."""
        command = ["python3", "-m", "harness.linkmeter", json.dumps(doors)]
        try:
            self._container, lines = self._containers.stream(image, command, network_mode=f"container:{beside}")
            self._there.set()
            for line in lines:
                said = json.loads(line)
                if "error" in said:
                    self._error = said["error"]
                else:
                    self._latest = {link: Flow(*figures) for link, figures in said.items()}
                    self._at = time.monotonic()
                self._first.set()
            self._error = self._error or "the meter's container has ended"
        except Exception as error:  # the sampler must hear of it, not wait
            self._error = repr(error)
        self._there.set()
        self._first.set()

    def sample(self) -> Mapping[str, Flow]:
        self._first.wait(10)
        if self._error is not None:
            raise OSError(self._error)
        return self._latest if time.monotonic() - self._at < STALE_S else {}

    def close(self) -> None:
        self._error = "closed"
        if self._there.wait(10) and self._container:
            self._containers.remove([self._container])
