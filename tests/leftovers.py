"""What a harness has in the Docker daemon, by the label that everything of it carries."""

from __future__ import annotations

from typing import Any

from harness.backends import docker


def in_docker(pid: int) -> list[str]:
    """Containers, networks and volumes of the harness whose process this is or was."""
    api: Any = docker.client().api
    label = {"label": docker.LABEL}
    found = [(c["Id"], c["Labels"]) for c in api.containers(all=True, filters=label)]
    found += [(n["Id"], n["Labels"]) for n in api.networks(filters=label)]
    found += [(v["Name"], v["Labels"]) for v in api.volumes(filters=label).get("Volumes") or []]
    return [name for name, labels in found if f"/{pid}/" in labels[docker.LABEL]]


def volumes() -> set[str]:
    """All there are: an image can make some that carry no label."""
    return {v["Name"] for v in docker.client().api.volumes().get("Volumes") or []}
