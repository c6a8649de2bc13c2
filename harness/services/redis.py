"""Redis: a real server, of Redis or Valkey; a cache in front of a serving layer, which a kill need not empty.

Durable means that every write is appended to a file before it is answered (AOF); the file is forced to the disk once a
second, so what a lost machine would take with it, a killed process does not. Measured: all of it is there after a
SIGKILL, and nothing without the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.backends.base import Child, Site
from harness.errors import HarnessFault
from harness.services.base import ServiceExit, answer_to, wait_until_up
from harness.topology import Link, Redis

DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec")


class RedisServer:
    """`names` are what a run's keys begin with; everything under them is removed with the run."""

    def __init__(self, service: Redis, site: Site, on_exit: ServiceExit) -> None:
        self.name, self.service = service.name, service
        self._site, self._on_exit = site, on_exit
        self._log = site.folder / "logs" / f"{service.name}.log"
        self._port = site.port(self.name, "direct")
        self.direct, self.inside = site.direct(self.name, self._port), self._port.reach
        self.children: dict[str, Child] = {}

    def start(self, process: str = "") -> None:
        child = self._site.start_emulator(
            self.name,
            "redis",
            self._port,
            self.log(),
            on_exit=lambda e: self._on_exit(self.name, e),
            args=DURABLE if self.service.durable else (),
        )
        self.children = {self.name: child} if child is not None else {}

    def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        wait_until_up(self, self._site, lambda: probe(self.direct, 1.0) >= 0, timeout_s)

    def log(self, process: str = "") -> Path:
        return self._log

    def upstreams(self, link: Link) -> list[str]:
        return [self._port.reach]

    def names(self, run: str) -> dict[str, str]:
        return {prefix: f"{prefix}:{run}:" for prefix in self.service.prefixes}

    def make(self, names: Mapping[str, str]) -> None:
        """A key is made by who writes it."""

    def remove(self, names: Mapping[str, str]) -> None:
        with self._client() as client:
            for name in names.values():
                _remove(client, f"{name}*")

    def sweep(self, run: str) -> None:
        with self._client() as client:
            _remove(client, f"*:{run}:*")

    def _client(self) -> Any:
        import redis

        host, port = self.direct.split(":")
        return redis.Redis(host, int(port), socket_timeout=20, socket_connect_timeout=5)


def _remove(client: Any, pattern: str) -> None:
    """A thousand keys at a time, so that the server answers others meanwhile."""
    keys: list[bytes] = []
    for key in client.scan_iter(match=pattern, count=1000):
        keys.append(key)
        if len(keys) == 1000:
            client.unlink(*keys)
            keys = []
    if keys:
        client.unlink(*keys)


def probe(address: str, timeout_s: float = 5.0) -> float:
    """Seconds that a Redis takes to answer PING on a fresh connection; one that still reads its file does not."""
    took, answer = answer_to(b"PING\r\n", address, b"\n", timeout_s)
    if not answer.startswith(b"+PONG"):
        raise HarnessFault(f"{address} answered {answer!r} to PING")
    return took
