"""What the findings of no_loss and duplicate_rate gain, and what the run folder keeps of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from assertions.attribution import doubled, lost, ways
from assertions.attribution.classes import MOST_CLASSES, Class, told
from assertions.base import Finding
from harness.errors import HarnessFault
from harness.store import NotObserved, SavedRun
from harness.topology import UsageError

#: Which classes belong to a finding.
Find = Callable[[SavedRun], Sequence[Class]]


def of_losses(run: SavedRun) -> list[Class]:
    return lost.classes(run)


def of_duplicates(run: SavedRun, hop: str) -> list[Class]:
    return doubled.classes(run, hop)


def explain(finding: Finding, run: SavedRun, find: Find) -> Finding:
    """The finding with `attribution` among its figures, and the sentences in its summary unless it is a pass.

    `attribution`: a list of classes (see `classes.Class`), empty where nothing was lost or doubled. What keeps it from
    being made changes no verdict, and is told in its place (`attribution_error`).
    """
    try:
        classes = find(run)
        listed = [one.to_json(run) for one in classes[:MOST_CLASSES]]
    except NotObserved as reason:
        return _with(finding, attribution=[], attribution_error=str(reason))
    except (UsageError, HarnessFault):  # a damaged folder has no verdict
        raise
    except Exception as error:  # a verdict that stands must not be lost for want of its explanation
        return _with(finding, attribution=[], attribution_error=f"it failed: {error!r}")
    summary = finding.summary
    if classes and finding.verdict != "pass":
        summary = f"{summary}. {told(classes)}"
    return dataclasses.replace(_with(finding, attribution=listed), summary=summary)


def _with(finding: Finding, **figures: object) -> Finding:
    return dataclasses.replace(finding, figures={**finding.figures, **figures})


# ------------------------------------------------------------------------------------------------------- kept


def table(run: SavedRun) -> pl.DataFrame:
    """Every event that was lost or doubled, a row for each hop at which it was: its class and its whole way.

    Columns: kind, hop (where it is missing, or stands too often), class, event, hop_before, hop_after, worker, faults
    (their indexes), partition and offset (of its last record at the hop before; null where that is no Kafka topic), and,
    for each hop of the way, <hop>_copies, <hop>_first_s and <hop>_last_s; for a sink that shows single events,
    <sink>_first_s. Seconds after the load's start, null where it was never seen.
    """
    rows = [("lost", one.step.after, one) for one in of_losses(run)]
    for hop in [*ways.path(run), *([run.sink] if run.sink is not None else [])]:
        rows += [("doubled", hop, one) for one in of_duplicates(run, hop)]
    frames = [_rows(run, kind, hop, one) for kind, hop, one in rows if len(one.places)]
    return pl.concat(frames) if frames else _rows(run, "", "", None)


def keep(run: SavedRun) -> None:
    """Writes attribution.parquet into the folder of a run that is not sealed yet; none where it cannot be made."""
    try:
        frame = table(run)
    except Exception:  # the findings say why
        run.folder.attribution.unlink(missing_ok=True)
        return
    frame.write_parquet(run.folder.attribution)


def _rows(run: SavedRun, kind: str, hop: str, one: Class | None) -> pl.DataFrame:
    places = np.zeros(0, dtype=np.int64) if one is None else one.places
    n = len(places)
    producer, sequence = run.events.events(places)
    partition: np.ndarray | None = None
    offset: np.ndarray | None = None
    if one is not None and one.step.before is not None:
        before = ways.seen_at(run, one.step.before)
        if before.partition is not None and before.offset is not None:
            partition, offset = before.partition[places], before.offset[places]
    faults = [] if one is None else [w.index for w in one.faults]

    def same(value: str | None) -> pl.Series:
        return pl.Series([value] * n, dtype=pl.String)

    columns: dict[str, pl.Series] = {
        "kind": same(kind),
        "hop": same(hop),
        "class": same(None if one is None else one.name),
        "event": pl.Series(
            [f"{run.tag}-{p:04d}-{s:010d}" for p, s in zip(producer, sequence, strict=True)], dtype=pl.String
        ),
        "hop_before": same(None if one is None else one.step.before),
        "hop_after": same(None if one is None else one.step.after),
        "worker": same(None if one is None else one.step.worker),
        "faults": pl.Series([faults] * n, dtype=pl.List(pl.Int64)),
        "partition": pl.Series([None] * n if partition is None else partition, dtype=pl.Int32),
        "offset": pl.Series([None] * n if offset is None else offset, dtype=pl.Int64),
    }
    for name in ways.path(run):
        seen = ways.seen_at(run, name)
        columns[f"{name}_copies"] = pl.Series(seen.copies[places], dtype=pl.Int64)
        for which, times in (("first", seen.first), ("last", seen.last)):
            columns[f"{name}_{which}_s"] = _seconds(run, times[places])
    counted = ways.first_counted(run)
    if counted is not None and run.sink is not None:
        columns[f"{run.sink}_first_s"] = _seconds(run, counted[places])
    return pl.DataFrame(columns)


def _seconds(run: SavedRun, times: np.ndarray) -> pl.Series:
    return pl.Series(np.round(times - run.t0, 4), dtype=pl.Float64).fill_nan(None)
