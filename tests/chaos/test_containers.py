"""What only containers can suffer, and that both backends come to the same verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assertions import content, duplicate_rate, no_loss
from examples.orders.pipeline import pricing
from faults import disconnect, kill, out_of_memory, partition, pause, throttle
from harness.backends import docker, images
from harness.pytest_plugin import Gauntlet
from harness.scenario import Scenario
from harness.session import Session
from harness.topology import UsageError
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).resolve().parents[2]
EXACT = (no_loss(), content(), duplicate_rate("aggregates", most=0.0))


@pytest.fixture(scope="module")
def in_docker() -> Iterator[Session]:
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")
    with Session("docker") as session:
        yield session


@pytest.fixture
def containers(in_docker: Session, gauntlet_out: Path, request: pytest.FixtureRequest) -> Gauntlet:
    return Gauntlet(in_docker, gauntlet_out, request.node.name, None)


def test_a_worker_that_runs_out_of_memory_loses_nothing(containers: Gauntlet) -> None:
    run = containers.run(kappa, Steady(rate=1500, seconds=10), [out_of_memory("aggregator").at(3)])
    run.check(*EXACT)
    ends = [r for r in _history(run.folder) if r["kind"] == "worker-exit" and r["worker"] == "aggregator"]
    assert next((r["status"], r.get("oom_killed"), r["asked"]) for r in ends) == (-9, True, True)


def test_a_disconnected_and_a_throttled_worker_lose_nothing(containers: Gauntlet) -> None:
    faults = [throttle("aggregator", cpus=0.1).at(2).lasting(3), disconnect("converter").at(7).lasting(3)]
    containers.run(kappa, Steady(rate=1500, seconds=13), faults).check(*EXACT)


def test_a_kill_in_a_container_is_no_want_of_memory(containers: Gauntlet) -> None:
    """Both end with status 137; the container's state tells them apart."""
    run = containers.run(kappa, Steady(rate=1500, seconds=8), [kill("converter").at(3)])
    run.check(*EXACT)
    ends = [r for r in _history(run.folder) if r["kind"] == "worker-exit" and r["worker"] == "converter"]
    assert next((r["status"], r.get("oom_killed")) for r in ends) == (-9, None)


def test_both_backends_come_to_the_same(in_docker: Session, gauntlet_out: Path) -> None:
    """The same seed: as many events, the same verdict, findings of the same names."""
    faults = (partition("aggregator->bigtable").at(2).lasting(1.5), kill("converter").at(5))
    scenario = Scenario("both", kappa, Steady(rate=1000, seconds=8), faults, EXACT, seed=23)
    with Session("process") as on_processes:
        runs = [session.run(scenario, gauntlet_out).verdict for session in (in_docker, on_processes)]
    assert [v["backend"] for v in runs] == ["docker", "process"]
    told = [(v["verdict"], v["events"], [f["assertion"] for f in v["findings"]]) for v in runs]
    assert told[0] == told[1]
    assert told[0][0] == "pass"


def test_a_worker_of_another_kind_runs_in_an_image_of_its_own(in_docker: Session, containers: Gauntlet) -> None:
    """Shell, Perl and Python of the shop, built by the Dockerfile that docs/containers.md shows."""
    daemon = docker.client()
    in_docker.prepare(kappa)  # its workers' image has Python and confluent-kafka, should nothing be had from outside
    base = {"BASE": images.worker_ref()}
    (image,) = {w.image for w in pricing.workers}
    daemon.images.build(path=str(ROOT / "examples" / "orders"), tag=image, buildargs=base, rm=True)
    try:
        run = containers.run(
            pricing, Steady(rate=400, seconds=8), [kill("enrich").at(2.5), pause("enrich").at(5).lasting(1)]
        )
        run.check(no_loss(), content(), duplicate_rate("priced", most=0.5))
    finally:
        daemon.images.remove(image, force=True)


@pytest.mark.parametrize("fault", [disconnect("converter"), throttle("converter"), out_of_memory("converter")])
def test_what_only_containers_can_suffer_is_refused_to_processes(gauntlet_out: Path, fault: object) -> None:
    scenario = Scenario("x", kappa, Steady(rate=100, seconds=4), (fault,))  # type: ignore[arg-type]
    with Session("process") as session, pytest.raises(UsageError, match="needs --backend docker; this run is as proc"):
        session.run(scenario, gauntlet_out)


def _history(folder: Path) -> list[dict]:
    import json

    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
