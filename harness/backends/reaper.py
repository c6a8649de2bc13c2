"""The reaper: removes every container, network and volume of a harness that has gone, however it went.

It runs as a process of its own (`python reaper.py OWNER PID`), says "ready" before the harness creates anything, and
waits for the end of its input or of the process PID: a pipe alone fails where a forked child of the harness holds it.
Creates that were under way may land after the first sweep, so it sweeps until four in a row find nothing.

It needs no image and acts at once, so it watches everywhere. Where it can be had, Ryuk watches beside it (see ryuk.py):
that one is slower, and survives when this one is killed together with the harness.

Only where it was told `outlive SECONDS RYUKS_PORT` it removes nothing when the harness is *killed*: it continues what was paused,
keeps Ryuk from removing anything by a connection of its own, and waits for so many seconds for another harness to come in by
an abstract Unix socket of the owner's name (`door`), which it then watches as it did the first.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

#: Whose a container, network or volume is.
LABEL = "gauntlet.owner"
#: For whom a Ryuk watches.
RYUK = "gauntlet.ryuk"
EMPTY_SWEEPS = 4
#: What a harness says that has removed everything itself.
ALL_DONE = b"done\n"
READY = b"ready\n"


def sweep(api: Any, owner: str) -> int:
    """Removes what is the owner's, and then its Ryuk; how much was there."""
    return _sweep(api, f"{LABEL}={owner}") + _sweep(api, f"{RYUK}={owner}")


def _sweep(api: Any, label: str) -> int:
    import docker.errors

    filters = {"label": label}
    containers = api.containers(all=True, quiet=True, filters=filters)
    for container in containers:
        with contextlib.suppress(docker.errors.APIError):
            api.remove_container(container["Id"], force=True, v=True)
    networks = api.networks(filters=filters)
    for network in networks:
        with contextlib.suppress(docker.errors.APIError):
            api.remove_network(network["Id"])
    volumes = api.volumes(filters=filters).get("Volumes") or []
    for volume in volumes:
        with contextlib.suppress(docker.errors.APIError):
            api.remove_volume(volume["Name"], force=True)
    return len(containers) + len(networks) + len(volumes)


def door(owner: str) -> str:
    """The abstract Unix socket at which the reaper of this owner's containers listens while it may outlive a harness."""
    return "\0gauntlet-reaper-" + "-".join(owner.split("/")[-3:])


def stays(owner: str) -> bool:
    """Whether a reaper of this owner's containers lets them outlive a harness: they are nobody else's to remove then."""
    name = door(owner).replace("\0", "@")
    with open("/proc/net/unix") as sockets:
        return any(line.endswith(f" {name}\n") for line in sockets)


def _continue(api: Any, owner: str) -> None:
    """What a harness had paused when it was killed."""
    import docker.errors

    for container in api.containers(filters={"label": f"{LABEL}={owner}", "status": "paused"}, quiet=True):
        with contextlib.suppress(docker.errors.APIError):
            api.unpause(container["Id"])


class _Watch:
    """Over one harness after another. `line`: where it reads what they say; `out`: where it answers."""

    def __init__(self, owner: str) -> None:
        self.owner, self.line, self.out = owner, 0, 1
        self.outlives_s = 0.0
        self._door: socket.socket | None = None
        self._to_ryuk: socket.socket | None = None

    def until_it_goes(self, harness: int | None) -> bytes:
        """Does what a harness asks for until it ends, or closes its line; what it said at last. `harness`: its pidfd."""
        poll = select.poll()
        for descriptor in (self.line, harness):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN | select.POLLHUP)
        pending = b""
        while True:
            ready = dict(poll.poll())
            if self.line not in ready:
                return b""
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = os.read(self.line, 4096)
            if not data:
                if self.outlives_s and harness is not None and not _ends(harness):
                    self.outlives_s = 0.0  # it lives, and has closed the line: it wants no more of us
                return b""
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line + b"\n" == ALL_DONE:
                    return ALL_DONE
                _, seconds, port = line.split()
                self._answer(self._outlive(float(seconds), int(port)))

    def _outlive(self, seconds: float, ryuks_port: int) -> bytes:
        from harness.backends import keeper, ryuk

        try:
            if seconds and self._door is None:
                self._door = keeper.listening(door(self.owner))
            if seconds and ryuks_port and self._to_ryuk is None:
                self._to_ryuk = ryuk.hand_over(ryuks_port, self.owner, lambda: False)
        except Exception as error:  # the harness is told, and goes on as if nothing had been asked for
            return f"{error}\n".encode()
        self.outlives_s = seconds
        return READY

    def _answer(self, said: bytes) -> None:
        with contextlib.suppress(OSError):  # it has gone; the main loop is about to see it
            os.write(self.out, said)

    def successor(self, api: Any) -> int | None:
        """Waits for the next harness: its pidfd, or None if nobody came in time."""
        assert self._door is not None
        with contextlib.suppress(Exception):  # the daemon may be away; who joins a container continues it, too
            _continue(api, self.owner)
        deadline = time.monotonic() + self.outlives_s
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._door], [], [], left)[0]:
                return None
            came, _ = self._door.accept()
            pid, user, _ = struct.unpack("3i", came.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            try:
                if user != os.getuid():
                    raise PermissionError
                harness = os.pidfd_open(pid)
            except OSError:  # it has ended again, or is somebody else's
                came.close()
                continue
            os.close(self.line)
            self.line = self.out = came.detach()
            self._answer(READY)
            return harness
        return None

    def close(self) -> None:
        """Nobody is let in any more, and Ryuk may remove what is left."""
        for held in (self._door, self._to_ryuk):
            if held is not None:
                held.close()


def _ends(harness: int) -> bool:
    from harness.backends import keeper  # what it says of a harness that is killed is as true here

    return keeper.ends(harness)


def main() -> None:
    owner, parent = sys.argv[1], int(sys.argv[2])
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    import docker

    api = docker.from_env(timeout=30).api
    harness: int | None = None
    with contextlib.suppress(ProcessLookupError):
        harness = os.pidfd_open(parent)
    os.write(1, READY)
    # It may outlive the harness while the daemon is away, and whoever reads the harness's output waits for its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    watch = _Watch(owner)
    while watch.until_it_goes(harness) != ALL_DONE:
        harness = watch.successor(api) if watch.outlives_s else None
        if harness is None:
            break
    else:
        return
    watch.close()
    _sweep_until_nothing_comes(api, owner)


def _sweep_until_nothing_comes(api: Any, owner: str) -> None:
    empty, deadline = 0, time.monotonic() + 120
    while empty < EMPTY_SWEEPS and time.monotonic() < deadline:
        try:
            empty = empty + 1 if sweep(api, owner) == 0 else 0
        except Exception:  # the daemon may be busy or away for a moment; nobody is left to tell
            empty = 0
        time.sleep(0.25)


if __name__ == "__main__":
    main()
