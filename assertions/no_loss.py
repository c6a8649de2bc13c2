"""No event is lost: everything in the source log arrives at every hop and is counted at the sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assertions import attribution
from assertions import cells as sink_cells
from assertions.attribution import residue
from assertions.base import (
    MOST_EXAMPLES,
    Finding,
    Part,
    counted_noun,
    finding,
    mixed,
    not_certified,
    observed,
    parameters,
)
from harness.settlement import Bits
from harness.store import SavedRun
from load.events import ENGAGEMENTS, POISONS

Examples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class NoLoss:
    """Every event that must arrive does: at each path hop, in the cells of the sink, and poison in a dead-letter hop.

    A loss is: an event that is in the source log and not at a path hop; a cell of the sink that counts less than the
    generator says, or as much with another weight (an event is missing and another counted in its place), or more with
    a weight that no choice of doubled events of its own explains (the same, beside duplicates); a poison event that is
    in no dead-letter hop; a sound event that is in one. Where a cell counts so much too much that a loss could hide
    behind its duplicates and nothing decides it, the finding is inconclusive.

    Judged hop by hop: what was found at a hop whose tap is not certified is inconclusive, whatever it is, and so is
    everything where the source's own tap is not.

    Figures
        must_arrive      events in the source log that load intended, poison aside
        lost             of these, distinct events that are missing at some path hop or ended as dead letters
        hops             per path hop: events (distinct, that must arrive), missing, certified
        sink             cells, short_cells (count too low), short_events (by how many, in the dimension and window
                         where it is most), masked_cells (count right, weight wrong), unexplained_cells (count too
                         high, by a weight that doubled events of the cell cannot have), undecided_cells (count too high
                         by more events than can be told apart), certified, and where the pipeline declares that it
                         leaves out late events: left_out_late (how many, counted as short_events); null without a sink
        poison           planted, dead_lettered, missing, wrongly_dead_lettered
        attribution      where and why, by class: see `attribution`
    Examples
        lost events: event, lost_at (the first hop that lacks it), last_seen_at, due_s (after the load's start), key
        cells: the cell, expected and counted count and weight, and `likely_event` where one event explains it
        dead letters: event, problem; of poison also damage (which of `load.events.POISONS`) and passed_on_to (the hops of
        the path that it came to instead)
    Cost: O(events) per hop, one join of the cells.
    """

    name: ClassVar[str] = "no_loss"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        return attribution.explain(self._found(run), run, attribution.of_losses)

    def _found(self, run: SavedRun) -> Finding:
        settled = run.settled()
        must = settled.sets["must_arrive"]
        events = len(must)
        parts = not_certified(run, [run.source])
        if not events:
            parts.append(Part("inconclusive", "there is no event in the source log that must arrive"))
        if run.sink is None and not run.hops_of_role("path"):
            parts.append(Part("inconclusive", "the pipeline declares no hop after the source"))
        source_known = not parts

        on_path, path_parts, path_figures, path_examples = self._path(run, must)
        sink_parts, sink_figures, sink_examples = self._sink(run)
        dead_parts, dead_figures, dead_examples, dead = self._dead_letters(run)
        for part in [*path_parts, *sink_parts, *dead_parts]:
            # Without the whole source log nothing downstream is proven.
            parts.append(part if source_known else Part("inconclusive", part.text))

        lost = must - (on_path - dead)
        figures = {
            "must_arrive": events,
            "lost": len(lost),
            "hops": path_figures,
            "sink": sink_figures,
            "poison": dead_figures,
        }
        examples = mixed(path_examples, sink_examples, dead_examples)
        return finding(self.name, parts, self._passed(events, figures), figures, examples)

    @staticmethod
    def _passed(events: int, figures: dict[str, Any]) -> str:
        text = f"all {events:,} events arrived at every hop"
        if figures["sink"] is not None and "cells" in figures["sink"]:
            text += f" and are counted in {counted_noun(figures['sink']['cells'], 'cell')}"
        if figures["poison"]["planted"]:
            text += f"; all {figures['poison']['planted']:,} poison records are dead letters"
        return text

    def _path(self, run: SavedRun, must: Bits) -> tuple[Bits, list[Part], dict[str, Any], Examples]:
        """(events that must arrive and are at every hop, parts, figures by hop, examples)"""
        everywhere = must
        parts: list[Part] = []
        figures: dict[str, Any] = {}
        hops = [run.source]
        for hop in run.hops_of_role("path"):
            uncertified = not_certified(run, [hop])
            figures[hop] = {"events": None, "missing": None, "certified": not uncertified}
            parts += uncertified
            if not run.has_hop(hop):
                continue
            seen = run.bits_at(hop)
            hops.append(hop)
            missing = len(must - seen)
            figures[hop] |= {"events": len(must & seen), "missing": missing}
            everywhere &= seen
            if missing:
                text = f"{missing:,} of {counted_noun(len(must), 'event')} never reached {hop}"
                parts.append(Part("inconclusive" if uncertified else "violation", text))
        lost = (must - everywhere).first(MOST_EXAMPLES)
        seen_at = {hop: run.bits_at(hop).at(lost) for hop in hops}
        examples = [
            self._lost(run, int(place), [hop for hop in hops if seen_at[hop][i]], hops) for i, place in enumerate(lost)
        ]
        return everywhere, parts, figures, examples

    @staticmethod
    def _lost(run: SavedRun, place: int, seen_at: Sequence[str], hops: Sequence[str]) -> dict[str, Any]:
        content = run.content_of(np.array([place]), ["created_ms", "tweet_id", "engagement"])
        return {
            "event": run.event_id(place),
            "lost_at": next(hop for hop in hops if hop not in seen_at),
            "last_seen_at": seen_at[-1],
            "due_s": round(int(content["created_ms"][0]) / 1000 - run.t0, 3),
            "tweet_id": int(content["tweet_id"][0]),
            "engagement": ENGAGEMENTS[int(content["engagement"][0])],
        }

    @staticmethod
    def _sink(run: SavedRun) -> tuple[list[Part], dict[str, Any] | None, Examples]:
        sink = run.sink
        if sink is None:
            return [], None, []
        parts = not_certified(run, [sink])
        figures: dict[str, Any] = {"certified": not parts}
        if not run.has_hop(sink):
            return parts, figures, []
        frame = sink_cells.compared(run)
        # Only what the load's events explain; a cell that nobody can decide cannot be wrong by having too much.
        short = frame.filter(pl.col("excess") < 0).sort("excess", *sink_cells.CELL)
        masked = frame.filter((pl.col("excess") == 0) & (pl.col("residue") != 0) & ~pl.col("undecided"))
        masked = masked.sort(sink_cells.CELL)
        unexplained, undecided = _unexplained(run, frame.filter((pl.col("excess") > 0) & ~pl.col("undecided")))
        short_events = sink_cells.most_of_any_group(short.with_columns(lacking=-pl.col("excess")), "lacking")
        figures |= {
            "cells": frame.height,
            "short_cells": short.height,
            "short_events": short_events,
            "masked_cells": masked.height,
            "unexplained_cells": unexplained.height,
            "undecided_cells": undecided.height,
        }
        if run.pipeline.get("leaves_out_late"):
            figures["left_out_late"] = sink_cells.most_of_any_group(frame, "left_out")
        verdict: Any = "inconclusive" if parts else "violation"
        if short.height:
            parts.append(
                Part(
                    verdict,
                    f"{counted_noun(short.height, 'cell')} of {sink} count too little, "
                    f"{counted_noun(short_events, 'event')} in all",
                )
            )
        if masked.height:
            parts.append(
                Part(
                    verdict,
                    f"{counted_noun(masked.height, 'cell')} of {sink} have the right count and a wrong weight: an "
                    "event is missing and another is counted in its place",
                )
            )
        if unexplained.height:
            parts.append(
                Part(
                    verdict,
                    f"{counted_noun(unexplained.height, 'cell')} of {sink} hold a weight that doubled events of their "
                    "own cannot add up to: an event is missing beside them, or was counted in the wrong cell",
                )
            )
        if undecided.height:
            parts.append(
                Part(
                    "inconclusive",
                    f"a loss may hide behind the duplicates in {counted_noun(undecided.height, 'cell')} of {sink}: so many "
                    "events were counted too often there that their weights cannot be told apart",
                )
            )
        wrong = [short, masked, unexplained, undecided]
        return parts, figures, mixed(*(sink_cells.described(run, bad, MOST_EXAMPLES) for bad in wrong))

    @staticmethod
    def _dead_letters(run: SavedRun) -> tuple[list[Part], dict[str, Any], Examples, Bits]:
        """(parts, figures, examples, the events seen in any dead-letter hop)"""
        settled = run.settled()
        hops = run.hops_of_role("dead-letter")
        planted = settled.sets["poison_planted"]
        parts = not_certified(run, hops)
        verdict: Any = "inconclusive" if parts else "violation"
        seen = planted - planted
        for hop in hops:
            if run.has_hop(hop):
                seen |= run.bits_at(hop)
        missing, wrongly = planted - seen, seen & settled.sets["must_arrive"]
        figures = {
            "planted": len(planted),
            "dead_lettered": len(planted & seen),
            "missing": len(missing),
            "wrongly_dead_lettered": len(wrongly),
        }
        if not hops:
            if planted:
                text = (
                    f"{counted_noun(figures['planted'], 'poison record')} planted, but no dead-letter hop is declared"
                )
                parts.append(Part("inconclusive", text))
            return parts, figures, [], seen
        if wrongly:
            text = f"{counted_noun(figures['wrongly_dead_lettered'], 'sound event')} ended as dead letters"
            parts.append(Part(verdict, text))
        path = {hop: run.bits_at(hop) for hop in run.hops_of_role("path") if run.has_hop(hop)}
        if missing:
            text = f"{counted_noun(figures['missing'], 'poison record')} in no dead-letter hop"
            passed_on = [hop for hop, events in path.items() if events & missing]
            if passed_on:
                text += f", passed on to {' and '.join(passed_on)} as if sound"
            parts.append(Part(verdict, text))
        examples: list[dict[str, Any]] = [
            {"event": run.event_id(int(place)), "problem": "a sound event in a dead-letter hop"}
            for place in wrongly.first(MOST_EXAMPLES // 2)
        ]
        examples += [
            {
                "event": run.event_id(int(place)),
                "problem": "poison that is in no dead-letter hop",
                "damage": POISONS[int(run.columns().damage[place])],
                "passed_on_to": [hop for hop, events in path.items() if events.at(np.array([place]))[0]],
            }
            for place in missing.first(MOST_EXAMPLES // 2)
        ]
        return parts, figures, examples, seen


def _unexplained(run: SavedRun, too_much: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of the cells that count too much: those whose surplus of weight is not that of as many events of the plan, and those
    of which nobody can say.

    A surplus of one must be the weight of an event of that very cell. For more, the sum must lie in the range of so many
    weights, and `attribution.residue` must find events that have it: which add up to it is a knapsack, and where there
    are too many to choose from, one that fits proves nothing.
    """
    if too_much.is_empty():
        return too_much, too_much
    asked = too_much.with_columns(weight=pl.col("residue"))
    named = sink_cells.bearers(run, asked.filter(pl.col("excess") == 1).select([*sink_cells.CELL, "weight"]))
    least, most = int(run.columns().weight.min()), int(run.columns().weight.max())
    wrong_one = asked.filter(pl.col("excess") == 1).join(named, on=sink_cells.CELL, how="anti")
    out_of_range = (pl.col("residue") < least * pl.col("excess")) | (pl.col("residue") > most * pl.col("excess"))
    many = residue.explained(run).state_of(asked.filter(pl.col("excess") > 1))
    wrong_many = many.filter(out_of_range | (pl.col("state") == residue.LOSSY)).drop("state")
    undecided = many.filter(~out_of_range & (pl.col("state") == residue.UNDECIDED)).drop("state", "weight")

    def worst(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.sort("excess", *sink_cells.CELL, descending=[True] + [False] * 4)

    return worst(pl.concat([wrong_one, wrong_many]).drop("weight")), worst(undecided)
