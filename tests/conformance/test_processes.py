"""Processes and ports: started, ended, told of, and gone whatever way the harness goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

from harness.backends.keeper import _IGNORED
from harness.backends.outlived import OutlivedContainers
from harness.backends.process import Exit, Ports, Processes
from harness.errors import HarnessFault
from harness.session import Session
from pipelines_under_test.kappa.pipeline import kappa


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_was_there_when_all_was_closed_has_ended(processes: Processes, tmp_path: Path) -> None:
    """A service that was just being started when Ctrl-C came: who waits for it must not wait as long as for a slow one."""
    child = processes.spawn(["sleep", "60"], tmp_path / "log")
    assert processes.ended(child.pid) is None
    processes.close()
    how = processes.ended(child.pid)
    assert how is not None
    assert how.signal == "SIGKILL"
    assert gone(child.pid)


def test_an_exit_is_told_with_its_signal(processes: Processes, tmp_path: Path) -> None:
    told: list[Exit] = []
    child = processes.spawn(["sleep", "60"], tmp_path / "log", on_exit=told.append)
    assert processes.signal(child.pid, signal.SIGKILL)
    assert wait_for(lambda: told)
    assert (told[0].pid, told[0].status, told[0].signal) == (child.pid, -9, "SIGKILL")
    assert not processes.signal(child.pid, signal.SIGKILL), "a process that was reaped must not be signalled again"


def test_who_hears_of_an_exit_may_start_the_next_process(processes: Processes, tmp_path: Path) -> None:
    """As the supervisor does, or as it waits for one that is being started by another thread."""
    started: list[int] = []

    def again(how: Exit) -> None:
        started.append(processes.spawn(["sleep", "60"], tmp_path / "log").pid)

    child = processes.spawn(["sleep", "60"], tmp_path / "log", on_exit=again)
    processes.signal(child.pid, signal.SIGKILL)
    assert wait_for(lambda: started)
    assert not gone(started[0])


def test_an_exit_that_nobody_watched_yet_is_told_to_whoever_knows_by_then_what_it_started(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_at_too_late(pid: int) -> None:
        assert wait_for(lambda: processes.ended(pid))
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr("harness.backends.process.psutil.Process", looked_at_too_late)
    told: list[int] = []
    child = processes.spawn(["true"], tmp_path / "log", on_exit=lambda how: told.append(threading.get_ident()))
    assert wait_for(lambda: told)
    assert told != [threading.get_ident()], child


def test_a_number_that_comes_again_is_another_process(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = processes.spawn(["true"], tmp_path / "log")
    assert wait_for(lambda: processes.ended(first.pid))
    monkeypatch.setattr(processes, "_ask", lambda **_: {"pid": first.pid})
    again = processes.spawn(["sleep", "60"], tmp_path / "log")
    assert again.pid == first.pid
    assert processes.ended(again.pid) is None


def test_what_a_killed_process_left_in_its_temp_folder_goes_with_the_harness(tmp_path: Path) -> None:
    """Beam makes a folder for each pipeline and removes it only at a good end."""
    made = Processes()
    try:
        child = made.spawn(["sh", "-c", "mktemp -d; sleep 60"], tmp_path / "log")
        assert wait_for(lambda: (tmp_path / "log").read_text().endswith("\n"))
        left = Path((tmp_path / "log").read_text().strip())
        made.stop_now(child.pid)
        assert left.is_dir()
    finally:
        made.close()
    assert not left.exists()


def test_output_goes_to_the_log_and_the_status_is_told(processes: Processes, tmp_path: Path) -> None:
    child = processes.spawn(["sh", "-c", "echo out; echo err >&2; exit 7"], tmp_path / "log")
    assert wait_for(lambda: processes.ended(child.pid))
    ended = processes.ended(child.pid)
    assert ended is not None
    assert (ended.status, ended.signal) == (7, None)
    assert (tmp_path / "log").read_text() == "out\nerr\n"


def test_a_command_that_does_not_exist_is_an_error_with_its_name(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(HarnessFault, match="no-such-program could not be started: No such file"):
        processes.spawn(["no-such-program"], tmp_path / "log")


def test_what_a_worker_left_in_its_group_dies_with_it(processes: Processes, tmp_path: Path) -> None:
    child = processes.spawn(["sh", "-c", "sleep 300 & echo $!; wait"], tmp_path / "log")
    assert wait_for(lambda: (tmp_path / "log").read_text().strip())
    left = int((tmp_path / "log").read_text())
    os.kill(child.pid, signal.SIGKILL)
    assert wait_for(lambda: gone(left))


def test_a_process_that_knows_nothing_of_sigterm_ends_by_it_at_once(processes: Processes, tmp_path: Path) -> None:
    """Of its signals a child inherits what is ignored, and the keeper ignores some."""
    child = processes.spawn(["sleep", "600"], tmp_path / "log")
    ignored = next(x for x in Path(f"/proc/{child.pid}/status").read_text().splitlines() if x.startswith("SigIgn"))
    mask = int(ignored.split()[1], 16)  # what our own parent ignores (SIGQUIT, under nohup) is not the keeper's doing
    assert [n for n in _IGNORED if mask >> (n - 1) & 1] == []
    processes.stop([child.pid], grace_s=30)
    ended = processes.ended(child.pid)
    assert ended is not None
    assert ended.signal == "SIGTERM"


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(processes: Processes, tmp_path: Path) -> None:
    child = processes.spawn(["sh", "-c", "trap '' TERM; echo ready; sleep 300"], tmp_path / "log")
    assert wait_for(lambda: "ready" in (tmp_path / "log").read_text())
    processes.stop([child.pid], grace_s=0.3)
    ended = processes.ended(child.pid)
    assert ended is not None
    assert ended.signal == "SIGKILL"


HARNESS = """
import os, sys, time
from pathlib import Path
from harness.backends.process import Processes
p = Processes()
log = Path(sys.argv[1])
pids = [p.spawn(["sleep", "300"], log).pid]
pids.append(p.spawn(["sh", "-c", "setsid sleep 301 & echo escaped $!; sleep 302"], log).pid)
while "escaped" not in log.read_text():
    time.sleep(0.01)
pids.append(int(log.read_text().split()[1]))
print(p.temp, p._keeper.pid, *pids, flush=True)
{after}
"""


@pytest.mark.parametrize(
    ("way", "after"),
    [
        ("SIGKILL of the harness", "time.sleep(60)"),
        ("an exception that nobody catches", "raise RuntimeError('boom')"),
        ("a fork that holds the pipe open", "os.fork(); time.sleep(60)"),
    ],
)
def test_nothing_outlives_the_harness(tmp_path: Path, way: str, after: str) -> None:
    program = HARNESS.format(after=after)
    harness = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert harness.stdout is not None
    temp, keeper, *pids = harness.stdout.readline().split()
    forked = [c.pid for c in psutil.Process(harness.pid).children() if c.pid != int(keeper)] if "fork" in way else []
    if "exception" not in way:
        harness.kill()
    harness.wait(20)
    try:
        assert wait_for(lambda: all(gone(int(pid)) for pid in (keeper, *pids)), 5), way
        assert wait_for(lambda: not Path(temp).exists(), 5)
    finally:
        for pid in forked:
            os.kill(pid, signal.SIGKILL)


OUTLIVED = """
import os, sys, time
from pathlib import Path
from harness.backends.process import Processes
p = Processes()
log = Path(sys.argv[1])
pids = [p.spawn(["sleep", "300"], log / "one").pid, p.spawn(["sh", "-c", "sleep 2; exit 7"], log / "two").pid]
p.outlive(float(sys.argv[2]))
print(p.temp, p._keeper.pid, *pids, flush=True)
{after}
"""


def outlived(folder: Path, seconds: float, after: str = "time.sleep(60)") -> tuple[Path, int, list[int]]:
    """The temp folder, the keeper and the processes of a harness that was killed, or ended by itself."""
    program = OUTLIVED.format(after=after)
    argv = [sys.executable, "-c", program, str(folder), str(seconds)]
    harness = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert harness.stdout is not None
    temp, keeper, *pids = harness.stdout.readline().split()
    if "sleep" in after:
        harness.kill()
    harness.wait(20)
    return Path(temp), int(keeper), list(map(int, pids))


def test_processes_outlive_a_killed_harness_and_obey_the_next_one(tmp_path: Path) -> None:
    temp, keeper, (one, two) = outlived(tmp_path, 30)
    assert wait_for(lambda: gone(two)), "it ends while nobody listens"
    Processes().close()
    assert temp.is_dir(), "another harness removes what is left of the dead, and this is not"
    taken = Processes(temp)
    try:
        assert wait_for(lambda: taken.ended(two)), "it is told of what ended meanwhile"
        ended = taken.ended(two)
        assert ended is not None
        assert ended.status == 7
        assert [(log, child.pid) for log, child in taken.living()] == [(tmp_path / "one", one)]
        told: list[Exit] = []
        taken.watch(one, told.append)
        third = taken.spawn(["sleep", "300"], tmp_path / "three")
        assert taken.signal(one, signal.SIGKILL)
        assert wait_for(lambda: told)
        assert told[0].signal == "SIGKILL"
        assert not gone(third.pid)
    finally:
        taken.close()
    assert wait_for(lambda: gone(keeper) and gone(third.pid))
    assert not temp.exists()


def test_processes_that_nobody_takes_over_end_when_their_time_is_over(tmp_path: Path) -> None:
    begin = time.monotonic()
    temp, keeper, (one, _) = outlived(tmp_path, 1.0)
    assert wait_for(lambda: gone(keeper) and gone(one), 10)
    assert time.monotonic() - begin > 1.0
    assert not temp.exists()
    with pytest.raises(HarnessFault, match="its processes have ended"):
        Processes(temp)


def test_what_is_of_another_backend_is_not_taken_over(tmp_path: Path) -> None:
    temp, keeper, (one, _) = outlived(tmp_path, 60)
    containers = OutlivedContainers("", "somebody", 0, "network", [], {})
    with Session("process") as session, pytest.raises(HarnessFault, match="is of another backend"):
        session.take_over(kappa, temp, containers)
    assert wait_for(lambda: gone(keeper) and gone(one))
    assert not temp.exists()


@pytest.mark.parametrize(
    "way",
    [
        "p.close()",
        "raise RuntimeError('boom')",
        "p.outlive(0); os._exit(1)",
        # Ctrl-C once more, in the middle of it.
        "import threading; threading.Thread(target=p.close).start(); threading.Event().wait(1); os._exit(1)",
    ],
)
def test_only_a_kill_is_outlived(tmp_path: Path, way: str) -> None:
    after = way if "boom" not in way else f"try:\n    {way}\nfinally:\n    p.close()"
    temp, keeper, (one, _) = outlived(tmp_path, 60, after)
    assert wait_for(lambda: gone(keeper) and gone(one))
    assert not temp.exists()


def test_a_harness_that_lives_and_has_closed_the_line_is_not_outlived(processes: Processes, tmp_path: Path) -> None:
    child = processes.spawn(["sleep", "300"], tmp_path / "log")
    processes.outlive(60)
    processes._hang_up()
    assert wait_for(lambda: gone(child.pid) and not processes.temp.exists(), 10)


def test_sigkill_of_the_keeper_takes_its_children_along(tmp_path: Path) -> None:
    processes = Processes()
    child = processes.spawn(["sleep", "300"], tmp_path / "log")
    processes._keeper.kill()
    assert wait_for(lambda: gone(child.pid))
    with pytest.raises(HarnessFault, match="keeper"):
        processes.spawn(["sleep", "1"], tmp_path / "log")
    temp = processes.temp
    processes.close()
    assert temp.exists(), "only the keeper could have removed it …"
    temp.rmdir()


def test_ports_are_distinct_bindable_and_held_against_another_harness() -> None:
    ports = Ports()
    taken = [ports.take() for _ in range(50)]
    assert len(set(taken)) == 50
    for port in taken:
        with socket.socket() as s:
            s.bind(("127.0.0.1", port))
        claim = socket.socket(socket.AF_UNIX)
        with pytest.raises(OSError, match="in use"):
            claim.bind(f"\0gauntlet-port-{port}")
        claim.close()
    ports.close()
