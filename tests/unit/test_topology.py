"""A declaration that cannot work is refused with the wrong name, the nearest right one and the list."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from served import served

from assertions import batch_parity, duplicate_rate, no_loss
from faults import kill
from harness import catalog
from harness.scenario import Scenario
from harness.topology import (
    BigtableHop,
    Cells,
    Files,
    Kafka,
    KafkaHop,
    Pipeline,
    Sqlite,
    UsageError,
    Worker,
    link_of,
    unknown,
)
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.mutants import MUTANTS


def changed(**fields: Any) -> Pipeline:
    return dataclasses.replace(kappa, **fields)


def worker(**fields: Any) -> Pipeline:
    first, *rest = kappa.workers
    return changed(workers=[dataclasses.replace(first, **fields), *rest])


def batch(**fields: Any) -> Pipeline:
    assert kappa.batch is not None
    return changed(batch=dataclasses.replace(kappa.batch, **fields))


def with_sqlite(*databases: str, **fields: Any) -> Pipeline:
    """The reference with a database beside it, and its first worker changed."""
    return dataclasses.replace(worker(**fields), services=(*kappa.services, Sqlite("sqlite", databases=databases)))


def with_files(*folders: str, **fields: Any) -> Pipeline:
    """The reference with folders beside it, and its first worker changed."""
    return dataclasses.replace(worker(**fields), services=(*kappa.services, Files("files", folders=folders)))


def answered(**fields: Any) -> Pipeline:
    """The pipeline that answers for its counts, with its sink declared otherwise."""
    source, sink = served.hops
    return dataclasses.replace(served, hops=[source, dataclasses.replace(sink, **fields)])


def hop(index: int, **fields: Any) -> Pipeline:
    hops = list(kappa.hops)
    hops[index] = dataclasses.replace(hops[index], **fields)
    return changed(hops=hops)


WRONG: dict[str, tuple[Callable[[], Pipeline], str]] = {
    "upper case": (lambda: worker(name="Preprocessor"), "must be lower case"),
    "two of one name": (lambda: worker(name="converter"), "two workers are named 'converter'"),
    "a name with a space": (lambda: hop(1, name="in between"), "must be lower case"),
    "two services of one name": (lambda: changed(services=[kappa.services[0]] * 2), "two services are named 'kafka'"),
    "two hops of one name": (lambda: hop(1, name="source"), "two hops are named 'source'"),
    "no source": (lambda: hop(0, role="path"), "exactly one hop must have the role 'source'"),
    "a source that is no topic": (
        lambda: changed(hops=[BigtableHop("x", "bigtable", "source", "aggregates")]),
        "must be a Kafka topic",
    ),
    "an encoder without keys": (lambda: dataclasses.replace(hop(0, keyed=False), encode="a:b"), "says itself what has"),
    "two sinks": (lambda: hop(4, role="sink"), "at most one hop"),
    "a sink without cells": (lambda: changed(cells=()), "say what it counts"),
    "a sink that shows no counts": (lambda: hop(3, cells=None), "how a row shows its counts"),
    "a hop that shows no id": (lambda: hop(1, event_id=None), "how a record shows its id"),
    "an unknown service": (lambda: hop(0, service="kafkaa"), "Did you mean 'kafka'"),
    "an unknown role": (lambda: hop(1, role="pat"), "Did you mean 'path'"),
    "an unknown role of the source": (lambda: hop(0, role="sorce"), "Did you mean 'source'"),
    "no topic at all": (
        lambda: hop(1, topic=""),
        "The topics, tables, datasets and databases of kafka are: dead_letter, ",
    ),
    "an unknown table": (lambda: hop(3, table="aggregate"), "Did you mean 'aggregates'"),
    "an unknown topic": (lambda: hop(1, topic="intermediat"), "Did you mean 'intermediate'"),
    "no command": (lambda: worker(command=()), "has no command"),
    "no replica": (lambda: worker(replicas=0), "at least one replica"),
    "uses an unknown service": (lambda: worker(uses={"KAFKA": "kafak"}), "Did you mean 'kafka'"),
    "reads an unknown hop": (lambda: worker(reads="sourc"), "Did you mean 'source'"),
    "writes an unknown hop": (lambda: worker(writes=["publishd"]), "Did you mean 'published'"),
    "an unknown name in its environment": (lambda: worker(env={"T": "{sorce}"}), "Did you mean 'source'"),
    "an unknown name with capitals and dots": (lambda: worker(env={"T": "{Orders.raw}"}), "'Orders.raw'"),
    "an interpreter in its environment": (lambda: worker(env={"P": "{python}"}), "'python'"),
    "uses what has no address": (lambda: with_sqlite("shop", uses={"DB": "sqlite"}), "SQLite has no address"),
    "uses a folder by an address": (lambda: with_files("logs", uses={"D": "files"}), "folders have no address"),
    "a folder named as a topic": (lambda: with_files("source"), "named 'source'; names must differ"),
    "an unknown folder": (lambda: with_files("logs", env={"D": "{log}"}), "Did you mean 'logs'"),
    "answers of an unknown worker": (lambda: answered(worker="as"), "Did you mean 'ask'"),
    "answers of a worker that serves nothing": (lambda: answered(worker="count"), "which serves nothing: name the var"),
    "answers of several": (lambda: served.replicas(ask=2), "asks one process, and 'ask' has 2 replicas"),
    "answers that are no sink": (lambda: answered(role="path"), "its role must be 'sink'"),
    "answers of a service": (lambda: answered(service="cache"), "is answered by a worker and is of no service"),
    "answers at no path": (lambda: answered(path="cells"), "'cells' of the hop 'counted' must begin with a slash"),
    "health at no path": (lambda: answered(health="up"), "'up' of the hop 'counted' must begin with a slash"),
    "sightings at no path": (lambda: answered(sightings="seen"), "'seen' of the hop 'counted' must begin with a slash"),
    "a variable with two meanings": (
        lambda: worker(serves="SOURCE", env={"SOURCE": "{source}"}),
        "has two meanings for SOURCE",
    ),
    "a database named as a topic": (lambda: with_sqlite("source"), "named 'source'; names must differ"),
    "a group named as a subscription": (
        lambda: worker(group="aggregator", env={}),
        "named 'aggregator'; names must differ",
    ),
    "a worker named as the load": (lambda: worker(name="load"), "can be named 'load'"),
    "a worker named as a service": (lambda: worker(name="kafka"), "can be named 'kafka'"),
    "a worker named as another's replica": (
        lambda: worker(name="converter-2").replicas(converter=2),
        "can be named 'converter-2'",
    ),
    "a worker named as a broker": (
        lambda: worker(name="kafka-2").brokers(kafka=3),
        "can be named 'kafka-2'",
    ),
    "a service named as a broker": (
        lambda: changed(services=[*kappa.services, Kafka("kafka-2")]).brokers(kafka=3),
        "named 'kafka-2', and so would be a broker",
    ),
    "no broker": (lambda: kappa.brokers(kafka=0), "at least one broker"),
    "a batch truth without a command": (lambda: batch(command=()), "the batch truth has no command"),
    "a batch truth that uses an unknown service": (lambda: batch(uses={"KAFKA": "kafak"}), "Did you mean 'kafka'"),
    "an unknown name in the batch truth's": (lambda: batch(env={"T": "{sorce}"}), "Did you mean 'source'"),
    "no quiet": (lambda: changed(max_quiet_s=0), "max_quiet_s must be more than 0"),
    "late before its time": (lambda: changed(late_after_s=-1), "late_after_s 0 or more"),
    "an unknown key field": (lambda: changed(cells=[Cells("x", ["tweet"], [10])]), "Did you mean 'tweet_id'"),
    "no window": (lambda: changed(cells=[Cells("x", ["tweet_id"], [])]), "windows of more than 0 seconds"),
    "a window of 0 s": (lambda: changed(cells=[Cells("x", ["tweet_id"], [10, 0])]), "windows of more than 0 seconds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused_with_help(case: str) -> None:
    make, told = WRONG[case]
    with pytest.raises(UsageError) as raised:
        make().validate()
    assert told in str(raised.value)


def test_a_wrong_name_is_told_with_the_list_and_the_nearest_only_where_one_is_near() -> None:
    near = "There is no hop 'sorce'. Did you mean 'source'? The hops are: sink, source."
    assert str(unknown("hop", "sorce", ["source", "sink"])) == near
    assert str(unknown("hop", "xyz", ["source", "sink"])) == "There is no hop 'xyz'. The hops are: sink, source."
    assert str(unknown("hop", "xyz", [])) == "There is no hop 'xyz'. The hops are: (none)."
    assert "The boxes are: a." in str(unknown("box", "b", ["a"], "boxes"))


def test_things_are_found_by_name_or_refused() -> None:
    assert kappa.service("kafka").kind == "kafka"
    assert kappa.worker("converter").reads == "intermediate"
    assert (kappa.hop("aggregates"), kappa.source) == (kappa.sink, kappa.hop("source"))
    assert kappa.link("converter->pubsub").service == "pubsub"
    for find, name, told in (
        (kappa.service, "kafak", "Did you mean 'kafka'"),
        (kappa.worker, "convertr", "Did you mean 'converter'"),
        (kappa.hop, "aggregate", "Did you mean 'aggregates'"),
        (kappa.link, "converter->bigtable", "converter->pubsub"),
    ):
        with pytest.raises(UsageError) as raised:
            find(name)
        assert told in str(raised.value)


def test_a_run_makes_every_name_fresh_and_a_group_that_two_workers_share_once() -> None:
    shared = changed(workers=[dataclasses.replace(w, group="all", env={}) for w in kappa.workers])
    names = shared.validate().resources()
    assert (names.count("all"), "converter" in names) == (1, False)
    assert {"source", "aggregator", "aggregates", "refused"} <= set(names)


def test_replicas_are_processes_with_names_and_links_of_their_own() -> None:
    doubled = kappa.replicas(converter=2).validate()
    assert list(doubled.instances()) == ["preprocessor", "converter-1", "converter-2", "aggregator"]
    assert doubled.instances()["converter-2"].name == "converter"
    assert "converter" not in {link.worker for link in doubled.links()}
    assert kappa.worker("converter").replicas == 1  # the value that it was made from is as it was


def test_brokers_are_processes_with_names_and_a_proxy_each_on_every_link() -> None:
    thrice = kappa.brokers(kafka=3).validate()
    assert thrice.service("kafka").processes() == ["kafka-1", "kafka-2", "kafka-3"]
    assert (kappa.service("kafka").processes(), kappa.service("pubsub").processes()) == (["kafka"], ["pubsub"])
    link = thrice.link("load->kafka")
    assert link.proxies == ["load->kafka@1", "load->kafka@2", "load->kafka@3"]
    assert {link_of(proxy) for proxy in link.proxies} == {link.name}
    assert thrice.link("converter->pubsub").proxies == ["converter->pubsub"]
    assert kappa.link("load->kafka").proxies == ["load->kafka"]
    with pytest.raises(UsageError, match="'pubsub' is no Kafka"):
        kappa.brokers(pubsub=3)


def test_a_worker_has_one_link_to_a_service_however_often_it_uses_it_and_none_to_sqlite() -> None:
    links = with_sqlite("shop", uses={"A": "kafka", "B": "kafka", "C": "sqlite"}).links()
    assert [link.name for link in links if link.worker == "preprocessor"] == ["preprocessor->kafka"]


def test_every_pipeline_of_the_catalog_is_valid() -> None:
    for pipeline in catalog.pipelines().values():
        pipeline.validate()
    for scenario in catalog.scenarios().values():
        scenario.validate()
    for mutant in MUTANTS.values():
        catalog.fitted(catalog.scenario(mutant.scenario), mutant.pipeline).validate()


def test_links_are_one_for_each_process_and_service_and_one_for_the_load() -> None:
    assert [link.name for link in kappa.links()] == [
        "load->kafka",
        "preprocessor->kafka",
        "converter->kafka",
        "converter->pubsub",
        "aggregator->pubsub",
        "aggregator->bigtable",
    ]
    assert [link.name for link in kappa.replicas(preprocessor=2).links()][1:3] == [
        "preprocessor-1->kafka",
        "preprocessor-2->kafka",
    ]
    with pytest.raises(UsageError, match="Did you mean 'converter'"):
        kappa.replicas(convertr=2)


@pytest.mark.parametrize(
    ("scenario", "told"),
    [
        (Scenario("s", kappa, faults=[kill("convertr")]), "Did you mean 'converter'"),
        (Scenario("s", kappa, assertions=[duplicate_rate("aggregate")]), "Did you mean 'aggregates'"),
        (Scenario("s", kappa, expected={"no_los": "violation"}, assertions=[no_loss()]), "Did you mean 'no_loss'"),
        (
            Scenario("s", kappa, expected={"no_loss": "pass"}, assertions=[no_loss()]),
            "Only a violation can be expected",
        ),
        (Scenario("s", kappa, Steady(share_late=0.3), assertions=[batch_parity(0.95)]), "cannot be reached"),
        (Scenario("s", changed(batch=None), assertions=[batch_parity()]), "a sink and a batch truth"),
        (Scenario("s", kappa, Steady(rate=1, seconds=1), users=5), "5 users cannot share 1 event"),
    ],
)
def test_a_scenario_that_cannot_work_is_refused_before_anything_starts(scenario: Scenario, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        scenario.validate()
    assert told in str(raised.value)


def test_a_small_pipeline_without_a_sink_is_fine() -> None:
    small = Pipeline(
        "small",
        [Kafka("kafka", topics={"in": 1, "out": 1})],
        [Worker("w", ["cat"], uses={"KAFKA": "kafka"}, reads="in", writes=["out"])],
        [
            KafkaHop("in", "kafka", "source", "in", event_id=lambda v, a: None),
            KafkaHop("out", "kafka", topic="out", event_id=lambda v, a: None),
        ],
    ).validate()
    assert small.sink is None
    assert {a.name for a in catalog.claims(small)} == {"no_loss", "content", "duplicate_rate", "latency", "recovery"}


def test_a_worker_waits_for_the_services_that_it_uses_or_knows_a_name_of() -> None:
    count, ask = served.workers
    assert served.needs(count) == {"kafka", "cache", "files"}
    assert served.needs(ask) == {"cache"}
    assert served.validate().serving() == {"ask": ask}
    assert [link.name for link in served.links()] == ["load->kafka", "count->kafka", "count->cache", "ask->cache"]
