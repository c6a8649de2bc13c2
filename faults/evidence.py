"""What the faults read out of a saved run to prove that they bit.

The rule behind all of it: a fault on something that was idle proves nothing. So each proof needs, besides its own
mark, that the link or worker was *at work*: more bytes flowed than flow when nothing is to be done. Kafka clients
chatter when idle (fetches, heartbeats), so "idle" is measured in the same run, in its quietest seconds after the load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from faults.base import Evidence
from harness.store import NotObserved

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun

#: Bytes a second that count as work on top of twice the idle chatter.
WORK_BYTES_PER_S = 300
#: A measurement older than this says nothing of now; they are taken five times a second.
BLIND_AFTER_S = 2.0
#: How far back "just before" reaches, in seconds.
BEFORE_S = 1.5
#: So long no process carries anything after its start; the sample before that may still be of the one before it.
STARTS_S = 0.2


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
    if first.is_empty() or last.is_empty() or end - last["t"][0] > BLIND_AFTER_S:
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
    """Bytes a second (both ways) in the quietest two seconds between load and collection: the clients' own chatter."""
    ended = [r["t"] for r in run.history if r["kind"] == "load-end"]
    stopped = [r["t"] for r in run.history if r["kind"] == "stage" and r["stage"] == "collect"]
    samples = _samples(run, link)
    if not ended or not stopped or samples.is_empty():
        return 0.0
    after = samples.filter(pl.col("t").is_between(ended[-1], stopped[-1]))
    after = after.select("t", total=pl.sum_horizontal(*ways))
    times, totals = after["t"].to_list(), after["total"].to_list()
    best = None
    low = 0
    for high in range(len(times)):
        while times[high] - times[low] > 2.5:
            low += 1
        length = times[high] - times[low]
        if length >= 2.0:
            rate = (totals[high] - totals[low]) / length
            best = rate if best is None else min(best, rate)
    return best or 0.0


def at_work(run: SavedRun, link: str, start: float, end: float) -> tuple[bool, dict[str, float]]:
    """Whether more flowed on a link than idle chatter; with the figures."""
    moved = flow(run, link, start, end)
    length = max(end - start, 0.2)
    rate = (moved["requests"] + moved["responses"]) / length
    idle = idle_rate(run, link)
    return rate > 2 * idle + WORK_BYTES_PER_S, {"bytes_per_s": round(rate), "idle_bytes_per_s": round(idle)}


def at_work_before(run: SavedRun, link: str, moment: float) -> tuple[bool, dict[str, float]]:
    """The same for the moments just before one, as far as the link's worker was the process that it then was: what an
    earlier one carried says nothing of one that has only just been started."""
    begin = moment - BEFORE_S
    for record in run.history:
        if record["kind"] == "worker-start" and link.startswith(f"{record['worker']}->") and record["t"] <= moment:
            begin = max(begin, record["t"] + STARTS_S)
    return at_work(run, link, min(begin, moment), moment)


def any_at_work_before(run: SavedRun, links: Iterable[str], moment: float) -> tuple[bool, dict[str, object]]:
    found = {link: at_work_before(run, link, moment) for link in links}
    return any(ok for ok, _ in found.values()), {link: figures for link, (_, figures) in found.items()}


def links_of_worker(run: SavedRun, instance: str) -> list[str]:
    return [link["name"] for link in run.meta["pipeline"]["links"] if link["worker"] == instance]


def arrived(run: SavedRun, hop: str, start: float, end: float) -> int:
    """Messages that a hop took in between two moments (epoch seconds)."""
    seen = run.hop(hop)["seen_ms"]
    return int(seen.is_between(start * 1000, end * 1000).sum())


def waiting_work(run: SavedRun, instance: str, start: float, end: float) -> int | None:
    """Messages that arrived where a worker reads, between two moments; None if it does not declare where."""
    for worker in run.meta["pipeline"]["workers"]:
        if worker["name"] == instance and worker.get("reads"):
            return arrived(run, worker["reads"], start, end)
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


def verdict_of(window: FaultWindow, proofs: Sequence[tuple[bool, str]], figures: dict[str, object]) -> Evidence:
    """All proofs together: the fault bit if each holds; else the first that does not is the reason."""
    for holds, what in proofs:
        if not holds:
            return Evidence(False, f"not proven: {what}", figures)
    return Evidence(True, "; ".join(what for _, what in proofs), figures)
