"""What the page draws, read from a saved run: counts by hop, rates and latency over time, the lives of processes.

Every function takes the run and answers with frozen values; what a run does not hold raises, with a sentence that the
page can show in the section's place. Nothing here judges: the findings do that, these are the figures beside them.
Times are seconds after the load's start (t0) unless a name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.errors import HarnessFault, UsageError
from harness.store import CELL, NotObserved, SavedRun
from load.plan import WARMUP

Floats = NDArray[np.float64]

#: Bins of the plots, the narrowest first; the first that gives at most MOST_BINS is taken.
WIDTHS_S = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MOST_BINS = 260


class Absent(Exception):
    """The run does not hold what a section needs; the message is the sentence that takes its place."""


# ------------------------------------------------------------------------------------------------------- time


@dataclass(frozen=True)
class Axis:
    """Equal bins from `start` to `end`, `width` seconds each; `t0` is the load's start in epoch seconds."""

    t0: float
    start: float
    end: float
    width: float

    @property
    def edges(self) -> Floats:
        steps = np.arange(round((self.end - self.start) / self.width) + 1, dtype=np.float64)
        return self.start + self.width * steps

    def per_second(self, epoch_s: Floats) -> Floats:
        """How often a second, in each bin, given the moments (epoch seconds)."""
        counts, _ = np.histogram(epoch_s - self.t0, bins=self.edges)
        return np.asarray(counts / self.width, dtype=np.float64)


@dataclass(frozen=True)
class Fault:
    """A fault as the plots and the evidence show it. `number` counts from 1, in the order of time."""

    number: int
    fault: str
    target: str
    start: float | None
    end: float | None
    bit: bool | None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.fault} {self.target}".strip()


def time_zero(meta: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    """(epoch seconds, what it is): the load's start, or the first thing known if the run never came so far."""
    load = meta.get("load")
    t0_ms = load.get("t0_ms") if isinstance(load, Mapping) else None
    if isinstance(t0_ms, int | float) and t0_ms > 0:
        return t0_ms / 1000, "the load's start"
    for record in history:
        if record.get("kind") == "stage" and record.get("stage") == "load":
            return float(record["t"]), "the start of the stage load"
    if history:
        return float(history[0]["t"]), "the first record of the history"
    raise Absent("Neither run.json nor the history says when anything happened.")


def faults_of(
    verdict: Mapping[str, Any] | None, history: Sequence[Mapping[str, Any]], meta: Mapping[str, Any], t0: float
) -> list[Fault]:
    """The faults with their evidence: as judged, or as the history tells them where there is no judgement."""
    judged = (verdict or {}).get("faults")
    if isinstance(judged, list) and judged:
        found = [
            Fault(
                number=0,
                fault=str(f.get("fault", "?")),
                target=str(f.get("target", "")),
                start=finite(f.get("start")),
                end=finite(f.get("end")),
                bit=f.get("bit") if isinstance(f.get("bit"), bool) else None,
                evidence=f["evidence"] if isinstance(f.get("evidence"), Mapping) else {},
                params=f["params"] if isinstance(f.get("params"), Mapping) else {},
            )
            for f in judged
            if isinstance(f, Mapping)
        ]
    else:
        found = _faults_of_history(history, meta, t0)
    found.sort(key=lambda f: math.inf if f.start is None else f.start)
    return [Fault(n, f.fault, f.target, f.start, f.end, f.bit, f.evidence, f.params) for n, f in enumerate(found, 1)]


def _faults_of_history(history: Sequence[Mapping[str, Any]], meta: Mapping[str, Any], t0: float) -> list[Fault]:
    found: list[Fault] = []
    open_ones: dict[tuple[Any, str], list[int]] = {}
    begun = set()
    for record in history:
        if record.get("kind") not in ("fault-start", "fault-end"):
            continue
        key = (record.get("index"), str(record.get("target", "")))
        seen = {k: v for k, v in record.items() if k not in ("t", "kind", "index", "fault", "target", "bit")}
        bit = record.get("bit") if isinstance(record.get("bit"), bool) else None
        at = float(record["t"]) - t0
        waiting = open_ones.setdefault(key, [])
        if record["kind"] == "fault-start":
            begun.add(key[0])
            waiting.append(len(found))
            found.append(Fault(0, str(record.get("fault", "?")), key[1], at, None, bit, seen))
        elif waiting:
            place = waiting.pop(0)
            was = found[place]
            found[place] = Fault(0, was.fault, was.target, was.start, at, bit, {**was.evidence, **seen})
    for index, planned in enumerate(meta.get("schedule") or []):
        if index not in begun and isinstance(planned, Mapping):
            never = {"planned at": planned.get("at"), "injected": "never: the run ended before"}
            found.append(
                Fault(0, str(planned.get("fault", "?")), str(planned.get("target", "")), None, None, None, never)
            )
    return found


# ------------------------------------------------------------------------------------------------------ rates


@dataclass(frozen=True)
class Rate:
    """How many messages a second a hop (or load) showed in each bin. `total`: all of them; `how`: what was counted."""

    name: str
    about: str
    values: Floats
    total: int
    how: str
    #: whether every event passes here, so that the planned rate is a measure of it
    all_pass: bool = True


@dataclass(frozen=True)
class Rates:
    axis: Axis
    rates: list[Rate]
    planned: float | None
    missing: dict[str, str]


def _moments(run: SavedRun, name: str) -> Floats:
    """When a hop with ids was seen to hold each message (epoch seconds), the warm-up left out, each message once."""
    frame = run.hop(name)
    frame = frame.filter(pl.col("producer") != WARMUP)
    key = ["message_id"] if "message_id" in frame.columns else ["partition", "offset"]
    return frame.group_by(key).agg(pl.col("seen_ms").min())["seen_ms"].to_numpy() / 1000


def rates(
    run: SavedRun,
    hops: Iterable[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    t0: float,
    planned: float | None = None,
) -> Rates:
    """The load's and every hop's rate on one time axis. `planned`: events a second that load was to send.

    Raises Absent if nothing at all was seen.
    """
    moments: dict[str, Floats] = {}
    sampled: dict[str, tuple[Floats, Floats]] = {}
    how: dict[str, str] = {}
    missing: dict[str, str] = {}
    hops = [h for h in hops if h.get("name")]
    for hop in hops:
        name = str(hop["name"])
        try:
            if of_counts(hop):
                seen = run.sightings(name)
                if seen is not None and seen.height:
                    first = seen.group_by("producer", "sequence").agg(pl.col("seen_ms").min())
                    moments[name] = first["seen_ms"].to_numpy() / 1000
                    how[name] = "events, when each became durable in the sink"
                else:
                    sampled[name] = _samples(run, name)
                    how[name] = "counted events, from samples of the sink"
            else:
                moments[name] = _moments(run, name)
                how[name] = "messages, when the tap saw them"
        except Exception as reason:
            try:
                sampled[name] = _samples(run, name)
                how[name] = "messages, from samples of the tap"
            except Exception:
                missing[name] = sentence(reason)
    sent = _load_samples(history)
    if sent is not None:
        sampled["load"], how["load"] = sent, "events acknowledged, from the load's own report"
    else:
        missing["load"] = "The history holds no report of the load."

    ends = [float(m.max()) for m in moments.values() if len(m)]
    ends += [float(t[np.flatnonzero(np.diff(c, prepend=c[0]))[-1]]) for t, c in sampled.values() if np.diff(c).any()]
    ends += [float(r["t"]) for r in history if r.get("kind") in ("fault-start", "fault-end", "load-end")]
    if not moments and not sampled:
        raise Absent("No hop was collected and the load reported nothing, so there is no rate to draw.")
    last = max([end - t0 for end in ends if end > t0], default=1.0)
    span = last + 2.0
    width = next((w for w in WIDTHS_S if span / w <= MOST_BINS), span / MOST_BINS)
    start = -max(1.0, width)
    axis = Axis(t0, start, start + width * math.ceil((last + 1.0 - start) / width), width)

    roles = {str(h["name"]): h for h in hops}
    found = []
    for name in ["load", *roles]:
        hop = roles.get(name, {})
        about = kind_of(hop) if hop else "acknowledged"
        if name in moments:
            values, total = axis.per_second(moments[name]), len(moments[name])
        elif name in sampled:
            values, total = _per_second(axis, *sampled[name])
        else:
            continue
        found.append(Rate(name, about, values, total, how[name], hop.get("role") != "dead-letter"))
    return Rates(axis, found, planned, missing)


_KINDS = {
    "kafka": "Kafka topic",
    "pubsub": "Pub/Sub topic",
    "bigtable": "Bigtable table",
    "bigquery": "BigQuery table",
    "sqlite": "SQLite table",
    "http": "answers of a worker",
}


def of_counts(hop: Mapping[str, Any]) -> bool:
    """Whether it shows counts by cell, and not single messages."""
    return hop.get("role") == "sink" or bool(hop.get("counts"))


def kind_of(hop: Mapping[str, Any]) -> str:
    """`Kafka topic, source`."""
    return f"{_KINDS.get(str(hop.get('kind')), hop.get('kind', '?'))}, {hop.get('role', '?')}"


def _samples(run: SavedRun, name: str) -> tuple[Floats, Floats]:
    frame = run.progress.filter(pl.col("hop") == name).sort("t")
    if not frame.height:
        raise Absent(f"There are no samples of {name}.")
    return frame["t"].to_numpy().astype(float), frame["count"].to_numpy().astype(float)


def _load_samples(history: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats] | None:
    found = [
        (float(r["t"]), float(r["acked"]))
        for r in history
        if r.get("kind") == "load" and finite(r.get("acked")) is not None
    ]
    if not found:
        return None
    times, counts = np.array(found).T
    return times, counts


def _per_second(axis: Axis, times: Floats, counts: Floats) -> tuple[Floats, int]:
    """A growing count, sampled now and then, as a rate: what came between two samples is spread evenly."""
    at = np.interp(axis.edges + axis.t0, times, counts, left=counts[0], right=counts[-1])
    return np.maximum(np.diff(at), 0) / axis.width, int(counts[-1])


# ----------------------------------------------------------------------------------------------------- counts


@dataclass(frozen=True)
class Counted:
    """One line of the table of hops. None: not known, and `notes` says why."""

    name: str
    about: str
    messages: int | None
    events: int | None
    duplicates: int | None
    missing: int | None
    of: int | None
    certified: bool
    notes: list[str]
    part: str = ""

    @property
    def duplicate_share(self) -> float | None:
        return self.duplicates / self.events if self.events and self.duplicates is not None else None


def counts(run: SavedRun, hops: Iterable[Mapping[str, Any]]) -> list[Counted]:
    """Messages, distinct events, duplicates and missing events of each hop; a sink has a line for each of its counts."""
    found: list[Counted] = []
    for hop in hops:
        name = str(hop.get("name", "?"))
        notes: list[str] = []
        try:
            certified, why = run.certified(name)
        except Exception as reason:
            certified, why = False, sentence(reason)
        if not certified:
            notes.append(f"tap not certified: {why}")
        try:
            if of_counts(hop):
                found += _sink_counts(run, hop, certified, notes)
            else:
                found.append(_hop_counts(run, hop, certified, notes))
        except Exception as reason:
            found.append(
                Counted(name, kind_of(hop), None, None, None, None, None, certified, [*notes, sentence(reason)])
            )
    if not found:
        raise Absent("run.json names no hop.")
    return found


def _hop_counts(run: SavedRun, hop: Mapping[str, Any], certified: bool, notes: list[str]) -> Counted:
    name = str(hop["name"])
    frame = run.hop(name).filter(pl.col("producer") != WARMUP)
    key = ["message_id"] if "message_id" in frame.columns else ["partition", "offset"]
    frame = frame.unique(key)
    ours = frame.filter(pl.col("producer") > 0)
    events = ours.select(pl.struct("producer", "sequence").n_unique()).item() if ours.height else 0
    strange = frame.height - ours.height
    if strange:
        notes.append(f"{strange:,} message{'s' * (strange != 1)} without a readable id of this run")
    missing = of = None
    try:
        settled = run.settled()
        role = hop.get("role")
        if role == "source":
            wanted, seen = settled.acked, settled.in_source_log
        elif role == "dead-letter":
            # Poison may end in any of the dead-letter hops; what is in none of them is missing from all.
            wanted, here = settled.poison_planted, run.events_at(name)
            seen = np.any([run.events_at(h) for h in run.hops_of_role("dead-letter") if run.has_hop(h)], axis=0)
            stray = int((here & ~settled.poison).sum())
            if stray:
                notes.append(f"{stray:,} event{'s' * (stray != 1)} here that {'are' if stray != 1 else 'is'} no poison")
        else:
            wanted, seen = settled.must_arrive, run.events_at(name)
        missing, of = int((wanted & ~seen).sum()), int(wanted.sum())
    except Exception as reason:
        notes.append(f"missing events are not known: {sentence(reason)}")
    return Counted(
        name, kind_of(hop), frame.height, int(events), ours.height - int(events), missing, of, certified, notes
    )


def _sink_counts(run: SavedRun, hop: Mapping[str, Any], certified: bool, notes: list[str]) -> list[Counted]:
    name, about = str(hop["name"]), kind_of(hop)
    by = ["dimension", "window_s"]
    try:
        both = run.cells(name).join(run.expected(), on=CELL, how="full", coalesce=True, suffix="_expected")
        both = both.with_columns(pl.col("count").fill_null(0), pl.col("count_expected").fill_null(0))
        more = pl.col("count") - pl.col("count_expected")
        # A lost and a doubled event of one cell leave its count right; the weights tell.
        masked = both.filter(
            (more == 0) & (pl.col("weight").fill_null(0) != pl.col("weight_expected").fill_null(0))
        ).height
        if run.pipeline.get("leaves_out_late"):
            notes.append("late events that it leaves out, as it declares, count as missing here")
        if masked:
            notes.append(f"{masked:,} cell{'s' * (masked != 1)} with the right count, but not of the right events")
        lines = (
            both.group_by(by)
            .agg(
                pl.col("count").sum(),
                pl.col("count_expected").sum().alias("of"),
                more.clip(lower_bound=0).sum().alias("over"),
                (-more).clip(lower_bound=0).sum().alias("under"),
            )
            .sort(by)
        )
        return [
            Counted(
                name,
                about,
                int(line["count"]),
                int(line["of"] - line["under"]),
                int(line["over"]),
                int(line["under"]),
                int(line["of"]),
                certified,
                notes if not place else [],
                f"by {line['dimension']}, windows of {line['window_s']} s",
            )
            for place, line in enumerate(lines.iter_rows(named=True))
        ] or [
            Counted(
                name, about, 0, 0, 0, None, None, certified, [*notes, "the sink holds no cell and none is expected"]
            )
        ]
    except Exception as reason:
        lines = run.hop(name).group_by(by).agg(pl.col("count").sum()).sort(by)
        told = [*notes, f"what it should hold is not known: {sentence(reason)}"]
        return [
            Counted(
                name,
                about,
                int(line["count"]),
                None,
                None,
                None,
                None,
                certified,
                told if not place else [],
                f"by {line['dimension']}, windows of {line['window_s']} s",
            )
            for place, line in enumerate(lines.iter_rows(named=True))
        ] or [Counted(name, about, 0, None, None, None, None, certified, told)]


# ---------------------------------------------------------------------------------------------------- latency


@dataclass(frozen=True)
class HopLatency:
    """Milliseconds from the intended send time of each event to its first sighting at a hop."""

    name: str
    events: int
    p50: float
    p95: float
    p99: float
    most: float


@dataclass(frozen=True)
class Latency:
    """`hop`'s latency by the bin in which the event was due (nan where none was), and every hop's as a whole."""

    axis: Axis
    hop: str
    p50: Floats
    p99: Floats
    most: Floats
    all: list[HopLatency]
    missing: dict[str, str]


def latency(run: SavedRun, hops: Iterable[Mapping[str, Any]], axis: Axis) -> Latency:
    """Latency counts from when an event was due, so that a stall of the load or of Kafka shows too."""
    hops = [h for h in hops if h.get("name")]
    roles = {str(h["name"]): str(h.get("role")) for h in hops}
    counting = {str(h["name"]) for h in hops if of_counts(h)}
    source = next((name for name, role in roles.items() if role == "source"), None)
    if source is None:
        raise Absent("No hop has the role of the source, so nothing says when an event was due.")
    due = (
        run.hop(source)
        .filter((pl.col("producer") > 0) & pl.col("created_ms").is_not_null())
        .group_by("producer", "sequence")
        .agg(pl.col("created_ms").min().alias("due"))
    )
    found: list[HopLatency] = []
    missing: dict[str, str] = {}
    last: tuple[str, Floats, Floats] | None = None
    for name, role in roles.items():
        if role == "dead-letter":
            continue
        try:
            seen = run.sightings(name) if name in counting else run.hop(name)
            if seen is None and (dated := run.appearances(name)) is not None:
                seen, _ = dated
            if seen is None:
                missing[name] = "It shows counts, not single events, so there is no moment at which an event was seen."
                continue
            first = (
                seen.filter(pl.col("producer") > 0)
                .group_by("producer", "sequence")
                .agg(pl.col("seen_ms").min())
                .join(due, on=["producer", "sequence"])
            )
        except Exception as reason:
            missing[name] = sentence(reason)
            continue
        if not first.height:
            missing[name] = "It saw no event of the load."
            continue
        when = first["due"].to_numpy().astype(float)
        took = np.maximum(first["seen_ms"].to_numpy() - when, 0.0)
        p50, p95, p99 = (float(v) for v in np.percentile(took, [50, 95, 99]))
        found.append(HopLatency(name, len(took), p50, p95, p99, float(took.max())))
        if role not in ("source", "export") or last is None:
            last = (name, when / 1000 - axis.t0, took)
    if last is None:
        raise Absent("No hop shows when it saw single events." + "".join(f" {n}: {w}" for n, w in missing.items()))
    name, at, took = last
    bins = len(axis.edges) - 1
    p50s, p99s, mosts = (np.full(bins, np.nan) for _ in range(3))
    place = np.floor((at - axis.start) / axis.width).astype(int)
    order = np.argsort(place, kind="stable")
    place, took = place[order], took[order]
    for b in np.unique(place):
        if 0 <= b < bins:
            inside = took[np.searchsorted(place, b) : np.searchsorted(place, b, side="right")]
            p50s[b], p99s[b] = np.percentile(inside, [50, 99])
            mosts[b] = inside.max()
    return Latency(axis, name, p50s, p99s, mosts, found, missing)


# -------------------------------------------------------------------------------------------------- lifetimes


@dataclass(frozen=True)
class Duplicates:
    """The series of the warehouse's duplicate monitor: seconds after the time zero, and the rates then (nan: of nothing)."""

    times: Floats
    before: Floats
    after: Floats
    last: Mapping[str, Any]


def duplicates(run: SavedRun, t0: float) -> Duplicates:
    """Raises Absent where the monitor told nothing. `last`: the final figures."""
    told = run.warehouse_duplicates()
    series = told.filter(~pl.col("final"))
    if not series.height or series.height == told.height:
        raise Absent("The duplicate monitor told nothing.")
    times = series["at_ms"].to_numpy() / 1000 - t0
    rates = [series[name].to_numpy().astype(float) for name in ("before", "after")]
    return Duplicates(times, rates[0], rates[1], told.row(-1, named=True))


@dataclass(frozen=True)
class Stage:
    name: str
    start: float
    end: float | None

    @property
    def seconds(self) -> float | None:
        return None if self.end is None else self.end - self.start


@dataclass(frozen=True)
class Life:
    """One process of a worker or service. `end` None: it was never seen to exit. `asked`: the harness ended it."""

    pid: Any
    start: float | None
    end: float | None
    status: Any = None
    signal: Any = None
    asked: bool | None = None

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.end is None:
            return "no exit was recorded"
        what = str(self.signal) if self.signal else f"status {self.status}" if self.status is not None else "it exited"
        return f"{what}, {'asked for' if self.asked else 'not asked for'}"


@dataclass(frozen=True)
class Lane:
    """All processes that one name had, one after the other."""

    name: str
    kind: str
    lives: list[Life]


def stages(history: Sequence[Mapping[str, Any]], t0: float) -> list[Stage]:
    begun = [(str(r.get("stage", "?")), float(r["t"]) - t0) for r in history if r.get("kind") == "stage"]
    if not begun:
        raise Absent("The history names no stage.")
    last = float(history[-1]["t"]) - t0
    ends: list[float | None] = [start for _, start in begun[1:]]
    ends.append(last if last > begun[-1][1] else None)
    return [Stage(name, start, end) for (name, start), end in zip(begun, ends, strict=True)]


def lanes(history: Sequence[Mapping[str, Any]], declared: Mapping[str, str], t0: float) -> list[Lane]:
    """Every service's and worker's processes. `declared`: name -> "service" or "worker", in the order to show."""
    lives: dict[str, list[Life]] = {name: [] for name in declared}
    kinds = dict(declared)
    for record in history:
        kind, _, what = str(record.get("kind", "")).partition("-")
        if kind not in ("worker", "service") or what not in ("start", "exit"):
            continue
        name, pid, at = str(record.get(kind, "?")), record.get("pid"), float(record["t"]) - t0
        kinds.setdefault(name, kind)
        mine = lives.setdefault(name, [])
        if what == "start":
            # The kernel's start time is off by up to half a second; it is only of use for what runs since long before.
            started = finite(record.get("started"))
            long_ago = started is not None and started - t0 < at - 2
            mine.append(Life(pid, started - t0 if started is not None and long_ago else at, None))
            continue
        place = next((i for i, life in enumerate(mine) if life.pid == pid and life.end is None), None)
        start = mine.pop(place).start if place is not None else None
        ended = Life(pid, start, at, record.get("status"), record.get("signal"), record.get("asked"))
        mine.insert(len(mine) if place is None else place, ended)
    in_order = sorted(lives, key=lambda name: kinds[name] == "worker")
    found = [Lane(name, kinds[name], lives[name]) for name in in_order]
    if not any(lane.lives for lane in found):
        raise Absent("The history records no start of a worker or service.")
    return found


# --------------------------------------------------------------------------------------------------- helpers


def finite(value: Any) -> float | None:
    """The value as a number, or None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def sentence(reason: BaseException) -> str:
    """What went wrong, as a sentence. What was not meant to be read by a person is named as a failure of the page."""
    if not isinstance(reason, Absent | NotObserved | HarnessFault | UsageError | OSError):
        return f"This part of the page failed: {reason!r}."
    text = str(reason).strip() or type(reason).__name__
    return text if text.endswith((".", "!", "?")) else text + "."
