"""Twitter's evaluation of the new pipeline against the old, as a table: what was reported, and what runs here measured.

A figure is taken from the findings of a run wherever one states it, so that the table cannot say anything else than the
run's own page; only the throughput is counted from the saved run. What was not measured is None and never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.store import NotObserved, SavedRun
from load.events import EVENT_BYTES, WARMUP

Object = Mapping[str, Any]
#: The faults that restart a container.
RESTARTS = ("kill", "terminate", "out_of_memory")


@dataclass(frozen=True)
class Measure:
    """A line of the table. `old`, `new`: what Twitter reported of each; `finding`: where the figure stands."""

    key: str
    name: str
    unit: str
    old: str
    new: str
    finding: str = ""


MEASURES = (
    Measure(
        "lost",
        "Events lost under restarts",
        "events",
        "containers restart, and events in flight are lost",
        "no event lost when containers restart",
        "no_loss",
    ),
    Measure(
        "left_out_late", "Late events left out", "events", "the batch pipeline discards them", "counted", "no_loss"
    ),
    Measure("restarts", "Restarts that bit", "", "", "", "faults_effective"),
    Measure("latency_p50_s", "Latency, median", "s", "10 s to 10 min", "a steady 10 s", "latency"),
    Measure("latency_p99_s", "Latency, p99", "s", "spikes from seconds to minutes", "", "latency"),
    Measure("steady_p50_s", "… in quiet times, median", "s", "", "", "latency"),
    Measure("steady_p99_s", "… in quiet times, p99", "s", "", "", "latency"),
    Measure("under_fault_p50_s", "… under faults, median", "s", "", "", "latency"),
    Measure("under_fault_p99_s", "… under faults, p99", "s", "", "", "latency"),
    Measure("latency_max_s", "Latency, largest", "s", "minutes", "", "latency"),
    Measure("carried_per_s", "Throughput while the load lasted", "events/s", "", ""),
    Measure("carried_mb_per_s", "… in source records", "MB/s", "100 MB/s", "1 GB/s"),
    Measure("most_per_s", "… in its best second", "events/s", "", ""),
    Measure(
        "duplicates_before",
        "Duplicates before deduplication",
        "%",
        "",
        "at least once: watched by two exports and a query",
        "duplicate_rate",
    ),
    Measure("duplicates_after", "Duplicates after deduplication", "%", "", "nearly exactly once", "duplicate_rate"),
    Measure(
        "parity", "Cells equal to the batch truth", "%", "inexact until the batch run", "over 95 %", "batch_parity"
    ),
    Measure("exact", "… exact", "cells", "", "", "batch_parity"),
    Measure("explained", "… explained by late events", "cells", "", "mainly late events", "batch_parity"),
    Measure("wrong", "… wrong", "cells", "", "", "batch_parity"),
)


def measured(verdict: Object, run: SavedRun) -> dict[str, Any]:
    """The figures of one run by the keys of MEASURES, and its `pipeline`."""
    found = {"pipeline": verdict.get("pipeline"), **_lost(verdict), **_latency(verdict), **_duplicates(verdict)}
    parity = _figures(verdict, "batch_parity")
    found |= {key: parity.get(key) for key in ("exact", "explained", "wrong")}
    found["parity"] = None if parity.get("parity") is None else 100 * parity["parity"]
    try:
        found |= _throughput(run)
    except NotObserved:
        pass
    return found


def table(columns: Sequence[Object]) -> list[dict[str, Any]]:
    """A line for each measure: key, measure, unit, and the pipelines' figures by their names."""
    return [
        {"key": m.key, "measure": m.name, "unit": m.unit, "values": {c["pipeline"]: c.get(m.key) for c in columns}}
        for m in MEASURES
    ]


def findings(verdict: Object, assertion: str) -> list[tuple[int, Object]]:
    """The findings of an assertion, each with its number on the run's page."""
    found = verdict.get("findings") or []
    return [(number, f) for number, f in enumerate(found, 1) if f.get("assertion") == assertion]


def _figures(verdict: Object, assertion: str) -> Object:
    """Of the first finding that could be made at all."""
    return next((f["figures"] for _, f in findings(verdict, assertion) if f.get("figures")), {})


def _lost(verdict: Object) -> dict[str, Any]:
    """Distinct events missing on the path, or by how many the sink counts too few, whichever is more."""
    figures = _figures(verdict, "no_loss")
    short = (figures.get("sink") or {}).get("short_events")
    known = [n for n in (figures.get("lost"), short) if n is not None]
    bitten = [f for f in verdict.get("faults") or [] if f["fault"] in RESTARTS and f["bit"]]
    left_out = (figures.get("sink") or {}).get("left_out_late", 0 if figures.get("sink") else None)
    return {"lost": max(known, default=None), "left_out_late": left_out, "restarts": len(bitten)}


def _latency(verdict: Object) -> dict[str, Any]:
    figures = _figures(verdict, "latency")
    found = {f"latency_{p}_s": figures.get(f"{p}_s") for p in ("p50", "p99", "max")}
    for part in ("steady", "under_fault"):
        own = figures.get(part) or {}
        found |= {f"{part}_{p}_s": own.get(f"{p}_s") for p in ("p50", "p99")}
    return found


def _duplicates(verdict: Object) -> dict[str, Any]:
    """Before: the highest rate at a hop between source and sink. After: at the sink, whose finding counts cells."""
    before, after = [], None
    for _, f in findings(verdict, "duplicate_rate"):
        figures = f.get("figures") or {}
        if figures.get("rate") is None:
            continue
        if "cells" in figures:
            after = 100 * figures["rate"]
        elif figures.get("hop") != "source":
            before.append(100 * figures["rate"])
    return {"duplicates_before": max(before, default=None), "duplicates_after": after}


def _throughput(run: SavedRun) -> dict[str, Any]:
    """How many events of the load became visible at the last hop while it lasted, and in the best second of all.

    Raises NotObserved where no hop shows single events.
    """
    if run.sink is None or (seen := run.sightings(run.sink)) is None:
        raise NotObserved("the sink does not show single events")
    first = seen.filter(pl.col("producer") != WARMUP).group_by("place").agg(pl.col("seen_ms").min())
    seconds = first["seen_ms"].to_numpy() / 1000 - run.t0
    if not len(seconds):
        return {"carried_per_s": 0.0, "carried_mb_per_s": 0.0, "most_per_s": 0}
    lasted = float(run.plan.profile.seconds)
    carried = float((seconds <= lasted).sum()) / lasted
    return {
        "carried_per_s": round(carried, 1),
        "carried_mb_per_s": round(carried * EVENT_BYTES / 1e6, 3),
        "most_per_s": int(np.bincount(np.maximum(seconds, 0).astype(int)).max()),
    }
