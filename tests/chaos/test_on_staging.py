"""On services that are there already: the same verdict as on our own, and never a pass on a service that fell silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from staging import Staging

from assertions import content, duplicate_rate, no_loss
from faults import kill, kill_broker, partition, pause
from harness.scenario import Scenario
from harness.session import Session
from harness.topology import UsageError
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

pytestmark = [pytest.mark.chaos, pytest.mark.longer]

EXACT = (no_loss(), content(), duplicate_rate("aggregates", most=0.0))


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:
    made = Staging(tmp_path_factory.mktemp("staging"))
    yield made
    made.close()


def scenario(*faults: object) -> Scenario:
    return Scenario("on-staging", kappa, Steady(rate=1000, seconds=9), faults, EXACT, seed=29)  # type: ignore[arg-type]


def test_the_same_verdict_as_on_services_of_our_own(staging: Staging, gauntlet_out: Path) -> None:
    faults = (kill("converter").at(2), partition("preprocessor->kafka").at(4).lasting(1.5), pause("aggregator").at(7))
    with Session("external", staging.endpoints) as session:
        verdict = session.run(scenario(*faults), gauntlet_out).verdict
    assert verdict["verdict"] == "pass", [f for f in verdict["findings"] if f["verdict"] != "pass"]
    assert [f["bit"] for f in verdict["faults"]] == [True, True, True]
    assert verdict["backend"] == "external"


def test_a_service_that_dies_in_the_middle_makes_the_run_inconclusive(staging: Staging, gauntlet_out: Path) -> None:
    """Nobody sees its process; that it fell silent is seen, and what it may have lost is not the pipeline's loss."""

    def fall() -> None:
        time.sleep(3)
        staging.kill_kafka()
        time.sleep(1.5)
        staging.start_kafka()

    falling = threading.Thread(target=fall)

    def listen(record: dict[str, Any]) -> None:
        if (record["kind"], record.get("stage")) == ("stage", "load"):
            falling.start()

    with Session("external", staging.endpoints) as session:
        verdict = session.run(scenario(), gauntlet_out, [listen]).verdict
    falling.join()
    assert verdict["verdict"] == "inconclusive"
    alive = next(f for f in verdict["findings"] if f["assertion"] == "services_alive")
    assert alive["verdict"] == "inconclusive"
    assert "the service kafka did not answer" in alive["summary"]


def test_what_cannot_be_done_is_refused_before_anything_starts(staging: Staging, gauntlet_out: Path) -> None:
    with Session("external", staging.endpoints) as session:
        with pytest.raises(
            UsageError, match="kill_broker kafka at 2 s cannot be done as processes, on the services of"
        ):
            session.run(scenario(kill_broker("kafka").at(2)), gauntlet_out)
        assert not session._stacks
