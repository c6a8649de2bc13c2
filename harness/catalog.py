"""Everything that has a name: pipelines, mutants and scenarios, and how a name on the command line becomes one."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from assertions import (
    batch_parity,
    content,
    duplicate_rate,
    latency,
    no_loss,
    recovery,
    warehouse_duplicates,
    warehouse_parity,
)
from assertions.base import Assertion
from assertions.registry import ASSERTIONS
from faults import (
    FAULTS,
    black_hole,
    kill,
    kill_broker,
    kill_service,
    lose_acks,
    partition,
    pause,
    random_schedule,
    redeliver,
    reset_connections,
    terminate,
    upgrade,
)
from harness.scenario import Scenario, SideBySide, schedule
from harness.topology import Kafka, KafkaHop, Pipeline, PubSubHop, UsageError, unknown
from load.profiles import Burst, Steady
from pipelines_under_test import mutants
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.legacy.pipeline import legacy, legacy_800, legacy_1200, legacy_hdfs
from pipelines_under_test.stock_beam.pipeline import stock_beam
from pipelines_under_test.timed_dedup.pipeline import WINDOW_S, kappa_timed_dedup
from pipelines_under_test.warehouse.pipeline import kappa_warehouse

DEFAULT_SCENARIO = "kappa-under-fire"
#: The pipelines that are here, mutants aside.
OWN = (kappa, stock_beam, kappa_timed_dedup, kappa_warehouse, legacy, legacy_800, legacy_1200, legacy_hdfs)
#: What the comparison of old and new runs, and what is known to be wrong with the old.
OLD, NEW = legacy_800, kappa
KNOWN_OF_OLD = {"no_loss": "violation", "batch_parity": "violation"}
#: What may stand in for a scenario's own schedule.
SCHEDULES = ("none", "random")


def claims(pipeline: Pipeline, parity: float = 0.95) -> list[Assertion]:
    """What every pipeline is held to: nothing lost, nothing altered, nothing doubled at the sink, parity, recovery."""
    found: list[Assertion] = [no_loss()]
    if pipeline.hops_of_role("path"):
        found.append(content())
    for hop in pipeline.hops:
        if hop.role in ("source", "path") and isinstance(hop, KafkaHop | PubSubHop):
            found.append(duplicate_rate(hop.name, most=1.0))
    if pipeline.sink is not None:
        found.append(duplicate_rate(pipeline.sink.name, most=0.0))
        if pipeline.batch is not None:
            found.append(batch_parity(least=parity))
    if pipeline.warehouse is not None:
        found += [warehouse_duplicates(), warehouse_parity(least=parity)]
    return [*found, latency(), recovery()]


def _replace_duplicates(assertions: list[Assertion], hop: str, **bounds: float) -> list[Assertion]:
    """The same claims with another bound on the duplicates of one hop."""
    return [
        duplicate_rate(hop, **bounds) if a.name == "duplicate_rate" and a.params()["hop"] == hop else a
        for a in assertions
    ]


def _replace(assertions: list[Assertion], other: Assertion) -> list[Assertion]:
    """The same claims with another one of a kind."""
    return [other if a.name == other.name else a for a in assertions]


def nearly_once(pipeline: Pipeline, most: float = 0.5) -> list[Assertion]:
    """What a pipeline that deduplicates in a window of time is held to: the same, but for a bounded rate of duplicates
    at the sink, which no parity with the batch truth can survive. A rate of nothing would prove nothing of the bound."""
    assert pipeline.sink is not None
    bounds = {"least": 0.001, "most": most, "confidence": 0.95}
    return [a for a in _replace_duplicates(claims(pipeline), pipeline.sink.name, **bounds) if a.name != "batch_parity"]


@cache
def pipelines() -> dict[str, Pipeline]:
    """Every pipeline by name, the mutants among them."""
    of_mutants = mutants.MUTANTS | mutants.SOAK_MUTANTS | mutants.RELEASE_MUTANTS
    return {p.name: p for p in OWN} | {name: mutant.pipeline for name, mutant in of_mutants.items()}


@cache
def scenarios() -> dict[str, Scenario]:
    """Every scenario by name. They fit every pipeline with the workers and links of the reference."""
    under_fire = schedule(
        kill("preprocessor").at(2),
        lose_acks("converter->pubsub", pulse_ms=60, every_ms=400).at(4).lasting(3),
        lose_acks("aggregator->bigtable", pulse_ms=100, every_ms=350).at(5).lasting(3),
        partition("converter->pubsub").at(9).lasting(1.5),
        partition("aggregator->bigtable").at(15.5).lasting(1.5),
        kill("aggregator").at(20),  # not before it is back at work after the cut, on a slow machine too
        kill("converter").at(21),  # last: while it is away the aggregator has nothing to do
    )
    found = [
        Scenario(
            DEFAULT_SCENARIO,
            kappa,
            Steady(rate=2000, seconds=22),
            under_fire,
            _replace_duplicates(claims(kappa), "published", least=0.001, most=1.0),
            about="the main job: kills, partitions and lost acknowledgements on every worker of the Kappa pipeline",
        ),
        Scenario(
            "steady",
            kappa,
            Steady(rate=2000, seconds=10),
            (),
            claims(kappa),
            about="no fault at all: what the pipeline does on a quiet day",
        ),
        Scenario(
            "restarts",
            kappa,
            Steady(rate=2000, seconds=13),
            # The last worker first: one that is behind a killed worker soon holds nothing that a kill could lose.
            schedule(
                *(kill(w).at(2 + i).repeated(2, 6) for i, w in enumerate(("aggregator", "converter", "preprocessor")))
            ),
            claims(kappa),
            about="every worker killed twice",
        ),
        Scenario(
            "lost-acks",
            kappa,
            Steady(rate=2000, seconds=10, tweets=300, share_late=0.0005),
            schedule(
                lose_acks("converter->pubsub", pulse_ms=80, every_ms=400).at(2).lasting(5),
                lose_acks("aggregator->bigtable", pulse_ms=100, every_ms=350).at(3).lasting(6),
            ),
            _replace_duplicates(claims(kappa), "published", least=0.001, most=1.0),
            about="acknowledgements of publishes and of writes to the sink are eaten, so that both are retried; few rows, "
            "written again and again",
        ),
        Scenario(
            "partitions",
            kappa,
            Steady(rate=2000, seconds=14),
            schedule(
                partition("preprocessor->kafka").at(2).lasting(2),
                partition("converter->pubsub").at(5).lasting(2),
                partition("aggregator->bigtable").at(8).lasting(2),
            ),
            claims(kappa),
            about="one link after another cut for two seconds",
        ),
        Scenario(
            "nearly-once",
            kappa_timed_dedup,
            # Many keys, evenly: in the cell of a hot one the weights of so many duplicates could not be told apart, and a
            # loss could hide behind them.
            Steady(rate=400, seconds=30, tweets=4_000, skew=0),
            schedule(
                lose_acks("converter->pubsub", pulse_ms=80, every_ms=400).at(1.5).lasting(3),
                redeliver("aggregator", back_s=WINDOW_S + 0.3).at(5.5).repeated(11, 2.2),
            ),
            nearly_once(kappa_timed_dedup),
            about="deduplication in a window of time: retried publishes lie within it, redeliveries reach a little beyond",
        ),
        Scenario(
            "black-holes",
            kappa,
            Steady(rate=2000, seconds=10),
            schedule(
                # Not the other way round: what the first worker does not pass on, the second has not to send.
                black_hole("converter->pubsub").at(1.5).lasting(1.5),
                black_hole("preprocessor->kafka").at(4).lasting(1.5),
                black_hole("preprocessor->kafka").at(7.5).lasting(1.5),
            ),
            claims(kappa),
            about="links that swallow everything and stay open: nothing says that what was sent is gone",
        ),
        Scenario(
            "resets",
            kappa,
            Steady(rate=2000, seconds=7),
            schedule(
                reset_connections("converter->pubsub").at(2).lasting(1),
                reset_connections("aggregator->pubsub").at(3.5).lasting(1),
                reset_connections("aggregator->bigtable").at(5).lasting(1),
            ),
            claims(kappa),
            about="connections reset while they carry answers",
        ),
        Scenario(
            "redeliveries",
            kappa,
            Steady(rate=2000, seconds=9),
            schedule(
                redeliver("aggregator", back_s=4).at(4.5),
                kill("aggregator").at(6),
                redeliver("aggregator", back_s=6).at(8.5),
            ),
            claims(kappa),
            about="acknowledged messages delivered again, some seconds later and across a restart",
        ),
        Scenario(
            "killed-while-cut",
            kappa,
            Steady(rate=2000, seconds=9),
            schedule(
                partition("converter->pubsub").at(2).lasting(2),
                kill("converter").at(3.3),
                lose_acks("preprocessor->kafka", pulse_ms=1400, every_ms=1600).at(6).lasting(1.6),
                kill("preprocessor").at(6.7),
            ),
            claims(kappa),
            about="workers killed while they wait for an answer that does not come",
        ),
        Scenario(
            "rolling-upgrade",
            kappa,
            Steady(rate=1000, seconds=32),
            schedule(
                # The aggregator first: with Beam to import it takes longest.
                upgrade("aggregator", to={"env": {"RELEASE": "2", "LEASE_S": "5"}}).at(2).lasting(5),
                upgrade("preprocessor", to={"env": {"RELEASE": "2", "BATCH": "200"}}).at(4).lasting(5),
                upgrade("converter", to={"env": {"RELEASE": "2", "BATCH": "250"}}).at(6).lasting(5),
                # When all are back: what the new version has counted comes again, to the old one.
                redeliver("aggregator", back_s=18).at(25),
            ),
            claims(kappa),
            about="each worker upgraded to a version with other settings while it works, and rolled back: old and new side "
            "by side, on the same partitions, leases and rows",
        ),
        Scenario(
            "replicas",
            kappa.replicas(converter=2, aggregator=2),
            Steady(rate=1500, seconds=9, tweets=300, share_late=0.0005),
            schedule(terminate("converter-2").at(2.5), kill("aggregator-2").at(5.5)),
            claims(kappa),
            about="two converters and two aggregators, of which one comes and goes; few rows, which both write",
        ),
        Scenario(
            "warehouse",
            kappa_warehouse,
            Steady(rate=800, seconds=18, tweets=300, share_late=0.003),
            schedule(
                lose_acks("converter->pubsub", pulse_ms=80, every_ms=400).at(2).lasting(3),
                # Before its link is disturbed: while it waits to try again it is not at work.
                kill("raw-export").at(6),
                partition("raw-export->bigquery").at(9).lasting(2),
                kill("counts-export").at(12.5).even_if_idle(),  # it reads once a second, and then waits for BigQuery
                # An answer may take a second there: in short pulses the connection would end before it comes.
                lose_acks("raw-export->bigquery", pulse_ms=1500, every_ms=1700).at(14).lasting(3.4),
            ),
            _replace_duplicates(claims(kappa_warehouse), "published", least=0.001, most=1.0),
            about="duplicates on purpose, and the exports to BigQuery cut off, unanswered and killed: its figures are the "
            "ledger's all the same",
        ),
        Scenario(
            "broker-loss",
            kappa.brokers(kafka=3),
            Steady(rate=1000, seconds=12),
            # While its fellows are away a broker gives nobody what is new, so there must be something older to be worked
            # off, by a worker that was stopped while it had nothing to do and waits for no answer of theirs; and not
            # before half a second is over: until then a request of theirs waits there for what comes in.
            schedule(
                partition("load->kafka").at(2).lasting(1.2),
                pause("preprocessor").at(2.8).lasting(2.6),
                kill_broker("kafka-1", alone_s=1.8).at(4.6).lasting(1),
            ),
            claims(kappa),
            about="three brokers, one of which is alone for a moment and then dies: another takes over, without what it had",
        ),
        Scenario(
            "speed-overload",
            legacy_1200,
            Steady(rate=1800, seconds=14),
            (),
            _replace(claims(legacy_1200), latency(p99_most_s=2)),
            expected={**KNOWN_OF_OLD, "latency": "violation"},
            about="load above the capacity of the Lambda pipeline's speed layer: latency rises until its stream manager dies, "
            "again and again, and what is in its queues is lost each time",
        ),
        Scenario(
            "batch-layer",
            legacy,
            Steady(rate=1000, seconds=26),
            schedule(kill("landing").at(4), kill("query").at(7), kill("batch-job").at(10)),
            claims(legacy),
            about="the Lambda pipeline's log collector, query service and batch job killed, the last in the middle of a "
            "version: none of them loses or doubles anything",
        ),
        Scenario(
            "legacy-hdfs",
            legacy_hdfs,
            Steady(rate=800, seconds=19),
            schedule(
                partition("landing->hdfs").at(2.5).lasting(1),
                kill_service("hdfs-datanode").at(6.5).lasting(1),
                # Not before what waited for the DataNode is written. Last: with what its DataNode has to tell it again, a
                # NameNode is back after 5 to 8 s.
                kill_service("hdfs-namenode").at(15).lasting(1),
            ),
            claims(legacy_hdfs),
            about="the Lambda pipeline with its raw logs in HDFS, whose DataNode and NameNode are killed and started again",
        ),
    ]
    return {s.name: s for s in found}


@cache
def side_by_side() -> dict[str, SideBySide]:
    """Every comparison of pipelines by name."""
    # First a burst of twice what the old speed layer can take, which it has worked off after some 8 s; then the restarts,
    # of the worker that counts twice. The burst is half of what the new one can take on two cores, so that a spike of the
    # new one is its own and not that of a machine with other work.
    load = Burst(rate=400, seconds=27, times=4, burst_at=2, burst_seconds=4)
    no_spikes = latency(steady_p99_most_s=3.5)
    found = [
        SideBySide(
            "old-against-new",
            (
                Scenario(
                    "old",
                    OLD,
                    load,
                    schedule(
                        kill("speed").at(15), kill("landing").at(18.5), kill("query").at(21), kill("speed").at(24)
                    ),
                    _replace(claims(OLD), no_spikes),
                    expected={**KNOWN_OF_OLD, "latency": "violation"},
                    about="the Lambda pipeline, whose speed layer falls behind in a burst of load, and loses what it holds "
                    "when it is restarted",
                ),
                Scenario(
                    "new",
                    NEW,
                    load,
                    schedule(
                        kill("aggregator").at(15),
                        kill("preprocessor").at(18.5),
                        kill("converter").at(21),
                        kill("aggregator").at(24),
                    ),
                    _replace(claims(NEW), no_spikes),
                    about="the Kappa pipeline under the same burst and restarts",
                ),
            ),
            about="Twitter's evaluation: the Lambda and the Kappa pipeline under the same load, a burst in it, and restarts",
        ),
    ]
    return {s.name: s for s in found}


def runnable() -> dict[str, Scenario | SideBySide]:
    """All that `gauntlet run` takes a name of."""
    return {**scenarios(), **side_by_side()}


def named(name: str) -> Scenario | SideBySide:
    """What `gauntlet run NAME` runs."""
    known = runnable()
    if name not in known:
        raise unknown("scenario", name, known)
    return known[name]


def scenario(name: str) -> Scenario:
    """A scenario of one pipeline."""
    found = named(name)
    if isinstance(found, SideBySide):
        raise UsageError(f"{name} runs several pipelines side by side; a scenario of one is needed here.")
    return found


def pipeline(name: str) -> Pipeline:
    """A pipeline by its name, or by "module:attribute" as seen from the current folder."""
    if ":" not in name:
        if name not in pipelines():
            raise UsageError(f"{unknown('pipeline', name, pipelines())} One of your own is given as module:attribute.")
        return pipelines()[name]
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"The module of {name!r} cannot be imported from {os.getcwd()}: {error}") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, Pipeline):
        there = [k for k, v in vars(module).items() if isinstance(v, Pipeline)]
        raise unknown(f"pipeline in {module_name}", attribute, there, f"pipelines in {module_name}")
    return found


def fitted(base: Scenario, other: Pipeline) -> Scenario:
    """A scenario on another pipeline. Its claims stay where the hops are the same; else they are the general ones.

    Raises UsageError where a fault's target does not exist there.
    """
    if other is base.pipeline:
        return base
    # Replicas and brokers belong to the scenario: its schedule may name one of them.
    there = {w.name for w in other.workers}
    counts = {w.name: w.replicas for w in base.pipeline.workers if w.replicas > 1 and w.name in there}
    if counts:
        other = other.replicas(**counts)
    there = {s.name for s in other.services if isinstance(s, Kafka)}
    services = [s for s in base.pipeline.services if isinstance(s, Kafka) and s.name in there]
    if counts := {s.name: s.brokers for s in services if s.brokers > 1}:
        other = other.brokers(**counts)
    hops = {h.name for h in other.hops}
    same = all(a.params().get("hop", other.source.name) in hops for a in base.assertions)
    if other.batch is None or other.sink is None:
        same = same and all(a.name != "batch_parity" for a in base.assertions)
    # A scenario without claims on the warehouse, on a pipeline that has one (or the other way round).
    same = same and (other.warehouse is None) == (base.pipeline.warehouse is None)
    # What is known to be wrong is known of the scenario's own pipeline.
    return base.with_(pipeline=other, assertions=base.assertions if same else claims(other), expected={})


def rescheduled(base: Scenario, kind: str) -> Scenario:
    """The scenario with another schedule: "none", or "random", which is drawn from the scenario's seed.

    A least rate of duplicates, or an expected violation, says what the scenario's own faults must bring about; other
    faults need not.
    """
    if kind not in SCHEDULES:
        raise unknown("schedule", kind, SCHEDULES)
    assertions = [dataclasses.replace(a, least=0.0) if isinstance(a, duplicate_rate) else a for a in base.assertions]
    drawn = random_schedule() if kind == "random" else None
    return base.with_(faults=(), random=drawn, assertions=assertions, expected={})


def listing() -> dict[str, Any]:
    """What `gauntlet list --json` prints."""
    return {
        "scenarios": [
            {"name": s.name, "about": s.about, "pipeline": " and ".join(p.name for p in _pipelines_of(s))}
            for s in runnable().values()
        ],
        "pipelines": [{"name": p.name, "about": p.about} for p in OWN],
        "faults": [{"name": f.name, "about": f.about, "acts_on": f.acts_on, "needs": f.needs} for f in FAULTS.values()],
        "assertions": [{"name": n, "about": _first_line(a)} for n, a in ASSERTIONS.items()],
        "mutants": [_mutant(name, m) for name, m in mutants.MUTANTS.items()],
    }


def mutants_of_more_than_a_run() -> Mapping[str, list[Mapping[str, Any]]]:
    """By what they take; for people: scripts run every mutant that `gauntlet list --json` names."""
    found = {"a soak": mutants.SOAK_MUTANTS, "a comparison": mutants.RELEASE_MUTANTS}
    return {f"mutants that take {what}": [_mutant(name, m) for name, m in some.items()] for what, some in found.items()}


def _pipelines_of(one: Scenario | SideBySide) -> list[Pipeline]:
    return [s.pipeline for s in one.scenarios] if isinstance(one, SideBySide) else [one.pipeline]


def _mutant(name: str, mutant: Any) -> Mapping[str, Any]:
    return {
        "name": name,
        "caught_by": mutant.caught_by,
        "scenario": mutant.scenario,
        "runs": mutant.runs,
        "seen_at": mutant.seen_at,
        "about": mutant.about,
    }


def _first_line(thing: Any) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")
