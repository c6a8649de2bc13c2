"""`gauntlet zoo` for real: a mutant is caught and shown, a healthy pipeline passes a schedule drawn from its seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faults import random_schedule
from pipelines_under_test.kappa.pipeline import kappa

pytestmark = pytest.mark.chaos


def gauntlet(*words: str | Path) -> tuple[int, dict[str, Any], str]:
    argv = [sys.executable, "-m", "harness.cli", *map(str, words), "--backend", "process", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


def test_a_mutant_is_caught_and_passes_without_faults(tmp_path: Path) -> None:
    page = tmp_path / "zoo.md"
    status, told, progress = gauntlet("zoo", "no-dedup", "--without-faults", "--out", tmp_path, "--docs", page)
    assert status == 0, progress
    (mutant,) = told["mutants"]
    assert (mutant["outcome"], mutant["by"][0], mutant["without_faults"]) == ("caught", "duplicate_rate", "pass")
    assert "no-dedup under lost-acks, seed 7: caught by duplicate_rate" in progress
    assert "| `no-dedup` |" in page.read_text()
    (folder,) = mutant["folders"]
    assert json.loads((Path(folder) / "verdict.json").read_text())["verdict"] == "violation"


def test_the_schedule_is_drawn_from_the_seed_that_is_given(tmp_path: Path) -> None:
    """And from no other: the run's own record says what was injected."""
    status, verdict, progress = gauntlet(
        "run", "--schedule", "random", "--seed", "43", "--rate", "1000", "--seconds", "12", "--out", tmp_path
    )
    assert status == 0, progress
    asked = json.loads((Path(verdict["run"]) / "run.json").read_text())
    drawn = random_schedule(43).draw(kappa, 1000, 12, "process", seed=0)
    assert asked["schedule_seed"] == asked["seed"] == 43
    assert asked["schedule"] == [fault.as_dict() for fault in drawn]
    assert [(f["fault"], f["target"], f["bit"]) for f in verdict["faults"]] == [(f.name, f.target, True) for f in drawn]
    assert f"{len(drawn)} fault" in progress
    assert "drawn from seed 43" in progress
    assert "--seed 43 --rate 1000 --seconds 12 --schedule random" in (Path(verdict["run"]) / "report.html").read_text()
