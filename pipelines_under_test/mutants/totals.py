"""What three mutants share: rows that hold absolute totals, which the worker computes and writes.

    seen:<engagement>|<uuid>  as in `kappa.rows`: says which events the totals hold; not counted itself
    agg:<engagement>          <count>|<weight> of the row, absolute; the newest version is the row's

Both are written in one atomic mutation, so a retry changes nothing, and one worker that reads a row before it writes is
exact. The mutants differ in how they come to believe what a row holds: `read_modify_write` reads it each time,
`stale_cache` once, `last_write_wins` never. How they are written stands in `totals_writer`: reading rows needs no Beam.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipelines_under_test.kappa import rows


@dataclass
class Held:
    """What a row holds: `seen` qualifiers, and engagement -> (count, weight)."""

    seen: set[bytes] = field(default_factory=set)
    totals: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: rows.RowLike) -> Held:
        seen = {qualifier for family, qualifier in row.cells if family == rows.SEEN}
        return cls(seen, rows.totals_of_row(_Totals(row)))


class _Totals:
    """A row without its `seen` cells."""

    def __init__(self, row: rows.RowLike) -> None:
        self.key = row.key
        self.cells = {place: versions for place, versions in row.cells.items() if place[0] == rows.AGG}


def cells_of_row(row: rows.RowLike) -> Iterator[rows.Count]:
    """What a row adds to the cells of both granularities."""
    yield from rows.cells_of_row(_Totals(row))
