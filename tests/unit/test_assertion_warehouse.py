"""warehouse_duplicates and warehouse_parity: they agree with the ledger, or say where they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from saved_run import World
from saved_warehouse import WarehouseWorld

from assertions.base import Finding
from assertions.duplicate_rate import DuplicateRate
from assertions.no_loss import NoLoss
from assertions.warehouse_duplicates import WarehouseDuplicates
from assertions.warehouse_parity import WarehouseParity
from harness.store import CELL, DamagedRun, SavedRun
from harness.topology import UsageError

Edit = Callable[[pl.DataFrame], pl.DataFrame]


def duplicates(world: World, tmp_path: Path) -> Finding:
    return WarehouseDuplicates().check(world.save(tmp_path))


def parity(world: World, tmp_path: Path, least: float = 0.5) -> Finding:
    return WarehouseParity(least=least).check(world.save(tmp_path))


def set_final(**figures: Any) -> Edit:
    """Changes the final figures alone."""
    return lambda frame: frame.with_columns(
        pl.when(pl.col("final")).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in figures.items()
    )


# ------------------------------------------------------------------------------------------------- duplicates


def test_a_healthy_run_agrees(tmp_path: Path) -> None:
    finding = duplicates(WarehouseWorld(), tmp_path)
    assert finding.verdict == "pass", finding.summary
    assert finding.figures["warehouse"] == finding.figures["ledger"]
    assert finding.figures["ledger"]["before"] == finding.figures["ledger"]["after"] == 0
    assert (finding.figures["missing_messages"], finding.figures["cells_apart"]) == (0, 0)
    assert finding.figures["series"] == 2


def test_what_was_published_twice_moves_both_ways_to_the_rate_before_deduplication(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.double("published", *(int(p) for p in world.sound[:100]))
    run = world.save(tmp_path)
    finding, rate = WarehouseDuplicates().check(run), DuplicateRate("published", most=1.0).check(run)
    assert finding.verdict == "pass", finding.summary
    assert finding.figures["warehouse"]["before"] == rate.figures["rate"] > 0
    assert finding.figures["warehouse"]["after"] == 0


def test_without_deduplication_both_ways_to_the_rate_after_it_move(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.double("published", *(int(p) for p in world.sound[:100]), further=True)
    run = world.save(tmp_path)
    finding, rate = WarehouseDuplicates().check(run), DuplicateRate("aggregates").check(run)
    assert finding.verdict == "pass", finding.summary
    assert rate.verdict == "violation"
    assert finding.figures["warehouse"]["after"] == rate.figures["rate"] > 0
    assert finding.figures["warehouse"]["counted"] - finding.figures["warehouse"]["events"] == 100
    assert rate.figures["extra"] == 100


def test_a_message_that_was_never_exported(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.double("published", int(world.sound[7]))
    world.copies["raw"][world.sound[7]] = 1  # one of its two messages
    finding = duplicates(world, tmp_path)
    assert finding.verdict == "violation"
    assert "1 message of published never came into raw" in finding.summary
    assert "the warehouse says" in finding.summary
    assert any(example.get("only_at") == "published" for example in finding.examples)


def test_a_message_that_nobody_saw(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.copies["raw"][world.sound[7]] = 2
    finding = duplicates(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["strange_messages"] > 0


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (set_final(messages=1_000_000), "the warehouse says 1,000,000 messages"),
        (set_final(events=3), "and 3 events"),
        (set_final(before=0.5), "and 0.5 before"),
        (set_final(counted=4), "settled and 4 counted and 0.0 after at aggregates"),
        (set_final(settled=5), "the warehouse says 5 settled"),
        (set_final(after=0.25), "counted and 0.25 after"),
    ],
)
def test_a_figure_of_the_warehouse_that_is_not_the_ledgers(tmp_path: Path, edit: Edit, told: str) -> None:
    world = WarehouseWorld()
    world.edit_duplicates = edit
    finding = duplicates(world, tmp_path)
    assert finding.verdict == "violation"
    assert told in finding.summary


@pytest.mark.parametrize("change", [-1, 1])
def test_a_cell_that_is_exported_otherwise_than_it_is(tmp_path: Path, change: int) -> None:
    world = WarehouseWorld()
    world.edit_counts = lambda frame: frame.with_columns(
        count=pl.when(pl.int_range(pl.len()) == 20).then(pl.col("count") + change).otherwise(pl.col("count"))
    )
    finding = duplicates(world, tmp_path)
    assert (finding.verdict, finding.figures["cells_apart"]) == ("violation", 1)
    assert finding.examples[0]["exported"] - finding.examples[0]["in_sink"] == change


def test_a_weight_alone_is_enough(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.edit_counts = lambda frame: frame.with_columns(weight=pl.col("weight") + 1)
    finding = duplicates(world, tmp_path)
    assert (finding.verdict, finding.figures["cells_apart"]) == ("violation", finding.figures["cells"])


def test_a_cell_that_was_not_exported(tmp_path: Path) -> None:
    world = WarehouseWorld()
    some = world.counted().join(world.batch_cells(), on=CELL, how="semi").tail(2).select(CELL)
    world.edit_counts = lambda frame: frame.join(some, on=CELL, how="anti")
    finding = duplicates(world, tmp_path)
    assert (finding.verdict, finding.figures["cells_apart"]) == ("violation", 2)


def test_a_monitor_that_stood_still(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.double("published", *(int(p) for p in world.sound[:300]))
    world.edit_duplicates = lambda frame: frame.filter(pl.col("final") | (pl.col("before") == 0))
    finding = duplicates(world, tmp_path)
    assert finding.verdict == "violation"
    assert "and 0.0 before as the monitor told it last, and it should be" in finding.summary


def test_a_monitor_that_told_nothing_is_no_proof(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.edit_duplicates = lambda frame: frame.filter("final")
    finding = duplicates(world, tmp_path)
    assert (finding.verdict, finding.summary) == ("inconclusive", "the monitor told nothing")


@pytest.mark.parametrize("times", [0, 2])
def test_final_figures_that_were_not_told_once(tmp_path: Path, times: int) -> None:
    world = WarehouseWorld()
    world.edit_duplicates = lambda frame: pl.concat(
        [frame.filter(~pl.col("final")), *[frame.filter("final") for _ in range(times)]]
    )
    finding = duplicates(world, tmp_path)
    assert (finding.verdict, finding.summary) == (
        "inconclusive",
        f"cannot say: the warehouse told its final figures {times} times",
    )


@pytest.mark.parametrize("hop", ["source", "published", "raw", "aggregates", "counts"])
def test_uncertified_is_inconclusive_whatever_was_found(tmp_path: Path, hop: str) -> None:
    world = WarehouseWorld()
    world.uncertified[hop] = "two readings differ"
    world.edit_duplicates = set_final(messages=1)
    world.edit_parity = lambda frame: frame.head(10)
    for finding in (duplicates(world, tmp_path / "one"), parity(world, tmp_path / "two")):
        assert finding.verdict == "inconclusive"
        assert f"the tap of {hop} is not certified" in finding.summary


@pytest.mark.parametrize("without", ["warehouse duplicates", "raw", "counts"])
def test_what_was_not_stored(tmp_path: Path, without: str) -> None:
    world = WarehouseWorld()
    world.without = {without}
    finding = duplicates(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "not stored" in finding.summary


def test_a_loss_before_the_exports_is_for_others_to_find(tmp_path: Path) -> None:
    world = WarehouseWorld()
    run = world.lose("published", int(world.sound[3])).save(tmp_path)
    finding = WarehouseDuplicates().check(run)
    assert (finding.verdict, NoLoss().check(run).verdict) == ("pass", "violation")
    assert finding.figures["warehouse"]["events"] == len(world.sound) - 1


def test_an_event_that_is_not_counted_is_none_less_by_both(tmp_path: Path) -> None:
    world = WarehouseWorld()
    finding = duplicates(world.lose("aggregates", int(world.sound[3])), tmp_path)
    assert finding.verdict == "pass"
    assert finding.figures["warehouse"]["after"] == finding.figures["ledger"]["after"] < 0


def test_no_events(tmp_path: Path) -> None:
    world = WarehouseWorld()
    for copies in world.copies.values():
        copies[:] = 0
    world.outcome[:] = "f"
    assert duplicates(world, tmp_path / "one").verdict == "inconclusive"
    assert parity(world, tmp_path / "two").verdict == "inconclusive"


@pytest.mark.parametrize("check", [duplicates, parity])
def test_without_a_warehouse(tmp_path: Path, check: Callable[[World, Path], Finding]) -> None:
    finding = check(World(), tmp_path)
    assert (finding.verdict, finding.summary) == (
        "inconclusive",
        "cannot say: the pipeline declares no warehouse",
    )


@pytest.mark.parametrize("name", ["duplicates", "parity"])
def test_an_answer_of_the_warehouse_that_was_changed_is_damage(tmp_path: Path, name: str) -> None:
    run = WarehouseWorld().save(tmp_path)
    file = run.folder.warehouse(name)
    pl.read_parquet(file).head(1).write_parquet(file)
    with pytest.raises(DamagedRun, match=f"{name}.parquet"):
        SavedRun.load(run.path)


# ------------------------------------------------------------------------------------------------------ parity


def test_parity_of_a_healthy_run(tmp_path: Path) -> None:
    world = WarehouseWorld()
    finding = parity(world, tmp_path)
    assert finding.verdict == "pass", finding.summary
    assert finding.figures["parity"] == finding.figures["ledger_parity"]
    assert 0.5 < finding.figures["parity"] < 1
    assert finding.figures["explained"] > 0
    assert (finding.figures["wrong"], finding.figures["apart"]) == (0, 0)


def test_a_bound_that_is_not_kept(tmp_path: Path) -> None:
    finding = parity(WarehouseWorld(), tmp_path, least=0.999)
    assert finding.verdict == "violation"
    assert "at least 99.900% is wanted" in finding.summary


def test_a_query_that_ignores_missing_cells(tmp_path: Path) -> None:
    """The cells of late events alone, which the batch does not have at all: an inner join loses them."""
    world = WarehouseWorld()
    world.edit_parity = lambda frame: frame.filter((pl.col("stream") > 0) & (pl.col("batch") > 0))
    finding = parity(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["left_out"] == finding.figures["apart"] > 0
    assert "are none to the warehouse" in finding.summary
    assert finding.examples[0]["warehouse"] is None


def test_a_query_that_finds_wrong_what_is_explained(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.edit_parity = lambda frame: frame.with_columns(pl.col("kind").replace("explained", "wrong"))
    finding = parity(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["apart"] == finding.figures["wrong"] > 0


def test_a_query_that_finds_exact_what_is_explained(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.edit_parity = lambda frame: frame.with_columns(pl.col("kind").replace("explained", "exact"))
    finding = parity(world, tmp_path)
    assert finding.verdict == "violation"
    assert (finding.figures["parity"], finding.figures["wrong"]) == (1.0, 0)
    assert "differ about" in finding.summary


def test_a_query_that_tells_of_a_cell_twice(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.edit_parity = lambda frame: pl.concat([frame, frame.filter(pl.col("kind") == "exact").head(3)])
    finding = parity(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["repeated"] == 3
    assert "the query tells of 3 cells once more" in finding.summary


def test_a_cell_that_only_the_query_knows(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.edit_parity = lambda frame: pl.concat([frame, frame.head(1).with_columns(key=pl.lit("42|like"))])
    finding = parity(world, tmp_path)
    assert (finding.verdict, finding.figures["apart"], finding.figures["left_out"]) == ("violation", 1, 0)
    assert (finding.examples[0]["key"], finding.examples[0]["ledger"]) == ("42|like", None)


def test_a_wrong_cell_of_which_both_say_so_is_wrong(tmp_path: Path) -> None:
    world = WarehouseWorld()
    finding = parity(world.lose("aggregates", int(world.sound[5])), tmp_path)
    assert finding.verdict == "violation"
    assert (finding.figures["apart"], finding.figures["wrong"]) == (0, 4)
    assert {e["ledger"] for e in finding.examples} == {e["warehouse"] for e in finding.examples} == {"wrong"}


def test_a_stream_that_drops_late_events_looks_exact_to_nobody(tmp_path: Path) -> None:
    world = WarehouseWorld()
    truth = world.batch_cells()
    world.edit_cells = lambda _: truth
    finding = parity(world, tmp_path)
    assert finding.verdict == "violation"
    # Each of its late events was alone in its cells, which neither stream nor batch has then.
    assert finding.figures["apart"] == finding.figures["left_out"] > 0


def test_without_what_the_query_said(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.without = {"warehouse parity"}
    finding = parity(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "what the warehouse says of parity was not stored" in finding.summary


def test_cells_of_events_that_a_service_lost_are_not_compared(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.copies["source"][world.sound[0]] = 0
    finding = parity(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert (finding.figures["undecided"], finding.figures["wrong"]) == (4, 0)


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_a_bound_that_cannot_be(least: float) -> None:
    with pytest.raises(UsageError, match="warehouse_parity: least must be a share"):
        WarehouseParity(least=least)


def test_the_figures_are_those_of_every_event_by_hand(tmp_path: Path) -> None:
    """Messages, events and surplus counted here without the harness's own arithmetic."""
    world = WarehouseWorld()
    some = [int(p) for p in world.sound[10:60]]
    world.double("published", *some)
    world.double("aggregates", *some[:20])
    finding = duplicates(world, tmp_path)
    assert finding.verdict == "pass", finding.summary
    told = finding.figures["warehouse"]
    assert (told["messages"], told["events"]) == (len(world.sound) + 50, len(world.sound))
    assert told["counted"] == len(world.sound) + 20
    assert told["before"] == pytest.approx(50 / len(world.sound), abs=1e-6)
    assert np.isclose(told["after"], 20 / len(world.sound), atol=1e-6)
