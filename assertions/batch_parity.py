"""The sink agrees with the batch truth, cell by cell, but for the late events that a batch discards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assertions import cells as sink_cells
from assertions.base import MOST_EXAMPLES, Finding, Part, counted_noun, finding, not_certified, observed, parameters
from harness.store import CELL, NotObserved, SavedRun
from harness.topology import UsageError


@dataclass(frozen=True)
class BatchParity:
    """Stream and batch are both what the generator says, and enough of the cells are the same on both sides.

    Over the union of the cells of both sides and of the generator: the stream must hold what the generator says, the
    batch the same without the events that are late for the cell's window. Such a cell is *exact* if none of its events
    is late, *explained* if some are; any other cell is *wrong*. Parity is exact / all. A violation is any wrong cell,
    or a parity below `least`. A stream that drops late events agrees with the batch everywhere (`agreement` rises to
    1), and is wrong in just these cells.

    Figures
        parity            exact / all, as observed
        expected_parity   what the load's profile makes of it if every event arrives and nothing is wrong
        agreement         share of cells in which stream and batch are equal, whatever is right
        least, cells, exact, explained, wrong, wrong_stream and wrong_batch (cells where that side is not what the
        generator says), undecided (cells of events that a service lost: neither right nor wrong)
    Examples
        wrong cells, the greatest difference in count first: the cell, expected, late, stream, batch (counts), the
        weights of the same, and `wrong`: which side
    Cost: two joins of the cells, and the generator's cells for the whole plan once.
    """

    least: float = 0.95

    name: ClassVar[str] = "batch_parity"

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise UsageError(f"batch_parity: least must be a share of the cells, 0 … 1, not {self.least:g}.")

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        if run.sink is None:
            raise NotObserved("the pipeline declares no sink")
        if not run.pipeline.get("batch"):
            raise NotObserved("the pipeline declares no batch truth")
        parts = not_certified(run, [run.source, run.sink])
        certified = not parts
        frame = kinds_of_cells(run)
        total = frame.height
        count = {kind: int((frame["kind"] == kind).sum()) for kind in ("exact", "explained", "wrong", "undecided")}
        if not run.settled().sets["must_arrive"] or not total:
            parts.append(Part("inconclusive", "there is no event in the source log that must arrive"))
            return finding(self.name, parts, "", {"cells": total, "least": self.least, **count})
        parity = count["exact"] / total
        expected_parity = self._expected_parity(run)
        wrong = frame.filter(pl.col("kind") == "wrong")
        figures = {
            "parity": round(parity, 6),
            "expected_parity": round(expected_parity, 6),
            "agreement": round(float(frame["agree"].mean() or 0.0), 6),  # type: ignore[arg-type]
            "least": self.least,
            "cells": total,
            **count,
            "wrong_stream": int((~wrong["stream_right"]).sum()),
            "wrong_batch": int((~wrong["batch_right"]).sum()),
        }
        if count["undecided"]:
            text = f"{counted_noun(count['undecided'], 'cell')} hold events that a service may have lost"
            parts.append(Part("inconclusive", text))
        verdict: Any = "violation" if certified else "inconclusive"
        if wrong.height:
            sides = [f"{figures[f'wrong_{side}']:,} in the {side}" for side in ("stream", "batch")]
            text = f"{wrong.height:,} of {counted_noun(total, 'cell')} are wrong ({', '.join(sides)})"
            parts.append(Part(verdict, text))
        if parity < self.least:
            if (count["exact"] + count["undecided"]) / total >= self.least:
                verdict = "inconclusive"
            parts.append(Part(verdict, f"parity is {parity:.3%}, at least {self.least:.3%} is wanted"))
        passed = (
            f"{parity:.2%} of {counted_noun(total, 'cell')} match exactly (expected {expected_parity:.2%}); "
            f"late events explain the other {count['explained']:,}"
        )
        return finding(self.name, parts, passed, figures, self._examples(wrong))

    @staticmethod
    def _expected_parity(run: SavedRun) -> float:
        """Share of cells without a late event, over the whole plan and not only over what was sent."""
        settled = run.settled()
        whole = len(settled.sets["must_arrive"] | settled.sets["poison"]) == len(run.events)
        frame = run.expected() if whole else run.expected_of(np.ones(len(run.events), dtype=bool))
        return float((frame["late_count"] == 0).mean() or 0.0) if frame.height else 1.0  # type: ignore[arg-type]

    @staticmethod
    def _examples(wrong: pl.DataFrame) -> list[dict[str, Any]]:
        off_stream = (pl.col("counted") - pl.col("expected")).abs()
        off_batch = (pl.col("batch") - (pl.col("expected") - pl.col("late_count"))).abs()
        worst = wrong.with_columns(off=pl.max_horizontal(off_stream, off_batch)).sort(
            "off", *CELL, descending=[True, False, False, False, False]
        )
        examples = []
        for row in worst.head(MOST_EXAMPLES).iter_rows(named=True):
            sides = [side for side in ("stream", "batch") if not row[f"{side}_right"]]
            examples.append(
                {name: row[name] for name in CELL}
                | {
                    "expected": row["expected"],
                    "late": row["late_count"],
                    "stream": row["counted"],
                    "batch": row["batch"],
                    "expected_weight": row["expected_weight"],
                    "late_weight": row["late_weight"],
                    "stream_weight": row["counted_weight"],
                    "batch_weight": row["batch_weight"],
                    "wrong": " and ".join(sides),
                }
            )
        return examples


def kinds_of_cells(run: SavedRun) -> pl.DataFrame:
    """Every cell of either side with what each holds, and its `kind`: exact, explained, undecided or wrong."""
    batch = run.batch().rename({"count": "batch", "weight": "batch_weight"})
    right_stream = (pl.col("excess") == 0) & (pl.col("residue") == 0)
    right_batch = (pl.col("batch") == pl.col("expected") - pl.col("late_count")) & (
        pl.col("batch_weight") == pl.col("expected_weight") - pl.col("late_weight")
    )
    frame = (
        sink_cells.compared(run)
        .join(batch, on=CELL, how="full", coalesce=True)
        .with_columns(pl.selectors.integer().fill_null(0), pl.col("undecided").fill_null(False))
        .with_columns(
            stream_right=right_stream,
            batch_right=right_batch,
            agree=(pl.col("counted") == pl.col("batch")) & (pl.col("counted_weight") == pl.col("batch_weight")),
        )
    )
    both = pl.col("stream_right") & pl.col("batch_right")
    return frame.with_columns(
        kind=pl.when(both & (pl.col("late_count") == 0))
        .then(pl.lit("exact"))
        .when(both)
        .then(pl.lit("explained"))
        .when(pl.col("undecided"))
        .then(pl.lit("undecided"))
        .otherwise(pl.lit("wrong"))
    )
