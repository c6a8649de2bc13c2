"""The supervisor: workers that die are started again, with a back-off; what a fault asks for is told apart."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.backends.process import Processes
from harness.errors import WorkerDied
from harness.history import History
from harness.supervisor import FIRST_BACK_OFF_S, Supervisor


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


class Watched:
    """A supervisor with the history that it writes."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.folder = folder
        self.history = History(folder / "history.jsonl")
        self.supervisor = Supervisor(processes, self.history)

    def start(self, script: str) -> None:
        self.supervisor.start("w", ["sh", "-c", script], {}, self.folder / "w.log")

    def told(self, kind: str) -> list[dict]:
        return [r for r in self.history.records if r["kind"] == kind]

    def wait(self, check: Callable[[], object], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, self.history.records
            time.sleep(0.01)


@pytest.fixture
def watched(processes: Processes, tmp_path: Path) -> Iterator[Watched]:
    made = Watched(processes, tmp_path)
    yield made
    made.supervisor.stop_all(0.2)


def test_a_worker_that_was_killed_is_started_again_after_the_first_back_off(watched: Watched) -> None:
    watched.start("exec sleep 60")
    watched.supervisor.signal("w", signal.SIGKILL, restart=True)
    watched.wait(lambda: len(watched.told("worker-start")) == 2)
    first, second = watched.told("worker-start")
    ended = watched.told("worker-exit")[0]
    assert first["pid"] != second["pid"]
    assert (ended["pid"], ended["status"], ended["signal"], ended["asked"]) == (first["pid"], -9, "SIGKILL", True)
    assert second["t"] - ended["t"] >= FIRST_BACK_OFF_S * 0.9


def test_the_back_off_doubles_for_a_worker_that_dies_by_itself(watched: Watched) -> None:
    watched.start("exit 3")
    watched.wait(lambda: len(watched.told("worker-start")) >= 4)
    starts = [r["t"] for r in watched.told("worker-start")]
    pauses = [b - a for a, b in itertools.pairwise(starts)]
    assert pauses[1] > 1.5 * pauses[0]
    assert pauses[2] > 1.5 * pauses[1]
    assert {(r["status"], r["asked"]) for r in watched.told("worker-exit")} == {(3, False)}


def test_a_worker_that_dies_at_its_start_is_an_error_with_its_last_lines(watched: Watched) -> None:
    watched.start("echo cannot find the queue; exit 3")
    watched.wait(lambda: len(watched.told("worker-exit")) >= 3)
    with pytest.raises(WorkerDied, match="(?s)worker w dies at its start.*cannot find the queue"):
        watched.supervisor.check_started()


def test_a_command_that_does_not_exist_is_an_error(watched: Watched) -> None:
    with pytest.raises(WorkerDied, match="no-such-program"):
        watched.supervisor.start("w", ["no-such-program"], {}, watched.folder / "w.log")


def test_a_crash_loop_is_seen_and_a_healthy_worker_is_not_one(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.supervisor.LONGEST_BACK_OFF_S", 0.05)
    monkeypatch.setattr("harness.supervisor.FIRST_BACK_OFF_S", 0.05)
    assert watched.supervisor.crash_loop() is None
    watched.start("exit 1")
    watched.wait(lambda: watched.supervisor.crash_loop() == "w", 20)


def test_a_held_worker_stays_down_until_it_is_released(watched: Watched) -> None:
    watched.start("exec sleep 60")
    watched.supervisor.hold("w")
    watched.supervisor.signal("w", signal.SIGKILL, restart=True)
    watched.wait(lambda: watched.told("worker-exit"))
    time.sleep(3 * FIRST_BACK_OFF_S)
    assert len(watched.told("worker-start")) == 1
    watched.supervisor.release("w")
    assert watched.supervisor.wait_running("w", 5)["pid"] is not None


def test_a_worker_that_ignores_sigterm_is_killed_when_its_grace_is_over(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.supervisor.GRACE_S", 0.3)
    watched.start("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    watched.wait(lambda: "ready" in (watched.folder / "w.log").read_text())
    watched.supervisor.hold("w")
    watched.supervisor.signal("w", signal.SIGTERM, restart=True)
    watched.supervisor.release("w")
    watched.wait(lambda: len(watched.told("worker-start")) == 2)
    assert watched.told("worker-exit")[0]["signal"] == "SIGKILL"


def test_a_stopped_worker_is_seen_as_stopped(watched: Watched) -> None:
    watched.start("exec sleep 60")
    watched.supervisor.signal("w", signal.SIGSTOP, restart=False)
    watched.wait(lambda: watched.supervisor.state("w") == "stopped")
    watched.supervisor.signal("w", signal.SIGCONT, restart=False)
    watched.wait(lambda: watched.supervisor.state("w") == "sleeping")
    assert watched.told("worker-exit") == []


def test_nothing_is_started_again_once_all_were_stopped(watched: Watched) -> None:
    watched.start("exec sleep 60")
    watched.supervisor.stop_all(1)
    time.sleep(2 * FIRST_BACK_OFF_S)
    assert len(watched.told("worker-start")) == 1
    assert watched.told("worker-exit")[0]["asked"]
