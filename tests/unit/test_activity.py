"""Who is at work right now, and that a fault waits for its target to be."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from served import served

from faults import Fault, kill, kill_broker, partition
from harness import injection
from harness.activity import Activity
from harness.history import History
from harness.injection import Injection, LiveSystem, together
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.legacy.pipeline import legacy


def activity(*phases: tuple[float, int]) -> tuple[Activity, float]:
    """A link that carried so many bytes a second for so many seconds, phase after phase, five samples a second; and
    when that was over."""
    found = Activity()
    t, carried = 100.0, 0
    found.add(t, "a->b", 0)
    for seconds, rate in phases:
        for _ in range(round(seconds * 5)):
            t, carried = t + 0.2, carried + rate // 5
            found.add(t, "a->b", carried)
    return found, t


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ([(3, 100_000)], True),
        ([(3, 100_000), (1.0, 0)], True),  # within what counts as just before
        ([(3, 100_000), (2, 0)], False),
        ([(3, 100_000), (2, 1_500)], False),  # it only chatters
        ([(3, 100_000), (2, 1_500), (0.4, 100_000)], True),
        ([(3, 100_000), (2, 0), (0.4, 3_000_000), (4, 100_000)], True),  # a backlog comes at many times the usual rate
        ([(2, 0)], False),
    ],
)
def test_a_link_is_at_work_while_it_carries_more_than_chatter(phases: Any, expected: bool) -> None:
    found, now = activity(*phases)
    assert found.at_work("a->b", now) is expected


def test_what_an_earlier_process_carried_is_no_work_of_the_one_that_is() -> None:
    found, now = activity((3, 100_000), (0.4, 0), (0.4, 30_000))
    assert found.at_work("a->b", now)
    assert not found.at_work("a->b", now, since=now + 0.1)  # it is only just being started
    assert not found.at_work("a->b", now, since=math.inf)  # it is not there
    assert found.at_work("a->b", now, since=now - 0.4)


def test_who_has_only_just_connected_is_not_at_work() -> None:
    found, now = activity((3, 100_000), (0.4, 0), (0.2, 20_000))
    assert not found.at_work("a->b", now, since=now - 0.4)
    found.add(now + 0.2, "a->b", 310_000)
    assert found.at_work("a->b", now + 0.2, since=now - 0.4)


def test_what_is_not_measured_is_not_waited_for() -> None:
    assert Activity().at_work("a->b", 100.0)
    found, now = activity((3, 100_000), (2, 0))
    assert not found.at_work("a->b", now + 0.9)
    assert found.at_work("a->b", now + 1.1)


def test_any_link_of_a_worker_shows_that_it_is_at_work(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    nothing: Any = None
    system = LiveSystem(kappa, nothing, nothing, history, {})
    now = history.clock.now()
    for i in range(11):
        system.activity.add(now + i / 5, "converter->kafka", i * 10_000)
        system.activity.add(now + i / 5, "converter->pubsub", 0)
    assert not system.at_work(["converter->pubsub"])
    assert system.at_work(["converter->pubsub", "converter->kafka"])
    history.add("worker-start", t=now + 1.9, worker="preprocessor", pid=1)
    assert system.at_work(["converter->pubsub", "converter->kafka"])
    history.add("worker-exit", t=now + 1.0, worker="converter", pid=2)
    assert not system.at_work(["converter->pubsub", "converter->kafka"])
    history.add("worker-start", t=now + 1.1, worker="converter", pid=3)
    assert system.at_work(["converter->pubsub", "converter->kafka"])
    history.add("worker-start", t=now + 1.9, worker="converter", pid=4)
    assert system.at_work(["converter->pubsub", "converter->kafka"]), "two of them, of two versions"
    history.add("worker-exit", t=now + 1.9, worker="converter", pid=3)
    assert not system.at_work(["converter->pubsub", "converter->kafka"])


def test_what_a_fault_waits_for_follows_from_its_target() -> None:
    pipeline = kappa.replicas(converter=2)
    assert kill("converter").works_on(pipeline) == [
        ["converter-1->kafka", "converter-1->pubsub"],
        ["converter-2->kafka", "converter-2->pubsub"],
    ]
    assert partition("converter->pubsub").works_on(pipeline) == [["converter-1->pubsub"], ["converter-2->pubsub"]]
    assert kill_broker("kafka").works_on(pipeline) == []
    assert kill("count").works_on(served) == [["count->kafka", "count->cache"]]
    assert kill("ask").works_on(served) == []


class Injected:
    """An injection of kills whose supervisor only remembers when it was asked to kill whom."""

    def __init__(self, folder: Path, *schedule: Fault, at_work: Any = lambda links: True, back: Any = None) -> None:
        self.history = History(folder / "history.jsonl")
        self.killed: list[tuple[str, float]] = []
        self.back = back
        nothing: Any = None
        self.system: Any = LiveSystem(kappa, nothing, self, self.history, {})  # type: ignore[arg-type]
        self.system.at_work = at_work
        self.injection = Injection(schedule, self.system, kappa, self.history)
        self.t0 = self.history.clock.now()
        self.injection.start(self.t0)

    def hold(self, instance: str) -> None: ...
    def release(self, instance: str) -> None: ...
    def wait_ended(self, instance: str) -> None: ...
    def wait_running(self, instance: str, within_s: float) -> dict[str, Any]:
        if self.back is not None:
            self.back.wait(5)
        return {}

    def signal(self, instance: str, number: int, restart: bool) -> dict[str, Any]:
        self.killed.append((instance, self.history.clock.now() - self.t0))
        return {"pid": 1}

    def times(self) -> list[float]:
        return [t for _, t in self.killed]

    def notes(self) -> list[str]:
        return [r["text"] for r in self.history.records if r["kind"] == "note"]


def test_a_fault_is_injected_when_its_target_is_at_work(tmp_path: Path) -> None:
    working = threading.Event()
    asked: list[Sequence[str]] = []

    def at_work(links: Sequence[str]) -> bool:
        asked.append(links)
        return working.is_set()

    run = Injected(tmp_path, kill("converter").at(0.1), at_work=at_work)
    time.sleep(0.5)
    assert not run.killed
    assert asked[0] == ["converter->kafka", "converter->pubsub"]
    working.set()
    run.injection.finish()
    assert len(run.killed) == 1
    (note,) = run.notes()
    assert note.startswith("kill converter at 0.1 s was put off by 0.")
    assert note.endswith(": its target was not at work")


def test_a_fault_whose_target_is_at_work_is_on_time_and_says_nothing(tmp_path: Path) -> None:
    run = Injected(tmp_path, kill("converter").at(0.2))
    run.injection.finish()
    assert 0.2 <= run.times()[0] < 0.4
    assert run.notes() == []


def test_a_fault_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injection, "AT_WORK_WITHIN_S", 0.4)
    run = Injected(tmp_path, kill("converter").at(0.1), at_work=lambda links: False)
    run.injection.finish()
    assert run.times()[0] >= 0.5
    assert run.notes()[0].endswith("its target was not at work, and still is so")


def test_a_fault_that_may_find_its_target_idle_waits_for_nothing(tmp_path: Path) -> None:
    run = Injected(tmp_path, kill("converter").at(0.1).even_if_idle(), at_work=lambda links: False)
    run.injection.finish()
    assert run.times()[0] < 0.4
    assert run.notes() == []


def test_a_fault_that_waits_is_not_injected_into_a_run_that_ends(tmp_path: Path) -> None:
    run = Injected(tmp_path, kill("converter").at(0.1), at_work=lambda links: False)
    time.sleep(0.3)
    run.injection.finish(at_once=True)
    assert run.killed == []


def test_a_fault_waits_for_the_one_before_it_to_be_over(tmp_path: Path) -> None:
    back = threading.Event()
    run = Injected(tmp_path, kill("converter").at(0.1), kill("aggregator").at(0.2), back=back)
    time.sleep(0.5)
    assert [name for name, _ in run.killed] == ["converter"]
    back.set()
    run.injection.finish()
    assert [name for name, _ in run.killed] == ["converter", "aggregator"]
    assert "a fault before it was not over" in run.notes()[0]


def test_faults_that_overlap_by_the_schedule_overlap_however_late_they_are(tmp_path: Path) -> None:
    """The first one is put off; the others keep their distance to it, and wait for nothing themselves."""
    working = threading.Event()

    def at_work(links: Sequence[str]) -> bool:
        return working.is_set() and links[0].startswith("converter")

    schedule = [kill("aggregator").at(0.4), kill("converter").at(0.1).lasting(0.6), kill("preprocessor").at(0.1)]
    run = Injected(tmp_path, *schedule, at_work=at_work)
    time.sleep(0.5)
    working.set()
    run.injection.finish()
    first, second, third = sorted(run.times())
    assert first >= 0.5
    assert second - first < 0.2
    assert 0.25 <= third - first < 0.6
    assert run.killed[-1][0] == "aggregator"
    assert len(run.notes()) == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ([], []),
        ([(1, 0), (1, 0)], [[0, 1]]),
        ([(1, 0), (1.1, 0)], [[0], [1]]),
        ([(5, 1), (1, 2), (2.9, 1)], [[1, 2], [0]]),
        ([(1, 5), (2, 1), (4, 3), (7, 1)], [[0, 1, 2], [3]]),
    ],
)
def test_what_overlaps_by_the_schedule_is_done_together(schedule: Any, expected: list[list[int]]) -> None:
    assert together([kill("converter").at(start).lasting(seconds) for start, seconds in schedule]) == expected


def test_a_worker_without_a_link_is_busy_while_it_uses_the_processor() -> None:
    activity = Activity()
    assert activity.busy("job", 100.0), "nothing is known of it, so nothing can be waited for"
    used, busy = 0.0, []
    for i in range(40):
        t = round(100 + 0.2 * i, 1)
        used += 0.2 * (0.5 if 104 <= t < 105 else 0.02)
        activity.worked(t, "job", 1, used)
        busy += [t] if activity.busy("job", t, since=90.0) else []
    assert {104.4, 104.6, 104.8, 105.0} <= set(busy)
    assert (min(busy) >= 104.0, max(busy) <= 105.6) == (True, True), busy
    assert activity.busy("job", t + 5), "nobody has looked for a while"
    activity.worked(110.0, "job", 2, 0.0)
    activity.worked(110.2, "job", 2, 0.2)
    assert not activity.busy("job", 110.2, since=109.9), "it only starts"
    assert activity.busy("job", 110.2, since=107.0)


def test_a_kill_of_a_worker_without_a_link_waits_for_its_work() -> None:
    assert kill("batch-job").works_on(legacy) == [["batch-job"]]
    assert kill("speed").works_on(legacy) == [["speed->kafka", "speed->redis"]]
