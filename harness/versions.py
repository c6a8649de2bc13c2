"""Which versions a run ran with: kept in run.json, shown in the report."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

_PACKAGES = (
    "apache-beam",
    "confluent-kafka",
    "gauntlet-harness",
    "google-cloud-bigquery",
    "google-cloud-pubsub",
    "locust",
    "polars",
    "toxiproxy-python",
)


def of_programs(programs: Any) -> dict[str, str]:
    """The services' programs, and where each came from."""
    return {
        name: f"{program.version} ({program.origin})"
        for name in ("kafka", "toxiproxy", "pubsub", "bigtable", "bigquery", "redis", "hadoop")
        if (program := getattr(programs, name, None)) is not None
    }


def of_packages() -> dict[str, str]:
    """This package and those that the figures depend on, then Python and the machine."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "machine": platform.platform()}
