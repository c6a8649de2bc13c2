"""What the faults read out of a saved run to prove that they bit.

The rule behind all of it: a fault on something that was idle proves nothing. So each proof needs, besides its own
mark, that the link or worker was *at work*: more bytes flowed than flow when nothing is to be done. Kafka clients
chatter when idle (fetches, heartbeats), so "idle" is measured in the same run, in its quietest seconds after the load.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from faults.base import Evidence
from harness.store import NotObserved

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun

#: Bytes a second that count as work on top of twice the idle chatter.
WORK_BYTES_PER_S = 300
#: A measurement older than this says nothing of now; they are taken five times a second.
BLIND_AFTER_S = 2.0
#: So long after a fault its link may be quieter than it is when idle.
AFTER_FAULT_S = 1.0
#: How far back "just before" reaches, in seconds.
BEFORE_S = 1.5
#: So long no process carries anything after its start; the sample before that may still be of the one before it.
STARTS_S = 0.2
#: A worker that only connects to a service carries less than this (Kafka and gRPC without TLS: 3 to 5 kB).
CONNECT_BYTES = 8_000
#: A worker without a link is at work when it has used so much of a processor over so many seconds, and so many times more
#: than it mostly does … (Measured of the legacy batch job: 1 % when it waits, 15 % when it works, most of that on the disk.)
WORKS_CPU, WORKS_OVER_S, WORKS_MORE = 0.08, 0.6, 3
#: … and not only to start: that is over after so many seconds.
STARTS_CPU_S = 2.5
#: So long may a worker that answers for a hop take to answer that it can.
ASKED_S = 0.5
#: An end that is recorded so shortly before a fault may be the fault's own, by another clock.
CLOCKS_S = 0.05
#: An end that is recorded so shortly before a start of the same pid is that start's own.
ENDS_S = 1.0


def evidence_of(run: SavedRun, window: FaultWindow) -> Evidence:
    """The proof that a fault bit, by the fault's own rule. Raises KeyError for a fault that is not known."""
    from faults import FAULTS

    return FAULTS[window.fault].evidence(run, window)


def in_force(window: FaultWindow) -> tuple[float, float]:
    """When a fault was surely in force, in epoch seconds: after it was injected, before its healing began.

    A margin at both ends leaves out samples that were taken in the middle of it.
    """
    start = float(window.observations.get("in_force", window.start)) + 0.3
    end = float(window.observations.get("released", window.end)) - 0.1
    return start, max(start, end)


def _samples(run: SavedRun, link: str) -> pl.DataFrame:
    return run.links.filter(pl.col("link") == link).sort("t")


def measured_until(run: SavedRun, link: str) -> float:
    return float(_samples(run, link)["t"].max() or 0.0)  # type: ignore[arg-type]


def flow(run: SavedRun, link: str, start: float, end: float) -> dict[str, float]:
    """What moved on a link between two moments: bytes by direction, connections opened and closed.

    Raises NotObserved where the link was not measured.
    """
    samples = _samples(run, link)
    first = samples.filter(pl.col("t") <= start).tail(1)
    last = samples.filter(pl.col("t") <= end).tail(1)
    if first.is_empty() or last.is_empty() or max(start - first["t"][0], end - last["t"][0]) > BLIND_AFTER_S:
        raise NotObserved(f"{link} was not measured then")
    return {column: last[column][0] - first[column][0] for column in ("requests", "responses", "opened", "closed")}


def typical_rate(run: SavedRun, link: str, start: float, end: float) -> float:
    """Requests in bytes a second between two moments, by the median of the samples.

    Not by the sum: when a socket's window opens again, its buffer swallows a hundred kilobytes at once that have not
    passed the proxy.
    """
    samples = _samples(run, link).filter(pl.col("t").is_between(start, end))
    if samples.height < 3:
        raise NotObserved(f"{link} was not measured often enough")
    rates = samples.select(pl.col("requests").diff() / pl.col("t").diff()).to_series().drop_nulls()
    return float(rates.median() or 0.0)  # type: ignore[arg-type]


def connections(run: SavedRun, link: str, start: float, end: float) -> tuple[int, int]:
    """(least, most) connections of a link in the samples between two moments.

    Raises NotObserved where there are none: that nobody looked does not mean that there was no connection.
    """
    inside = _samples(run, link).filter(pl.col("t").is_between(start, end))["connections"]
    if inside.is_empty():
        raise NotObserved(f"{link} was not measured then")
    return int(inside.min()), int(inside.max())  # type: ignore[arg-type]


def idle_rate(run: SavedRun, link: str, ways: Sequence[str] = ("requests", "responses")) -> float:
    """Bytes a second (both ways) in the quietest two seconds between load and collection: the clients' own chatter.

    Seconds in which a fault was in force do not count: a link that is cut does not even chatter. Raises NotObserved
    where no others are left.
    """
    ended = [r["t"] for r in run.history if r["kind"] == "load-end"]
    stopped = [r["t"] for r in run.history if r["kind"] == "stage" and r["stage"] == "collect"]
    samples = _samples(run, link)
    if not ended or not stopped or samples.is_empty():
        return 0.0
    faults = [(w.start, w.end + AFTER_FAULT_S) for w in run.faults() if w.end + AFTER_FAULT_S > ended[-1]]
    after = samples.filter(pl.col("t").is_between(ended[-1], stopped[-1]))
    after = after.select("t", total=pl.sum_horizontal(*ways))
    times, totals = after["t"].to_list(), after["total"].to_list()
    for least in (2.0, 0.5):  # a short drain may leave no more between the faults
        if (quietest := _quietest(times, totals, least, faults)) is not None:
            return quietest
        if not faults:
            return 0.0
    raise NotObserved(f"{link} was never seen idle, without a fault")


def _quietest(
    times: Sequence[float], totals: Sequence[int], least: float, faults: Sequence[tuple[float, float]]
) -> float | None:
    """The lowest rate over a stretch of `least` to `least` + 0.5 seconds that no fault touches."""
    best = None
    low = 0
    for high in range(len(times)):
        while times[high] - times[low] > least + 0.5:
            low += 1
        length = times[high] - times[low]
        if length >= least and not any(begin < times[high] and times[low] < end for begin, end in faults):
            rate = (totals[high] - totals[low]) / length
            best = rate if best is None else min(best, rate)
    return best


def at_work(run: SavedRun, link: str, start: float, end: float) -> tuple[bool, dict[str, float]]:
    """Whether more flowed on a link than idle chatter; with the figures."""
    moved = flow(run, link, start, end)
    length = max(end - start, 0.2)
    rate = (moved["requests"] + moved["responses"]) / length
    idle = idle_rate(run, link)
    return rate > 2 * idle + WORK_BYTES_PER_S, {"bytes_per_s": round(rate), "idle_bytes_per_s": round(idle)}


def carries_since(records: Iterable[Mapping[str, Any]], moment: float, ended_by: float) -> dict[str, float]:
    """Of each worker, from when on what its links carry is of processes that it has at a moment (inf: it has none), by the
    starts until then and the ends until `ended_by`. A worker may have two, of two versions."""
    records = [r for r in records if r["kind"] in ("worker-start", "worker-exit")]
    ends = {(r["worker"], r["pid"]): r["t"] for r in records if r["kind"] == "worker-exit" and r["t"] <= ended_by}
    since = dict.fromkeys((worker for worker, _ in ends), math.inf)
    for record in records:
        worker, pid, t = record["worker"], record["pid"], record["t"]
        # An end is told by another clock than a start, so that of a short life may stand before it.
        if record["kind"] == "worker-start" and t <= moment and ends.get((worker, pid), -math.inf) < t - ENDS_S:
            since[worker] = min(since.get(worker, math.inf), t + STARTS_S)
    return since


def process_since(run: SavedRun, link: str, moment: float) -> float:
    """From when on what a link carried just before a moment was of a process that its worker then had: what an
    earlier one did says nothing of one that has only just been started. The moment itself if there was none."""
    since = carries_since(run.history, moment, moment - CLOCKS_S)
    return min(max(moment - BEFORE_S, since.get(link.partition("->")[0], 0.0)), moment)


def at_work_before(run: SavedRun, link: str, moment: float) -> tuple[bool, dict[str, float]]:
    """Whether more flowed on a link than idle chatter just before a moment, and more than it takes to connect."""
    begin = process_since(run, link, moment)
    busy, figures = at_work(run, link, begin, moment)
    moved = flow(run, link, begin, moment)
    only_connected = begin > moment - BEFORE_S and moved["requests"] + moved["responses"] <= CONNECT_BYTES
    return busy and not only_connected, figures


def connected_before(run: SavedRun, link: str, moment: float) -> int:
    """Connections of a link just before a moment, at most, by the process that its worker then was."""
    begin = process_since(run, link, moment)
    return connections(run, link, begin, moment)[1] if begin < moment else 0


def any_at_work_before(run: SavedRun, links: Iterable[str], moment: float) -> tuple[bool, dict[str, object]]:
    found = {link: at_work_before(run, link, moment) for link in links}
    return any(ok for ok, _ in found.values()), {link: figures for link, (_, figures) in found.items()}


def worker_at_work_before(run: SavedRun, instance: str, moment: float) -> tuple[bool, dict[str, object]]:
    """Whether a worker's links carried work just before a moment, or, if it answers for a hop, it answered until then;
    with the figures."""
    links = links_of_worker(run, instance)
    if not links and not serves(run, instance):
        return _used_processor(run, instance, moment)
    busy, figures = any_at_work_before(run, links, moment)
    if not serves(run, instance):
        return busy, figures
    asked = [r for r in run.history if r["kind"] in ("worker-back", "worker-away") and r["worker"] == instance]
    # What was asked in the last moment, and not answered before the end, says nothing of the time before.
    known = (r for r in asked if r["t"] <= moment and (r["told"] <= moment or r["t"] < moment - ASKED_S))
    last = max(known, key=lambda r: r["t"], default=None)
    watched = any(r["kind"] == "worker-watch" and r["worker"] == instance and r["asked"] for r in run.history)
    answered = watched and (last is None or last["kind"] == "worker-back")
    return answered, {**figures, "answered": answered}


def _used_processor(run: SavedRun, instance: str, moment: float) -> tuple[bool, dict[str, object]]:
    """Of a worker without a link: whether its process, once started, used the processor just before a moment.

    Raises NotObserved where that was not measured.
    """
    samples = run.work.filter(pl.col("worker") == instance, pl.col("t") <= moment).sort("t")
    if samples.is_empty() or moment - samples["t"][-1] > BLIND_AFTER_S:
        raise NotObserved(f"{instance} was not measured then")
    own = samples.filter(pl.col("pid") == samples["pid"][-1])
    last = own["t"][-1]
    recent = own.filter(pl.col("t") >= last - WORKS_OVER_S - 0.05)
    spent, over = recent["cpu_s"][-1] - recent["cpu_s"][0], last - recent["t"][0]
    starts = [r["t"] for r in run.history if r["kind"] == "worker-start" and r["worker"] == instance]
    young = moment - max((t for t in starts if t <= moment), default=0.0) <= STARTS_CPU_S
    mostly = run.work.filter(pl.col("worker") == instance).sort("t").select(pl.col("cpu_s").diff() / pl.col("t").diff())
    idle = max(0.0, float(mostly.to_series().median() or 0.0))  # type: ignore[arg-type]
    figures = {"cpu_s": round(spent, 3), "over_s": round(over, 3), "mostly": round(idle, 3), "young": young}
    return not young and spent >= max(WORKS_CPU, WORKS_MORE * idle) * over > 0, {instance: figures}


def serves(run: SavedRun, instance: str) -> bool:
    """Whether a worker answers for a hop, so that it was asked all along."""
    return any(w["name"] == instance and w.get("serves") for w in run.meta["pipeline"]["workers"])


def fell_silent(run: SavedRun, instance: str, start: float, until: float) -> bool:
    """Whether a worker that answers for a hop did not answer once, between two moments."""
    aways = (r["told"] for r in run.history if r["kind"] == "worker-away" and r["worker"] == instance)
    return any(start <= told <= until for told in aways)


def links_of_worker(run: SavedRun, instance: str) -> list[str]:
    return [link["name"] for link in run.meta["pipeline"]["links"] if link["worker"] == instance]


def _came(run: SavedRun, hop: str) -> pl.Series | None:
    """When each message came to a hop, epoch ms; of counts, when each event was counted, or None where that is unseen."""
    frame = run.hop(hop)
    if "seen_ms" in frame.columns:
        return frame["seen_ms"]
    seen = run.sightings(hop)
    return None if seen is None else seen["seen_ms"]


def arrived(run: SavedRun, hop: str, start: float, end: float) -> int:
    """Messages that a hop took in between two moments (epoch seconds). Raises NotObserved where they are not seen."""
    seen = _came(run, hop)
    if seen is None:
        raise NotObserved(f"when events came to {hop} cannot be seen")
    return int(seen.is_between(start * 1000, end * 1000).sum())


def waiting_work(run: SavedRun, instance: str, start: float, end: float) -> int | None:
    """Messages that arrived where a worker reads, between two moments; None if it does not declare where, or what comes
    there cannot be seen one by one."""
    for worker in run.meta["pipeline"]["workers"]:
        if worker["name"] == instance and worker.get("reads"):
            return None if _came(run, worker["reads"]) is None else arrived(run, worker["reads"], start, end)
    return None


def restarts(run: SavedRun, instance: str, pid: int, start: float) -> tuple[dict | None, dict | None]:
    """(the exit of that pid, the next start of the instance) in the history from `start` on."""
    exits = [
        r
        for r in run.history
        if r["kind"] == "worker-exit" and r["worker"] == instance and r["pid"] == pid and r["t"] >= start - 0.5
    ]
    starts = [
        r
        for r in run.history
        if r["kind"] == "worker-start" and r["worker"] == instance and r["pid"] != pid and r["t"] >= start
    ]
    return (exits[0] if exits else None), (starts[0] if starts else None)


def claimed(run: SavedRun, window: FaultWindow, pid: int) -> bool:
    """Whether another fault, not later than this one, ended the same process: one end proves one fault."""
    others = (w for w in run.faults() if (w.index, w.start) != (window.index, window.start) and w.start <= window.start)
    return any(seen.get("pid") == pid for w in others for seen in w.observations.get("killed", {}).values())


def verdict_of(window: FaultWindow, proofs: Sequence[tuple[bool, str]], figures: dict[str, object]) -> Evidence:
    """All proofs together: the fault bit if each holds; else the first that does not is the reason."""
    for holds, what in proofs:
        if not holds:
            return Evidence(False, f"not proven: {what}", figures)
    return Evidence(True, "; ".join(what for _, what in proofs), figures)
