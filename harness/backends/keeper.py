"""The keeper: the parent of every process that a run starts, and the reason that none of them outlives it.

It runs as a small process of its own (`python -I keeper.py PARENT_PID`) and imports the standard library only, so that
it is there in 20 ms. The harness sends one JSON object a line on its standard input and reads answers and exits from
its standard output:

    {"id": 1, "spawn": {"argv": [...], "env": {...}, "cwd": "...", "log": "..."}}  ->  {"id": 1, "pid": 4711}
    {"id": 2, "signal": {"pid": 4711, "signal": 9}}                                ->  {"id": 2, "sent": true}
    {"id": 3, "temp": "/tmp/gauntlet-..."}                                         ->  {"id": 3, "sent": true}
    (a process ended)                                    {"exit": 4711, "status": -9, "t": 1790000000.1}

When the harness goes away, however it does, the keeper kills everything that descends from it and removes the temp
folders that it was told of. Three nets, because each alone has a hole:

* end of input, which fails where a forked child of the harness holds the pipe open, so also
* a pidfd of the harness; and
* PR_SET_PDEATHSIG in every child, for the case that the keeper itself is killed first.

As PR_SET_CHILD_SUBREAPER it inherits whatever a worker leaves behind (a shell script's background jobs), and a
worker's whole process group dies with the worker, as in a container.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


#: The keeper ignores these; a child would inherit that, and a worker that knows nothing of SIGTERM would never end by it.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


def _prepare_child() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for child in _children(pid):
        found.append(child)
        found.extend(_descendants(child))
    return found


class Keeper:
    def __init__(self) -> None:
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.temp: list[str] = []

    def answer(self, message: dict[str, Any]) -> None:
        try:
            os.write(1, json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the harness is gone; the main loop is about to see it

    def handle(self, message: dict[str, Any]) -> None:
        number = message["id"]
        try:
            if "spawn" in message:
                self.answer({"id": number, "pid": self.spawn(**message["spawn"])})
            elif "signal" in message:
                self.answer({"id": number, "sent": self.signal(**message["signal"])})
            elif "temp" in message:
                self.temp.append(message["temp"])
                self.answer({"id": number, "sent": True})
        except OSError as error:
            self.answer({"id": number, "error": f"{error.strerror}: {error.filename or ''}"})

    def spawn(self, argv: list[str], env: dict[str, str], cwd: str | None, log: str) -> int:
        with open(log, "ab") as out:
            process = subprocess.Popen(
                argv,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_prepare_child,
            )
        self.processes[process.pid] = process
        return process.pid

    def signal(self, pid: int, signal: int) -> bool:
        """Sends to the whole group of a process of ours that has not been reaped: never to a recycled pid."""
        if pid not in self.processes:
            return False
        try:
            os.killpg(pid, signal)
        except ProcessLookupError:
            return False
        return True

    def reap(self) -> None:
        for pid, process in list(self.processes.items()):
            status = process.poll()
            if status is None:
                continue
            del self.processes[pid]
            try:
                os.killpg(pid, signal.SIGKILL)  # what the process left behind in its group
            except (ProcessLookupError, PermissionError):
                pass
            self.answer({"exit": pid, "status": status, "t": time.time()})
        while True:  # orphans that came to us as their subreaper
            known = set(self.processes)
            orphans = [p for p in _children(os.getpid()) if p not in known]
            reaped = False
            for pid in orphans:
                try:
                    reaped |= os.waitpid(pid, os.WNOHANG)[0] == pid
                except ChildProcessError:
                    pass
            if not reaped:
                return

    def end(self) -> None:
        """Kills until nothing is left; new orphans may arrive while their parents die."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            left = _descendants(os.getpid())
            if not left:
                break
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            for pid in left:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except OSError:
                    pass
            time.sleep(0.01)
        for folder in self.temp:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parent = int(sys.argv[1])
    os.setsid()  # Ctrl-C in the terminal is for the harness; it tells us
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    keeper = Keeper()
    watch = select.poll()
    watch.register(0, select.POLLIN | select.POLLHUP)
    watch.register(awake, select.POLLIN)
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    watch.register(parent_fd, select.POLLIN)
    pending = b""
    try:
        while True:
            ready = dict(watch.poll())
            if parent_fd in ready:
                return
            if awake in ready:
                os.read(awake, 4096)
                keeper.reap()
            if 0 in ready:
                data = os.read(0, 1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    keeper.handle(json.loads(line))
    finally:
        keeper.end()


if __name__ == "__main__":
    main()
