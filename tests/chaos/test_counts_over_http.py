"""A pipeline whose counts lie in Redis and are answered by a worker of its own."""

from __future__ import annotations

import pytest
from served import served

from assertions import duplicate_rate, latency, no_loss, recovery
from faults import kill, kill_service, partition
from harness.backends import docker
from harness.pytest_plugin import Gauntlet
from load.profiles import Steady

pytestmark = pytest.mark.chaos


@pytest.fixture(autouse=True)
def _where_it_can_live(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--gauntlet-backend") == "docker" and (reason := docker.cannot_hold(served)):
        pytest.skip(reason)


def test_counts_in_redis_outlive_its_kill_and_that_of_the_worker_that_answers_for_them(gauntlet: Gauntlet) -> None:
    """And what is answered is read whole after every other worker has stopped."""
    run = gauntlet.run(
        served,
        Steady(rate=500, seconds=10, share_poison=0),
        [
            kill("ask").at(2),
            kill_service("cache").at(4).lasting(0.5),
            partition("count->cache").at(6.5).lasting(1),
            kill("count").at(8.5),
        ],
    )
    run.check(no_loss(), duplicate_rate("counted", most=0), latency(), recovery())
    figures = run.finding("latency")["figures"]
    assert (figures["hop"], figures["at_sink"]) == ("counted", True)
    assert figures["events"] > 1000, "those that are alone in their cell"
    assert figures["steady"]["p50_s"] < 3
