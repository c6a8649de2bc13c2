"""What a site leaves written, by which another harness finds all of it again should this one be killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class OutlivedProcesses:
    """A site whose processes run already: its folder, and where all that belongs to it listens (the proxies of its links by name,
    Toxiproxy itself, and whatever `Site.port` gave)."""

    folder: str
    doors: Mapping[str, int]
    api: int
    taken: Sequence[tuple[str, str, int]]


@dataclass(frozen=True)
class OutlivedContainers:
    """A site whose containers run already: its folder, whose they are (the label of all of them), Ryuk's port on loopback (0:
    there is none), their network, whatever `Site.port` gave, and the volume behind each folder that workers share."""

    folder: str
    owner: str
    ryuk: int
    network: str
    ports: Sequence[tuple[str, str, int]]
    shared: Mapping[str, str]


Outlived = OutlivedProcesses | OutlivedContainers
#: By the name of the backend.
OUTLIVED: Mapping[str, type[OutlivedProcesses] | type[OutlivedContainers]] = {
    "process": OutlivedProcesses,
    "docker": OutlivedContainers,
}
