"""What can be done to one worker's container beside starting and ending it (see faults.base.Container)."""

from __future__ import annotations

import contextlib
from typing import Any

import docker.errors

from harness.backends.base import Footprint
from harness.backends.docker import asking
from harness.errors import HarnessFault

_PERIOD_US = 100_000
#: "No limit" in words that `docker update` takes: more than any machine has.
_ALL_MEMORY = 1 << 42


class WorkerContainer:
    def __init__(self, api: Any, container: str, network: str, alias: str) -> None:
        self._api, self._container, self._network, self._alias = api, container, network, alias

    @asking()
    def disconnect(self) -> None:
        self._api.disconnect_container_from_network(self._container, self._network)
        if self.connected():
            raise HarnessFault(f"the daemon did not take {self._alias} off its network")

    @asking()
    def connect(self) -> None:
        """With its alias, which the daemon forgets."""
        if not self.connected():
            self._api.connect_container_to_network(self._container, self._network, aliases=[self._alias])

    @asking()
    def connected(self) -> bool:
        networks = self._inspect()["NetworkSettings"]["Networks"]
        return any(n["NetworkID"] == self._network for n in networks.values())

    @asking()
    def limit_cpus(self, cpus: float | None) -> None:
        quota = -1 if cpus is None else int(cpus * _PERIOD_US)
        self._api.update_container(self._container, cpu_period=_PERIOD_US, cpu_quota=quota)
        if self._inspect()["HostConfig"]["CpuQuota"] != quota:
            raise HarnessFault(f"the daemon did not set the processor's share of {self._alias}")

    def heal(self) -> None:
        """Of whatever is done here, and was left so."""
        self.connect()
        with asking():
            limits = self._inspect()["HostConfig"]
        if limits["CpuQuota"] > 0:
            self.limit_cpus(None)
        if 0 < limits["Memory"] < _ALL_MEMORY:
            self.limit_memory(None)

    @asking()
    def throttled_periods(self) -> int:
        return int(self._stats()["cpu_stats"]["throttling_data"]["throttled_periods"])

    @asking()
    def limit_memory(self, limit: int | None) -> None:
        wanted = _ALL_MEMORY if limit is None else limit
        self._api.update_container(self._container, mem_limit=wanted, memswap_limit=-1 if limit is None else wanted)
        if self._inspect()["HostConfig"]["Memory"] != wanted:
            raise HarnessFault(f"the daemon did not set the memory of {self._alias}")

    @asking()
    def memory(self) -> int:
        found = self._stats()["memory_stats"]
        detail = found.get("stats", {})
        # cgroup v2 and v1 name the page cache that can be dropped differently.
        cache = detail.get("inactive_file", 0) + detail.get("active_file", 0) or detail.get("cache", 0)
        return int(found["usage"]) - int(cache)

    def footprint(self) -> Footprint:
        memory, files = None, None
        with contextlib.suppress(HarnessFault, KeyError):  # it has ended, or the daemon has
            memory = self.memory()
            files = self._open_files()
        return Footprint(memory, files)

    @asking()
    def _open_files(self) -> int | None:
        """Counted by a shell inside, because nobody but root may look from outside; None where the image has none."""
        count = ["sh", "-c", "set -- /proc/[0-9]*/fd/*; echo $#"]  # by names alone: not every `ls` may follow them
        made = self._api.exec_create(self._container, count, user="0", stderr=False)
        said = self._api.exec_start(made["Id"]).strip()
        return int(said) if said.isdigit() and int(said) > 0 else None

    @asking()
    def hog(self) -> None:
        with contextlib.suppress(docker.errors.APIError):  # the container may die of it before the call is answered
            made = self._api.exec_create(self._container, ["tail", "/dev/zero"], user="0")
            self._api.exec_start(made["Id"], detach=True)

    def _inspect(self) -> Any:
        return self._api.inspect_container(self._container)

    def _stats(self) -> Any:
        return self._api.stats(self._container, stream=False, one_shot=True)
