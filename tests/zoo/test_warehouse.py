"""The warehouse and the ledger agree exactly, whatever the seed; what breaks deduplication moves both, and a parity query
that is wrong is caught."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness import catalog
from harness.pytest_plugin import CheckableRun, Gauntlet
from harness.zoo import REPEATS
from load.profiles import Steady
from pipelines_under_test.mutants import MUTANTS
from pipelines_under_test.warehouse.pipeline import kappa_warehouse, with_warehouse

pytestmark = pytest.mark.chaos


def agree(run: CheckableRun) -> dict[str, float]:
    """Holds the two ways to each figure against each other; returns the figures."""
    figures = run.finding("warehouse_duplicates")["figures"]
    before = run.finding("duplicate_rate", "published")["figures"]
    after = run.finding("duplicate_rate", "aggregates")["figures"]
    told = figures["warehouse"]
    assert (told["messages"], told["events"]) == (before["messages"], before["events"])
    assert told["before"] == before["rate"]
    assert (told["counted"] - told["settled"], told["after"]) == (after["extra"], after["rate"])
    assert (figures["missing_messages"], figures["strange_messages"], figures["cells_apart"]) == (0, 0, 0)
    return dict(told)


@pytest.mark.parametrize("seed", [1])
def test_the_warehouse_agrees_with_the_ledger(gauntlet: Gauntlet, seed: int) -> None:
    run = gauntlet.scenario(catalog.scenario("warehouse").with_(seed=seed)).check()
    told = agree(run)
    assert told["before"] > 0
    assert told["after"] == 0


@pytest.mark.parametrize("seed", range(2, 11))
def test_it_does_so_with_more_seeds(gauntlet: Gauntlet, seed: int) -> None:
    test_the_warehouse_agrees_with_the_ledger(gauntlet, seed)


def test_a_mutant_of_deduplication_moves_both(gauntlet: Gauntlet) -> None:
    mutant = with_warehouse(MUTANTS["no-dedup"].pipeline, "no-dedup-warehouse", "counts every message that comes")
    for _ in range(REPEATS + 1):
        run = gauntlet.scenario("warehouse", mutant)
        verdict = run.judge()
        if run.finding("faults_effective")["verdict"] == "pass":
            break
    assert verdict["verdict"] == "violation"
    assert run.finding("duplicate_rate", "aggregates")["verdict"] == "violation"
    assert run.finding("warehouse_duplicates")["verdict"] == "pass", "it says so, too"
    told = agree(run)
    assert told["after"] > 0


def test_a_parity_query_that_ignores_missing_cells_is_caught(gauntlet: Gauntlet, tmp_path: Path) -> None:
    house = kappa_warehouse.warehouse
    assert house is not None
    sql = Path(house.parity).read_text()
    mutated = tmp_path / "parity.sql"
    mutated.write_text(sql.replace("FULL JOIN batch", "INNER JOIN batch"))
    assert mutated.read_text() != sql
    mutant = dataclasses.replace(
        kappa_warehouse, name="inner-join-warehouse", warehouse=dataclasses.replace(house, parity=str(mutated))
    )
    base = catalog.scenario("warehouse").with_(load=Steady(rate=500, seconds=8, tweets=300), faults=())
    base = base.with_(
        assertions=[a for a in base.assertions if a.name.startswith("warehouse") or a.name == "batch_parity"]
    )
    run = gauntlet.scenario(base, mutant)
    run.judge()
    assert run.finding("batch_parity")["verdict"] == "pass"
    assert run.finding("warehouse_duplicates")["verdict"] == "pass"
    caught = run.finding("warehouse_parity")
    assert caught["verdict"] == "violation"
    assert caught["figures"]["left_out"] == caught["figures"]["apart"] > 0
