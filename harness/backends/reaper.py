"""The reaper: removes every container, network and volume of a harness that has gone, however it went.

It runs as a process of its own (`python reaper.py OWNER PID`), says "ready" before the harness creates anything, and
waits for the end of its input or of the process PID: a pipe alone fails where a forked child of the harness holds it.
Creates that were under way may land after the first sweep, so it sweeps until four in a row find nothing.

It needs no image and acts at once, so it watches everywhere. Where it can be had, Ryuk watches beside it (see ryuk.py):
that one is slower, and survives when this one is killed together with the harness.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
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


def main() -> None:
    owner, harness = sys.argv[1], int(sys.argv[2])
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    import docker

    api = docker.from_env(timeout=30).api
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    with contextlib.suppress(ProcessLookupError):
        poll.register(os.pidfd_open(harness), select.POLLIN)
    os.write(1, b"ready\n")
    # It may outlive the harness while the daemon is away, and whoever reads the harness's output waits for its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    told = poll.poll()
    if any(fd == 0 for fd, _ in told) and os.read(0, 16) == ALL_DONE:
        return
    empty, deadline = 0, time.monotonic() + 120
    while empty < EMPTY_SWEEPS and time.monotonic() < deadline:
        try:
            empty = empty + 1 if sweep(api, owner) == 0 else 0
        except Exception:  # the daemon may be busy or away for a moment; nobody is left to tell
            empty = 0
        time.sleep(0.25)


if __name__ == "__main__":
    main()
