"""Plain processes on this machine, without Docker: what starts them, ends them and tells how they ended."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from harness.backends.base import Child, Exit
from harness.errors import BackendGone, HarnessFault

#: In the temp folder of a harness whose processes outlive it: where their keeper is to be found, and its pid and start time.
_DOOR, _KEEPER = "keeper.sock", "keeper"


class Processes:
    """All processes of one harness, kept by a keeper (see keeper.py), so that none outlives it unless that is asked for."""

    def __init__(self, outlived: Path | None = None) -> None:
        """`outlived`: the temp folder of a harness that was killed, and whose processes outlived it (`outlive`): they are taken
        over. Raises HarnessFault where there are none any more."""
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._exits: dict[int, Exit] = {}
        self._watchers: dict[int, Callable[[Exit], None]] = {}
        self._lock = threading.Lock()
        self._closing = False
        # Who hears of an end may ask the keeper something, or wait for somebody who does: never by the reader's thread.
        self._teller = ThreadPoolExecutor(1, thread_name_prefix="exits")
        self._gone = threading.Event()
        self._outlives = outlived is not None
        if outlived is None:
            sweep_temp_folders()
            self.temp = Path(tempfile.mkdtemp(prefix=f"gauntlet-{os.getpid()}-{start_time(os.getpid())}-"))
            self._begin()
        else:
            self.temp = outlived
            self._take_over()
        self._reader = threading.Thread(target=self._read, name="keeper", daemon=True)
        self._reader.start()
        if outlived is None:
            self._ask(temp=str(self.temp))

    def _begin(self) -> None:
        """Starts a keeper, which talks by its standard input and output."""
        keeper = psutil.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._keeper: psutil.Process = keeper
        self._to, self._from, self._hang_up = keeper.stdin, keeper.stdout, keeper.stdin.close
        self._reap: Callable[[], object] = keeper.wait

    def _take_over(self) -> None:
        """Finds the keeper that outlived another harness, which talks by a socket."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            pid, started = map(int, (self.temp / _KEEPER).read_text().split())
            if not _lives(pid, started):
                raise ProcessLookupError(f"there is no process {pid}")
            self._keeper = psutil.Process(pid)
            line.connect(str(self.temp / _DOOR))
        except (OSError, ValueError, psutil.Error) as error:
            line.close()
            raise HarnessFault(f"its processes have ended: {error}") from error
        self._to, self._from = line.makefile("wb", buffering=0), line.makefile("rb", buffering=0)
        self._hang_up = partial(line.shutdown, socket.SHUT_WR)
        self._reap = line.close  # it is another's child

    def outlive(self, seconds: float, toxiproxy: str = "") -> None:
        """Should this harness be killed, all processes go on for so long, and another one may take them over by the temp folder;
        what it had stopped continues, and what it had broken by the Toxiproxy at "host:port" is healed. 0: they end with it,
        as they do by default. Raises HarnessFault."""
        if seconds and not (self.temp / _KEEPER).exists():
            (self.temp / _KEEPER).write_text(f"{self._keeper.pid} {start_time(self._keeper.pid)}")
        answer = self._ask(outlive={"seconds": seconds, "door": str(self.temp / _DOOR), "reset": toxiproxy})
        self._outlives = bool(seconds)
        if "error" in answer:
            raise HarnessFault(f"the keeper of the processes cannot outlive this one: {answer['error']}")

    def living(self) -> list[tuple[Path, Child]]:
        """Every process that has not ended, by its log, in the order in which they were started."""
        return [(Path(log), Child(pid, _created(pid))) for pid, log in self._ask(living=True)["living"]]

    # -- what others use ---------------------------------------------------------------------------------------

    def spawn(
        self,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        on_exit: Callable[[Exit], None] | None = None,
    ) -> Child:
        """Starts a process in a group of its own; its output goes to the end of `log`. Raises HarnessFault.

        Its temporary files go where the harness has its own, and with them: one that is killed removes none.
        """
        asked = time.time()
        answer = self._ask(
            spawn={
                "argv": [str(a) for a in argv],
                "env": {**(env if env is not None else os.environ), "TMPDIR": str(self.temp)},
                "cwd": str(cwd) if cwd else None,
                "log": str(log),
            }
        )
        if "error" in answer:
            raise HarnessFault(f"{argv[0]} could not be started: {answer['error']}")
        pid = answer["pid"]
        with self._lock:  # numbers come again: in hours of restarts that of one which ended long ago
            if (ended := self._exits.get(pid)) is not None and ended.t < asked:
                del self._exits[pid]
        started = _created(pid)
        if on_exit is not None:
            self.watch(pid, on_exit)
        return Child(pid, started)

    def signal(self, pid: int, number: int) -> bool:
        """Sends a signal to the process and its group; False if it had ended."""
        return bool(self._ask(signal={"pid": pid, "signal": int(number)}).get("sent"))

    def ended(self, pid: int) -> Exit | None:
        how = self._exits.get(pid)
        if how is None and self._closing and self._gone.is_set():
            # The keeper ends what is left without a word. Whoever still waits for it to come up would hold up the end.
            return Exit(pid, -signal.SIGKILL, time.time())
        return how

    def catch_up(self) -> list[str]:
        if self._gone.is_set() and not self._closing:
            raise BackendGone("the keeper of the processes has gone, and with it every process of the run")
        return []

    def state(self, pid: int) -> str:
        """The kernel's word for it: "running", "sleeping", "stopped" …, or "gone"."""
        try:
            return str(psutil.Process(pid).status())
        except psutil.NoSuchProcess:
            return "gone"

    def stop(self, pids: Sequence[int], grace_s: float = 5.0) -> None:
        """SIGTERM to all, SIGKILL to those that are still there after the grace."""
        for pid in pids:
            self.signal(pid, signal.SIGCONT)
            self.signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and any(self.ended(p) is None for p in pids):
            time.sleep(0.01)
        for pid in pids:
            if self.ended(pid) is None:
                self.signal(pid, signal.SIGKILL)
        while any(self.ended(p) is None for p in pids) and not self._gone.is_set():
            time.sleep(0.01)

    def stop_now(self, pid: int) -> None:
        """SIGKILL; returns when the process was reaped."""
        self.signal(pid, signal.SIGKILL)
        while self.ended(pid) is None and not self._gone.is_set():
            time.sleep(0.005)

    def close(self) -> None:
        """Ends every process and removes the temp folder."""
        self._closing = True
        if self._outlives:
            with contextlib.suppress(HarnessFault):
                self.outlive(0)
        with contextlib.suppress(OSError):
            self._hang_up()
        if not _has_ended(self._keeper.pid, 25):
            self._keeper.kill()
            _has_ended(self._keeper.pid, 5)
        self._reap()
        self._reader.join(2)
        self._to.close()
        self._from.close()
        self._teller.shutdown(wait=False, cancel_futures=True)

    # -- the conversation with the keeper -----------------------------------------------------------------------

    def _ask(self, **message: Any) -> dict[str, Any]:
        future: Future[dict[str, Any]] = Future()
        number = next(self._numbers)
        with self._lock:
            self._answers[number] = future
            try:
                self._to.write(json.dumps({"id": number, **message}).encode() + b"\n")
            except (OSError, ValueError) as error:
                raise HarnessFault("the keeper of the processes has gone; nothing can be started or ended") from error
        try:
            return future.result(30)
        except TimeoutError as error:
            raise HarnessFault("the keeper of the processes does not answer") from error

    def watch(self, pid: int, on_exit: Callable[[Exit], None]) -> None:
        """Who is told how this process ends, or ended."""
        with self._lock:
            ended = self._exits.get(pid)
            if ended is None:
                self._watchers[pid] = on_exit
        if ended is not None:  # never at once: whoever starts it has yet to learn what it started
            self._teller.submit(self._tell, on_exit, ended)

    def _tell(self, watcher: Callable[[Exit], None], how: Exit) -> None:
        if not self._closing:
            watcher(how)

    def _read(self) -> None:
        with os.fdopen(os.dup(self._from.fileno()), "r") as lines:
            for line in lines:
                message = json.loads(line)
                if "exit" in message:
                    exit_ = Exit(message["exit"], message["status"], message["t"])
                    with self._lock:
                        self._exits[exit_.pid] = exit_
                        watcher = self._watchers.pop(exit_.pid, None)
                    if watcher is not None:
                        self._teller.submit(self._tell, watcher, exit_)
                else:
                    with self._lock:
                        future = self._answers.pop(message["id"])
                    future.set_result(message)
        self._gone.set()
        with self._lock:
            waiting, self._answers = list(self._answers.values()), {}
        for future in waiting:
            future.set_exception(HarnessFault("the keeper of the processes has gone"))


def _has_ended(pid: int, within_s: float) -> bool:
    """Whether a process, of whomever it is the child, ends within this time; also where nobody reaps it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within_s)[0])
    finally:
        os.close(descriptor)


def _created(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return time.time()


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid, a name that is never used twice."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[19])


def sweep_temp_folders() -> None:
    """Removes temp folders whose harness is dead: left only if harness and keeper were killed together."""
    for folder in Path(tempfile.gettempdir()).glob("gauntlet-*-*-*"):
        words = folder.name.split("-")
        with contextlib.suppress(ValueError):
            if not _lives(int(words[1]), int(words[2])) and not _outlived(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int, started: int) -> bool:
    """Whether the process that began then (`start_time`) is there."""
    try:
        return start_time(pid) == started and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (OSError, IndexError, psutil.Error):
        return False


def _outlived(folder: Path) -> bool:
    try:
        return _lives(*map(int, (folder / _KEEPER).read_text().split()))
    except (OSError, ValueError, TypeError):
        return False


# ------------------------------------------------------------------------------------------------------- ports


class Ports:
    """Free ports of 127.0.0.1 that nobody else takes while they are ours.

    They lie below the range that the kernel uses for outgoing connections: a proxy that is disabled gives its port
    back to the kernel for a while, and a port of that range could be taken by any client in the meantime. Two
    harnesses on one machine see each other's choice by an abstract Unix socket per port, which the kernel frees with
    the process.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def hold(self, port: int) -> int:
        """This very port, at which processes that outlived their harness are. Raises HarnessFault if it is somebody else's."""
        claim = _claimed(port)
        if claim is None:
            raise HarnessFault(f"the port {port} was taken by another harness meanwhile")
        self._held.append(claim)
        return port

    def take(self) -> int:
        """Raises HarnessFault when no port is to be had."""
        low = _first_outgoing_port()
        for _ in range(2000):
            port = 10000 + secrets.randbelow(low - 10000)
            claim = _claimed(port)
            if claim is None:
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    claim.close()
                    continue
            self._held.append(claim)
            return port
        raise HarnessFault("no free port on 127.0.0.1 between 10000 and the outgoing range")

    def close(self) -> None:
        for claim in self._held:
            claim.close()
        self._held.clear()


def _claimed(port: int) -> socket.socket | None:
    """What keeps other harnesses from this port, as long as it is open; None where one of them has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0gauntlet-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _first_outgoing_port() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            low = int(file.read().split()[0])
    except (OSError, ValueError):
        low = 32768
    return low if low > 12000 else 32768
