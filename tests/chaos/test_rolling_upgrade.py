"""Every worker of the reference pipeline in another version for a while, old and new side by side: exact."""

from __future__ import annotations

import pytest

from faults import kill, upgrade
from harness import catalog
from harness.pytest_plugin import Gauntlet
from harness.store import SavedRun
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

pytestmark = pytest.mark.chaos


def test_a_rolling_upgrade_and_its_rollback_lose_and_double_nothing(gauntlet: Gauntlet) -> None:
    run = gauntlet.scenario(catalog.scenario("rolling-upgrade")).check()
    assert [proof["bit"] for proof in run.verdict["faults"]] == [True] * 4
    starts = SavedRun.load(run.folder).of_kind("worker-start")
    versions = {(r["worker"], r["version"].split(".")[1].split("=")[0]) for r in starts if "version" in r}
    assert versions == {("preprocessor", "RELEASE"), ("converter", "RELEASE"), ("aggregator", "RELEASE")}
    assert (run.folder / "logs" / "aggregator.new.log").read_text().count("release 2") == 1


@pytest.mark.longer
def test_an_upgraded_worker_that_is_killed_comes_back_in_its_version(gauntlet: Gauntlet) -> None:
    faults = [
        upgrade("converter", to={"env": {"RELEASE": "2"}}).at(2).lasting(10),
        kill("converter").at(10),
    ]
    run = gauntlet.run(kappa, Steady(rate=1000, seconds=26), faults)
    run.check(*catalog.claims(kappa))
    assert (run.folder / "logs" / "converter.new.log").read_text().count("release 2") == 2


@pytest.mark.longer
def test_a_version_that_dies_at_its_start_is_no_pass(gauntlet: Gauntlet) -> None:
    broken = upgrade("converter", to={"command": ["sh", "-c", "exit 3"]}).at(2)
    run = gauntlet.run(kappa, Steady(rate=1000, seconds=8), [broken])
    verdict = run.judge(*catalog.claims(kappa))
    assert verdict["verdict"] == "inconclusive"
    assert "came up and stayed (deaths: 3, the last with status 3)" in str(verdict["faults"])
