"""Sampling of committed offsets: what is asked, when, and what becomes of a broker that is away."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.history import History
from harness.injection import LiveSystem
from harness.sampling import BEFORE_RETURN_S, Sampler
from harness.store import RunFolder, SavedRun


class _Meter:
    def sample(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        pass


class _Group:
    """A consumer group that commits one more with every question; away where `away` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.away: object = None

    def __call__(self, who: str, within_s: float) -> Mapping[int, int] | None:
        self.asked.append((who, within_s))
        if isinstance(self.away, Exception):
            raise self.away
        return None if self.away else {0: len(self.asked), 1: 0}


@pytest.fixture
def sampled(tmp_path: Path) -> tuple[RunFolder, History, _Group, Sampler]:
    folder = RunFolder.create(tmp_path, "sampled")
    history = History(folder.history)
    group = _Group()
    return folder, history, group, Sampler(_Meter(), {}, history, {("converter", "intermediate"): group})


def finished(folder: RunFolder, sampler: Sampler) -> SavedRun:
    sampler.finish(folder)
    return SavedRun.open_unsealed(folder.path)


def test_commits_are_asked_for_all_the_time_and_kept(sampled: Any) -> None:
    folder, _, group, sampler = sampled
    sampler.start()
    time.sleep(0.5)
    commits = finished(folder, sampler).commits
    assert len(group.asked) >= 3
    assert commits.filter(commits["partition"] == 0)["offset"].to_list() == list(range(1, len(group.asked) + 1))
    assert set(commits["worker"]) == {"converter"}
    assert set(commits["hop"]) == {"intermediate"}
    assert (commits["asked"] <= commits["t"]).all()


def test_a_broker_that_is_away_leaves_a_gap(sampled: Any) -> None:
    folder, history, group, sampler = sampled
    group.away = True
    sampler.start()
    time.sleep(0.3)
    assert finished(folder, sampler).commits.is_empty()
    assert not [r for r in history.records if r["kind"] == "error"]


def test_what_cannot_be_sampled_is_told_and_spoils_nothing(sampled: Any) -> None:
    folder, history, group, sampler = sampled
    group.away = ValueError("no such group")
    sampler.start()
    time.sleep(0.3)
    run = finished(folder, sampler)
    (error,) = [r for r in history.records if r["kind"] == "error"]
    assert "the committed offsets of converter cannot be sampled" in error["text"]
    assert len(group.asked) == 1
    assert run.progress.is_empty()
    sampler.before_return("converter")  # nor does the return of a worker fail for it


def test_before_a_return_only_the_workers_own_group_is_asked_and_not_for_long(sampled: Any) -> None:
    folder, _, group, sampler = sampled
    sampler.before_return("aggregator")
    sampler.before_return("converter")
    assert group.asked == [("return of converter", BEFORE_RETURN_S)]
    assert finished(folder, sampler).commits.height == 2


def test_a_run_without_samples_of_commits_is_read_as_one_without(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "old")
    assert SavedRun.open_unsealed(folder.path).commits.is_empty()


def test_a_worker_is_sampled_when_it_has_ended_and_before_it_is_started() -> None:
    from pipelines_under_test.kappa.pipeline import kappa

    told: list[tuple[str, str]] = []

    class Supervisor:
        def wait_ended(self, name: str) -> None:
            told.append(("ended", name))

        def release(self, name: str) -> None:
            told.append(("released", name))

    supervisor: Any = Supervisor()
    nothing: Any = None
    system = LiveSystem(kappa.replicas(converter=2), nothing, supervisor, nothing, {})
    system.before_return = lambda worker: told.append(("sampled", worker))
    system.release_worker("converter-2")
    assert told == [("ended", "converter-2"), ("sampled", "converter"), ("released", "converter-2")]
