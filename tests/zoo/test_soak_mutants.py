"""The mutants that take a soak: each is caught, by what must catch it. Six to twelve minutes each: their cycles are as short
as can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines_under_test.mutants import SOAK_MUTANTS

pytestmark = [pytest.mark.chaos, pytest.mark.whole_zoo]

#: Cycles of ten seconds. With this seed no fault ends the converter in the first twelve, so that those are enough for a leak.
SHORT = ["--seed", "8", "--cycle-seconds", "10", "--rate", "500", "--hours"]


def soaked(name: str, out: Path, *words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "harness.cli", "soak", "--backend", "process", "--pipeline", name]
    done = subprocess.run([*argv, "--out", str(out), "--json", *words], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 1, "a violation"
    return dict(json.loads(done.stdout.splitlines()[-1]))


def growing(verdict: dict[str, Any]) -> list[str]:
    return [example["measure"] for example in verdict["findings"][0]["examples"]]


def test_a_worker_that_leaks_is_named(tmp_path: Path) -> None:
    verdict = soaked("remembers-everything", tmp_path, *SHORT, "0.11")
    assert verdict["counts"]["violation"] == 0, "no cycle shows it"
    assert "growth within a life: memory of converter (MiB)" in growing(verdict)
    assert not [m for m in growing(verdict) if "preprocessor" in m or "aggregator" in m], "and no other"


def test_a_worker_that_slows_down_shows_in_the_latency(tmp_path: Path) -> None:
    verdict = soaked("slower-and-slower", tmp_path, *SHORT, "0.2")
    assert verdict["counts"]["violation"] == 0, "no cycle shows it"
    assert [m for m in growing(verdict) if m.startswith("latency")]
    assert not [m for m in growing(verdict) if m.startswith("growth")]


def test_one_event_in_a_hundred_thousand_is_missed_and_named(tmp_path: Path) -> None:
    """Of 720,000 events in six cycles all are spared by chance in one soak of a thousand."""
    words = ["--rate", "4000", "--cycle-seconds", "30", "--hours", "0.1", "--stop"]
    verdict = soaked("one-in-a-hundred-thousand", tmp_path, *words)
    last = verdict["cycles"][-1]
    assert "no_loss" in last["violated"]
    found = json.loads((Path(last["run"]) / "verdict.json").read_text())["findings"]
    (loss,) = [f for f in found if f["assertion"] == "no_loss"]
    assert 1 <= loss["figures"]["lost"] <= 9
    assert all(example["lost_at"] == "published" for example in loss["examples"] if "lost_at" in example)
    assert SOAK_MUTANTS["one-in-a-hundred-thousand"].caught_by == "no_loss"
