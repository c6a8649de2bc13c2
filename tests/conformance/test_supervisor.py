"""The supervisor: workers that die are started again, with a back-off; what a fault asks for is told apart."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.backends.base import Child, Children, Exit
from harness.errors import HarnessFault, WorkerDied
from harness.history import History
from harness.supervisor import FIRST_BACK_OFF_S, Supervisor


class Watched:
    """A supervisor with the history that it writes."""

    def __init__(self, children: Children, spawn: Callable[..., Child], folder: Path) -> None:
        self.folder, self.spawn = folder, spawn
        self.history = History(folder / "history.jsonl")
        self.supervisor = Supervisor(children, self.history)

    def start(self, script: str, name: str = "w") -> None:
        self.run(["sh", "-c", script], name)

    def start_deaf(self) -> None:
        """A worker that ignores SIGTERM, and does so already."""
        self.start("trap '' TERM; echo ready; while :; do sleep 0.1; done")
        self.wait(lambda: "ready" in (self.folder / "w.log").read_text())

    def run(self, argv: list[str], name: str = "w") -> None:
        log = self.folder / f"{name}.log"
        log.touch()
        launch = lambda on_exit: self.spawn(argv, log, on_exit=on_exit)  # noqa: E731
        self.supervisor.start(name, launch, " ".join(argv), log)

    def told(self, kind: str) -> list[dict]:
        return [r for r in self.history.records if r["kind"] == kind]

    def wait(self, check: Callable[[], object], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, self.history.records
            time.sleep(0.01)


@pytest.fixture
def watched(children: tuple[Children, Callable[..., Child]], tmp_path: Path) -> Iterator[Watched]:
    made = Watched(*children, tmp_path)
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


def test_what_was_asked_of_one_process_was_asked_of_no_later_one_with_its_number(watched: Watched) -> None:
    watched.start("exec sleep 60")
    watched.supervisor.signal("w", signal.SIGKILL, restart=True)
    watched.wait(lambda: watched.told("worker-exit"))
    assert watched.supervisor._workers["w"].asked == set()


def test_the_back_off_doubles_for_a_worker_that_dies_by_itself(watched: Watched) -> None:
    watched.start("exit 3")
    watched.wait(lambda: len(watched.told("worker-start")) >= 4)
    starts, ends = ([r["t"] for r in watched.told(kind)] for kind in ("worker-start", "worker-exit"))
    for i in range(3):  # what the start itself takes comes on top
        assert starts[i + 1] - ends[i] >= 0.9 * FIRST_BACK_OFF_S * 2**i
    assert {(r["status"], r["asked"]) for r in watched.told("worker-exit")} == {(3, False)}


def test_a_worker_that_dies_at_its_start_is_an_error_with_its_last_lines(watched: Watched) -> None:
    watched.start("echo cannot find the queue; exit 3")
    watched.wait(lambda: len(watched.told("worker-exit")) >= 3)
    with pytest.raises(WorkerDied, match="(?s)worker w dies at its start.*cannot find the queue"):
        watched.supervisor.check_started()


def test_what_a_worker_died_of_before_is_nothing_to_who_is_told_from_now_on(watched: Watched) -> None:
    """A fault of one cycle of a soak may have ended it three times; in the next one it is as good as any."""
    watched.start("exit 3")
    watched.wait(lambda: len(watched.told("worker-exit")) >= 3)
    watched.supervisor.hold("w")
    watched.wait(watched.supervisor.down)
    watched.supervisor.tell(watched.history)
    watched.supervisor.check_started()
    watched.supervisor.release("w")
    watched.wait(lambda: len(watched.told("worker-exit")) >= 7, 20)
    with pytest.raises(WorkerDied, match="worker w dies at its start"):
        watched.supervisor.check_started()


def test_a_command_that_does_not_exist_is_an_error(watched: Watched) -> None:
    def start() -> None:
        watched.run(["no-such-program"])
        # In a container it is the init process that finds out, and says so in the log.
        watched.wait(lambda: len(watched.told("worker-exit")) >= 3)
        watched.supervisor.check_started()

    with pytest.raises(WorkerDied, match="no-such-program"):
        start()


def test_a_crash_loop_is_seen_and_a_healthy_worker_is_not_one(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.supervisor.LONGEST_BACK_OFF_S", 0.05)
    monkeypatch.setattr("harness.supervisor.FIRST_BACK_OFF_S", 0.05)
    assert watched.supervisor.crash_loop() is None
    watched.start("exit 1")
    watched.wait(lambda: watched.supervisor.crash_loop() == "w", 20)
    assert watched.supervisor.crash_loop(since=time.monotonic() + 60) is None, "it has not died since"


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
    watched.start_deaf()
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


def test_all_are_down_and_recorded_when_they_were_stopped_however_slowly_their_ends_are_told(
    children: tuple[Children, Callable[..., Child]], tmp_path: Path
) -> None:
    running, spawn = children

    def told_late(argv: list[str], log: Path, on_exit: Callable[[Exit], None]) -> Child:
        return spawn(argv, log, on_exit=lambda how: (time.sleep(0.3), on_exit(how)))

    watched = Watched(running, told_late, tmp_path)
    watched.start("exec sleep 60", "first")
    watched.start("exec sleep 60", "second")
    watched.supervisor.stop_all(0.2)
    assert watched.supervisor.down() == ["first", "second"]
    assert {r["worker"] for r in watched.told("worker-exit")} == {"first", "second"}


def test_some_workers_may_outlive_the_others(watched: Watched) -> None:
    """Whoever answers for a hop is read when all others have ended, and is started again until then."""
    watched.start("exec sleep 60", "first")
    watched.start("exec sleep 60", "last")
    watched.supervisor.stop_all(0.2, but={"last"})
    assert watched.supervisor.child("first") is None
    watched.supervisor.signal("last", signal.SIGKILL, restart=False)
    watched.wait(lambda: len([r for r in watched.told("worker-start") if r["worker"] == "last"]) == 2)
    assert watched.supervisor.down() == ["first"]
    watched.supervisor.stop_all(0.2)
    time.sleep(2 * FIRST_BACK_OFF_S)
    assert watched.supervisor.down() == ["first", "last"]
    assert [(r["worker"], r["asked"]) for r in watched.told("worker-exit")] == [
        ("first", True),
        ("last", False),
        ("last", True),
    ]


def _beside(watched: Watched, script: str, version: str = "v2") -> None:
    log = watched.folder / "w.new.log"
    log.touch()
    launch = lambda on_exit: watched.spawn(["sh", "-c", script], log, on_exit=on_exit)  # noqa: E731
    watched.supervisor.start_beside("w", launch, script, log, "w.new", version)


def test_a_second_version_works_beside_a_worker_and_takes_over(watched: Watched) -> None:
    """What is done to the worker is done to the first until then, and afterwards to the second, which is started again in
    its version; and the same way back."""
    watched.start("exec sleep 60")
    first = watched.supervisor.child("w")
    _beside(watched, "echo new; exec sleep 60")
    log = watched.folder / "w.new.log"
    watched.wait(lambda: log.read_text() == "new\n")  # written a moment after its start, and before it is killed below
    second, died = watched.supervisor.beside("w")
    assert first is not None
    assert (watched.supervisor.child("w"), died) == (first, 0)
    assert watched.supervisor.process("w") == "w"
    with pytest.raises(HarnessFault, match="w is being upgraded already"):
        _beside(watched, "exec sleep 60")
    seen = watched.supervisor.take_over("w")
    assert (seen["pid"], seen["killed"]) == (first.pid, False)
    assert watched.supervisor.child("w").pid == second  # type: ignore[union-attr]
    assert (watched.supervisor.process("w"), watched.supervisor.beside("w")) == ("w.new", (None, 0))
    assert [(r["pid"], r["asked"], r.get("version")) for r in watched.told("worker-exit")] == [(first.pid, True, None)]
    watched.supervisor.signal("w", signal.SIGKILL, restart=True)
    watched.wait(lambda: len(watched.told("worker-start")) == 3)
    assert [r.get("version") for r in watched.told("worker-start")] == [None, "v2", "v2"]
    watched.wait(lambda: log.read_text().count("new") == 2)
    assert log.read_text() == "new\nnew\n"
    _beside(watched, "exec sleep 60", "")
    watched.supervisor.take_over("w")
    assert watched.supervisor.down() == []
    time.sleep(2 * FIRST_BACK_OFF_S)
    assert len(watched.told("worker-start")) == 4, "what was replaced is not started again"


def test_a_second_version_that_dies_is_started_again_and_can_be_withdrawn(watched: Watched) -> None:
    watched.start("exec sleep 60")
    first = watched.supervisor.child("w")
    _beside(watched, "exit 3")
    watched.wait(lambda: watched.supervisor.beside("w")[1] >= 2)
    seen = watched.supervisor.withdraw("w")
    assert watched.supervisor.child("w") == first
    starts = len(watched.told("worker-start"))
    time.sleep(4 * FIRST_BACK_OFF_S)
    assert len(watched.told("worker-start")) == starts
    by_itself = [r for r in watched.told("worker-exit") if r["pid"] != seen["pid"]]  # which may have been there again
    assert {(r["status"], r["asked"], r["version"]) for r in by_itself} == {(3, False, "v2")}


def test_who_is_replaced_and_ignores_sigterm_is_killed_and_that_is_told(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.supervisor.GRACE_S", 0.3)
    watched.start_deaf()
    _beside(watched, "exec sleep 60")
    assert watched.supervisor.take_over("w")["killed"]
    assert watched.told("worker-exit")[0]["signal"] == "SIGKILL"


def test_both_versions_are_ended_with_the_rest(watched: Watched) -> None:
    watched.start("exec sleep 60")
    _beside(watched, "exec sleep 60")
    watched.supervisor.stop_all(1)
    assert [r["asked"] for r in watched.told("worker-exit")] == [True, True]
