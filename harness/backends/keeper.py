"""The keeper: the parent of every process that a run starts, and the reason that none of them outlives it unasked.

It runs as a small process of its own (`python -I keeper.py PARENT_PID`) and imports the standard library only, so that
it is there in 20 ms. The harness sends one JSON object a line on its standard input and reads answers and exits from
its standard output:

    {"id": 1, "spawn": {"argv": [...], "env": {...}, "cwd": "...", "log": "..."}}  ->  {"id": 1, "pid": 4711}
    {"id": 2, "signal": {"pid": 4711, "signal": 9}}                                ->  {"id": 2, "sent": true}
    {"id": 3, "temp": "/tmp/gauntlet-..."}                                         ->  {"id": 3, "sent": true}
    {"id": 4, "outlive": {"seconds": 300, "door": "/tmp/gauntlet-.../keeper.sock", "reset": "127.0.0.1:8474"}}
                                                         ->  {"id": 4, "sent": true}
    {"id": 5, "living": true}                            ->  {"id": 5, "living": [[4711, "/path/of/its/log"], ...]}
    (a process ended)                                    {"exit": 4711, "status": -9, "t": 1790000000.1}

When the harness goes away, however it does, the keeper kills everything that descends from it and removes the temp
folders that it was told of. Only where it was told to outlive a harness that is killed does it continue what was stopped, tell the
Toxiproxy at `reset` to heal everything, since nobody else would, and wait for so many seconds for another harness to
come in by that socket, which it then obeys as it did the first. An `outlive` of 0 seconds takes that back. Three nets, because
each alone has a hole:

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
import socket
import struct
import subprocess
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

#: A harness that is killed loses its pipe before the kernel says that it has ended.
_DYING_MS = 5000
#: https://github.com/Shopify/toxiproxy#http-api
_RESET = b"POST /reset HTTP/1.1\r\nHost: toxiproxy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

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
        self.logs: dict[int, str] = {}
        self.temp: list[str] = []
        self.outlives_s = 0.0
        self.door: socket.socket | None = None
        self.reset = ""
        self.out = 1
        #: exits that nobody was there to hear of
        self.untold: list[dict[str, Any]] = []

    def answer(self, message: dict[str, Any]) -> None:
        try:
            os.write(self.out, json.dumps(message).encode() + b"\n")
        except OSError:  # the harness is gone; the main loop is about to see it
            if "exit" in message:
                self.untold.append(message)

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
            elif "outlive" in message:
                self.outlive(**message["outlive"])
                self.answer({"id": number, "sent": True})
            elif "living" in message:
                self.answer({"id": number, "living": [[pid, self.logs[pid]] for pid in self.processes]})
        except OSError as error:
            self.answer({"id": number, "error": f"{error.strerror or error}: {error.filename or ''}"})

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
        self.logs[process.pid] = log
        return process.pid

    def outlive(self, seconds: float, door: str, reset: str) -> None:
        """From now on, a harness that is killed may have a successor, who comes in by this socket."""
        if seconds and self.door is None:
            self.door = listening(door)
        self.outlives_s, self.reset = seconds, reset

    def heal(self) -> None:
        """What a harness had broken when it was killed, but for processes that it had killed."""
        for pid in self.processes:
            self.signal(pid, signal.SIGCONT)
        if self.reset:
            host, port = self.reset.split(":")
            try:
                with socket.create_connection((host, int(port)), timeout=5) as toxiproxy:
                    toxiproxy.sendall(_RESET)
                    toxiproxy.recv(4096)
            except OSError:
                pass  # its successor heals it, too

    def successor(self, awake: int) -> tuple[int, int] | None:
        """Waits for the next harness; (the descriptor of the conversation with it, its pidfd), or None if nobody came in
        time."""
        assert self.door is not None
        self.out = -1
        self.heal()
        watch = select.poll()
        watch.register(self.door, select.POLLIN)
        watch.register(awake, select.POLLIN)
        deadline = time.monotonic() + self.outlives_s
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(watch.poll(left * 1000))
            if awake in ready:
                os.read(awake, 4096)
                self.reap()
            if self.door.fileno() in ready:
                came, _ = self.door.accept()
                credentials = came.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
                try:
                    harness = os.pidfd_open(struct.unpack("3i", credentials)[0])
                except ProcessLookupError:
                    came.close()
                    continue
                self.out = came.detach()
                told, self.untold = self.untold, []
                for message in told:
                    self.answer(message)
                return self.out, harness
        return None

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
            del self.processes[pid], self.logs[pid]
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
    try:
        harness = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    conversation: tuple[int, int] | None = (0, harness)
    try:
        while conversation is not None:
            serve(keeper, *conversation, awake)
            conversation = keeper.successor(awake) if keeper.outlives_s else None
    finally:
        keeper.end()


def serve(keeper: Keeper, line: int, harness: int, awake: int) -> None:
    """Does what a harness asks for; returns when it has gone."""
    watch = select.poll()
    for descriptor in (line, harness, awake):
        watch.register(descriptor, select.POLLIN | select.POLLHUP)
    pending = b""
    while True:
        ready = dict(watch.poll())
        if harness in ready:
            break
        if awake in ready:
            os.read(awake, 4096)
            keeper.reap()
        if line in ready:
            data = _read(line)
            if not data:
                if keeper.outlives_s and not ends(harness):
                    keeper.outlives_s = 0.0  # it lives, and has closed the line: it wants no more of us
                break
            *lines, pending = (pending + data).split(b"\n")
            for one in lines:
                keeper.handle(json.loads(one))
    os.close(harness)
    if line:
        os.close(line)


def _read(line: int) -> bytes:
    try:
        return os.read(line, 1 << 16)
    except ConnectionResetError:
        return b""


def ends(harness: int) -> bool:
    """Whether a harness whose line is at its end has ended, or is just about to; else it lives, and has closed it."""
    watch = select.poll()
    watch.register(harness, select.POLLIN)
    return bool(watch.poll(_DYING_MS))


def listening(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(path)
    made.listen(1)
    return made


if __name__ == "__main__":
    main()
