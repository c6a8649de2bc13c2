"""The words that the legacy pipeline's stores share: a cell, what was counted in it, and how both are shown. No logic."""

from __future__ import annotations

import json
from typing import NamedTuple


class Cell(NamedTuple):
    """`key`: the values of the key's fields joined by "|", as `<tweet id>|<engagement>`. Times in s and in epoch ms."""

    dimension: str
    key: str
    window_s: int
    window_start_ms: int

    @property
    def end_ms(self) -> int:
        return self.window_start_ms + self.window_s * 1000


class Count(NamedTuple):
    """How many events a cell holds, and the sum of their weights."""

    events: int
    weight: int


def as_json(cell: Cell, count: Count) -> str:
    """One line of the query service's answer."""
    return json.dumps(cell._asdict() | {"count": count.events, "weight": count.weight})
