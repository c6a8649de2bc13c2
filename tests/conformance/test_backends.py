"""What every backend must do: the same tests on processes and on containers."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from waiting import gone

from faults import kill_broker
from harness.backends import docker, images
from harness.backends.base import Child, Children, Exit, Footprint
from harness.backends.images import BASE
from harness.errors import BackendGone, HarnessFault, StartFailed, WorkerDied
from harness.history import History
from harness.session import Session
from harness.stack import Stack
from harness.supervisor import Supervisor
from harness.topology import UsageError, Worker
from pipelines_under_test.kappa.pipeline import kappa

Spawn = Callable[..., Child]
ROOT = Path(__file__).resolve().parents[2]


def until(check: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
    return found


# ---------------------------------------------------------------------------------------------- children


def test_an_end_is_told_with_its_status_and_the_last_line_is_in_the_log(
    children: tuple[Children, Spawn], tmp_path: Path
) -> None:
    keeper, spawn = children
    told: list[Exit] = []
    child = spawn(["sh", "-c", "echo out; echo err >&2; exit 7"], tmp_path / "log", on_exit=told.append)
    until(lambda: told)
    assert (told[0].pid, told[0].status, told[0].signal) == (child.pid, 7, None)
    assert keeper.ended(child.pid) == told[0]
    assert child.started - 1 < told[0].t < time.time() + 1
    assert set((tmp_path / "log").read_text().split()) == {"out", "err"}


def test_a_high_status_is_the_programs_own(children: tuple[Children, Spawn], tmp_path: Path) -> None:
    """Only those of signals are signals, where a container tells both alike."""
    told: list[Exit] = []
    children[1](["sh", "-c", "exit 177"], tmp_path / "log", on_exit=told.append)
    assert (until(lambda: told)[0].status, told[0].signal) == (177, None)


def test_a_kill_is_told_as_one(children: tuple[Children, Spawn], tmp_path: Path) -> None:
    keeper, spawn = children
    child = spawn(["sleep", "300"], tmp_path / "log")
    until(lambda: keeper.state(child.pid) == "sleeping")
    assert keeper.signal(child.pid, signal.SIGKILL)
    how = until(lambda: keeper.ended(child.pid))
    assert (how.status, how.signal, how.oom_killed) == (-9, "SIGKILL", False)
    assert keeper.state(child.pid) == "gone"
    assert not keeper.signal(child.pid, signal.SIGKILL)


def test_a_paused_child_does_nothing_and_goes_on(children: tuple[Children, Spawn], tmp_path: Path) -> None:
    keeper, spawn = children
    log = tmp_path / "log"
    child = spawn(["sh", "-c", "while :; do echo tick; sleep 0.05; done"], log)
    until(lambda: log.exists() and log.read_text().count("tick") > 3)
    keeper.signal(child.pid, signal.SIGSTOP)
    until(lambda: keeper.state(child.pid) == "stopped")
    time.sleep(0.3)
    before = log.read_text()
    time.sleep(0.5)
    assert log.read_text() == before
    keeper.signal(child.pid, signal.SIGCONT)
    until(lambda: log.read_text() != before)
    keeper.signal(child.pid, signal.SIGSTOP)
    keeper.stop_now(child.pid)
    assert keeper.ended(child.pid) is not None, "what is paused can be killed too"


def test_a_child_is_asked_to_end_before_it_is_made_to(children: tuple[Children, Spawn], tmp_path: Path) -> None:
    keeper, spawn = children
    polite = spawn(
        ["sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"], tmp_path / "p"
    )
    deaf = spawn(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], tmp_path / "d")
    until(lambda: all((tmp_path / n).exists() and "ready" in (tmp_path / n).read_text() for n in "pd"))
    keeper.stop([polite.pid, deaf.pid], grace_s=1.5)
    ends = [keeper.ended(c.pid) for c in (polite, deaf)]
    assert [e and e.status for e in ends] == [0, -9]


# ----------------------------------------------------------------------------------------------- services


@pytest.fixture
def topic(stack: Stack) -> Iterator[str]:
    run = uuid.uuid4().hex[:8]
    stack.make("kafka", run)
    yield f"source-{run}"
    stack.remove(run)


@pytest.fixture
def can_kill_kafka(backend: str, sessions: Callable[[str], Session]) -> None:
    if reason := sessions(backend).prepare(kappa).refuses(kill_broker("kafka"), kappa):
        pytest.skip(reason)


@pytest.mark.usefixtures("can_kill_kafka")
def test_a_killed_broker_comes_back_at_the_same_addresses_with_its_data(stack: Stack, topic: str) -> None:
    bootstrap = stack.servers["kafka"].direct
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for i in range(100):
        producer.produce(topic, str(i).encode(), partition=0)
    assert producer.flush(20) == 0
    before = stack.kill_service("kafka")
    assert before["status"] == -9
    assert stack.probe("load->kafka") is None
    after = stack.start_service("kafka")
    assert after["pid"] != before["pid"]
    assert stack.servers["kafka"].direct == bootstrap
    assert all(stack.probe(link.name) is not None for link in stack.links)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "x", "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    until(lambda: found.extend(m.value() for m in consumer.consume(100, 0.5) if m.error() is None) or len(found) == 100)
    consumer.close()
    assert found == [str(i).encode() for i in range(100)]


def test_every_service_that_was_started_has_a_log(stack: Stack) -> None:
    started = {"kafka", "pubsub", "bigtable"} - stack.site.existing.keys()
    assert stack.logs().keys() == {"toxiproxy", *started}
    assert "Starting" in stack.logs()["toxiproxy"].read_text(errors="replace")
    assert not started or "started" in stack.logs()["kafka"].read_text(errors="replace")


#: Takes so many MiB and opens so many files, in a process of its own, and says so.
TAKES = """
import sys, time
taken = bytearray(b"x") * (int(sys.argv[1]) << 20)
files = [open("/dev/null") for _ in range(int(sys.argv[2]))]
print("took it", flush=True)
time.sleep(300)
"""


def test_what_a_worker_takes_is_measured_with_all_that_it_started(stack: Stack, tmp_path: Path) -> None:
    """The program behind a shell, or behind the init that Docker gives a container, is what leaks."""
    child, took = None, []
    for name, amounts in (("preprocessor", "1 1"), ("converter", "101 51")):
        log = tmp_path / f"{name}.log"
        log.touch()
        command = ["sh", "-c", f"{_python(stack)} -c '{TAKES}' {amounts}; echo over"]
        start, _ = stack.site.launch(name, Worker(name, command), {}, log)
        child = start(lambda how: None)
        until(lambda log=log: "took it" in log.read_text())
        took.append(stack.site.footprint(name, child))
        stack.site.children.stop_now(child.pid)
    small, large = took
    assert 90 << 20 < large.memory - small.memory < 120 << 20  # type: ignore[operator]
    assert large.files - small.files == 50  # type: ignore[operator]
    assert child is not None
    assert stack.site.footprint("converter", child) == Footprint(), "it has ended"


def _python(stack: Stack) -> str:
    return "python3" if stack.site.name == "docker" else sys.executable


def test_two_stacks_side_by_side_do_not_meet(stack: Stack, backend: str, endpoints: Path | None) -> None:
    with Session(backend, endpoints) as session:
        other = session.stack(kappa)
        ours, theirs = ({d.harness for d in s.site.doors.values()} for s in (stack, other))
        assert ours.isdisjoint(theirs)
        other.toxiproxy.set_enabled("converter->pubsub", False)
        assert other.probe("converter->pubsub") is None
        assert stack.probe("converter->pubsub") is not None
        if not other.site.existing:
            other.kill_service("kafka")
        assert stack.probe("load->kafka") is not None
    assert all(stack.alive().values())
    assert not other.site.folder.exists()


# ------------------------------------------------------------------------------------------- nothing left

HARNESS = """
import sys, time
from pathlib import Path
from harness.session import Session
from pipelines_under_test.kappa.pipeline import kappa
session = Session(sys.argv[1], *map(Path, sys.argv[2:]))
session.prepare(kappa)
print("starting", flush=True)
session.stack(kappa)
print("up", flush=True)
time.sleep(300)
"""


class Left:
    """What a harness leaves behind, as the kernel and the daemon see it."""

    def __init__(self, backend: str, harness: psutil.Process) -> None:
        self._daemon = docker.client() if backend == "docker" else None
        self._owner = f"/{harness.pid}/"
        self._harness = harness

    def processes(self) -> list[psutil.Process]:
        try:
            return self._harness.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def in_docker(self) -> list[str]:
        if self._daemon is None:
            return []
        label = {"label": docker.LABEL}
        found = [(c["Id"], c["Labels"]) for c in self._daemon.api.containers(all=True, filters=label)]
        found += [(n["Id"], n["Labels"]) for n in self._daemon.api.networks(filters=label)]
        found += [(v["Name"], v["Labels"]) for v in self._daemon.api.volumes(filters=label).get("Volumes") or []]
        return [name for name, labels in found if self._owner in labels[docker.LABEL]]


@pytest.mark.parametrize("when", ["up", "0.2", "0.9", "1.6"])
def test_a_killed_harness_leaves_nothing(backend: str, when: str, endpoints: Path | None) -> None:
    """While it is up, and at moments of its start."""
    argv = [sys.executable, "-c", HARNESS, backend, *([str(endpoints)] if endpoints else [])]
    harness = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert harness.stdout is not None
    assert harness.stdout.readline() == "starting\n"
    left = Left(backend, psutil.Process(harness.pid))
    if when == "up":
        assert harness.stdout.readline() == "up\n"
    else:
        time.sleep(float(when))
    processes = left.processes()
    assert processes
    assert when != "up" or backend != "docker" or len(left.in_docker()) == 5, "four containers and a network"
    os.kill(harness.pid, signal.SIGKILL)
    harness.wait()
    until(lambda: all(map(gone, processes)), 60)
    assert left.in_docker() == []


# ----------------------------------------------------------------------------------------- docker's errors


@pytest.fixture
def needs_docker() -> None:
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")


def image_of(ref: str, *instructions: str) -> str:
    """Makes an image on this machine; it goes with the fixture `made_images`."""
    lines = "\n".join([f"FROM {BASE}", *instructions])
    docker.client().images.build(fileobj=io.BytesIO(lines.encode()), tag=ref, rm=True)
    return ref


@pytest.fixture
def made_images(needs_docker: None) -> Iterator[Callable[..., str]]:
    made: list[str] = []

    def make(name: str, *instructions: str) -> str:
        made.append(image_of(f"gauntlet-test/{name}:{uuid.uuid4().hex[:8]}", *instructions))
        return made[-1]

    yield make
    for ref in made:
        docker.client().images.remove(ref, force=True)


@pytest.mark.parametrize(("kind", "after"), [*((kind, "0") for kind in images.SERVICES), ("toxiproxy", "0.5")])
def test_a_docker_service_that_dies_at_its_start_is_told_with_its_image_and_last_lines(
    kind: str, after: str, made_images: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = made_images(kind, f'ENTRYPOINT ["sh", "-c", "sleep {after}; echo no room for me >&2; exit 3"]')
    monkeypatch.setenv(f"GAUNTLET_IMAGE_{kind.upper()}", ref)
    others = set(Left("docker", psutil.Process()).in_docker())
    told = rf"(?s)^{kind} died at its start: .*\({ref}\) ended with status 3; its log ends:\n    no room for me$"
    with Session("docker") as session, pytest.raises(StartFailed, match=told):
        session.stack(kappa)
    assert set(Left("docker", psutil.Process()).in_docker()) == others


def test_a_docker_toxiproxy_that_is_none_is_told_with_its_image_and_last_lines(
    made_images: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = made_images("toxiproxy", 'ENTRYPOINT ["sh", "-c", "echo something else; exec sleep 300"]')
    monkeypatch.setenv("GAUNTLET_IMAGE_TOXIPROXY", ref)
    told = rf"(?s)^toxiproxy .*\({ref}\) was not ready: .*its log ends:\n    something else"
    with Session("docker") as session, pytest.raises(StartFailed, match=told):
        session.stack(kappa)


@pytest.mark.parametrize("kind", images.SERVICES)
def test_a_docker_image_without_the_program_is_told_by_name(
    kind: str, made_images: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = made_images(kind, f'ENTRYPOINT ["no-such-{kind}"]')
    monkeypatch.setenv(f"GAUNTLET_IMAGE_{kind.upper()}", ref)
    others = set(Left("docker", psutil.Process()).in_docker())
    told = rf"a container of {ref} could not be started: .*no-such-{kind}"
    with Session("docker") as session, pytest.raises(HarnessFault, match=told):
        session.stack(kappa)
    assert set(Left("docker", psutil.Process()).in_docker()) == others


@pytest.mark.usefixtures("needs_docker")
def test_a_docker_worker_whose_image_cannot_be_had_is_told_before_anything_starts() -> None:
    workers = [dataclasses.replace(kappa.workers[0], image="gauntlet.invalid/no-such:1"), *kappa.workers[1:]]
    pipeline = dataclasses.replace(kappa, workers=workers)
    told = r"(?s)Images of kappa .*gauntlet\.invalid/no-such:1 \(of preprocessor\): .*docker build -t NAME"
    with Session("docker") as session, pytest.raises(UsageError, match=told):
        session.prepare(pipeline)
    assert kappa.batch is not None
    pipeline = dataclasses.replace(kappa, batch=dataclasses.replace(kappa.batch, image="Not:A:Name"))
    with Session("docker") as session, pytest.raises(UsageError, match=r"Not:A:Name \(of the batch job\): "):
        session.prepare(pipeline)


@pytest.mark.usefixtures("needs_docker")
@pytest.mark.parametrize(
    ("command", "said"),
    [(["./no-such-program"], "no-such-program"), (["sh", "-c", "echo no such queue >&2; exit 3"], "no such queue")],
)
def test_a_docker_worker_that_ends_at_once_is_told_with_its_image_and_last_lines(
    tmp_path: Path, command: list[str], said: str
) -> None:
    """The daemon starts both: it is the init process in front that does not find the first one's program."""
    with Session("docker") as session:
        site = session.prepare(kappa).site(kappa)
        supervisor = Supervisor(site.children, History(tmp_path / "history.jsonl"))
        log = tmp_path / "log"
        launch, told = site.launch("brief", Worker("brief", command, image=BASE), {}, log)
        supervisor.start("brief", launch, told, log)
        ends = rf"(?s)^The worker brief dies at its start .*  its command: .* \(in {BASE}\)\n  its log ends:\n.*{said}"
        with pytest.raises(WorkerDied, match=ends):
            until(supervisor.check_started, 30)
        supervisor.stop_all()


@pytest.mark.usefixtures("needs_docker")
def test_a_docker_image_that_cannot_be_had_is_told_with_the_command_that_makes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GAUNTLET_IMAGE_KAFKA", "gauntlet.invalid/no-such-image:1")
    with Session("docker") as session, pytest.raises(UsageError, match="(?s)no-such-image.*gauntlet images build"):
        session.stack(kappa)


@pytest.mark.usefixtures("needs_docker")
def test_a_docker_worker_runs_its_command_whatever_its_image_starts_by_itself(tmp_path: Path) -> None:
    with Session("docker") as session:
        stack = session.stack(kappa)
        backend: Any = session.prepare(kappa)
        worker = Worker("own", ["sh", "-c", "echo $GREETING from $0", "me"], image=backend.images["bigtable"].ref)
        ended: Future[Exit] = Future()
        start, _ = stack.site.launch("own", worker, {"GREETING": "hello"}, tmp_path / "log")
        start(ended.set_result)
        assert ended.result(30).status == 0
        assert (tmp_path / "log").read_text() == "hello from me\n"


@pytest.mark.usefixtures("needs_docker")
def test_ends_are_heard_of_after_docker_broke_off_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is there all the time; test_docker_away.py has those that are not."""
    with Session("docker") as session:
        backend: Any = session.prepare(kappa)
        keeper, image = backend.containers, backend.images["worker"].ref
        told: list[Exit] = []
        _, child = keeper.run(image, ["sleep", "300"], tmp_path / "log", told.append)
        keeper._events.close()
        keeper.signal(child.pid, signal.SIGKILL)
        assert until(lambda: told)[0].status == -9
        container, child = keeper.run(image, ["sleep", "300"], tmp_path / "log", told.append)
        keeper.stop_now(child.pid)
        again = keeper.start(container, tmp_path / "log", told.append)
        keeper._events.close()  # the first end is told once more, and must not be taken for one of the second life
        time.sleep(1)
        assert keeper.ended(again.pid) is None
        monkeypatch.setattr(docker, "AWAY_AT_MOST_S", 2.0)
        monkeypatch.setattr(keeper, "_ends", lambda since: iter(()))
        keeper._events.close()
        with pytest.raises(BackendGone, match="its stream of events ends at once"):
            until(lambda: keeper.ended(again.pid))


def test_a_docker_daemon_on_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://docker:2375")
    with Session("docker") as session, pytest.raises(UsageError, match="tcp://docker:2375 is on another machine"):
        session.prepare(kappa)
    assert docker.why_not() == "the Docker daemon is on another machine"


@pytest.mark.usefixtures("needs_docker")
def test_nothing_is_made_in_docker_once_all_is_being_removed(tmp_path: Path) -> None:
    """Else it would land after the sweep, and stay."""
    with Session("docker") as session:
        backend: Any = session.prepare(kappa)
    with pytest.raises(HarnessFault, match="none is made any more"):
        backend.containers.run("gauntlet/base:1", ["true"], tmp_path / "log")
    with pytest.raises(HarnessFault, match="none is made any more"):
        backend.containers.network()


@pytest.mark.usefixtures("needs_docker")
def test_what_was_there_when_all_was_removed_from_docker_has_ended(tmp_path: Path) -> None:
    """A service that was just being started when Ctrl-C came: who waits for it must not wait as long as for a slow one."""
    with Session("docker") as session:
        backend: Any = session.prepare(kappa)
        _, child = backend.containers.run(BASE, ["sleep", "300"], tmp_path / "log")
        assert backend.containers.ended(child.pid) is None
    assert backend.containers.ended(child.pid).signal == "SIGKILL"


def test_without_a_daemon_docker_is_refused_and_auto_takes_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    with (
        Session("docker") as session,
        pytest.raises(UsageError, match="No Docker daemon answers at unix:///nonexistent.sock .No such file"),
    ):
        session.prepare(kappa)
    with Session("auto") as session:
        made = session.prepare(kappa)
        assert (made.name, made.where) == ("process", "as processes: no Docker daemon answers")
