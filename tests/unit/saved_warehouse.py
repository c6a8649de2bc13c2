"""Makes saved runs of a pipeline with a warehouse: a `World` whose exports, SQL and monitor are right, unless a test says
otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from saved_run import HOPS, T0_MS, World

from harness.store import CELL, DUPLICATES, PARITY, RunFolder
from load.events import expected_cells

EXPORTS = (
    {"name": "raw", "kind": "bigquery", "role": "export", "service": "bigquery"},
    {"name": "counts", "kind": "bigquery", "role": "export", "service": "bigquery", "counts": True},
)


class WarehouseWorld(World):
    """`copies["raw"]` says how often each event stands in the raw export; the figures of the warehouse follow from it and
    from the cells of the sink. The `edit_…` functions damage what is written."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(hops=(*HOPS, *EXPORTS), **fields)
        self.edit_counts: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
        self.edit_duplicates: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
        self.edit_parity: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame

    def double(self, hop: str, *places: int, further: bool = False) -> WarehouseWorld:
        """At `published` in its export, too: the same messages."""
        super().double(hop, *places, further=further)
        if hop == "published":
            self.copies["raw"][list(places)] += 1
        return self

    def lose(self, hop: str, *places: int) -> WarehouseWorld:
        super().lose(hop, *places)
        if hop == "published":
            self.copies["raw"][list(places)] = 0
        return self

    def meta(self) -> dict[str, Any]:
        meta = super().meta()
        meta["pipeline"]["warehouse"] = {
            "dataset": "warehouse",
            "messages": ["published", "raw"],
            "counts": ["aggregates", "counts"],
            "duplicates": "duplicates.sql",
            "parity": "parity.sql",
            "series": "duplicates",
            "batch": "batch",
        }
        return meta

    def records(self, hop: str, kind: str) -> pl.DataFrame:
        return self.edit_counts(self.edit_cells(self.counted())) if hop == "counts" else super().records(hop, kind)

    def write(self, out: Path) -> RunFolder:
        folder = super().write(out)
        folder.warehouse_folder.mkdir()
        for name, frame in (
            ("duplicates", self.edit_duplicates(self.duplicates())),
            ("parity", self.edit_parity(self.parity())),
        ):
            if f"warehouse {name}" not in self.without:
                frame.write_parquet(folder.warehouse(name))
        return folder

    def _exported(self) -> pl.DataFrame:
        """What the events of the raw export come to, each once, by cell."""
        once = (self.copies["raw"] > 0) & ~self.poison
        return expected_cells(self.plan, self.cells, self.index.sequences(once), self.late_after_s)

    def _compared(self, other: pl.DataFrame) -> pl.DataFrame:
        """The cells of the sink beside others, without those of the warm-up."""
        warm = self._sum(np.zeros(len(self.index), dtype=int)).select(CELL)
        ours = self.edit_cells(self.counted())
        both = ours.join(other, on=CELL, how="full", coalesce=True, suffix="_other")
        return both.join(warm, on=CELL, how="anti").with_columns(pl.selectors.integer().fill_null(0))

    def duplicates(self) -> pl.DataFrame:
        """The series of a monitor that asked twice, and the final figures."""
        messages, events = int(self.copies["raw"].sum()), int((self.copies["raw"] > 0).sum())
        sums = self._compared(self._exported()).group_by("dimension", "window_s").agg(pl.col("count").sum())
        counted = int(sums["count"].max() or 0)  # type: ignore[arg-type]
        before, after = ((messages - events) / events, (counted - events) / events) if events else (None, None)
        half = (T0_MS, messages // 2, events // 2, 0.0, 0, 0, None, False)
        rows = [half, *((T0_MS + t, messages, events, before, events, counted, after, t == 2) for t in (1, 2))]
        return pl.DataFrame(rows, schema=DUPLICATES, orient="row")

    def parity(self) -> pl.DataFrame:
        late = self._exported().select(*CELL, late="late_count", late_weight="late_weight")
        both = self._compared(self.edit_batch(self.batch_cells())).join(late, on=CELL, how="left")
        both = both.with_columns(pl.col("late", "late_weight").fill_null(0))
        apart, apart_weight = pl.col("count") - pl.col("count_other"), pl.col("weight") - pl.col("weight_other")
        wrong = (apart != pl.col("late")) | (apart_weight != pl.col("late_weight"))
        return both.select(
            *CELL,
            pl.col("count").alias("stream"),
            pl.col("weight").alias("stream_weight"),
            pl.col("count_other").alias("batch"),
            pl.col("weight_other").alias("batch_weight"),
            "late",
            "late_weight",
            pl.when(wrong)
            .then(pl.lit("wrong"))
            .when(pl.col("late") > 0)
            .then(pl.lit("explained"))
            .otherwise(pl.lit("exact"))
            .alias("kind"),
        ).cast(PARITY)  # type: ignore[arg-type]
