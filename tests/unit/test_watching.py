"""What is only seen by asking it: when it stops to answer, when it answers again, and how often it was asked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from waiting import wait_for

from harness import watching
from harness.history import History
from harness.watching import Watch


def test_a_worker_that_does_not_answer_for_a_while_is_told_with_when_it_was_asked_and_when_that_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WORKER_EVERY_S", 0.01)
    history = History(tmp_path / "history.jsonl")
    answers = [0.001, 0.001, None, None, 0.001]
    asked = 0

    def ask() -> float | None:
        nonlocal asked
        asked += 1
        if asked == 3:
            time.sleep(0.05)  # asked in vain: that takes its time
        return answers[min(asked, len(answers)) - 1]

    watch = Watch({}, history, {"query": ask})
    watch.start()
    deadline = time.monotonic() + 10
    while asked < 7:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    watch.stop()
    away, back, end = history.records
    assert [(r["kind"], r["worker"]) for r in (away, back, end)] == [
        ("worker-away", "query"),
        ("worker-back", "query"),
        ("worker-watch", "query"),
    ]
    assert round(away["told"] - away["t"], 4) >= 0.05, "both were rounded to so many digits"
    assert away["t"] < away["told"] <= back["t"] <= back["told"]
    assert (end["asked"], end["missed"]) == (asked, 2)


def test_one_that_always_answers_is_only_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "EVERY_S", 0.01)
    history = History(tmp_path / "history.jsonl")
    asked = []

    def ask() -> float:
        asked.append(0.001)
        return 0.001

    watch = Watch({"kafka": ask}, history)
    watch.start()
    assert wait_for(lambda: len(asked) >= 2)
    watch.stop()
    [record] = history.records
    assert (record["kind"], record["service"], record["missed"]) == ("service-watch", "kafka", 0)
    assert record["asked"] == len(asked)
