"""Makes saved runs for the tests: a healthy one from the real generator, with whatever defects a test plants in it.

A `World` knows how often each event stands at each hop and is counted at the sink. A test changes that, or the history,
or a file, and `save` writes the run folder with the harness's own writers (RunFolder, LedgerWriter, expected_cells).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.ledger import LedgerWriter
from harness.store import CELL, COMMITS, EventIndex, RunFolder, SavedRun
from harness.topology import CONTENT_FIELDS, Cells
from load.events import Plan, columns, expected_cells, expected_content
from load.profiles import Steady

T0_MS = 1_790_000_002_000
WARMUP_T0_MS = T0_MS - 1_500
TAG = "1a2b3c4d"
CELLS = (Cells("tweet", ("tweet_id", "engagement"), (10, 60)), Cells("author", ("author_id", "engagement"), (10, 60)))
HOPS = (
    {"name": "source", "kind": "kafka", "role": "source", "service": "kafka"},
    {"name": "intermediate", "kind": "kafka", "role": "path", "service": "kafka"},
    {"name": "dead-letters", "kind": "kafka", "role": "dead-letter", "service": "kafka"},
    {"name": "published", "kind": "pubsub", "role": "path", "service": "pubsub"},
    {"name": "aggregates", "kind": "bigtable", "role": "sink", "service": "bigtable"},
)
PROFILE = Steady(rate=200, seconds=10, tweets=40, share_late=0.01, share_poison=0.01)
WARMUP_EVENTS = 10
WORKERS: tuple[dict[str, Any], ...] = (
    {"name": "converter", "worker": "converter", "reads": "intermediate", "writes": ["published"]},
)
#: Partitions of every Kafka hop.
PARTITIONS = 4


@dataclass
class World:
    """A run that can be damaged before it is saved. `place` numbers the events, as `EventIndex` does."""

    profile: Steady = PROFILE
    seed: int = 7
    users: int = 1
    cells: tuple[Cells, ...] = CELLS
    hops: tuple[dict[str, str], ...] = HOPS
    workers: tuple[dict[str, Any], ...] = WORKERS
    links: tuple[dict[str, str], ...] = ()
    batch: bool = True
    leaves_out_late: bool = False
    late_after_s: float = 5.0
    warmup_t0_ms: int = WARMUP_T0_MS
    schedule: list[dict[str, Any]] = field(default_factory=list)
    assertions: list[dict[str, Any]] = field(default_factory=list)
    expected: dict[str, str] = field(default_factory=dict)
    services: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan = Plan(self.profile, self.seed, self.users, T0_MS, TAG)
        self.index = EventIndex({p: self.plan.events_of(p) for p in self.plan.producers})
        n = len(self.index)
        self.producer, self.sequence = self.index.events(np.arange(n))
        self.content = pl.concat(
            [expected_content(self.plan, p, np.arange(size)) for p, size in self.index.sizes.items()]
        )
        self.poison = self.content["poison"].to_numpy().copy()
        self.due_s = (
            np.concatenate([self.plan.due_us(p, np.arange(size)) for p, size in self.index.sizes.items()]) / 1e6
        )
        #: how often each event stands at each hop, and how often the sink counts it
        self.copies = {hop["name"]: np.where(self.poison, 0, 1) for hop in self.hops if hop["role"] != "dead-letter"}
        self.copies |= {hop["name"]: self.poison.astype(int) for hop in self.hops if hop["role"] == "dead-letter"}
        self.copies[self.hops[0]["name"]] = np.ones(n, dtype=int)
        #: what load knows of each event: "a"cked, "e"rror (ambiguous), "f"ailed, "?" (no report), "-" never intended
        self.outcome = np.full(n, "a")
        #: seconds from due to the tap, by hop; the sink's are the sightings
        self.delay = {hop["name"]: np.full(n, 0.02 * (i + 1)) for i, hop in enumerate(self.hops)}
        #: seconds from one copy of an event to the next, by hop
        self.again = {hop["name"]: np.full(n, 0.001) for hop in self.hops}
        #: (asked, t, worker, hop, partition, offset): what consumer groups had committed, in seconds after the load's start
        self.commits: list[tuple[float, float, str, str, int, int]] = []
        #: (hop, place, field, value): what a hop shows instead of the truth; the field "content_read" works, too
        self.altered: list[tuple[str, int, str, Any]] = []
        #: hop -> (producer, sequence, raw) of further records
        self.strange: dict[str, list[tuple[int, int, bytes | None]]] = {}
        self.edit_cells: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
        self.edit_batch: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
        #: hop -> why its tap is not certified
        self.uncertified: dict[str, str] = {}
        self.tap_figures: dict[str, dict[str, Any]] = {}
        #: files not to write
        self.without: set[str] = set()
        #: kinds of history records that are left out, and further records
        self.silent: set[str] = set()
        self.events: list[dict[str, Any]] = []
        self.drained: dict[str, Any] = {"reason": "drained", "waited_s": 13.0, "missing": {}}
        self.show_sightings = True
        #: whether the sink's tap dated the cells, as of a sink that shows only counts
        self.date_cells = False
        #: whether the sightings of the sink show each time that an event was counted, and not only the first
        self.show_every_count = False
        self.tap_twice: set[str] = set()

    # -- planting ----------------------------------------------------------------------------------------------

    @property
    def sound(self) -> np.ndarray:
        """Places of the events that are no poison."""
        return np.flatnonzero(~self.poison)

    def sink(self) -> str:
        return next(hop["name"] for hop in self.hops if hop["role"] == "sink")

    def after(self, hop: str) -> list[str]:
        """A hop and those that follow it on the path, the sink included."""
        names = [h["name"] for h in self.hops if h["role"] in ("source", "path", "sink")]
        return names[names.index(hop) :]

    def lose(self, hop: str, *places: int) -> World:
        """The events never reach the hop, nor any after it."""
        for name in self.after(hop):
            self.copies[name][list(places)] = 0
        return self

    def double(self, hop: str, *places: int, further: bool = False) -> World:
        """The events stand at the hop once more (`further`: at those after it, too)."""
        for name in self.after(hop) if further else [hop]:
            self.copies[name][list(places)] += 1
        return self

    def fault(self, name: str, target: str, start: float, end: float | None, **seen: Any) -> World:
        """A fault that was injected and healed, in seconds after the load's start."""
        told = {"index": len(self.schedule), "fault": name, "target": target}
        at = {"fault": name, "target": target, "at": start, "seconds": (end or start) - start, "params": {}}
        self.schedule.append(at)
        self.events.append({"t": T0_MS / 1000 + start, "kind": "fault-start", **told, **seen})
        if end is not None:
            self.events.append({"t": T0_MS / 1000 + end, "kind": "fault-end", **told})
        return self

    def happen(self, kind: str, at: float = 5.0, **fields: Any) -> World:
        self.events.append({"t": T0_MS / 1000 + at, "kind": kind, **fields})
        return self

    def event_id(self, place: int) -> str:
        return f"{TAG}-{self.producer[place]:04d}-{self.sequence[place]:010d}"

    def apart_from(self, *places: int) -> int:
        """A sound event that shares no cell with any of these."""
        mine = self.content.with_row_index("place")
        theirs = mine.filter(pl.col("place").is_in(list(places)))
        far = mine.filter(
            ~pl.col("poison")
            & ~pl.col("author_id").is_in(theirs["author_id"].to_list())
            & ~pl.col("tweet_id").is_in(theirs["tweet_id"].to_list())
        )
        return int(far["place"][far.height // 2])

    # -- saving ------------------------------------------------------------------------------------------------

    def write(self, out: Path) -> RunFolder:
        """Writes everything but the manifest."""
        folder = RunFolder.create(out, "synthetic", TAG)
        folder.write_json("run.json", self.meta())
        folder.history.write_text("".join(json.dumps(record) + "\n" for record in self.history()))
        if "ledger" not in self.without:
            self._ledger(folder)
        for hop in self.hops:
            name = hop["name"]
            if name in self.without:
                continue
            frame = self.edit_cells(self.counted()) if hop["role"] == "sink" else self.records(name, hop["kind"])
            frame.write_parquet(folder.hop(name))
        if self.show_sightings and any(hop["role"] == "sink" for hop in self.hops):
            self.seen().write_parquet(folder.sightings(self.sink()))
        if self.date_cells:
            self.appeared().write_parquet(folder.appearances(self.sink()))
        if self.batch and "batch" not in self.without:
            self.edit_batch(self.batch_cells()).write_parquet(folder.batch)
        if self.commits:
            t0 = T0_MS / 1000
            rows = [(t0 + asked, t0 + t, *rest) for asked, t, *rest in self.commits]
            pl.DataFrame(rows, schema=COMMITS, orient="row").write_parquet(folder.commits)
        if "progress" not in self.without:
            self.progress().write_parquet(folder.progress)
        return folder

    def save(self, out: Path) -> SavedRun:
        folder = self.write(out)
        folder.seal()
        return SavedRun.load(folder.path)

    def meta(self) -> dict[str, Any]:
        return {
            "format": 1,
            "run": TAG,
            "started": "2026-09-21T00:00:00+00:00",
            "scenario": "synthetic",
            "backend": "process",
            "seed": self.seed,
            "pipeline": {
                "name": "kappa",
                "max_quiet_s": 12.0,
                "late_after_s": self.late_after_s,
                "services": self.services,
                "workers": list(self.workers),
                "links": list(self.links),
                "hops": list(self.hops),
                "cells": [
                    {"dimension": c.dimension, "key": list(c.key), "windows_s": list(c.windows_s)} for c in self.cells
                ],
                "batch": self.batch,
                "leaves_out_late": self.leaves_out_late,
            },
            "load": {
                "profile": self.profile.as_dict(),
                "users": self.users,
                "t0_ms": T0_MS,
                "warmup_t0_ms": self.warmup_t0_ms,
                "warmup_events": WARMUP_EVENTS,
            },
            "schedule": self.schedule,
            "assertions": self.assertions,
            "expected": self.expected,
            "versions": {},
            "notes": [],
        }

    def history(self) -> list[dict[str, Any]]:
        t0, end = T0_MS / 1000, T0_MS / 1000 + self.profile.seconds
        records: list[dict[str, Any]] = [
            {"t": t0 - 5, "kind": "stage", "stage": "deploy"},
            {"t": t0 - 2, "kind": "stage", "stage": "warm-up"},
            {"t": t0 - 0.2, "kind": "stage", "stage": "load"},
            {"t": t0 + 1, "kind": "load", "sent": 1, "acked": 1, "failed": 0, "behind_ms": 1.5},
            {"t": end, "kind": "load-end", "status": 0},
            {"t": end + 0.1, "kind": "stage", "stage": "heal"},
            {"t": end + 0.2, "kind": "stage", "stage": "drain"},
            {"t": end + 13.2, "kind": "drain-end", **self.drained},
            {"t": end + 13.3, "kind": "stage", "stage": "collect"},
        ]
        for hop in self.hops:
            name = hop["name"]
            reason = self.uncertified.get(name)
            told = {"hop": name, "certified": reason is None, "reason": reason or "all was seen"}
            told["figures"] = self.tap_figures.get(name, {})
            records.append({"t": end + 14, "kind": "tap", **told})
        records += [
            {"t": end + 15, "kind": "clock", "wall_minus_mono_ms_drift": 0.4},
            {"t": end + 15, "kind": "machine", "oom_kills": 0, "disk_free_bytes": 10**10, "disk_full": False},
        ]
        kept = [record for record in records if record["kind"] not in self.silent]
        return sorted(kept + self.events, key=lambda record: record["t"])

    def _ledger(self, folder: RunFolder) -> None:
        with LedgerWriter(folder.ledger, TAG) as ledger:
            for producer, size in self.index.sizes.items():
                outcome = self.outcome[self.producer == producer]
                lo = 0
                while lo < size:  # batches of equal outcome
                    hi = lo + 1
                    while hi < size and outcome[hi] == outcome[lo]:
                        hi += 1
                    kind = outcome[lo]
                    if kind != "-":
                        ledger.intent(producer, lo, hi - lo)
                    if kind == "e":
                        for sequence in range(lo, hi):
                            ledger.error(producer, sequence, -192)
                    if kind == "f":
                        ledger.failed(producer, lo, hi - lo, -184)
                    if kind in "aef":
                        ledger.ack(producer, lo, hi - lo)
                    lo = hi
        with LedgerWriter(folder.warmup_ledger, TAG) as ledger:
            ledger.intent(0, 0, WARMUP_EVENTS)
            ledger.ack(0, 0, WARMUP_EVENTS)

    def records(self, hop: str, kind: str) -> pl.DataFrame:
        copies = self.copies[hop]
        place = np.repeat(np.arange(len(copies)), copies)
        nth = np.concatenate([np.arange(c) for c in copies]) if len(copies) else place
        came = self.due_s[place] + self.delay[hop][place] + self.again[hop][place] * nth
        order = np.argsort(came, kind="stable")
        place, came = place[order], came[order]
        warm = columns(Plan(self.profile, self.seed, self.users, self.warmup_t0_ms, TAG), 0, 0, WARMUP_EVENTS)
        role = next(h["role"] for h in self.hops if h["name"] == hop)
        w = 0 if role == "dead-letter" else WARMUP_EVENTS
        strange = self.strange.get(hop, [])
        producer = np.concatenate([np.zeros(w), self.producer[place], [s[0] for s in strange]]).astype(np.int32)
        sequence = np.concatenate([np.arange(w), self.sequence[place], [s[1] for s in strange]]).astype(np.int64)
        seen = np.concatenate(
            [
                warm.created_ms[:w] + 100.0,
                came * 1000,
                [T0_MS + 5_000.0 for _ in strange],
            ]
        )
        n = len(producer)
        created = np.concatenate(
            [warm.created_ms[:w], self.content["created_ms"].to_numpy()[place], [T0_MS + 5_000 for _ in strange]]
        )
        if kind == "pubsub":
            created = seen  # when it was published
        if kind == "kafka":
            key = {
                "partition": pl.Series(np.arange(n) % PARTITIONS, dtype=pl.Int32),
                "offset": pl.Series(np.arange(n) // PARTITIONS, dtype=pl.Int64),
            }
        else:
            key = {"message_id": pl.Series([str(i) for i in range(n)], dtype=pl.String)}
        frame = pl.DataFrame(
            {
                **key,
                "created_ms": created.astype(np.int64),
                "seen_ms": seen,
                "producer": producer,
                "sequence": sequence,
                "raw": pl.Series([None] * (n - len(strange)) + [s[2] for s in strange], dtype=pl.Binary),
            }
        )
        if role in ("path", "source"):
            frame = self._with_content(frame, hop, place, w, len(strange))
        if hop in self.tap_twice:  # the tap was shown some of its messages twice
            frame = pl.concat([frame, frame.head(n // 2).with_columns(pl.col("seen_ms") + 10_000)])
        return frame

    def _with_content(self, frame: pl.DataFrame, hop: str, place: np.ndarray, w: int, strange: int) -> pl.DataFrame:
        shown = self.content.select(list(CONTENT_FIELDS))[place]
        poison = pl.Series(self.poison[place])
        shown = shown.with_columns(pl.when(~poison).then(pl.col(f)).alias(f) for f in CONTENT_FIELDS)
        read = ~self.poison[place]
        if hop != "source":
            shown = shown.with_columns(pl.lit(None, dtype=pl.String).alias("country"))  # dropped on the way
        for altered, where, name, value in self.altered:
            if altered != hop:
                continue
            rows = place == where
            if name == "content_read":
                read = np.where(rows, value, read)
            else:
                shown = shown.with_columns(
                    pl.when(pl.Series(rows)).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
                )
        head, tail = pl.DataFrame(schema=shown.schema).clear(w), pl.DataFrame(schema=shown.schema).clear(strange)
        whole = pl.concat([head, shown, tail])
        reads = pl.Series("content_read", [True] * w + read.tolist() + [False] * strange)
        return frame.hstack(whole).with_columns(reads)

    def _sum(self, times: np.ndarray) -> pl.DataFrame:
        """Cells in which each event is counted so often, the warm-up once."""
        warm = Plan(self.profile, self.seed, self.users, self.warmup_t0_ms, TAG)
        found = [expected_cells(warm, self.cells, {0: np.arange(WARMUP_EVENTS)}, self.late_after_s)]
        for level in range(1, int(times.max(initial=0)) + 1):
            sequences = self.index.sequences(times >= level)
            found.append(expected_cells(self.plan, self.cells, sequences, self.late_after_s))
        sums = ("count", "weight", "late_count", "late_weight")
        return pl.concat(found).group_by(CELL).agg(pl.col(c).sum() for c in sums).sort(CELL)

    def counted(self) -> pl.DataFrame:
        return self._sum(self.copies[self.sink()]).select([*CELL, "count", "weight"])

    def batch_cells(self) -> pl.DataFrame:
        """The batch truth: what is in the source log, each event once, poison and late ones left out."""
        frame = self._sum(((self.copies["source"] > 0) & ~self.poison).astype(int))
        return (
            frame.with_columns(
                count=pl.col("count") - pl.col("late_count"), weight=pl.col("weight") - pl.col("late_weight")
            )
            .filter(pl.col("count") > 0)
            .select([*CELL, "count", "weight"])
        )

    def seen(self) -> pl.DataFrame:
        times = self.copies[self.sink()] if self.show_every_count else np.minimum(self.copies[self.sink()], 1)
        place = np.repeat(np.arange(len(times)), times)
        seen = (self.due_s[place] + self.delay[self.sink()][place]) * 1000
        return pl.DataFrame(
            {
                "producer": np.concatenate([[0], self.producer[place]]).astype(np.int32),
                "sequence": np.concatenate([[0], self.sequence[place]]).astype(np.int64),
                "seen_ms": np.concatenate([[T0_MS - 900.0], seen]),
            }
        )

    def appeared(self) -> pl.DataFrame:
        """When the first event of each cell (of the first dimension and window) was counted."""
        first, hop = self.cells[0], self.sink()
        length = first.windows_s[0] * 1000
        place = np.flatnonzero(self.copies[hop])
        seen_ms = (self.due_s[place] + self.delay[hop][place]) * 1000
        return (
            self.content[place]
            .select(
                pl.lit(first.dimension).alias("dimension"),
                pl.concat_str(list(first.key), separator="|").alias("key"),
                pl.lit(first.windows_s[0], pl.Int32).alias("window_s"),
                (pl.col("event_time_ms") // length * length).alias("window_start_ms"),
                pl.Series("seen_ms", seen_ms),
            )
            .group_by("dimension", "key", "window_s", "window_start_ms")
            .agg(pl.col("seen_ms").min())
        )

    def progress(self) -> pl.DataFrame:
        """The count of the sink, or else of the last hop of the path, looked at each second."""
        sink = next((h["name"] for role in ("sink", "path") for h in reversed(self.hops) if h["role"] == role), "")
        seen = np.sort((self.due_s + self.delay[sink])[self.copies[sink] > 0])
        times = np.arange(T0_MS / 1000 - 2, max(seen, default=T0_MS / 1000) + 5, 1.0)
        counts = np.searchsorted(seen, times, side="right") + np.where(times >= T0_MS / 1000 - 1, WARMUP_EVENTS, 0)
        return pl.DataFrame({"t": times, "hop": [sink] * len(times), "count": counts.astype(np.int64)})
