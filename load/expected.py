"""What must come out: the generator's own answer, made again from the plan; nothing is stored and nothing observed.

A million events in two dimensions with two windows each take about a third of a second on two free cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.topology import CONTENT_FIELDS, Cells
from load.plan import CATEGORIES, Columns, Plan, columns_at
from load.profiles import Steady

if TYPE_CHECKING:  # polars takes half a second to import, and the load process does not need it
    import polars as pl

#: Events that are made at once: bounds the memory, about 30 MB.
_CHUNK = 250_000


def expected_cells(
    plan: Plan, cells: Sequence[Cells], must_arrive: Mapping[int, NDArray[np.generic]], late_after_s: float
) -> pl.DataFrame:
    """What the sink must hold if exactly these events arrive, each counted once.

    must_arrive: producer -> the sequences (integers), or a mask over sequences 0, 1, 2 … (booleans). Poison events
    among them are left out: they can be counted nowhere.

    Columns: dimension, key (values joined by "|"), window_s i32, window_start_ms i64, count, weight (sum),
    late_count, late_weight i64: of which late for that window, that is: created_ms - end of the window > late_after_s.
    """
    import polars as pl

    late_after_ms = round(late_after_s * 1000)
    kinds = [(declared, window_s) for declared in cells for window_s in declared.windows_s]
    if not kinds:
        return pl.DataFrame(schema=_cell_schema())
    # Most events share their cells with many others: what they add is summed once, by all key fields and the time that
    # divides every window, and only those sums are summed for each kind of cell. Few events are late.
    fields = list(dict.fromkeys(field for declared in cells for field in declared.key))
    step_ms = math.gcd(*(window_s * 1000 for _, window_s in kinds))
    parts: list[pl.DataFrame] = []
    late: dict[int, list[pl.DataFrame]] = {window_s: [] for _, window_s in kinds}
    for columns in _in_chunks(plan, must_arrive):
        frame = pl.DataFrame(
            {
                **{field: getattr(columns, field) for field in fields},
                "start_ms": columns.event_time_ms // step_ms * step_ms,
                "weight": columns.weight,
            }
        )
        parts.append(
            frame.group_by([*fields, "start_ms"]).agg(pl.len().cast(pl.Int64).alias("count"), _total("weight"))
        )
        for window_s, found in late.items():
            start = columns.event_time_ms // (window_s * 1000) * (window_s * 1000)
            found.append(frame.filter(pl.Series(columns.created_ms - (start + window_s * 1000) > late_after_ms)))
    if not parts:
        return pl.DataFrame(schema=_cell_schema())
    whole = pl.concat(parts)
    done = []
    for declared, window_s in kinds:
        window = (pl.col("start_ms") // (window_s * 1000) * (window_s * 1000)).alias("window_start_ms")
        by = [*declared.key, window]
        late_sums = (
            pl.concat(late[window_s])
            .group_by(by)
            .agg(pl.len().cast(pl.Int64).alias("late_count"), _total("weight").alias("late_weight"))
        )
        names = [*declared.key, "window_start_ms"]
        done.append(
            whole.group_by(by)
            .agg(_total("count"), _total("weight"))
            .join(late_sums, on=names, how="left")
            .with_columns(pl.col("late_count", "late_weight").fill_null(0))
            .select(
                pl.lit(declared.dimension).alias("dimension"),
                pl.concat_str([_words(field) for field in declared.key], separator="|").alias("key"),
                pl.lit(window_s, dtype=pl.Int32).alias("window_s"),
                "window_start_ms",
                *_SUMS,
            )
        )
    return pl.concat(done)


def cell_of_each(columns: Columns, declared: Cells, window_s: int) -> pl.DataFrame:
    """The cell in which each of these events is counted, in their order: key (values joined by "|"), window_start_ms."""
    import polars as pl

    fields = pl.DataFrame({field: getattr(columns, field) for field in declared.key})
    return fields.select(
        pl.concat_str([_words(field) for field in declared.key], separator="|").alias("key"),
        pl.Series("window_start_ms", columns.event_time_ms // (window_s * 1000) * (window_s * 1000), dtype=pl.Int64),
    )


def expected_content(plan: Plan, producer: int, sequences: NDArray[np.int64]) -> pl.DataFrame:
    """What these events carry (before any damage), in the order given.

    Columns: producer i32, sequence i64, created_ms i64, poison bool, twin bool, then the content fields.
    """
    import polars as pl

    columns = columns_at(plan, producer, sequences)
    return pl.DataFrame(
        {
            "producer": np.full(len(columns), producer, dtype=np.int32),
            "sequence": columns.sequence,
            "created_ms": columns.created_ms,
            "poison": columns.poison,
            "twin": columns.twin,
            **{field: getattr(columns, field) for field in CONTENT_FIELDS},
        }
    ).with_columns(_words(field) for field in CATEGORIES)


def expected_parity(
    profile: Steady,
    seed: int,
    cells: Sequence[Cells],
    late_after_s: float,
    *,
    users: int = 1,
    t0_ms: int = 1_790_000_000_000,
) -> float:
    """Share of cells that a batch truth which discards late events must match exactly, if every event arrives.

    A cell is exact if no event of it is late; the whole is every cell of either side. It moves by a few tenths of a
    percent with where t0_ms lies in the minute and with the seed, so a bound should leave it that much room.
    1.0 where nothing is counted.
    """
    plan = Plan(profile, seed, users, t0_ms, "00000000")
    every = {producer: np.arange(plan.events_of(producer)) for producer in plan.producers}
    frame = expected_cells(plan, cells, every, late_after_s)
    return float((frame["late_count"] == 0).mean() or 0.0) if len(frame) else 1.0  # type: ignore[arg-type]


def _in_chunks(plan: Plan, must_arrive: Mapping[int, NDArray[np.generic]]) -> Iterable[Columns]:
    for producer, given in sorted(must_arrive.items()):
        given = np.asarray(given)
        for lo in range(0, len(given), _CHUNK):
            some = given[lo : lo + _CHUNK]
            sequences = np.flatnonzero(some) + lo if some.dtype == bool else some.astype(np.int64)
            columns = columns_at(plan, producer, sequences)
            yield columns[~columns.poison]


_SUMS = ("count", "weight", "late_count", "late_weight")


def _total(column: str) -> pl.Expr:
    import polars as pl

    return pl.col(column).sum()


def _words(field: str) -> pl.Expr:
    """A content field in its own type: codes become the words that they stand for."""
    import polars as pl

    if field not in CATEGORIES:
        return pl.col(field)
    return pl.col(field).replace_strict(dict(enumerate(CATEGORIES[field])), return_dtype=pl.String)


def _cell_schema() -> dict[str, pl.DataType | type[pl.DataType]]:
    import polars as pl

    return {
        "dimension": pl.String,
        "key": pl.String,
        "window_s": pl.Int32,
        "window_start_ms": pl.Int64,
        **dict.fromkeys(_SUMS, pl.Int64),
    }
