"""The reference pipeline under each kind of fault: nothing lost, nothing doubled at the sink, parity as computed."""

from __future__ import annotations

import pytest

from assertions import batch_parity, content, duplicate_rate, latency, no_loss, recovery
from faults import (
    bandwidth,
    black_hole,
    kill,
    kill_broker,
    lose_acks,
    partition,
    pause,
    redeliver,
    reset_connections,
    terminate,
)
from faults import latency as delay
from harness import catalog
from harness.pytest_plugin import Gauntlet
from harness.store import SavedRun
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

pytestmark = pytest.mark.chaos

LOAD = Steady(rate=1500, seconds=9)
EXACT = (
    no_loss(),
    content(),
    duplicate_rate("source", most=0),
    duplicate_rate("aggregates", most=0),
    batch_parity(least=0.95),
    recovery(),
)


@pytest.mark.parametrize("worker", ["preprocessor", "converter", "aggregator"])
def test_a_killed_worker_loses_nothing(gauntlet: Gauntlet, worker: str) -> None:
    """The second time as soon as it is at work again, however long this machine takes for that."""
    run = gauntlet.run(kappa, LOAD, [kill(worker).at(2), kill(worker).at(2.1)])
    run.check(*EXACT)
    assert any("was put off" in str(record["text"]) for record in SavedRun.load(run.folder).of_kind("note"))


def test_a_killed_broker_loses_nothing(gauntlet: Gauntlet) -> None:
    run = gauntlet.run(kappa, LOAD, [kill_broker("kafka").at(3).lasting(1)])
    run.check(*EXACT)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("load->kafka", "aggregator->pubsub"),
        ("preprocessor->kafka", "aggregator->bigtable"),
        ("converter->kafka", "converter->pubsub"),
    ],
)
def test_a_partitioned_link_loses_nothing(gauntlet: Gauntlet, first: str, second: str) -> None:
    """Every link of the pipeline once, two a run, one after the other."""
    run = gauntlet.run(kappa, LOAD, [partition(first).at(2).lasting(1.5), partition(second).at(6.5).lasting(1.5)])
    run.check(*EXACT)


def test_lost_acknowledgements_of_publishes_double_messages_and_no_counts(gauntlet: Gauntlet) -> None:
    run = gauntlet.run(kappa, LOAD, [lose_acks("converter->pubsub", pulse_ms=80, every_ms=400).at(1.5).lasting(6)])
    run.check(*EXACT, duplicate_rate("published", least=0.002, most=0.5))


@pytest.mark.longer
def test_lost_acknowledgements_of_writes_to_the_sink_double_no_counts(gauntlet: Gauntlet) -> None:
    """A count that is incremented blindly is too high here; see the mutant blind-increment."""
    load = Steady(rate=1500, seconds=9, tweets=300, share_late=0.0005)
    run = gauntlet.run(kappa, load, [lose_acks("aggregator->bigtable", pulse_ms=100, every_ms=350).at(1.5).lasting(6)])
    run.check(*EXACT)


@pytest.mark.longer
def test_a_black_hole_of_twelve_seconds_before_the_sink_loses_nothing(gauntlet: Gauntlet) -> None:
    """Longer than any acknowledgement deadline: what waits is held all the while, by leases that are renewed."""
    load = Steady(rate=1000, seconds=16)
    run = gauntlet.run(kappa, load, [black_hole("aggregator->bigtable").at(2.5).lasting(12)])
    run.check(*EXACT)


def test_a_pause_longer_than_every_lease_loses_nothing(gauntlet: Gauntlet) -> None:
    run = gauntlet.run(kappa, Steady(rate=1000, seconds=15), [pause("aggregator").at(2.5).lasting(11)])
    run.check(*EXACT)


@pytest.mark.longer
def test_slow_and_reset_links_lose_nothing(gauntlet: Gauntlet) -> None:
    run = gauntlet.run(
        kappa,
        Steady(rate=1500, seconds=12),
        [
            delay("converter->pubsub", ms=150).at(1.5).lasting(3),
            reset_connections("aggregator->bigtable").at(4).lasting(2),
            bandwidth("preprocessor->kafka", kb_per_s=60).at(7.5).lasting(3),
        ],
    )
    run.check(*EXACT, latency())


@pytest.mark.longer
def test_two_faults_at_once_lose_nothing(gauntlet: Gauntlet) -> None:
    """A worker is killed while the link before it is cut; later another one is moved by its orchestrator."""
    run = gauntlet.run(
        kappa,
        LOAD,
        [
            partition("converter->pubsub").at(3).lasting(3),
            kill("aggregator").at(3.2),
            terminate("preprocessor").at(7),
        ],
    )
    run.check(*EXACT)


@pytest.mark.longer
def test_late_events_are_counted_once_by_the_stream_and_explain_the_gap(gauntlet: Gauntlet) -> None:
    """Parity is what the generator says beforehand, and every cell that differs does so by exactly its late events.

    A forced redelivery besides: what was counted, late or not, comes again and is counted once.
    """
    load = Steady(rate=1500, seconds=9, share_late=0.006, share_out_of_order=0.2)
    run = gauntlet.run(kappa, load, [redeliver("aggregator", back_s=4).at(7)]).check(*EXACT)
    figures = run.finding("batch_parity")["figures"]
    assert figures["explained"] > 0
    assert figures["wrong"] == 0
    assert figures["parity"] == pytest.approx(figures["expected_parity"], abs=1e-9)


@pytest.mark.longer
def test_two_replicas_of_each_worker_count_every_event_once(gauntlet: Gauntlet) -> None:
    pipeline = kappa.replicas(preprocessor=2, converter=2, aggregator=2)
    run = gauntlet.run(pipeline, Steady(rate=800, seconds=10), [kill("converter-1").at(3), kill("aggregator-2").at(6)])
    run.check(*EXACT)


@pytest.mark.longer
def test_a_lost_broker_of_three_loses_nothing(gauntlet: Gauntlet) -> None:
    """It is alone for a moment before it dies; who trusts what it alone has, as `acks-one` does, loses that."""
    run = gauntlet.scenario(catalog.scenario("broker-loss")).check()
    assert [proof["fault"] for proof in run.verdict["faults"]] == ["partition", "pause", "kill_broker"]


@pytest.mark.longer
def test_a_load_of_two_processes_is_judged_as_one(gauntlet: Gauntlet) -> None:
    run = gauntlet.run(kappa, LOAD, [kill("converter").at(3)], users=2, processes=2)
    run.check(*EXACT)
    saved = SavedRun.load(run.folder)
    assert saved.ledger.producers == [1, 2]
    assert not saved.folder.ledger.exists()
