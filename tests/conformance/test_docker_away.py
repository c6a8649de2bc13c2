"""What is known of containers while their daemon is away, and after it is back: every end, at its time, and once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_relay import Relay

from harness.backends import docker
from harness.backends.base import Child, Exit
from harness.backends.docker import Containers
from harness.backends.images import BASE
from harness.errors import BackendGone

ROOT = Path(__file__).resolve().parents[2]
TICKING = ["sh", "-c", "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.05; done"]


def until(check: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def api() -> Any:
    """The daemon itself, past the relay."""
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")
    return docker.client().api


@pytest.fixture
def relay(api: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    with Relay() as made:
        monkeypatch.setenv("DOCKER_HOST", made.address)
        yield made


@pytest.fixture
def keeper(relay: Relay) -> Iterator[Containers]:
    made = Containers(docker.client())
    yield made
    made.close()


def left(api: Any, owner: str) -> list[str]:
    return [c["Id"] for c in api.containers(all=True, filters={"label": f"{docker.LABEL}={owner}"})]


def test_an_end_that_nobody_could_hear_of_is_known_once_the_daemon_is_back(
    api: Any, relay: Relay, keeper: Containers, tmp_path: Path
) -> None:
    told: list[Exit] = []
    container, child = keeper.run(BASE, ["sleep", "300"], tmp_path / "log", told.append)
    _, other = keeper.run(BASE, ["sleep", "300"], tmp_path / "other", told.append)
    assert keeper.catch_up() == []
    relay.cut()
    asked = time.time()
    api.kill(container)
    killed = time.time()
    time.sleep(1.5)
    assert told == []
    relay.mend()
    (text,) = until(keeper.catch_up)
    assert "went away at" in text
    assert "containers that had ended meanwhile: 1" in text
    until(lambda: told)
    assert [(e.pid, e.status) for e in told] == [(child.pid, -9)]
    assert asked - 0.1 <= told[0].t <= killed + 0.5, "when it ended, not when that was heard of"
    assert keeper.ended(other.pid) is None
    again = keeper.start(container, tmp_path / "log", told.append)
    time.sleep(0.5)  # what the stream tells of the time before is of the life before
    assert keeper.ended(again.pid) is None
    keeper.stop_now(again.pid)
    until(lambda: len(told) == 2)


def test_a_container_that_was_removed_meanwhile_was_killed(
    api: Any, relay: Relay, keeper: Containers, tmp_path: Path
) -> None:
    told: list[Exit] = []
    container, child = keeper.run(BASE, ["sleep", "300"], tmp_path / "log", told.append)
    relay.cut()
    api.remove_container(container, force=True)
    relay.mend()
    assert until(lambda: told)[0].status == -9
    assert keeper.state(child.pid) == "gone"


def test_what_a_container_wrote_meanwhile_is_in_its_log(relay: Relay, keeper: Containers, tmp_path: Path) -> None:
    """A first life and a later one are read in different ways."""
    container, child = keeper.run(BASE, TICKING, tmp_path / "first")
    _away_for_a_second(relay, keeper, child, tmp_path / "first")
    child = keeper.start(container, tmp_path / "later")
    _away_for_a_second(relay, keeper, child, tmp_path / "later")


def _away_for_a_second(relay: Relay, keeper: Containers, child: Child, log: Path) -> None:
    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    until(lambda: len(lines()) > 5)
    relay.cut()
    time.sleep(1)
    before = len(lines())
    relay.mend()
    until(lambda: len(lines()) > before + 25)
    keeper.stop_now(child.pid)
    numbers = [int(line.split()[1]) for line in lines()]
    assert len(set(numbers)) > 0.9 * max(numbers), "hardly a line is missing"
    assert len(numbers) - len(set(numbers)) < 5, "and hardly one is there twice"


def test_while_the_daemon_is_away_nothing_is_taken_as_known(relay: Relay, keeper: Containers, tmp_path: Path) -> None:
    """`catch_up` waits; what is asked of the daemon fails in words, and with the error that is no verdict."""
    _, child = keeper.run(BASE, ["sleep", "300"], tmp_path / "log")
    relay.cut()
    until(lambda: not keeper._hearing.is_set())
    for asked in (
        lambda: keeper.signal(child.pid, signal.SIGTERM),
        lambda: keeper.state(child.pid),
        lambda: keeper.run(BASE, ["true"], tmp_path / "log"),
        lambda: keeper.network(),
        lambda: keeper.stop([child.pid]),
    ):
        with pytest.raises(BackendGone, match=r"the Docker daemon at unix://\S+ does not answer: (No such file|Conn)"):
            asked()
    begin = time.monotonic()
    time.sleep(0.3)
    relay.mend()
    keeper.catch_up()
    assert time.monotonic() - begin > 0.3


def test_a_daemon_that_does_not_come_back_is_given_up_in_time(
    api: Any, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docker, "AWAY_AT_MOST_S", 1.5)
    keeper = Containers(docker.client())
    _, child = keeper.run(BASE, ["sleep", "300"], tmp_path / "log")
    relay.cut()
    until(lambda: not keeper._hearing.is_set(), 5)
    told = r"the Docker daemon at unix://\S+ went away at [\d:]+ and was not back within 1\.5 s \("
    with pytest.raises(BackendGone, match=told):
        keeper.catch_up()
    with pytest.raises(BackendGone, match=told):
        keeper.ended(child.pid)
    begin = time.monotonic()
    keeper.close()
    assert time.monotonic() - begin < 5, "it does not wait for what it cannot remove"
    assert "is away: what is left in it goes when it is back" in capfd.readouterr().err
    assert len(left(api, keeper.owner)) == 1
    relay.mend()
    until(lambda: not left(api, keeper.owner), 10)


def test_a_daemon_that_is_back_after_it_was_given_up_serves_the_next_run(
    relay: Relay, keeper: Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "AWAY_AT_MOST_S", 0.5)
    _, child = keeper.run(BASE, ["sleep", "300"], tmp_path / "log")
    time.sleep(1)
    relay.cut()
    until(lambda: keeper._gone)
    with pytest.raises(BackendGone):
        keeper.catch_up()
    relay.mend()
    until(lambda: not keeper._gone)
    assert len(keeper.catch_up()) == 1
    keeper.stop_now(child.pid)
    _, child = keeper.run(BASE, ["sh", "-c", "exit 4"], tmp_path / "log")
    assert until(lambda: keeper.ended(child.pid)).status == 4


LONE = """
import sys, time
from pathlib import Path
from harness.backends import docker, images
keeper = docker.Containers(docker.client())
keeper.run(images.BASE, ["sleep", "300"], Path("/dev/null"))
print(keeper.owner, keeper._reaper.pid, flush=True)
time.sleep(300)
"""


def test_what_a_killed_harness_and_its_killed_reaper_left_goes_with_the_next_start(api: Any) -> None:
    harness = subprocess.Popen([sys.executable, "-c", LONE], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert harness.stdout is not None
    owner, reaper = harness.stdout.readline().split()
    os.kill(int(reaper), signal.SIGKILL)
    harness.kill()
    harness.wait()
    time.sleep(1)
    assert len(left(api, owner)) == 1
    Containers(docker.client()).close()
    assert left(api, owner) == []
