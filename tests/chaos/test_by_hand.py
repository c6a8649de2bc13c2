"""Twenty seconds at 2,000 events/s with three kills and two partitions, judged a second time, by hand.

The figures are computed here from the ledger and the records as they lie in the source log, in plain Python, and share
nothing with the assertions; then they are held against the verdict.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
import pytest

from harness import catalog
from harness.ledger import Ledger
from harness.pytest_plugin import Gauntlet

pytestmark = pytest.mark.chaos

LATE_MS = 5000
ENGAGEMENTS = {"impression", "like", "retweet", "reply", "quote", "click", "profile_click", "video_view"}


def test_the_main_job_by_hand(gauntlet: Gauntlet) -> None:
    run = gauntlet.scenario(catalog.DEFAULT_SCENARIO)
    kinds = Counter(f["fault"] for f in run.verdict["faults"])
    assert (kinds["kill"], kinds["partition"]) == (3, 2)
    run.check()

    folder = run.folder
    sent = set(Ledger.read(folder / "ledger.bin").acked(1).tolist())
    assert len(sent) == 44_000
    readable, poison = _source(folder)
    assert readable.keys() | poison == sent, "the source log holds what was acknowledged, and nothing else"

    _nothing_is_missing(folder, readable.keys(), poison)
    exact, cells = _cells(folder, readable)
    parity = run.finding("batch_parity")["figures"]
    assert parity["wrong"] == 0
    assert parity["exact"] == exact
    assert parity["parity"] == pytest.approx(exact / cells, abs=1e-6)
    assert parity["parity"] > 0.95


def _source(folder: Path) -> tuple[dict[int, dict], set[int]]:
    """sequence -> record of what can be read; sequences of what cannot."""
    readable, poison = {}, set()
    for record in pl.read_parquet(folder / "hops" / "source.parquet").filter(pl.col("producer") == 1).to_dicts():
        numbers = (record["weight"], record["tweet_id"], record["event_time_ms"])
        if None in numbers or record["engagement"] not in ENGAGEMENTS:
            poison.add(record["sequence"])
        else:
            readable[record["sequence"]] = record
    return readable, poison


def _nothing_is_missing(folder: Path, readable: object, poison: set[int]) -> None:
    for hop in ("intermediate", "published"):
        seen = pl.read_parquet(folder / "hops" / f"{hop}.parquet").filter(pl.col("producer") == 1)["sequence"]
        assert set(seen) == set(readable)  # type: ignore[call-overload]
    dead = pl.read_parquet(folder / "hops" / "dead_letter.parquet").filter(pl.col("producer") == 1)["sequence"]
    assert set(dead) == poison


def _cells(folder: Path, readable: dict[int, dict]) -> tuple[int, int]:
    """(cells that stream and batch have alike, all cells), after both were held against the records."""
    everything: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    in_time: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    for record in readable.values():
        for dimension, field in (("tweet", "tweet_id"), ("author", "author_id")):
            for window_s in (10, 60):
                start = record["event_time_ms"] // (window_s * 1000) * (window_s * 1000)
                cell = (dimension, f"{record[field]}|{record['engagement']}", window_s, start)
                late = record["created_ms"] - (start + window_s * 1000) > LATE_MS
                for counted in (everything,) if late else (everything, in_time):
                    counted[cell][0] += 1
                    counted[cell][1] += record["weight"]
    warm = _warmup_keys(folder)
    assert _table(folder / "hops" / "aggregates.parquet", warm) == {k: tuple(v) for k, v in everything.items()}
    assert _table(folder / "batch.parquet", warm) == {k: tuple(v) for k, v in in_time.items()}
    return sum(everything[cell] == in_time.get(cell) for cell in everything), len(everything)


def _warmup_keys(folder: Path) -> set[str]:
    rows = pl.read_parquet(folder / "hops" / "source.parquet").filter(pl.col("producer") == 0)
    return {str(value) for column in ("tweet_id", "author_id") for value in rows[column]}


def _table(path: Path, without: set[str]) -> dict[tuple, tuple[int, int]]:
    return {
        (r["dimension"], r["key"], r["window_s"], r["window_start_ms"]): (r["count"], r["weight"])
        for r in pl.read_parquet(path).to_dicts()
        if r["key"].split("|")[0] not in without
    }
