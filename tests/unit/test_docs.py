"""The snippets of the pages that a stranger follows are run as they stand there, and say what the code says."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from served import served

import faults
import harness.topology
from examples.orders import pipeline, schema
from faults.random_schedule import LEAST_RATE_OF_A_LIMIT
from faults.reset_connections import ResetConnections
from harness import catalog, cli
from harness.topology import CONTENT_FIELDS, UsageError
from harness.zoo import upper_bound
from load.events import Plan, columns, encode
from load.profiles import Steady
from pipelines_under_test.kappa.converter import RawMessage
from pipelines_under_test.mutants.registry import MUTANTS, Mutant, mutant

DOCS = Path(__file__).parents[2] / "docs"


def snippets(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(page: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the page's Python from top to bottom, as one module in which `known` was imported; returns its names."""
    names: dict[str, Any] = {"__name__": __name__, **known}
    for text in snippets(page, "python"):
        exec(compile(text, page, "exec", dont_inherit=True), names)
    return names


@pytest.fixture(scope="module")
def shop() -> dict[str, Any]:
    return run("bring-your-own-pipeline.md", {**vars(harness.topology), "HERE": pipeline.HERE, "schema": schema})


def test_the_page_declares_what_the_example_does(shop: dict[str, Any]) -> None:
    assert shop["services"] == pipeline.orders.services
    assert shop["enrich"] == pipeline.enrich
    assert shop["cells"] == pipeline.orders.cells
    row = ("US", "ios", 1_790_000_010, 3, 12_345)
    assert list(shop["cells_in_row"](row)) == list(pipeline.cells_in_row(row))
    text = (DOCS / "bring-your-own-pipeline.md").read_text()
    assert pipeline.orders.encode is not None
    assert pipeline.orders.encode in text
    assert (
        f"it declares {pipeline.orders.max_quiet_s:g} s. The default is {harness.topology.Pipeline.max_quiet_s:g} s"
        in text
    )
    for hop in ("orders", "sales"):
        assert f'Hop("{hop}", ' in re.sub(r"\(\s+", "(", text).replace(",\n    ", ", ")


def test_the_comparison_on_its_page_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("orders")
    vars(module).update(orders=served, orders_v2=dataclasses.replace(served, name="orders-v2"))
    monkeypatch.setitem(sys.modules, "orders", module)
    side = run("side-by-side.md", {})["upgrade"]
    assert [s.pipeline.name for s in side.validate().scenarios] == ["served", "orders-v2"]


def test_its_command_runs_the_example() -> None:
    (command,) = snippets("bring-your-own-pipeline.md", "sh")
    program, *words = shlex.split(command)
    given = cli._parser().parse_args(words)
    assert (program, given.command) == ("gauntlet", "run")
    chosen = catalog.fitted(catalog.scenario(given.scenario), catalog.pipeline(given.pipeline))
    load = dataclasses.replace(chosen.load, rate=given.rate, seconds=given.seconds)
    assert chosen.with_(load=load).validate().pipeline is pipeline.orders


def test_its_test_is_one(shop: dict[str, Any]) -> None:
    """It is run on real services in tests/chaos/test_examples.py, but for the order of the faults."""
    test = shop["test_every_order_is_counted_once"]
    assert [mark.name for mark in test.pytestmark] == ["chaos"]
    with pytest.raises(_Asked) as asked:
        test(_Gauntlet())
    given_pipeline, load, schedule = asked.value.args[0]
    catalog.scenario("steady").with_(pipeline=given_pipeline, load=load, faults=schedule, assertions=()).validate()


def test_the_page_on_random_schedules_says_what_is_so() -> None:
    names = run("random-schedules.md", {})
    with pytest.raises(_Asked) as asked:
        names["test_no_order_is_lost_whatever_happens"](_Gauntlet(), 3)
    given_pipeline, load = asked.value.args[0]
    drawn = asked.value.args[1]["faults"].draw(given_pipeline, load.rate, load.seconds, "process", seed=0)
    assert drawn == faults.random_schedule(3).draw(pipeline.orders, 400, 15, "process", seed=0)
    (commands,) = snippets("random-schedules.md", "sh")
    for command in commands.splitlines():
        given = cli._parser().parse_args(shlex.split(command)[1:])
        chosen = catalog.scenario(given.scenario or catalog.DEFAULT_SCENARIO)
        if given.pipeline:
            chosen = catalog.fitted(chosen, catalog.pipeline(given.pipeline))
        load = dataclasses.replace(chosen.load, seconds=given.seconds)
        assert catalog.rescheduled(chosen.with_(load=load, seed=given.seed), given.schedule).validate().drawn("").faults
    text = " ".join((DOCS / "random-schedules.md").read_text().split())
    usual = faults.random_schedule()
    assert f"(seed=None, every_s={usual.every_s:g}, most_active={usual.most_active}, weights={{}})" in text
    assert f"less than {LEAST_RATE_OF_A_LIMIT} events a second" in text
    assert (round(100 * upper_bound(0, 20)), round(100 * upper_bound(0, 100))) == (14, 3)
    assert "fewer than 14 % at 95 % confidence, 100 fewer than 3 %" in text


class _Asked(Exception):
    pass


class _Gauntlet:
    def run(self, *asked: object, **named: object) -> None:
        raise _Asked(asked, named)


def test_its_error_message_is_the_one_that_is_told() -> None:
    (told,) = snippets("bring-your-own-pipeline.md", "text")
    wrong = dataclasses.replace(pipeline.enrich, env={**pipeline.enrich.env, "PRICED": "{prized}"})
    with pytest.raises(UsageError) as raised:
        dataclasses.replace(pipeline.orders, workers=(wrong, pipeline.counter)).validate()
    assert told == f"gauntlet: {raised.value}\n"


def test_the_event_that_is_shown_is_one_that_load_writes() -> None:
    (shown,) = snippets("bring-your-own-pipeline.md", "json")
    plan = Plan(Steady(rate=2, seconds=1, share_poison=0), 7, 1, 1_790_000_012_345, "1a2b3c4d")
    (written,) = encode(columns(plan, 1, 0, 1), plan, 1)
    assert len(shown.rstrip("\n")) == len(written)
    assert {name: type(v) for name, v in json.loads(shown).items()} == {
        name: type(v) for name, v in json.loads(written).items()
    }
    assert set(json.loads(shown)) == {"event_id", *CONTENT_FIELDS}


def test_every_fault_of_the_page_does_what_the_real_one_does() -> None:
    names = run("adding-a-fault.md", {**vars(faults.base), **vars(faults.reset_connections)})
    shown, real = names["ResetConnections"]("a->b"), ResetConnections("a->b")
    assert (shown.name, shown.about, shown.acts_on, shown.as_dict()) == (
        real.name,
        real.about,
        real.acts_on,
        real.as_dict(),
    )
    system = _System()
    assert shown.inject(system, ["a->b"]) == real.inject(system, ["a->b"])
    assert shown.heal(system, ["a->b"]) == real.heal(system, ["a->b"])
    assert system.calls[0::2] == [*system.calls[1::2]]


def test_the_mutant_of_the_page_is_the_one_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[Mutant] = []
    names = run("adding-a-mutant.md", {"mutant": lambda *asked, **more: entries.append(mutant(*asked, **more))})
    (entry,), real = entries, MUTANTS["fresh-uuid"]
    assert dataclasses.replace(entry, pipeline=real.pipeline) == real
    assert entry.pipeline.workers == real.pipeline.workers
    sent: list[str] = []
    monkeypatch.setattr(
        "pipelines_under_test.kappa.converter.Publisher.attempt",
        lambda self, messages, channel: sent.extend(m.attributes["uuid"] for m in messages),
    )
    for _ in range(2):
        names["ForgetfulPublisher"](None, "topic").attempt([RawMessage(attributes={"uuid": "one"})], None)
    assert len({*sent, "one"}) == 3


@pytest.mark.parametrize(
    "words", [("vendor.github-workflows", "ci/github-actions.yml"), ("vendor.gitlab-ci", "ci/gitlab-ci.yml")]
)
def test_the_recipes_for_ci_are_valid(words: tuple[str, str]) -> None:
    schema, file = words
    transform = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *transform, str(DOCS / file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    commands = re.findall(r"(?:run: |- )((?:gauntlet|pytest) .*)", (DOCS / file).read_text())
    assert len(commands) == 2
    for command in commands:
        program, *asked = shlex.split(command)
        if program == "gauntlet":
            cli._parser().parse_args(asked)


def test_the_worker_of_the_page_on_containers_is_one() -> None:
    names = run("containers.md", vars(harness.topology))
    assert names["count"].image.endswith(":1.42")


class _System:
    """Notes what a fault does, call by call."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def add_toxic(self, *asked: object) -> None:
        self.calls.append(("add", *map(str, asked)))

    def remove_toxic(self, *asked: object) -> None:
        self.calls.append(("remove", *map(str, asked)))
