"""A pipeline that is not ours in kind, through the documented interface alone: shell, Perl, plain Python, SQLite."""

from __future__ import annotations

import pytest

from assertions import content, duplicate_rate, no_loss, recovery
from examples.orders.pipeline import hasty_orders, orders
from faults import kill, partition, pause
from harness.backends import docker
from harness.pytest_plugin import Gauntlet, Violation
from load.profiles import Steady

pytestmark = pytest.mark.chaos

LOAD = Steady(rate=400, seconds=8)
EXACT = (no_loss(), content(), duplicate_rate("sales", most=0), recovery())


@pytest.fixture(autouse=True)
def _where_it_can_live(pytestconfig: pytest.Config) -> None:
    """`auto` takes processes by itself; where containers were asked for, the summary says why there are none."""
    if pytestconfig.getoption("--gauntlet-backend") == "docker" and (reason := docker.cannot_hold(orders)):
        pytest.skip(reason)


def test_the_shop_counts_every_order_once_under_kills_and_a_partition(gauntlet: Gauntlet) -> None:
    run = gauntlet.run(
        orders,
        LOAD,
        # In this order, the workers under the next fault are at work, and no fault starves the one after it.
        [partition("counter->kafka").at(2).lasting(1.5), kill("counter").at(5.5), kill("enrich").at(7)],
    )
    run.check(*EXACT)


def test_orders_that_are_committed_before_they_are_counted_are_lost(gauntlet: Gauntlet) -> None:
    run = gauntlet.run(hasty_orders, LOAD, [kill("counter").at(t) for t in (2.3, 4.1, 6.2)])
    with pytest.raises(Violation, match="no_loss"):
        run.check(*EXACT)


def test_a_pause_of_the_shops_script_stops_all_of_its_processes(gauntlet: Gauntlet) -> None:
    """The worker is a shell with three children; they are one group, as in a container."""
    run = gauntlet.run(orders, LOAD, [pause("enrich").at(3).lasting(2)])
    run.check(*EXACT)
