"""The warehouse's parity query says of each cell what the generator says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl

from assertions.base import MOST_EXAMPLES, Finding, Part, counted_noun, finding, not_certified, observed, parameters
from assertions.batch_parity import kinds_of_cells
from harness.store import CELL, SavedRun
from harness.topology import UsageError


@dataclass(frozen=True)
class WarehouseParity:
    """The parity query finds each cell exact, explained by late events or wrong, just as the generator does.

    The query knows the exports and the batch output, the generator what was sent; over the union of the cells of both, and
    of the sink and the batch truth, the kinds must be the same (see batch_parity). A violation is any cell of which they
    differ (one that the query leaves out, or tells more than once, too), any cell that is wrong by either, or a parity (exact / all, by the query)
    below `least`.

    Figures
        parity (by the query), ledger_parity, least, cells, exact, explained, wrong (by the query), apart (cells of which
        the two differ), left_out (of these, those that the query does not have), repeated (rows of the query beyond the
        first of their cell), undecided (cells of events that a service
        lost)
    Examples
        cells that are apart, then those that are wrong: the cell, warehouse (its kind by the query), ledger (its kind by the
        generator), stream, batch, late (as the query has them)
    Cost: that of batch_parity, and one join of the cells.
    """

    least: float = 0.95

    name: ClassVar[str] = "warehouse_parity"

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise UsageError(f"warehouse_parity: least must be a share of the cells, 0 … 1, not {self.least:g}.")

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        house = run.warehouse
        (published, raw), (sink, counts) = house["messages"], house["counts"]
        parts = not_certified(run, [run.source, published, raw, sink, counts])
        verdict: Any = "inconclusive" if parts else "violation"
        frame = _compared(run)
        repeated = run.warehouse_parity().height - run.warehouse_parity().select(CELL).n_unique()
        decided = frame.filter(pl.col("ledger").fill_null("") != "undecided")
        told = decided.filter(pl.col("warehouse").is_not_null())
        apart = decided.filter(pl.col("ledger").ne_missing(pl.col("warehouse"))).sort(CELL)
        wrong = decided.filter(pl.any_horizontal(pl.col("warehouse", "ledger") == "wrong")).sort(CELL)
        kinds = {kind: int((told["warehouse"] == kind).sum()) for kind in ("exact", "explained", "wrong")}
        figures: dict[str, Any] = {
            "parity": None,
            "ledger_parity": None,
            "least": self.least,
            "cells": frame.height,
            **kinds,
            "apart": apart.height,
            "left_out": int(apart["warehouse"].null_count()),
            "repeated": repeated,
            "undecided": frame.height - decided.height,
        }
        if not run.settled().must_arrive.any() or not frame.height:
            parts.append(Part("inconclusive", "there is no event in the source log that must arrive"))
            return finding(self.name, parts, "", figures)
        parity = kinds["exact"] / (told.height or 1)
        figures["parity"] = round(parity, 6)
        figures["ledger_parity"] = round(int((frame["ledger"] == "exact").sum()) / frame.height, 6)
        if figures["undecided"]:
            text = f"{counted_noun(figures['undecided'], 'cell')} hold events that a service may have lost"
            parts.append(Part("inconclusive", text))
        if apart.height:
            text = (
                f"the warehouse and the generator differ about {counted_noun(apart.height, 'cell')} of {frame.height:,}"
            )
            if figures["left_out"]:
                text += f", of which {figures['left_out']:,} are none to the warehouse"
            parts.append(Part(verdict, text))
        if repeated:
            parts.append(Part(verdict, f"the query tells of {counted_noun(repeated, 'cell')} once more"))
        if wrong.height:
            parts.append(Part(verdict, f"{wrong.height:,} of {counted_noun(frame.height, 'cell')} are wrong"))
        if parity < self.least:
            parts.append(Part(verdict, f"parity is {parity:.3%} by the query, at least {self.least:.3%} is wanted"))
        passed = (
            f"{parity:.2%} of {counted_noun(told.height, 'cell')} match exactly by the query, late events explain the other "
            f"{kinds['explained']:,}, and the generator says the same of each"
        )
        rows = pl.concat([apart, wrong.join(apart, on=CELL, how="anti")]).head(MOST_EXAMPLES)
        return finding(self.name, parts, passed, figures, list(rows.iter_rows(named=True)))


def _compared(run: SavedRun) -> pl.DataFrame:
    """Every cell of either side: the columns of CELL, warehouse and ledger (its kind by each; null: no cell of theirs),
    stream, batch, late (by the query)."""
    ours = kinds_of_cells(run).select(*CELL, pl.col("kind").alias("ledger"))
    theirs = run.warehouse_parity().select(*CELL, pl.col("kind").alias("warehouse"), "stream", "batch", "late")
    both = ours.join(theirs, on=CELL, how="full", coalesce=True)
    return both.select(*CELL, "warehouse", "ledger", "stream", "batch", "late")
