"""no_loss: a healthy run passes, and each way to lose an event is found, named, and called what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from saved_run import HOPS, World

from assertions.base import Finding
from assertions.batch_parity import BatchParity
from assertions.cells import CELL
from assertions.duplicate_rate import DuplicateRate
from assertions.no_loss import NoLoss
from load.events import POISONS
from load.profiles import Steady


def check(world: World, tmp_path: Path) -> Finding:
    return NoLoss().check(world.save(tmp_path))


def lost(finding: Finding) -> dict[str, dict[str, Any]]:
    return {e["event"]: dict(e) for e in finding.examples if "lost_at" in e}


def likely(finding: Finding) -> set[str]:
    return {e["likely_event"] for e in finding.examples if "likely_event" in e}


@pytest.mark.parametrize("users", [1, 3])
def test_a_healthy_run(tmp_path: Path, users: int) -> None:
    world = World(users=users)
    finding = check(world, tmp_path)
    assert (finding.verdict, list(finding.examples)) == ("pass", [])
    assert finding.figures["must_arrive"] == len(world.sound)
    assert finding.figures["poison"]["planted"] == world.poison.sum() > 0
    assert finding.figures["sink"]["cells"] > 100


@pytest.mark.parametrize("hop", ["intermediate", "published"])
def test_an_event_lost_at_a_hop_is_named_with_where(tmp_path: Path, hop: str) -> None:
    world = World()
    places = [int(p) for p in world.sound[[3, 500]]]
    finding = check(world.lose(hop, *places), tmp_path)
    assert finding.verdict == "violation"
    found = lost(finding)
    assert set(found) == {world.event_id(p) for p in places}
    before = {"intermediate": "source", "published": "intermediate"}[hop]
    assert all((e["lost_at"], e["last_seen_at"]) == (hop, before) for e in found.values())
    assert found[world.event_id(places[1])]["due_s"] == pytest.approx(places[1] / 200, abs=0.001)
    assert finding.figures["hops"][hop]["missing"] == 2
    assert finding.figures["lost"] == 2
    assert finding.figures["sink"]["short_events"] == 2
    assert f"never reached {hop}" in finding.summary


def test_an_event_that_skips_a_hop_and_arrives_all_the_same_is_lost_at_that_hop(tmp_path: Path) -> None:
    world = World()
    world.copies["intermediate"][world.sound[3]] = 0
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert lost(finding)[world.event_id(world.sound[3])]["last_seen_at"] == "published"
    assert finding.figures["sink"]["short_cells"] == 0


def test_an_event_lost_only_at_the_sink_is_named_by_its_weight(tmp_path: Path) -> None:
    world = World()
    places = [int(p) for p in world.sound[[7, 900]]]
    finding = check(world.lose("aggregates", *places), tmp_path)
    assert finding.verdict == "violation"
    assert not lost(finding)
    assert likely(finding) == {world.event_id(p) for p in places}
    assert finding.figures["sink"]["short_events"] == 2
    assert finding.figures["sink"]["short_cells"] == 8  # two dimensions, two windows each
    assert finding.figures["hops"]["published"]["missing"] == 0


def test_a_whole_cell_that_is_missing(tmp_path: Path) -> None:
    world = World()
    gone = world.counted().filter(pl.col("dimension") == "author").sort("count").tail(1)
    world.edit_cells = lambda frame: frame.join(gone, on=gone.columns[:4], how="anti")
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["sink"]["short_events"] == gone["count"][0] > 1
    assert finding.examples[0]["key"] == gone["key"][0]
    assert (finding.examples[0]["expected"], finding.examples[0]["counted"]) == (gone["count"][0], 0)


def _two_of_a_cell(world: World) -> tuple[int, int]:
    """Two events with weights of their own that share every cell."""
    frame = world.content.with_row_index("place").filter(~pl.col("poison") & ~pl.col("twin"))
    frame = frame.with_columns(w10=pl.col("event_time_ms") // 10_000)
    groups = frame.group_by("tweet_id", "engagement", "w10").agg(pl.col("place")).sort("tweet_id", "engagement", "w10")
    pair = groups.filter(pl.col("place").list.len() >= 2)["place"][0]
    assert world.content["weight"][int(pair[0])] != world.content["weight"][int(pair[1])]
    return int(pair[0]), int(pair[1])


def test_one_missing_and_one_doubled_in_the_same_cell_do_not_cancel(tmp_path: Path) -> None:
    world = World()
    gone, twice = _two_of_a_cell(world)
    world.lose("aggregates", gone).double("aggregates", twice)
    run = world.save(tmp_path)
    finding = NoLoss().check(run)
    assert finding.verdict == "violation"
    assert finding.figures["sink"] == {
        "certified": True,
        "cells": finding.figures["sink"]["cells"],
        "short_cells": 0,
        "short_events": 0,
        "masked_cells": 4,
        "unexplained_cells": 0,
        "undecided_cells": 0,
    }
    assert "another is counted in its place" in finding.summary
    doubled = DuplicateRate("aggregates").check(run)  # counts alone would have seen nothing
    assert (doubled.verdict, doubled.figures["extra"]) == ("inconclusive", 0)
    assert "a loss may hide duplicates in 4 cells" in doubled.summary


@pytest.mark.parametrize(
    ("weight", "verdict"),
    [(10**12, "violation"), (-(10**12), "violation"), (300_000_000, "violation"), (2_500_012_345, "inconclusive")],
)
def test_a_surplus_of_five_in_a_hot_cell(tmp_path: Path, weight: int, verdict: str) -> None:
    """No five events have such a weight together; or too many do to tell which."""
    world = World()
    hot = world.counted().sort("count", descending=True).row(0, named=True)

    def five_more(cells: pl.DataFrame) -> pl.DataFrame:
        it = pl.all_horizontal(
            pl.col(name) == hot[name] for name in ("dimension", "key", "window_s", "window_start_ms")
        )
        more = pl.when(it).then(1).otherwise(0)
        return cells.with_columns(count=pl.col("count") + 5 * more, weight=pl.col("weight") + weight * more)

    world.edit_cells = five_more
    finding = NoLoss().check(world.save(tmp_path))
    assert finding.verdict == verdict
    found = [finding.figures["sink"][name] for name in ("unexplained_cells", "undecided_cells")]
    assert found == ([1, 0] if verdict == "violation" else [0, 1])
    told = {
        "violation": "1 cell of aggregates hold a weight",
        "inconclusive": "a loss may hide behind the duplicates in 1",
    }
    assert told[verdict] in finding.summary


def test_a_loss_hidden_behind_two_duplicates_in_the_same_cell(tmp_path: Path) -> None:
    world = World()
    gone, twice = _two_of_a_cell(world)
    world.lose("aggregates", gone).double("aggregates", twice, twice)
    world.copies["aggregates"][twice] = 3  # -1 and +2: the count is one too high
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["sink"]["short_cells"] == 0
    assert finding.figures["sink"]["unexplained_cells"] == 4


def test_a_plain_duplicate_at_the_sink_is_no_loss(tmp_path: Path) -> None:
    world = World()
    world.double("aggregates", *(int(p) for p in world.sound[:50]))
    assert check(world, tmp_path).verdict == "pass"


def test_lost_and_doubled_in_different_cells_are_both_found(tmp_path: Path) -> None:
    world = World()
    gone = int(world.sound[3])
    twice = world.apart_from(gone)
    run = world.lose("aggregates", gone).double("aggregates", twice).save(tmp_path)
    loss, doubled = NoLoss().check(run), DuplicateRate("aggregates").check(run)
    assert (loss.verdict, doubled.verdict) == ("violation", "violation")
    assert likely(loss) == {world.event_id(gone)}
    assert likely(doubled) == {world.event_id(twice)}


def test_late_events_that_the_stream_drops_are_a_loss_though_it_agrees_with_the_batch(tmp_path: Path) -> None:
    world = World()
    truth = world.batch_cells()
    world.edit_cells = lambda _: truth  # the stream discards just what the batch discards
    run = world.save(tmp_path)
    loss, parity = NoLoss().check(run), BatchParity(least=0.5).check(run)
    assert loss.verdict == "violation"
    assert loss.figures["sink"]["short_cells"] > 0
    assert parity.figures["agreement"] == 1.0  # parity as one would compute it from the two sides alone
    assert parity.figures["wrong_stream"] == loss.figures["sink"]["short_cells"]


def leaving_out(profile: Steady, change: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]) -> World:
    """A pipeline that declares that it leaves out late events; its sink is what `change` makes of (the cells without
    late events, the whole cells with late_count and late_weight)."""
    world = World(profile=profile, leaves_out_late=True)
    truth, whole = world.batch_cells(), world._sum(world.copies["aggregates"])
    world.edit_cells = lambda _: change(truth, whole)
    return world


def test_a_pipeline_may_declare_that_it_leaves_out_late_events(tmp_path: Path) -> None:
    world = leaving_out(World().profile, lambda truth, whole: truth)
    run = world.save(tmp_path)
    finding, parity = NoLoss().check(run), BatchParity(least=0.5).check(run)
    assert (finding.verdict, parity.verdict) == ("pass", "pass"), finding.summary
    late = world._sum(world.copies["aggregates"]).group_by("dimension", "window_s").agg(pl.col("late_count").sum())
    assert finding.figures["sink"]["left_out_late"] == late["late_count"].max() > 0
    assert finding.figures["sink"]["short_events"] == 0
    assert parity.figures["wrong"] == 0 < parity.figures["explained"]


@pytest.mark.parametrize("lacks", ["one more", "one of several late", "all, by another weight"])
def test_it_may_leave_out_nothing_else(tmp_path: Path, lacks: str) -> None:
    """Of one cell that has two late events and others: an event more, an event less, or as many of another weight."""

    def change(truth: pl.DataFrame, whole: pl.DataFrame) -> pl.DataFrame:
        rich = (pl.col("late_count") > 1) & (pl.col("count") > pl.col("late_count") + 1)
        some = whole.filter(rich).sort(CELL).head(1).select(CELL)
        assert some.height == 1
        off = {"one more": -1, "one of several late": 1, "all, by another weight": 0}[lacks]
        changed = truth.join(some, on=CELL, how="semi").with_columns(pl.col("count") + off, pl.col("weight") + 1)
        return pl.concat([truth.join(some, on=CELL, how="anti"), changed])

    finding = check(leaving_out(Steady(rate=40, seconds=100, tweets=3, share_late=0.1), change), tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["sink"]["short_cells"] == 1


def test_twins_are_two_events(tmp_path: Path) -> None:
    world = World()
    twin = int(np.flatnonzero(world.content["twin"].to_numpy() & ~world.poison)[0])
    finding = check(world.lose("aggregates", twin), tmp_path)  # a pipeline that deduplicates by content
    assert finding.verdict == "violation"
    assert finding.figures["sink"]["short_events"] == 1


# --------------------------------------------------------------------------------------------------------- poison


def test_poison_that_is_in_no_dead_letter_hop_is_lost(tmp_path: Path) -> None:
    world = World()
    place = int(np.flatnonzero(world.poison)[2])
    world.copies["dead-letters"][place] = 0
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["poison"]["missing"] == 1
    assert [e["event"] for e in finding.examples] == [world.event_id(place)]


def test_a_sound_event_in_the_dead_letters_is_lost(tmp_path: Path) -> None:
    world = World()
    place = int(world.sound[40])
    world.lose("intermediate", place).copies["dead-letters"][place] = 1
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert finding.figures["poison"]["wrongly_dead_lettered"] == 1
    assert finding.figures["lost"] == 1
    assert "a sound event in a dead-letter hop" in {e.get("problem") for e in finding.examples}


def test_a_sound_event_that_arrives_and_is_a_dead_letter_too_is_still_wrong(tmp_path: Path) -> None:
    world = World()
    world.copies["dead-letters"][world.sound[40]] = 1
    finding = check(world, tmp_path)
    assert (finding.verdict, finding.figures["lost"]) == ("violation", 1)


def test_poison_that_was_passed_on_is_told_with_its_damage_and_where_it_came_to(tmp_path: Path) -> None:
    world = World()
    place = int(np.flatnonzero(world.poison)[2])
    world.copies["dead-letters"][place], world.copies["intermediate"][place] = 0, 1
    run = world.save(tmp_path)
    finding = NoLoss().check(run)
    assert "1 poison record in no dead-letter hop, passed on to intermediate as if sound" in finding.summary
    assert {
        "event": world.event_id(place),
        "problem": "poison that is in no dead-letter hop",
        "damage": POISONS[int(run.columns().damage[place])],
        "passed_on_to": ["intermediate"],
    } in finding.examples


def test_poison_twice_in_the_dead_letters_is_no_loss(tmp_path: Path) -> None:
    world = World()
    world.copies["dead-letters"] *= 2
    assert check(world, tmp_path).verdict == "pass"


def test_poison_without_a_dead_letter_hop_cannot_be_judged(tmp_path: Path) -> None:
    world = World(hops=tuple(hop for hop in HOPS if hop["role"] != "dead-letter"))
    finding = check(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "no dead-letter hop is declared" in finding.summary


# ------------------------------------------------------------------------------------------------- inconclusive


def test_what_was_found_at_an_uncertified_hop_is_inconclusive(tmp_path: Path) -> None:
    world = World()
    world.copies["published"][world.sound[3]] = 0
    world.uncertified["published"] = "no sentinel was seen"
    finding = check(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "the tap of published is not certified: no sentinel was seen" in finding.summary
    assert finding.figures["hops"]["published"] == {"events": 1969, "missing": 1, "certified": False}


def test_a_loss_that_is_proven_elsewhere_stands_beside_an_uncertified_hop(tmp_path: Path) -> None:
    world = World().lose("intermediate", int(World().sound[3]))
    world.uncertified["published"] = "no sentinel was seen"
    assert check(world, tmp_path).verdict == "violation"


@pytest.mark.parametrize("hop", ["source", "intermediate", "published", "dead-letters", "aggregates"])
def test_no_tap_may_be_uncertified_in_a_pass(tmp_path: Path, hop: str) -> None:
    world = World()
    world.uncertified[hop] = "a gap in the offsets"
    assert check(world, tmp_path).verdict == "inconclusive"


def test_without_the_whole_source_log_nothing_is_proven(tmp_path: Path) -> None:
    world = World().lose("intermediate", int(World().sound[3]))
    world.uncertified["source"] = "a gap in the offsets"
    assert check(world, tmp_path).verdict == "inconclusive"


@pytest.mark.parametrize("hop", ["source", "intermediate", "published", "dead-letters", "aggregates"])
def test_a_hop_that_was_not_stored_is_never_a_pass(tmp_path: Path, hop: str) -> None:
    world = World()
    world.without = {hop}
    assert check(world, tmp_path).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("roles", "verdict"),
    [(("source",), "inconclusive"), (("source", "path"), "pass"), (("source", "sink"), "pass")],
)
def test_a_pipeline_must_have_a_hop_after_the_source(tmp_path: Path, roles: tuple[str, ...], verdict: str) -> None:
    world = World(profile=Steady(rate=200, seconds=10, share_poison=0), hops=[h for h in HOPS if h["role"] in roles])
    world.without = set() if len(roles) > 1 else {"progress"}
    finding = NoLoss().check(world.save(tmp_path))
    assert (finding.verdict, "no hop after the source" in finding.summary) == (verdict, verdict == "inconclusive")


def test_of_cells_that_nothing_explains_the_worst_is_told_first(tmp_path: Path) -> None:
    world = World()
    hot = world.counted().filter(pl.col("count") > 3).head(5)

    def too_much(cells: pl.DataFrame) -> pl.DataFrame:
        more = hot.select(*CELL, more=pl.int_range(1, hot.height + 1))
        cells = cells.join(more, on=CELL, how="left", maintain_order="left").with_columns(pl.col("more").fill_null(0))
        weight = pl.when(pl.col("more") > 0).then(10**12).otherwise(0)
        return cells.with_columns(pl.col("count") + pl.col("more"), pl.col("weight") + weight).drop("more")

    world.edit_cells = too_much
    finding = NoLoss().check(world.save(tmp_path))
    assert finding.figures["sink"]["unexplained_cells"] == 5
    assert [e["counted"] - e["expected"] for e in finding.examples] == [5, 4, 3, 2, 1]


def test_no_events_at_all(tmp_path: Path) -> None:
    world = World()
    for copies in world.copies.values():
        copies[:] = 0
    world.outcome[:] = "f"
    finding = check(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "no event in the source log" in finding.summary


# ---------------------------------------------------------------------------------------------------- ambiguity


def test_an_ambiguous_event_that_is_in_the_log_must_arrive(tmp_path: Path) -> None:
    world = World()
    world.outcome[world.sound[:2]] = ["e", "?"]
    world.lose("intermediate", int(world.sound[0]), int(world.sound[1]))
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert set(lost(finding)) == {world.event_id(p) for p in world.sound[:2]}


def test_an_ambiguous_event_that_is_not_in_the_log_need_not_arrive(tmp_path: Path) -> None:
    world = World()
    world.outcome[world.sound[:2]] = ["e", "?"]
    world.lose("source", int(world.sound[0]), int(world.sound[1]))
    finding = check(world, tmp_path)
    assert finding.verdict == "pass"
    assert finding.figures["must_arrive"] == len(world.sound) - 2


def test_an_event_that_a_service_lost_is_not_the_pipelines_loss(tmp_path: Path) -> None:
    world = World()
    world.lose("source", int(world.sound[0]))  # acknowledged, and nowhere
    assert check(world, tmp_path).verdict == "pass"  # `ledger_settled` makes the run inconclusive
    world = World()
    world.copies["source"][world.sound[0]] = 0  # the log lost it after the pipeline had read it
    assert check(world, tmp_path / "read").verdict == "pass"


def test_examples_are_few_and_of_every_kind(tmp_path: Path) -> None:
    world = World()
    world.lose("intermediate", *(int(p) for p in world.sound[:500]))
    for place in np.flatnonzero(world.poison)[:20]:
        world.copies["dead-letters"][place] = 0
    finding = check(world, tmp_path)
    assert len(finding.examples) == 32
    assert len(lost(finding)) >= 8
    assert any("window_s" in e for e in finding.examples)
    assert any("problem" in e for e in finding.examples)
    cells = [e["expected"] - e["counted"] for e in finding.examples if "window_s" in e]
    assert cells == sorted(cells, reverse=True)


def test_a_doubled_event_in_the_source_counts_once(tmp_path: Path) -> None:
    world = World().double("source", *(int(p) for p in World().sound[:30]))
    run = world.save(tmp_path)
    assert NoLoss().check(run).verdict == "pass"
    assert DuplicateRate("aggregates").check(run).verdict == "pass"
    assert DuplicateRate("source").check(run).verdict == "violation"
