"""The peers that we are measured beside do what they are measured for."""

from __future__ import annotations

import pytest

from benchmarks import start
from harness.backends import docker


@pytest.fixture
def needs_docker() -> None:
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")


@pytest.mark.usefixtures("needs_docker")
def test_testcontainers_starts_our_kafka_in_docker_and_a_client_reaches_it() -> None:
    benchmark = start.benchmark()
    assert benchmark.peer in [side.name for side in benchmark.sides]
    assert start.peer() > 0
