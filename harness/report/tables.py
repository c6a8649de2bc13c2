"""Tables of the page, made from figures of any shape: what an assertion returns is not known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report import words

#: Most rows of one table; what is left out is said below it.
MOST_ROWS = 200
#: Most characters of one cell.
MOST_CELL = 240


@dataclass(frozen=True)
class Head:
    text: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[str]]
    more: str = ""


def nested(key: str, value: Any) -> Table | None:
    """A figure that is a table: {name: {figure: value}}, {name: value} with many names, or a list of objects."""
    caption = words.label(key)
    if isinstance(value, Mapping) and value:
        if all(isinstance(v, Mapping) for v in value.values()):
            return table_of(caption, [{"": k, **v} for k, v in value.items()])
        if len(value) > 4:
            rows = [[words.label(str(k)), words.scalar(str(k), v)] for k, v in list(value.items())[:MOST_ROWS]]
            return Table(caption, [Head("Figure"), Head("Value", True)], rows, more(len(value)))
    if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
        return table_of(caption, [dict(v) for v in value])
    return None


def table_of(caption: str, rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """A table with a column for each key that any row has; numbers to the right."""
    if not rows:
        return None
    keys = list(dict.fromkeys(str(k) for row in rows for k in row))[:24]
    heads = []
    for key in keys:
        values = [row[key] for row in rows if row.get(key) is not None]
        numeric = bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        heads.append(Head(words.label(key), numeric))
    cells = [
        [words.shorten(words.scalar(k, row[k]), MOST_CELL) if row.get(k) is not None else "" for k in keys]
        for row in rows[:MOST_ROWS]
    ]
    return Table(caption, heads, cells, more(len(rows)))


def more(total: int) -> str:
    return f"{total - MOST_ROWS:,} further rows are not shown." if total > MOST_ROWS else ""
