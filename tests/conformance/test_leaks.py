"""Nothing is left in Docker, whoever is killed: the harness, its own reaper with it, or nobody.

Run with an image of Ryuk on the machine (RYUK_CONTAINER_IMAGE names another than the pinned one) to see all of it;
tests/conformance/test_backends.py has the kills that our own reaper covers alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.backends import docker, images, reaper, ryuk

ROOT = Path(__file__).resolve().parents[2]

#: Starts containers and a network, tells what Ryuk says, and waits.
HARNESS = """
import os, sys, time
from pathlib import Path
from harness.backends import docker
containers = docker.Containers(docker.client())
network = containers.network()
for alias in ("one", "two"):
    containers.run(sys.argv[1], ["sleep", "300"], Path(os.devnull), network=network, alias=alias)
print(containers.ryuk.result(60), flush=True)
sys.stdin.readline()
containers.close()
print("closed", flush=True)
"""


@pytest.fixture(scope="module")
def daemon() -> Any:
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")
    return docker.client()


@pytest.fixture
def needs_ryuk(daemon: Any) -> None:
    if reason := ryuk.why_not(daemon):
        pytest.skip(f"no Ryuk: {reason}")


class Harness:
    """A harness of its own, two containers and a network up."""

    def __init__(self, daemon: Any, **env: str) -> None:
        self._api = daemon.api
        image = images.resolve(daemon)["worker"].ref
        self.process = subprocess.Popen(
            [sys.executable, "-c", HARNESS, image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()
        self.reaper = next(p for p in psutil.Process(self.process.pid).children() if "reaper.py" in str(p.cmdline()))

    def left(self, *labels: str) -> list[str]:
        """Names of its containers and networks, Ryuk's container among them."""
        found = []
        for label in labels or (reaper.LABEL, reaper.RYUK):
            filters = {"label": label}
            found += [(c["Names"][0], c["Labels"]) for c in self._api.containers(all=True, filters=filters)]
            found += [(n["Name"], n["Labels"]) for n in self._api.networks(filters=filters)]
        return [name for name, of in found if f"/{self.process.pid}/" in of.get(reaper.LABEL, of.get(reaper.RYUK, ""))]

    def gone_within(self, seconds: float) -> float:
        """Seconds until nothing was left."""
        begin = time.monotonic()
        while left := self.left():
            assert time.monotonic() - begin < seconds, f"still there: {left}"
            time.sleep(0.05)
        return time.monotonic() - begin

    def end(self) -> None:
        self.process.communicate("\n")


@pytest.fixture
def made(daemon: Any) -> Iterator[list[Harness]]:
    """For the case that a test fails half-way."""
    harnesses: list[Harness] = []
    yield harnesses
    for each in harnesses:
        if each.process.poll() is None:
            each.end()
        for container in each._api.containers(all=True, filters={"label": reaper.RYUK}):
            owner = container["Labels"][reaper.RYUK]
            if f"/{each.process.pid}/" in owner:
                reaper.sweep(each._api, owner)


@pytest.mark.usefixtures("needs_ryuk")
def test_ryuk_cleans_up_when_the_harness_and_its_reaper_are_killed_together(daemon: Any, made: list[Harness]) -> None:
    """As when a CI job's process tree is killed; only what lives in the daemon is still there."""
    made.append(harness := Harness(daemon, RYUK_RECONNECTION_TIMEOUT="3s"))
    assert harness.said == "None", "Ryuk watches"
    assert len(harness.left()) == 4, "two containers, a network, Ryuk"
    harness.reaper.kill()
    harness.process.kill()
    harness.process.wait()
    assert len(harness.left(reaper.LABEL)) == 3, "Ryuk lets a harness come back first, so nobody else has done it"
    assert harness.gone_within(20) > 1


@pytest.mark.usefixtures("needs_ryuk")
def test_the_reaper_is_faster_than_ryuk_and_removes_it_too(daemon: Any, made: list[Harness]) -> None:
    made.append(harness := Harness(daemon, RYUK_RECONNECTION_TIMEOUT="300s"))
    assert len(harness.left(reaper.RYUK)) == 1
    os.kill(harness.process.pid, signal.SIGKILL)
    harness.process.wait()
    harness.gone_within(5)


@pytest.mark.usefixtures("needs_ryuk")
def test_a_harness_that_ends_leaves_no_ryuk(daemon: Any, made: list[Harness]) -> None:
    made.append(harness := Harness(daemon, RYUK_RECONNECTION_TIMEOUT="300s"))
    assert len(harness.left(reaper.RYUK)) == 1
    harness.end()
    assert harness.left() == [], "at once, not when Ryuk's time is over"


@pytest.mark.usefixtures("needs_ryuk")
def test_ryuk_listens_on_loopback_only(daemon: Any, made: list[Harness]) -> None:
    """Who reaches it can have anybody's containers removed."""
    made.append(harness := Harness(daemon))
    (container,) = harness.left(reaper.RYUK)
    ports = daemon.api.inspect_container(container)["NetworkSettings"]["Ports"]
    assert [where["HostIp"] for bound in ports.values() for where in bound] == ["127.0.0.1"]


@pytest.mark.usefixtures("needs_ryuk")
def test_several_keepers_of_one_process_have_a_ryuk_each(daemon: Any) -> None:
    with contextlib.closing(docker.Containers(daemon)) as two:
        with contextlib.closing(docker.Containers(daemon)) as one:
            assert (one.ryuk.result(60), two.ryuk.result(60)) == (None, None)
        assert len(daemon.api.containers(filters={"label": f"{reaper.RYUK}={two.owner}"})) == 1
    assert daemon.api.containers(all=True, filters={"label": f"{reaper.RYUK}={two.owner}"}) == []


@pytest.mark.usefixtures("needs_ryuk")
def test_one_that_is_switched_off_is_not_started(daemon: Any, made: list[Harness]) -> None:
    made.append(harness := Harness(daemon, TESTCONTAINERS_RYUK_DISABLED="true"))
    assert harness.said.startswith("TESTCONTAINERS_RYUK_DISABLED")
    assert harness.left(reaper.RYUK) == []


@pytest.mark.usefixtures("needs_ryuk")
def test_a_socket_that_is_not_there_is_told_and_makes_no_folder(
    daemon: Any, made: list[Harness], tmp_path: Path
) -> None:
    nowhere = tmp_path / "docker.sock"
    made.append(harness := Harness(daemon, TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=str(nowhere)))
    assert str(nowhere) in harness.said
    assert not nowhere.exists()
    assert harness.left(reaper.RYUK) == []


def test_an_image_that_is_no_ryuk_is_told_and_the_reaper_watches_alone(daemon: Any, made: list[Harness]) -> None:
    made.append(harness := Harness(daemon, RYUK_CONTAINER_IMAGE=images.BASE))
    assert harness.said == "the Docker daemon refused: No command specified"
    assert len(harness.left(reaper.LABEL)) == 3
    harness.process.kill()
    harness.process.wait()
    harness.gone_within(10)


def test_without_its_image_nothing_is_pulled(daemon: Any, made: list[Harness]) -> None:
    begin = time.monotonic()
    made.append(harness := Harness(daemon, RYUK_CONTAINER_IMAGE="gauntlet.invalid/ryuk:1"))
    assert harness.said == "the image gauntlet.invalid/ryuk:1 is not on this machine"
    assert time.monotonic() - begin < 20
    harness.process.kill()
    harness.process.wait()
    harness.gone_within(10)


def test_everything_that_is_made_carries_the_labels(daemon: Any, made: list[Harness]) -> None:
    """Ours, and the session's, by which a Ryuk that testcontainers started for others in this process cleans up."""
    made.append(harness := Harness(daemon))
    names = harness.left(reaper.LABEL)
    assert len(names) == 3
    for name in names:
        try:
            labels = daemon.api.inspect_container(name)["Config"]["Labels"]
        except Exception:
            labels = daemon.api.inspect_network(name)["Labels"]
        assert {reaper.LABEL, "org.testcontainers.session-id"} <= labels.keys()
