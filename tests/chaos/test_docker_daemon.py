"""A Docker daemon that goes away in the middle of a run: told as what it is, and never a verdict on the pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_relay import Relay
from leftovers import in_docker

from harness.backends import docker

pytestmark = pytest.mark.chaos

GAUNTLET = [sys.executable, "-m", "harness.cli"]
#: What must happen within a minute may take a little longer on a machine that does something else too.
BOUNDED_S = 80


@pytest.fixture(scope="module")
def daemon() -> Any:
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")
    return docker.client()


@pytest.fixture
def relay(daemon: Any) -> Iterator[Relay]:
    with Relay() as made:
        yield made


class RunOverRelay:
    """`gauntlet run` whose only way to the daemon is the relay."""

    def __init__(self, relay: Relay, out: Path, seconds: float) -> None:
        options = ["--seconds", str(seconds), "--rate", "300"]
        self.out = out
        self.stderr = out.parent / "stderr"
        with open(self.stderr, "wb") as stderr:
            self.process = subprocess.Popen(
                [*GAUNTLET, "run", "steady", "--backend", "docker", "--json", *options, "--out", str(out)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "DOCKER_HOST": relay.address},
            )

    def history(self) -> list[dict[str, Any]]:
        found = list(self.out.glob("*/history.jsonl"))
        lines = found[0].read_text().splitlines(keepends=True) if found else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def reached(self, stage: str) -> bool:
        return any(r["kind"] == "stage" and r["stage"] == stage for r in self.history())

    def until(self, check: Callable[[], Any], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, self.stderr.read_text()
            assert self.process.poll() is None, self.stderr.read_text()
            time.sleep(0.05)

    def left(self) -> list[str]:
        return in_docker(self.process.pid)


@pytest.mark.parametrize("stage", ["deploy", "load", "drain", "collect"])
def test_a_daemon_that_goes_away_for_good_is_a_failure_of_the_harness(
    daemon: Any, relay: Relay, tmp_path: Path, stage: str
) -> None:
    run = RunOverRelay(relay, tmp_path / "out", 4)
    run.until(lambda: run.reached(stage))
    run.until(run.left)
    time.sleep(1)
    relay.cut()
    cut = time.monotonic()
    out, _ = run.process.communicate(timeout=BOUNDED_S + 60)
    took = time.monotonic() - cut
    said = run.stderr.read_text()
    assert run.process.returncode == 4, said
    assert "the harness failed" in said
    assert "the Docker daemon at unix://" in said.rpartition("the harness failed")[2]
    assert "Traceback" not in said
    assert out == "", "no verdict"
    assert took < BOUNDED_S
    assert "what is left in it goes when it is back" in said
    assert run.left(), "nobody could remove it"
    relay.mend()
    end = time.monotonic() + 30
    while run.left():
        assert time.monotonic() < end, "the reaper removes it once the daemon is back"
        time.sleep(0.2)


def test_a_daemon_that_is_away_for_a_while_tells_afterwards_what_ended_meanwhile(
    daemon: Any, relay: Relay, tmp_path: Path
) -> None:
    """A worker is killed while nobody can hear of it. Until that is known, nothing is drained and nothing is judged."""
    run = RunOverRelay(relay, tmp_path / "out", 6)
    run.until(lambda: run.reached("load"))
    time.sleep(1)
    converter = next(r for r in run.history() if r["kind"] == "worker-start" and r["worker"] == "converter")
    relay.cut()
    (victim,) = [c for c in run.left() if _pid(daemon, c) == converter["pid"]]
    asked = time.time()
    daemon.api.kill(victim)
    killed = time.time()  # a busy daemon takes its time to answer, and has killed it long before
    time.sleep(4)
    relay.mend()
    out, _ = run.process.communicate(timeout=180)
    said = run.stderr.read_text()
    verdict = json.loads(out.splitlines()[-1])
    assert verdict["verdict"] in ("pass", "inconclusive"), verdict["findings"]
    assert run.process.returncode == {"pass": 0, "inconclusive": 3}[verdict["verdict"]]
    assert "Traceback" not in said
    history = run.history()
    gone = next(r for r in history if r["kind"] == "worker-exit" and r["worker"] == "converter")
    assert (gone["pid"], gone["status"], gone["asked"]) == (converter["pid"], -9, False)
    assert asked - 0.1 <= gone["t"] <= killed + 0.5, "when it ended, not when that was heard of"
    starts = [r for r in history if r["kind"] == "worker-start" and r["worker"] == "converter"]
    assert len(starts) == 2
    assert any("containers that had ended meanwhile: 1" in r.get("text", "") for r in history if r["kind"] == "error")
    assert run.left() == []


def _pid(daemon: Any, name: str) -> int:
    import docker.errors

    try:
        return int(daemon.api.inspect_container(name)["State"]["Pid"])
    except docker.errors.NotFound:  # a network
        return 0
