"""Containers that outlive a harness that was killed, and obey the next one; and that outlive no other end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from harness.backends import docker, images, reaper, ryuk
from harness.backends.base import Exit
from harness.backends.outlived import OutlivedContainers
from harness.errors import HarnessFault

ROOT = Path(__file__).resolve().parents[2]

#: Starts two containers, of which one is paused, and lets them outlive it; says where they are, and ends as it is told.
HARNESS = """
import os, signal, sys, threading
from pathlib import Path
from harness.backends import docker
containers = docker.Containers(docker.client())
network = containers.network()
for part in ("one", "two"):
    _, child = containers.run(
        sys.argv[1], ["sh", "-c", "while true; do date; sleep 0.2; done"], Path(sys.argv[2]) / part,
        network=network, alias=part, init=True,
    )
containers.outlive(float(sys.argv[3]))
containers.signal(child.pid, signal.SIGSTOP)
print(containers.owner, containers.ryuks_port, network.id, containers._reaper.pid, flush=True)
WAY
"""


@pytest.fixture(scope="module")
def daemon() -> Any:
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")
    return docker.client()


class Harness:
    """One of its own, which is killed, or ends by itself in a `way`."""

    def __init__(self, daemon: Any, logs: Path, seconds: float, way: str, **env: str) -> None:
        self.api = daemon.api
        image = images.resolve(daemon)["worker"].ref
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                HARNESS.replace("WAY", way or "threading.Event().wait(60)"),
                image,
                str(logs),
                str(seconds),
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        assert self.process.stdout is not None
        owner, port, network, pid = self.process.stdout.readline().split()
        self.reaper = int(pid)
        self.left = OutlivedContainers("", owner, int(port), network, [], {})
        if not way:
            self.process.kill()
        self.process.wait(30)

    def states(self) -> list[str]:
        """Of its containers, as the daemon calls it: "running", "paused", "exited"."""
        return sorted(c["State"] for c in self._containers())

    def gone(self) -> bool:
        filters = {"label": f"{reaper.LABEL}={self.left.owner}"}
        ryuks = self.api.containers(all=True, filters={"label": f"{reaper.RYUK}={self.left.owner}"})
        return not self._containers() and not self.api.networks(filters=filters) and not ryuks

    def _containers(self) -> list[Any]:
        return list(self.api.containers(all=True, filters={"label": f"{reaper.LABEL}={self.left.owner}"}))


Outlived = Callable[..., Harness]


@pytest.fixture
def outlived(daemon: Any, tmp_path: Path) -> Iterator[Outlived]:
    made: list[Harness] = []

    def one(seconds: float, way: str = "", **env: str) -> Harness:
        made.append(Harness(daemon, tmp_path, seconds, way, **env))
        return made[-1]

    yield one
    for each in made:
        while not each.gone():
            reaper.sweep(each.api, each.left.owner)


def test_containers_in_docker_outlive_a_killed_harness_and_obey_the_next_one(
    daemon: Any, outlived: Outlived, tmp_path: Path
) -> None:
    harness = outlived(60)
    assert wait_for(lambda: harness.states() == ["running", "running"], 5), "what was paused is continued at once"
    docker.Containers(daemon).close()
    assert harness.states() == ["running", "running"], "another harness that starts does not remove them"
    taken = docker.Containers(daemon, harness.left)
    try:
        parts = taken.parts()
        assert parts.keys() == {"one", "two"}
        lines = (tmp_path / "one").read_text().count("\n")
        ends: list[Exit] = []
        told = threading.Event()

        def on_exit(how: Exit) -> None:
            ends.append(how)
            told.set()

        one = taken.join(parts["one"], tmp_path / "one", on_exit)
        assert one is not None
        assert taken.state(one.pid) == "sleeping"
        assert wait_for(lambda: (tmp_path / "one").read_text().count("\n") > lines + 5, 20), "its log goes on"
        taken.signal(one.pid, signal.SIGKILL)
        assert told.wait(10)
        assert (ends[0].pid, ends[0].signal) == (one.pid, "SIGKILL")
        assert taken.join(parts["one"], tmp_path / "one") is None, "it has ended"
        assert taken.network(harness.left.network).id == harness.left.network
    finally:
        taken.close()
    assert harness.gone()
    assert wait_for(lambda: not Path(f"/proc/{harness.reaper}").exists())


def test_one_that_is_still_paused_is_continued_by_who_joins_it_in_docker(
    daemon: Any, outlived: Outlived, tmp_path: Path
) -> None:
    harness = outlived(60)
    assert wait_for(lambda: harness.states() == ["running", "running"], 20)
    taken = docker.Containers(daemon, harness.left)
    try:
        two = taken.parts()["two"]
        daemon.api.pause(two)
        assert taken.join(two, tmp_path / "two") is not None
        assert harness.states() == ["running", "running"]
    finally:
        taken.close()


def test_a_second_harness_that_is_killed_is_outlived_too_in_docker(daemon: Any, outlived: Outlived) -> None:
    harness = outlived(60)
    again = f"""
from harness.backends import docker
from harness.backends.outlived import OutlivedContainers
taken = docker.Containers(docker.client(), {harness.left!r})
print("taken", flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""
    second = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert second.stdout == "taken\n", second.stderr
    time.sleep(1)
    assert harness.states() == ["running", "running"]
    docker.Containers(daemon, harness.left).close()
    assert harness.gone()


def test_containers_in_docker_that_nobody_takes_over_are_removed_when_their_time_is_over(
    daemon: Any, outlived: Outlived
) -> None:
    harness = outlived(2)
    assert len(harness.states()) == 2
    assert wait_for(harness.gone, 20)
    with pytest.raises(HarnessFault, match="its containers have ended: their reaper is there no more"):
        docker.Containers(daemon, harness.left)


@pytest.mark.parametrize(
    "way",
    [
        "containers.close()",
        "containers.outlive(0); os._exit(1)",
        "raise RuntimeError('boom')  # and nothing closes them",
        "containers._reaper.close(all_done=False); threading.Event().wait(8)",
        "threading.Thread(target=containers.close).start(); threading.Event().wait(0.2); os._exit(1)",
    ],
    ids=["closed", "taken back", "error", "the line closed", "killed while closing"],
)
def test_only_a_kill_is_outlived_in_docker(outlived: Outlived, way: str) -> None:
    if "boom" in way:
        way = "try:\n    raise RuntimeError('boom')\nfinally:\n    containers.close()"
    assert wait_for(outlived(60, way).gone, 20)


def test_ryuk_is_held_back_in_docker_and_acts_when_the_reaper_is_killed(daemon: Any, outlived: Outlived) -> None:
    if reason := ryuk.why_not(daemon):
        pytest.skip(f"no Ryuk: {reason}")
    harness = outlived(60, RYUK_RECONNECTION_TIMEOUT="1s")
    assert harness.left.ryuk
    time.sleep(4)
    assert harness.states() == ["running", "running"]
    os.kill(harness.reaper, signal.SIGKILL)
    assert wait_for(harness.gone, 20)
