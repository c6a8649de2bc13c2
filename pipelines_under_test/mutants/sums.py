"""The rows of the mutant `blind-increment`: as in `kappa.rows`, but counts are sums that the server adds up.

    sum:<engagement>|n  and  sum:<engagement>|w      64-bit integers, big endian, of an aggregate column family

`seen` cells are there too and keep the rows' deduplication; they are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines_under_test.kappa import rows

SUM = "sum"


def count_qualifier(engagement: str) -> bytes:
    return f"{engagement}|n".encode()


def weight_qualifier(engagement: str) -> bytes:
    return f"{engagement}|w".encode()


def cells_of_row(row: rows.RowLike) -> Iterator[rows.Count]:
    """What a row adds to the cells of both granularities."""
    _, start_s, dimension, key = rows.parse_key(row.key)
    found: dict[str, dict[str, int]] = {}
    for (family, qualifier), versions in row.cells.items():
        if family == SUM and versions:
            engagement, what = qualifier.decode().split("|")
            found.setdefault(engagement, {})[what] = int.from_bytes(versions[0][1], "big", signed=True)
    for engagement, sums in found.items():
        for window_s in rows.WINDOWS_S:
            start_ms = start_s // window_s * window_s * 1000
            yield rows.Count(dimension, key, engagement, window_s, start_ms, sums.get("n", 0), sums.get("w", 0))
