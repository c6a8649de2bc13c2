"""The sink against the generator, cell by cell: what `no_loss`, `duplicate_rate` and `batch_parity` look at.

The sink is judged by (count, sum of weights) a cell and never by the pipeline's own bookkeeping. Every event carries a
pseudo-random weight, so a cell in which one event is missing and another was counted twice still has the right count
and a wrong weight, and the difference of a single event names that event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from harness.store import CELL, SavedRun
from load.events import CATEGORIES, cell_of_each


def compared(run: SavedRun) -> pl.DataFrame:
    """Every cell of either side, in no order.

    The columns of CELL, expected, expected_weight, late_count, late_weight, counted, counted_weight, excess (counted -
    expected), residue (the same of the weights), and `undecided`: an event of the cell was acknowledged and is not in
    the source log, so nobody can say whether it should have been counted.

    A pipeline may declare that it leaves out late events (`Pipeline.leaves_out_late`). A cell of it that lacks exactly
    its late ones, by count and weight, lacks nothing; how many they are is `left_out`.
    """
    leaves_out = bool(run.pipeline.get("leaves_out_late"))
    without_late = pl.lit(leaves_out) & (pl.col("late_count") > 0)
    for difference, late in (("excess", "late_count"), ("residue", "late_weight")):
        without_late &= pl.col(difference) == -pl.col(late)

    def make() -> pl.DataFrame:
        expected = run.expected().rename({"count": "expected", "weight": "expected_weight"})
        counted = run.cells().rename({"count": "counted", "weight": "counted_weight"})
        undecided = run.undecided().select([*CELL, pl.lit(True).alias("undecided")])
        return (
            expected.join(counted, on=CELL, how="full", coalesce=True)
            .join(undecided, on=CELL, how="left")
            .with_columns(pl.selectors.integer().fill_null(0), pl.col("undecided").fill_null(False))
            .with_columns(
                excess=pl.col("counted") - pl.col("expected"),
                residue=pl.col("counted_weight") - pl.col("expected_weight"),
            )
            .with_columns(left_out=pl.when(without_late).then(pl.col("late_count")).otherwise(0))
            .with_columns(
                pl.when(pl.col("left_out") > 0).then(0).otherwise(pl.col(name)).alias(name)
                for name in ("excess", "residue")
            )
        )

    return run.once("sink compared", make)


def bearers(run: SavedRun, cells: pl.DataFrame) -> pl.DataFrame:
    """Which events of the plan belong to a cell and have exactly a weight: the rows of `cells` (CELL and `weight`)
    that have such an event, with its `place` (the first, where twins share a weight).

    Cost: one look at each event's weight; keys are only made for events whose weight is asked for.
    """
    columns = run.columns()
    places = np.flatnonzero(np.isin(columns.weight, cells["weight"].unique().to_numpy()))
    some = columns[places]
    found = [cells.head(0).with_columns(place=pl.lit(0, dtype=pl.Int64))]
    for kind in run.cell_kinds:
        for window_s in kind.windows_s:
            found.append(
                cell_of_each(some, kind, window_s)
                .select(
                    pl.lit(kind.dimension).alias("dimension"),
                    "key",
                    pl.lit(window_s, dtype=pl.Int32).alias("window_s"),
                    "window_start_ms",
                    pl.Series("weight", some.weight),
                    pl.Series("place", places, dtype=pl.Int64),
                )
                .unique([*CELL, "weight"], keep="first", maintain_order=True)
                .join(cells, on=[*CELL, "weight"], how="semi")
            )
    return pl.concat(found)


def shown(field: str, values: np.ndarray) -> pl.Series:
    """A content field, as generated, as hops and cells show it: words, not codes."""
    series = pl.Series(field, values)
    if field not in CATEGORIES:
        return series.cast(pl.Int64)
    return pl.Series(CATEGORIES[field], dtype=pl.String).gather(series.cast(pl.UInt32)).alias(field)


def described(run: SavedRun, cells: pl.DataFrame, most: int) -> list[dict[str, Any]]:
    """The first `most` of these cells as examples; where a single event's weight explains the difference, its id."""
    some = cells.head(most)
    if some.is_empty():
        return []
    asked = some.select([*CELL, pl.col("residue").abs().alias("weight")])
    named = {tuple(row[:4]): row[5] for row in bearers(run, asked).select([*CELL, "weight", "place"]).iter_rows()}
    examples = []
    for row in some.iter_rows(named=True):
        example: dict[str, Any] = {name: row[name] for name in CELL}
        example |= {name: row[name] for name in ("expected", "counted", "expected_weight", "counted_weight")}
        place = named.get(tuple(row[name] for name in CELL))
        if abs(row["excess"]) == 1 and place is not None:
            example["likely_event"] = run.event_id(place)
        examples.append(example)
    return examples


def most_of_any_group(frame: pl.DataFrame, column: str) -> int:
    """The sum of a column over each (dimension, window), the largest of them: every event is in one cell of each."""
    sums = frame.group_by("dimension", "window_s").agg(pl.col(column).sum())[column]
    return int(sums.max() or 0) if len(sums) else 0  # type: ignore[arg-type]
