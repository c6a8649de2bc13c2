"""Ryuk, the reaper of the testcontainers projects, beside our own: a container that removes what a dead harness left.

Our own reaper is a process of this machine. It acts at once, but whoever kills a whole process tree or cgroup (a CI
job that is cancelled) takes it along; Ryuk lives in the daemon and outlives that. It acts ten seconds later
(RYUK_RECONNECTION_TIMEOUT), which is why it is not the only one. It is taken where it costs nothing to have: where its
image is on this machine (RYUK_CONTAINER_IMAGE, or the one that testcontainers pins), where the daemon's socket can be
mounted, and unless TESTCONTAINERS_RYUK_DISABLED says no.

The class `Reaper` of testcontainers is not used: it publishes Ryuk's port on every interface, where anyone who reaches
this machine can have containers removed; it does not wait for Ryuk's word that it has the filter; and it is one a
process, by a label that the process's other containers share, while each `Containers` here begins and ends by itself.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from harness.backends import reaper
from harness.errors import HarnessFault

PORT = 8080
SOCKET = "/var/run/docker.sock"
#: Ryuk listens after some 0.3 s; a machine that is busy with a first start takes longer.
READY_WITHIN_S = 30.0


@functools.cache
def disabled() -> bool:
    """Whether the user switched it off. Asked before we tell testcontainers to start none by itself."""
    from testcontainers.core.config import testcontainers_config

    return testcontainers_config.ryuk_disabled


def image() -> str:
    from testcontainers.core.config import testcontainers_config

    return testcontainers_config.ryuk_image


def why_not(daemon: Any) -> str | None:
    """Why Ryuk cannot watch here; None if it can. Pulls nothing."""
    import docker.errors

    if disabled():
        return "TESTCONTAINERS_RYUK_DISABLED (or ryuk.disabled in ~/.testcontainers.properties) switches it off"
    try:
        daemon.api.inspect_image(image())
    except docker.errors.ImageNotFound:
        return f"the image {image()} is not on this machine"
    if not _mountable():
        return (
            "the daemon is not reached by a socket; TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE can name one of its machine"
        )
    return None


def _mountable() -> str:
    """The path of the daemon's socket on the daemon's machine, or ""."""
    from testcontainers.core.config import get_docker_socket

    named = os.environ.get("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE")
    by_socket = os.environ.get("DOCKER_HOST", "").startswith(("unix://", "http+unix://"))
    return named or (get_docker_socket() if by_socket else "")


def start(owner: str) -> int:
    """Makes Ryuk's container; its port on loopback. It watches nothing until `hand_over`.

    Raises HarnessFault, and what docker and testcontainers raise.
    """
    from docker.types import Mount
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    made = DockerContainer(
        image(),
        docker_client_kw={"timeout": 60},
        env={"RYUK_RECONNECTION_TIMEOUT": testcontainers_config.ryuk_reconnection_timeout},
        # Not the owner's: Ryuk would remove itself before it has done all, and so would our own reaper.
        labels={reaper.RYUK: owner},
        # A bind that fails where there is no such file; a volume would make a folder of that name.
        mounts=[Mount(SOCKET, _mountable(), type="bind")],
        privileged=testcontainers_config.ryuk_privileged,
        auto_remove=True,
    )
    made.ports[f"{PORT}/tcp"] = ("127.0.0.1",)  # type: ignore[assignment]
    made.start()
    container = made.get_wrapped_container()
    container.reload()
    published = container.ports.get(f"{PORT}/tcp")
    if not published:
        raise HarnessFault(f"{image()} ended at its start")
    return int(published[0]["HostPort"])


def hand_over(port: int, owner: str, given_up: Callable[[], bool]) -> socket.socket | None:
    """Tells Ryuk what to remove once this connection is gone; returns it when Ryuk has said that it knows.

    None if it was given up. Raises HarnessFault.
    """
    line = f"label={quote(f'{reaper.LABEL}={owner}', safe='')}\n".encode()
    deadline = time.monotonic() + READY_WITHIN_S
    reason = "it answers nothing"
    while not given_up():
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=2)
        except OSError as error:
            reason = str(error)
        else:
            # Docker's own proxy accepts before Ryuk listens: only its answer proves that it is there.
            if _acknowledged(connection, line):
                connection.settimeout(None)
                return connection
            connection.close()
        if time.monotonic() > deadline:
            raise HarnessFault(f"Ryuk ({image()}) did not acknowledge what to remove: {reason}")
        time.sleep(0.05)
    return None


def _acknowledged(connection: socket.socket, line: bytes) -> bool:
    try:
        connection.sendall(line)
        return connection.recv(16).startswith(b"ACK")
    except OSError:
        return False
