"""The old world: what the Lambda pipeline keeps and what it loses, and Twitter's evaluation of the new one against it."""

from __future__ import annotations

import json

import pytest

from assertions import duplicate_rate, no_loss, recovery
from faults import kill, kill_service, partition
from harness import catalog
from harness.backends import docker
from harness.provision import hadoop
from harness.provision.java import find_older_java
from harness.provision.programs import ProvisionError
from harness.provision.search import Search
from harness.pytest_plugin import Gauntlet
from load.profiles import Steady
from pipelines_under_test.legacy.pipeline import legacy, legacy_hdfs

pytestmark = [pytest.mark.chaos, pytest.mark.longer]


def test_the_old_loses_what_the_new_does_not(gauntlet: Gauntlet) -> None:
    runs = gauntlet.side_by_side("old-against-new").check()
    old, new = catalog.OLD.name, catalog.NEW.name
    lost = runs.figures("lost")
    assert lost[new] == 0 < lost[old]
    assert runs.figures("restarts") == {old: 4, new: 4}
    parity = runs.figures("parity")
    assert parity[new] > max(95, parity[old])
    wrong = runs.figures("wrong")
    assert wrong[new] == 0 < wrong[old]
    assert runs.figures("left_out_late")[new] == 0
    spikes = runs.figures("steady_p99_s")
    assert spikes[new] < 3.5 < spikes[old], "in a burst of load, with nothing broken"
    for key in ("latency_p50_s", "under_fault_p99_s", "carried_per_s"):
        assert all(value > 0 for value in runs.figures(key).values()), key
    for run in runs.verdict["runs"]:
        assert (
            json.loads((runs.folder / run["run"].rsplit("/", 1)[1] / "verdict.json").read_text())["verdict"] == "pass"
        )


def test_what_is_landed_batched_and_served_survives_kills(gauntlet: Gauntlet) -> None:
    """The batch job in the middle of a version: what is served is the old one or the new, and never a part."""
    gauntlet.scenario("batch-layer").check()


def test_raw_logs_in_hdfs_survive_the_kills_of_its_processes(gauntlet: Gauntlet, pytestconfig: pytest.Config) -> None:
    """Of the DataNode that is written to, and of the NameNode that knows what was written."""
    if pytestconfig.getoption("--gauntlet-backend") == "docker":
        pytest.skip(docker.cannot_hold(legacy_hdfs))
    try:
        find_older_java(Search(), hadoop.MOST_JAVA)
    except ProvisionError as missing:
        pytest.skip(f"no Java that Hadoop runs on: {missing}")
    gauntlet.scenario("legacy-hdfs").check()


def test_load_above_the_speed_layers_capacity_makes_it_slow_and_then_lose(gauntlet: Gauntlet) -> None:
    run = gauntlet.scenario("speed-overload").check()
    crashes = run.finding("recovery")["figures"]["crashes"]
    assert crashes >= 1, "its stream manager died by itself"
    assert run.finding("no_loss")["figures"]["sink"]["short_events"] > 1000


def test_a_killed_and_cut_off_cache_costs_what_was_on_its_way_and_doubles_nothing(gauntlet: Gauntlet) -> None:
    """Redis keeps what it has counted; a batch of each bolt is lost, since nobody knows whether it arrived."""
    run = gauntlet.run(
        legacy,
        Steady(rate=1000, seconds=9),
        [
            kill_service("redis").at(2.5).lasting(0.5),
            partition("speed->redis").at(5).lasting(1),
            kill("query").at(7.5),
        ],
    )
    verdict = run.judge(duplicate_rate("counts", most=0), recovery(), no_loss())
    told = {f["assertion"]: f["verdict"] for f in verdict["findings"]}
    assert told.pop("no_loss") in ("pass", "violation")
    assert set(told.values()) == {"pass"}, [f["summary"] for f in verdict["findings"]]
    outages, bolts, per_trip = 2, 2, 500  # see `legacy.speed`
    assert run.finding("no_loss")["figures"]["sink"]["short_events"] <= outages * bolts * per_trip, (
        "what each bolt had on its way, and never the counts"
    )
