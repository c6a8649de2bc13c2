"""What is drawn at random: always repeatable, always within the constraints, and sooner or later all that there is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import served

from examples.orders.pipeline import orders
from faults import FAULTS, Fault, RandomSchedule, random_schedule
from faults.kill_service import KillService
from faults.random_schedule import CALM_END_S, DRAWS, busy_links, drawn, fit, most_active, targets_of
from harness import catalog, session
from harness.scenario import Scenario
from harness.topology import Kafka, KafkaHop, Pipeline, Sqlite, SqliteHop, UsageError, Worker
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.warehouse.pipeline import kappa_warehouse

BACKENDS = ("process", "docker")
PIPELINES = {
    "kappa": kappa,
    "orders": orders,
    "replicas": kappa.replicas(converter=2),
    "brokers": kappa.brokers(kafka=3),
}


def draw(seed: int, pipeline: Pipeline = kappa, seconds: float = 20, rate: int = 2000, backend: str = "process",
         **fields: object) -> tuple[Fault, ...]:  # fmt: skip
    return RandomSchedule(seed, **fields).draw(pipeline, rate, seconds, backend, seed=0)  # type: ignore[arg-type]


@settings(max_examples=120)
@given(
    st.integers(0, 2**63),
    st.sampled_from(sorted(PIPELINES)),
    st.floats(6, 60),
    st.integers(1, 20_000),
    st.sampled_from(BACKENDS),
    st.integers(1, 3),
)
def test_the_constraints_always_hold(
    seed: int, name: str, seconds: float, rate: int, backend: str, active: int
) -> None:
    pipeline = PIPELINES[name]
    schedule = draw(seed, pipeline, seconds, rate, backend, most_active=active)
    assert schedule
    assert len(schedule) <= max(1, seconds / 3)
    assert list(schedule) == sorted(schedule, key=lambda fault: fault.start)
    placed = [drawn(pipeline, fault) for fault in schedule]
    possible = targets_of(pipeline, rate, backend)
    for one in placed:
        fault, spec = one.fault, one.draw
        fault.check(pipeline)
        assert fault.needs in ("", backend)
        assert fault.target in possible[type(fault)]
        assert fault.start > 2.5, "the flow must have begun, and be seen, before"
        assert fault.start + fault.seconds + spec.heals_s <= seconds - CALM_END_S + 1e-6
        assert spec.seconds[0] - 1e-6 <= fault.seconds <= spec.seconds[1] + 1e-6
    for i, one in enumerate(placed):
        assert all(fit(one, other) for other in placed[i + 1 :])
    assert most_active(placed) <= active


def test_a_fault_leaves_its_target_time_to_be_at_work_again() -> None:
    """The rule itself, in cases: a kill 1.5 s after a partition of the same worker would find it idle."""
    cut = drawn(kappa, FAULTS["partition"]("converter->pubsub", 5, 2))
    kill = FAULTS["kill"]
    assert not fit(cut, drawn(kappa, kill("converter", 8.5)))
    assert fit(cut, drawn(kappa, kill("converter", 12.5)))
    assert not fit(cut, drawn(kappa, kill("aggregator", 6.5))), "it starves what is behind it"
    assert not fit(cut, drawn(kappa, kill("aggregator", 5.2))), "messages must wait for what was killed"
    assert fit(cut, drawn(kappa, kill("aggregator", 4.0)))
    assert fit(cut, drawn(kappa, kill("preprocessor", 5.5))), "what is before it goes on working"
    assert not fit(drawn(kappa, FAULTS["latency"]("aggregator->pubsub", 4, 3)), cut), "needs flow while it lasts"
    assert not fit(drawn(kappa, FAULTS["kill_broker"]("kafka", 5, 1)), drawn(kappa, kill("aggregator", 12)))
    twice = [drawn(kappa, FAULTS["redeliver"]("aggregator", at)) for at in (4, 16)]
    assert not fit(*twice), "what the first one brings again hides what the second one does"


def test_replicas_do_not_starve_each_other() -> None:
    twice = kappa.replicas(converter=2)
    one, other = (drawn(twice, FAULTS["kill"](f"converter-{i}", 5)) for i in (1, 2))
    assert fit(one, other)
    assert not fit(one, one)


@given(st.integers())
@settings(max_examples=50)
def test_the_same_seed_draws_the_same_and_another_one_something_else(seed: int) -> None:
    assert draw(seed) == draw(seed)
    assert draw(seed) != draw(seed + 1)


def test_a_schedule_stays_what_it_was() -> None:
    """Repeating a run by its seed needs the same numbers on every Python: change this only together with a release."""
    assert [fault.describe() for fault in draw(42)] == PINNED


PINNED = [
    "lose_acks aggregator->pubsub at 2.92 s for 3.93 s",
    "pause converter at 8.75 s for 1.23 s",
    "reset_connections preprocessor->kafka at 9.27 s for 1.67 s",
    "kill aggregator at 15.75 s for 0.25 s",
    "kill converter at 16.49 s for 1.69 s",
]


def test_it_depends_on_what_it_is_for() -> None:
    assert draw(42, seconds=20) != draw(42, seconds=30)
    assert draw(42, backend="process") != draw(42, backend="docker")
    assert draw(42, kappa) != draw(42, orders)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_fault_and_every_target_is_drawn_sooner_or_later(name: str, backend: str) -> None:
    pipeline = PIPELINES[name]
    possible = targets_of(pipeline, 2000, backend)
    wanted = {(kind.name, target) for kind, targets in possible.items() for target in targets}
    for seed in range(2000):
        wanted -= {(fault.name, fault.target) for fault in draw(seed, pipeline, 30, backend=backend)}
        if not wanted:
            return
    pytest.fail(f"never drawn: {wanted}")


def test_every_fault_can_be_drawn() -> None:
    """A new fault needs a line in DRAWS; nothing but its backend may keep it from the reference pipeline. (An upgrade must
    be told to what.)"""
    assert {kind.name for kind in DRAWS} == set(FAULTS) - {"upgrade"}
    assert all(draw.weight > 0 for draw in DRAWS.values())
    assert set(targets_of(kappa, 2000, "docker")) == set(DRAWS) - {KillService}, "it has a Kafka's own"
    assert {kind.needs for kind in targets_of(kappa, 2000, "process")} == {""}


def test_weights_are_respected() -> None:
    """Of single faults each kind has its share; with more of them, what is short and local finds its place more often."""
    single = Counter(draw(seed, every_s=20)[0].name for seed in range(1200))
    here = {kind: spec for kind, spec in DRAWS.items() if kind is not KillService}
    total = sum(spec.weight for kind, spec in here.items() if not kind.needs)
    for kind, spec in here.items():
        expected = 1200 * spec.weight / total if not kind.needs else 0
        assert abs(single[kind.name] - expected) <= 4 * expected**0.5, kind.name
    never = Counter(fault.name for seed in range(120) for fault in draw(seed, weights={"kill": 0}))
    more = Counter(fault.name for seed in range(120) for fault in draw(seed, weights={"pause": 20}))
    usual = Counter(fault.name for seed in range(120) for fault in draw(seed))
    assert never["kill"] == 0 < usual["kill"]
    assert more["pause"] > 2 * usual["pause"]


def test_starts_and_lengths_are_spread() -> None:
    kills = [fault for seed in range(200) for fault in draw(seed) if fault.name == "kill"]
    assert min(fault.start for fault in kills) < 4
    assert max(fault.start for fault in kills) > 16
    assert min(fault.seconds for fault in kills) < 0.2
    assert max(fault.seconds for fault in kills) > 1.8


def test_two_faults_are_often_active_at_once() -> None:
    several = sum(most_active([drawn(kappa, fault) for fault in draw(seed)]) == 2 for seed in range(200))
    assert several > 60


# ---------------------------------------------------------------------------------------------------- the topology


def test_only_links_on_which_events_pass_are_drawn() -> None:
    assert busy_links(kappa) == {
        "preprocessor->kafka": True,
        "converter->kafka": False,
        "converter->pubsub": True,
        "aggregator->pubsub": False,
        "aggregator->bigtable": True,
    }
    assert busy_links(orders) == {"enrich->kafka": True, "counter->kafka": False}
    janitor = Worker("janitor", ["x"], uses={"K": "kafka"}, reads="dead_letter")
    with_janitor = dataclasses.replace(kappa, workers=[*kappa.workers, janitor])
    assert busy_links(with_janitor) == busy_links(kappa), "who reads dead letters only is idle"
    silent = dataclasses.replace(kappa, workers=[dataclasses.replace(w, reads="", writes=()) for w in kappa.workers])
    assert set(busy_links(silent)) == set(busy_links(kappa)), "who does not say may use any of them"


def test_who_only_reads_exports_may_be_idle_and_is_no_target() -> None:
    assert busy_links(kappa_warehouse) == busy_links(kappa) | {
        "raw-export->pubsub": False,
        "raw-export->bigquery": True,
        "counts-export->bigtable": False,
        "counts-export->bigquery": True,
    }


def test_what_keeps_all_in_memory_is_never_killed_and_a_limit_needs_bytes() -> None:
    for backend in BACKENDS:
        found = {kind.name: targets for kind, targets in targets_of(kappa, 2000, backend).items()}
        assert found["kill_broker"] == ["kafka"]
        assert "kill_service" not in found, "a broker's kill is drawn as one"
    found_there = {kind.name: targets for kind, targets in targets_of(served, 500, "process").items()}
    assert (found_there["kill_service"], found_there["kill_broker"]) == (["cache"], ["kafka"])
    thrice = {kind.name: targets for kind, targets in targets_of(kappa.brokers(kafka=3), 2000, "process").items()}
    assert thrice["kill_broker"] == ["kafka-1", "kafka-2", "kafka-3"]
    assert "aggregator->pubsub" not in found["bandwidth"], "it sends acknowledgements only"
    assert "bandwidth" not in {kind.name for kind in targets_of(kappa, 50, "process")}
    names = {kind.name for kind in targets_of(orders, 400, "docker")}
    assert "redeliver" not in names, "there is no subscription"


def test_what_the_backend_refuses_is_never_drawn() -> None:
    """Services that were there before a run, say, are not the harness's to kill."""
    base = Scenario("s", kappa, Steady(seconds=60), random=random_schedule())
    usual, there = set(), set()
    for seed in range(25):
        usual |= {fault.name for fault in base.with_(seed=seed).drawn("x").faults}
        there |= {f.name for f in base.with_(seed=seed).drawn("x", lambda f: f.acts_on == "service" and "no").faults}
    assert usual - there == {"kill_broker"}


def test_a_session_draws_for_its_own_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Backend:
        name, where, notes = "docker", "in containers", ()

        def refuses(self, fault: Fault, pipeline: Pipeline) -> str:
            return "it was there before" if fault.acts_on == "service" else ""

    asked: list[Scenario] = []
    monkeypatch.setattr(session.Session, "prepare", lambda self, pipeline: Backend())
    monkeypatch.setattr(session.Session, "processes", None)
    monkeypatch.setattr(session, "execute", lambda scenario, *rest: asked.append(scenario))
    base = Scenario("s", kappa, Steady(seconds=60), random=random_schedule())
    for seed in range(12):
        session.Session("docker").run(base.with_(seed=seed), tmp_path)
    names = {fault.name for scenario in asked for fault in scenario.faults}
    assert ("kill_broker" in names, "throttle" in names) == (False, True)
    assert [scenario.schedule_seed for scenario in asked] == list(range(12))


# ------------------------------------------------------------------------------------------------------- bad input


def lonely() -> Pipeline:
    """A pipeline whose only worker uses nothing by network."""
    return Pipeline(
        "lonely",
        [Kafka("kafka", topics={"in": 1}), Sqlite("db", databases=["out"])],
        [Worker("w", ["x"], env={"DB": "{out}"}, reads="in", writes=["sink"])],
        [
            KafkaHop("in", "kafka", "source", "in", event_id=lambda value, attributes: None),
            SqliteHop("sink", "db", database="out", cells=lambda row: []),
        ],
    )


def test_a_pipeline_without_a_target_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="none of its workers has a link"):
        draw(1, lonely())
    with pytest.raises(UsageError, match="weight of 0"):
        draw(1, weights={kind.name: 0 for kind in DRAWS})


def test_too_short_a_load_is_a_usage_error_that_says_how_long() -> None:
    with pytest.raises(UsageError, match=r"A load of 3 s is too short .* needs one of 4\.\d s"):
        draw(1, seconds=3)
    least = 4.2
    with pytest.raises(UsageError):
        draw(1, seconds=least - 0.1)
    for seed in range(50):
        assert draw(seed, seconds=least)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 1.5}, "whole number"),
        ({"seed": True}, "whole number"),
        ({"every_s": 0}, "every_s of more than 0"),
        ({"most_active": 0}, "most_active of 1 or more"),
        ({"weights": {"kil": 1}}, "Did you mean 'kill'"),
        ({"weights": {"kill": -1}}, "weight of kill must be 0 or more"),
        ({"weights": {"kill": float("inf")}}, "weight of kill must be 0 or more"),
    ],
)
def test_a_random_schedule_that_makes_no_sense_is_a_usage_error(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        random_schedule(**fields)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- in a scenario


def test_a_scenario_draws_when_the_backend_is_known_and_says_from_which_seed() -> None:
    base = Scenario("s", kappa, Steady(), random=random_schedule(), seed=42)
    here, there = base.drawn("process"), base.drawn("docker")
    assert (here.faults, here.schedule_seed) == (draw(42), 42)
    assert there.faults == draw(42, backend="docker")
    assert here.drawn("process").faults == here.faults
    of_its_own = base.with_(random=random_schedule(3)).drawn("process")
    assert (of_its_own.faults, of_its_own.schedule_seed, of_its_own.seed) == (draw(3), 3, 42)
    by_hand = Scenario("s", kappa)
    assert by_hand.drawn("process") is by_hand
    assert by_hand.schedule_seed is None


def test_a_scenario_that_cannot_draw_is_refused_before_anything_starts() -> None:
    with pytest.raises(UsageError, match="too short"):
        Scenario("s", kappa, Steady(seconds=2), random=random_schedule()).validate()


def test_other_faults_need_not_bring_about_what_the_scenarios_own_must() -> None:
    base = catalog.scenario(catalog.DEFAULT_SCENARIO)
    least = [a.params()["least"] for a in base.assertions if a.name == "duplicate_rate"]
    assert max(least) > 0
    for kind in catalog.SCHEDULES:
        other = catalog.rescheduled(base, kind)
        assert [a.name for a in other.assertions] == [a.name for a in base.assertions]
        assert {a.params()["least"] for a in other.assertions if a.name == "duplicate_rate"} == {0.0}
        assert other.faults == ()
    assert catalog.rescheduled(base, "none").drawn("process").faults == ()
    assert catalog.rescheduled(base, "random").with_(seed=5).drawn("process").schedule_seed == 5
    with pytest.raises(UsageError, match=r"There is no schedule 'ramdom'\. Did you mean 'random'"):
        catalog.rescheduled(base, "ramdom")
