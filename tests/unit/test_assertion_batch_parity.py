"""batch_parity: exact, explained by late events, or wrong; and wrong is told from the generator, not from agreement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from saved_run import HOPS, World

from assertions.base import Finding
from assertions.batch_parity import BatchParity
from harness.store import CELL
from harness.topology import UsageError
from load.profiles import Steady

#: As in the main job: parity of 97 … 99 %.
DEFAULT = Steady(rate=2_000, seconds=2)


def check(world: World, tmp_path: Path, least: float = 0.5) -> Finding:
    return BatchParity(least=least).check(world.save(tmp_path))


def test_a_healthy_run_of_the_default_profile_keeps_its_bound(tmp_path: Path) -> None:
    finding = check(World(profile=DEFAULT), tmp_path, least=0.95)
    assert finding.verdict == "pass"
    assert finding.figures["parity"] == finding.figures["expected_parity"] == finding.figures["agreement"]
    assert 0.95 < finding.figures["parity"] < 1
    assert finding.figures["wrong"] == 0
    assert finding.figures["exact"] + finding.figures["explained"] == finding.figures["cells"]


def test_parity_by_hand(tmp_path: Path) -> None:
    """The observed parity, counted event by event without the harness's own window arithmetic."""
    world = World()
    cells: dict[tuple[object, ...], bool] = {}
    for event in world.content.filter(~pl.col("poison")).iter_rows(named=True):
        for dimension in ("tweet", "author"):
            for window in (10_000, 60_000):
                start = event["event_time_ms"] - event["event_time_ms"] % window
                late = event["created_ms"] > start + window + 5_000
                key = (dimension, event[f"{dimension}_id"], event["engagement"], window, start)
                cells[key] = cells.get(key, False) or late
    finding = check(world, tmp_path)
    assert finding.figures["cells"] == len(cells)
    assert finding.figures["explained"] == sum(cells.values()) > 0
    assert finding.figures["parity"] == pytest.approx(1 - sum(cells.values()) / len(cells), abs=1e-6)


def test_a_bound_above_what_the_profile_gives_is_not_kept(tmp_path: Path) -> None:
    finding = check(World(), tmp_path, least=0.99)
    assert finding.verdict == "violation"
    assert "at least 99.000% is wanted" in finding.summary
    assert finding.figures["wrong"] == 0


def test_a_lost_event_makes_its_cells_wrong(tmp_path: Path) -> None:
    world = World()
    finding = check(world.lose("aggregates", int(world.sound[5])), tmp_path)
    assert finding.verdict == "violation"
    assert (finding.figures["wrong"], finding.figures["wrong_stream"], finding.figures["wrong_batch"]) == (4, 4, 0)
    assert {e["wrong"] for e in finding.examples} == {"stream"}
    assert all(e["expected"] - e["stream"] == 1 for e in finding.examples)


def test_a_difference_in_weight_alone_is_wrong(tmp_path: Path) -> None:
    world = World()
    world.edit_cells = lambda frame: frame.with_columns(weight=pl.col("weight") + 1)
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["wrong"] == finding.figures["cells"]


def test_a_batch_that_drops_too_much_is_wrong(tmp_path: Path) -> None:
    world = World()
    some = world.batch_cells().tail(3).select(CELL)
    world.edit_batch = lambda frame: frame.join(some, on=CELL, how="anti")
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert (finding.figures["wrong"], finding.figures["wrong_stream"], finding.figures["wrong_batch"]) == (3, 0, 3)
    assert {e["wrong"] for e in finding.examples} == {"batch"}


def test_a_batch_that_keeps_late_events_is_wrong_although_both_sides_agree(tmp_path: Path) -> None:
    world = World()
    everything = world.counted()
    world.edit_batch = lambda _: everything
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["agreement"] == 1.0
    assert finding.figures["wrong_batch"] == finding.figures["wrong"] > 0


def test_a_stream_that_drops_late_events_agrees_and_is_wrong(tmp_path: Path) -> None:
    world = World()
    truth = world.batch_cells()
    world.edit_cells = lambda _: truth
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["agreement"] == 1.0
    assert finding.figures["wrong_batch"] == 0
    assert finding.figures["wrong_stream"] == finding.figures["wrong"] > 0
    assert finding.figures["parity"] == finding.figures["expected_parity"]  # and this says nothing of it


def test_both_sides_in_another_time_zone_agree_and_are_wrong(tmp_path: Path) -> None:
    world = World()
    world.edit_cells = world.edit_batch = lambda frame: frame.with_columns(
        window_start_ms=pl.col("window_start_ms") + 3_600_000
    )
    assert check(world, tmp_path).verdict == "violation"


@pytest.mark.parametrize("side", ["stream", "batch"])
def test_a_cell_that_only_one_side_has(tmp_path: Path, side: str) -> None:
    world = World()
    strange = world.counted().tail(1).with_columns(key=pl.lit("42|like"))

    def add(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([frame, strange])

    if side == "stream":
        world.edit_cells = add
    else:
        world.edit_batch = add
    finding = check(world, tmp_path)
    assert (finding.verdict, finding.figures["wrong"]) == ("violation", 1)
    assert (finding.examples[0]["key"], finding.examples[0]["wrong"]) == ("42|like", side)


def test_a_cell_of_late_events_alone_may_be_absent_from_the_batch_or_zero(tmp_path: Path) -> None:
    world = World()
    only_late = world.counted().join(world.batch_cells(), on=CELL, how="anti")
    assert only_late.height > 0
    assert check(world, tmp_path / "absent").verdict == "pass"
    zero = only_late.with_columns(pl.lit(0, dtype=pl.Int64).alias(c) for c in ("count", "weight"))
    world.edit_batch = lambda frame: pl.concat([frame, zero])
    assert check(world, tmp_path / "zero").verdict == "pass"


# ---------------------------------------------------------------------------------------------- inconclusive


def test_without_the_batch_truth_it_cannot_be_said(tmp_path: Path) -> None:
    world = World()
    world.without = {"batch"}
    finding = check(world, tmp_path / "failed")
    assert finding.verdict == "inconclusive"
    assert "the batch truth was not stored" in finding.summary
    finding = check(World(batch=False), tmp_path / "none")
    assert (finding.verdict, finding.summary) == ("inconclusive", "cannot say: the pipeline declares no batch truth")


def test_without_a_sink(tmp_path: Path) -> None:
    world = World(hops=tuple(hop for hop in HOPS if hop["role"] != "sink"))
    world.without = {"batch", "progress"}
    assert check(world, tmp_path).verdict == "inconclusive"


@pytest.mark.parametrize("hop", ["source", "aggregates"])
def test_uncertified_is_inconclusive_whatever_was_found(tmp_path: Path, hop: str) -> None:
    world = World().lose("aggregates", int(World().sound[5]))
    world.uncertified[hop] = "two readings differ"
    finding = check(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert finding.figures["wrong"] == 4


def test_no_events(tmp_path: Path) -> None:
    world = World()
    for copies in world.copies.values():
        copies[:] = 0
    world.outcome[:] = "f"
    assert check(world, tmp_path).verdict == "inconclusive"


def test_cells_of_events_that_a_service_lost_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    world = World()
    world.copies["source"][world.sound[0]] = 0
    finding = check(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert (finding.figures["undecided"], finding.figures["wrong"]) == (4, 0)


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_a_bound_that_cannot_be(least: float) -> None:
    with pytest.raises(UsageError):
        BatchParity(least=least)


def test_the_worst_cells_come_first(tmp_path: Path) -> None:
    world = World()
    world.lose("aggregates", *(int(p) for p in world.sound[:300]))
    finding = check(world, tmp_path)
    short = [e["expected"] - e["stream"] for e in finding.examples]
    assert short == sorted(short, reverse=True)
    assert len(short) == 32
    assert short[0] > short[-1] >= 1
    assert np.sum(short) > 32
