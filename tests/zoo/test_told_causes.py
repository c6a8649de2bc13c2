"""Attribution on real services: what was lost or doubled, and where, is known, and the finding must say just that."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assertions import duplicate_rate, no_loss
from assertions.judge import judge
from faults import kill, partition
from harness.pytest_plugin import Gauntlet
from harness.store import SavedRun
from harness.topology import Pipeline
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.mutants import MUTANTS

pytestmark = pytest.mark.chaos

#: worker -> (the sequences that it loses, the sequences that it doubles) while nothing is broken; 500 a second, so due
#: from 4 s to 12 s, and those of one worker apart from those of another.
MEDDLED = {
    "preprocessor": ([2000, 2040, 2080], [2120, 2160, 2200, 2240]),
    "converter": ([3500, 3540, 3580], [3620, 3660, 3700]),
    "aggregator": ([5000, 5040, 5080], [5120, 5160, 5200]),
}
#: worker -> (what it loses while one of its links is cut, that link, from when on)
UNDER_A_CUT = {
    "converter": ([6750], "converter->pubsub", 13.0),
    "aggregator": ([7750], "aggregator->bigtable", 15.0),
}
CUT_S = 1.2
STEPS = {
    "preprocessor": ("source", "intermediate"),
    "converter": ("intermediate", "published"),
    "aggregator": ("published", "aggregates"),
}


def meddled() -> Pipeline:
    script = str(Path(__file__).with_name("meddler.py"))
    workers = []
    for worker in kappa.workers:
        lose, double = MEDDLED[worker.name]
        lose = lose + (UNDER_A_CUT[worker.name][0] if worker.name in UNDER_A_CUT else [])
        told = {"LOSE": ",".join(map(str, lose)), "DOUBLE": ",".join(map(str, double))}
        command = ("{python}", script, worker.name)
        workers.append(dataclasses.replace(worker, command=command, env={**worker.env, **told}))
    return dataclasses.replace(kappa, name="meddled", workers=workers)


def test_single_events_that_a_worker_lost_or_doubled_are_found_where_it_was(
    gauntlet: Gauntlet, pytestconfig: pytest.Config
) -> None:
    """Twenty-one of them: eleven lost and ten doubled. Nine were lost and all were doubled while nothing was broken, with a
    kill of every worker long before, which has nothing to do with them and may double others; two were lost under a cut."""
    if pytestconfig.getoption("--gauntlet-backend") == "docker":
        pytest.skip("the meddling worker is not in the image of the workers")
    faults = [kill("preprocessor").at(1), kill("converter").at(1.3), kill("aggregator").at(1.6)]
    faults += [partition(link).at(at).lasting(CUT_S) for _, link, at in UNDER_A_CUT.values()]
    run = gauntlet.run(meddled(), Steady(rate=500, seconds=18, share_poison=0.0), faults)
    hops = ["intermediate", "published", "aggregates"]
    run.judge(no_loss(), *(duplicate_rate(hop, most=0) for hop in hops))

    saved = SavedRun.load(run.folder)
    kept = pl.read_parquet(saved.folder.attribution)

    def ids(sequences: list[int]) -> set[str]:
        return {f"{saved.tag}-0001-{sequence:010d}" for sequence in sequences}

    lost = run.finding("no_loss")["figures"]["attribution"]
    assert run.finding("no_loss")["figures"]["lost"] == 7  # the sink's own four are in its cells
    assert sum(c["events"] for c in lost) == 11
    for worker, (lose, double) in MEDDLED.items():
        before, after = STEPS[worker]
        (found,) = [c for c in lost if c["worker"] == worker and not c["faults"]]
        assert {e["event"] for e in found["examples"]} == ids(lose)
        assert (found["hop_before"], found["hop_after"]) == (before, after)
        assert (found["class"], found["events"]) == ("unforced", len(lose))
        assert f"{worker} itself dropped" in run.finding("no_loss")["summary"]

        for hop in hops[hops.index(after) :]:
            rows = kept.filter(
                (pl.col("kind") == "doubled") & (pl.col("hop") == hop) & pl.col("event").is_in(ids(double))
            )
            if rows.is_empty() and hop == "aggregates":
                continue  # deduplicated
            assert set(rows["event"]) == ids(double)
            assert rows["hop_after"].to_list() == [after] * len(double)
            assert rows["worker"].to_list() == [worker] * len(double)
            assert rows["faults"].to_list() == [[]] * len(double)
    for worker, (lose, link, _) in UNDER_A_CUT.items():
        (found,) = [c for c in lost if c["worker"] == worker and c["faults"]]
        assert {e["event"] for e in found["examples"]} == ids(lose)
        assert (found["hop_before"], found["hop_after"]) == STEPS[worker]
        assert [(f["fault"], f["target"]) for f in found["faults"]] == [("partition", link)]
    # The sink deduplicates what the path doubled, and counts the aggregator's own.
    (counted,) = run.finding("duplicate_rate", "aggregates")["figures"]["attribution"]
    assert (counted["class"], counted["worker"], counted["faults"]) == ("recounted", "aggregator", [])
    assert counted["events"] == len(MEDDLED["aggregator"][1])
    # Whatever else stands twice somewhere was replayed after a kill, or sent again after a cut, and is told so.
    others = kept.filter(pl.col("kind") == "doubled").filter(pl.col("faults").list.len() > 0)
    assert set(others["class"]) <= {"replayed", "retried"}
    _judged_alike(run.folder, run.verdict)


def test_a_commit_before_the_publish_is_told_as_one(gauntlet: Gauntlet) -> None:
    mutant = MUTANTS["commit-before-publish"]
    run = gauntlet.scenario(mutant.scenario, mutant.pipeline)
    run.judge()
    finding = run.finding("no_loss")
    assert finding["verdict"] == "violation"
    found = [c for c in finding["figures"]["attribution"] if c["hop_after"] == "published"]
    assert {(c["class"], c["hop_before"], c["worker"], c["link"]) for c in found} == {
        ("in-hand", "intermediate", "converter", "converter->pubsub")
    }
    assert {(f["fault"], f["target"]) for c in found for f in c["faults"]} == {("kill", "converter")}
    assert sum(c["events"] for c in found) == finding["figures"]["hops"]["published"]["missing"]
    # Each of them was committed while it lay in the buffer: the sample between the kill and the return shows it.
    assert all(c["committed"] == c["events"] for c in found)
    assert "were in converter's hands when it was killed at" in finding["summary"]
    assert "their offsets had been committed by then, before they reached published" in finding["summary"]
    _judged_alike(run.folder, run.verdict)


def test_a_fresh_uuid_for_a_retried_publish_is_told_as_one(gauntlet: Gauntlet) -> None:
    mutant = MUTANTS["fresh-uuid"]
    run = gauntlet.scenario(mutant.scenario, mutant.pipeline)
    run.judge()
    finding = run.finding("duplicate_rate", "aggregates")
    assert finding["verdict"] == "violation"
    worst = finding["figures"]["attribution"][0]
    assert (worst["class"], worst["hop_before"], worst["hop_after"]) == ("retried", "intermediate", "published")
    assert ("lose_acks", "converter->pubsub") in {(f["fault"], f["target"]) for f in worst["faults"]}
    assert "converter was not started again in between: it sent again what had arrived" in worst["cause"]
    assert "aggregator counted" in worst["cause"]


def _judged_alike(folder: Path, verdict: dict[str, Any]) -> None:
    again = judge(SavedRun.load(folder))
    assert again["findings"] == verdict["findings"]
