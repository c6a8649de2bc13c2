"""The warehouse's duplicate rates are the ledger's own: two independent ways to the same figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assertions import cells as sink_cells
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
    share,
)
from harness.store import CELL, NotObserved, SavedRun


@dataclass(frozen=True)
class WarehouseDuplicates:
    """What the warehouse says of duplicates, before and after deduplication, is what the taps and the ledger say.

    The warehouse has come to its figures by two exports and SQL, the harness by a subscription of its own, by reading the
    sink, and by the generator. They must agree exactly: in distinct messages and distinct events at the hop that the raw
    export copies, and in what the counts come to (in the dimension and window where that is most; a loss makes up for a
    duplicate here, unlike in duplicate_rate). Each message that the hop was seen to hold must be in the raw
    export and no other, each cell of the sink in the export of counts as it is, and the monitor's own last figures before
    deduplication must be the final ones. How many duplicates there may be is not asked here (see duplicate_rate).

    Figures
        warehouse, ledger  by each: messages, events, before (the duplicate rate of these), settled (the events that
                           are compared: all of them), counted, after (what that is over the events)
        missing_messages, strange_messages (of the raw export), cells, cells_apart (of the export of counts), series (how
        many times the monitor told its figures)
    Examples
        messages that only one side has: message, producer, sequence, `only_at`; cells that are apart: the cell, exported, in_sink
    Cost: two passes over the messages (a join of them where they differ), one join of the cells.
    """

    name: ClassVar[str] = "warehouse_duplicates"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        house = run.warehouse
        (published, raw), (sink, counts) = house["messages"], house["counts"]
        run.settled()
        parts = not_certified(run, [run.source, published, raw, sink, counts])
        certified = not parts
        told = run.warehouse_duplicates()
        final = told.filter(pl.col("final"))
        if final.height != 1:
            raise NotObserved(f"the warehouse told its final figures {final.height} times")
        warehouse, ledger = _of_warehouse(final.row(0, named=True)), _of_ledger(run, published)
        missing, strange = _apart(run, published, raw)
        apart = _cells_apart(run, sink, counts)
        series = told.filter(~pl.col("final"))
        figures = {
            "warehouse": warehouse,
            "ledger": ledger,
            "missing_messages": missing.height,
            "strange_messages": strange.height,
            "cells": run.cells(counts).height,
            "cells_apart": apart.height,
            "series": series.height,
        }
        if not ledger["events"]:
            parts.append(Part("inconclusive", f"no event to judge by at {published}"))
            return finding(self.name, parts, "", figures)
        wrong = [
            _differs(warehouse, ledger, ("messages", "events", "before"), f"at {published}"),
            _differs(warehouse, ledger, ("settled", "counted", "after"), f"at {sink}"),
        ]
        if missing.height:
            wrong.append(f"{counted_noun(missing.height, 'message')} of {published} never came into {raw}")
        if strange.height:
            wrong.append(f"{counted_noun(strange.height, 'message')} of {raw} were never seen at {published}")
        if apart.height:
            wrong.append(f"{counted_noun(apart.height, 'cell')} of {counts} are not as in {sink}")
        if series.height:
            last = _of_warehouse(series.row(-1, named=True))
            wrong.append(_differs(last, warehouse, ("messages", "events", "before"), "as the monitor told it last"))
        else:
            parts.append(Part("inconclusive", "the monitor told nothing"))
        parts += [Part("violation" if certified else "inconclusive", text) for text in wrong if text]
        passed = f"both say {_in_words(warehouse)}, of {counted_noun(warehouse['events'], 'event')}"
        return finding(self.name, parts, passed, figures, mixed(_messages(missing), _messages(strange), _cells(apart)))


def _of_warehouse(row: dict[str, Any]) -> dict[str, Any]:
    rates = {name: round(row[name] or 0.0, 6) for name in ("before", "after")}
    return {name: row[name] for name in ("messages", "events", "settled", "counted")} | rates


def _of_ledger(run: SavedRun, published: str) -> dict[str, Any]:
    copies = run.copies(published)
    messages, events = int(copies.sum()), int((copies > 0).sum())
    counted = sink_cells.most_of_any_group(run.cells(), "count")
    rates = {"before": share(messages - events, events), "after": share(counted - events, events)}
    return {"messages": messages, "events": events, "settled": events, "counted": counted, **rates}


def _differs(warehouse: dict[str, Any], ledger: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    if all(warehouse[name] == ledger[name] for name in names):
        return ""
    told = [" and ".join(f"{side[name]:,} {name}" for name in names) for side in (warehouse, ledger)]
    return f"the warehouse says {told[0]} {where}, and it should be {told[1]}"


def _in_words(told: dict[str, Any]) -> str:
    return f"{told['before']:.3%} before deduplication and {told['after']:.3%} after"


def _apart(run: SavedRun, published: str, raw: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Messages that only the hop has, and that only its copy has: message_id, producer, sequence, only_at."""
    none = pl.DataFrame(
        schema={"message_id": pl.String, "producer": pl.Int32, "sequence": pl.Int64, "only_at": pl.String}
    )
    if _fingerprint(run, published) == _fingerprint(run, raw):  # without holding all of them at once
        return none, none
    seen, copied = (
        run.messages(hop).select("message_id", "producer", "sequence", pl.lit(hop).alias("only_at"))
        for hop in (published, raw)
    )
    return tuple(  # type: ignore[return-value]
        one.join(other, on="message_id", how="anti").sort("producer", "sequence", "message_id")
        for one, other in ((seen, copied), (copied, seen))
    )


def _fingerprint(run: SavedRun, hop: str) -> tuple[int, int]:
    """Of a set of message ids, whatever its order: their number, and the sum of their hashes of 64 bits."""
    number, total = 0, 0
    for piece in run.saved_hop(hop).pieces("message_id"):
        number += piece.height
        total += int(piece["message_id"].hash().to_numpy().sum(dtype=np.uint64))
    return number, total % 2**64


def _cells_apart(run: SavedRun, sink: str, counts: str) -> pl.DataFrame:
    """Cells that the sink and its export do not hold alike: the columns of CELL, in_sink, exported, and their weights."""
    held, copied = (
        run.cells(hop).select(*CELL, pl.col("count").alias(name), pl.col("weight").alias(f"{name}_weight"))
        for hop, name in ((sink, "in_sink"), (counts, "exported"))
    )
    both = held.join(copied, on=CELL, how="full", coalesce=True).with_columns(pl.selectors.integer().fill_null(0))
    apart = (pl.col("in_sink") != pl.col("exported")) | (pl.col("in_sink_weight") != pl.col("exported_weight"))
    off = (pl.col("in_sink") - pl.col("exported")).abs()
    return both.filter(apart).sort(off, *CELL, descending=[True, False, False, False, False])


def _messages(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "message": row["message_id"],
            "producer": row["producer"],
            "sequence": row["sequence"],
            "only_at": row["only_at"],
        }
        for row in frame.head(MOST_EXAMPLES).iter_rows(named=True)
    ]


def _cells(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return list(frame.head(MOST_EXAMPLES).iter_rows(named=True))
