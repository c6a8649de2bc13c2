"""Candidates that a comparison must refuse, each for its reason. Some eight minutes each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines_under_test.mutants import RELEASE_MUTANTS

pytestmark = [pytest.mark.chaos, pytest.mark.whole_zoo]


def compared(out: Path, candidate: str, *words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "harness.cli", "compare", "kappa", candidate, "--backend", "process"]
    argv += ["--scenario", "restarts", "--pairs", "7", "--seconds", "13", "--out", str(out), "--json"]
    done = subprocess.run([*argv, *words], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 1, "the candidate is refused"
    verdict: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert verdict["verdict"] == "violation"
    return verdict


def told(verdict: dict[str, Any]) -> dict[str, str]:
    return {finding["assertion"]: finding["verdict"] for finding in verdict["findings"]}


@pytest.mark.parametrize("name", RELEASE_MUTANTS)
def test_what_is_only_worse_than_the_version_before_is_refused(tmp_path: Path, name: str) -> None:
    verdict = compared(tmp_path, name, "--rate", "500")
    assert told(verdict)[RELEASE_MUTANTS[name].caught_by] == "violation"
    assert told(verdict)["violations"] == "pass", "each run for itself passes"
    (line,) = [m for m in verdict["measures"] if m["measure"] == RELEASE_MUTANTS[name].caught_by]
    assert line["status"] == "worse"
    assert line["change"] > 1.5


def test_a_rare_loss_is_refused_with_the_pair_that_shows_it(tmp_path: Path) -> None:
    """One event in 20,000: of 182,000 in seven runs all are spared by chance in one comparison of nine thousand."""
    words = ("--rate", "2000", "--candidate-env", "converter.ONE_IN=20000")
    verdict = compared(tmp_path, "one-in-a-hundred-thousand", *words)
    assert told(verdict)["violations"] == "violation"
    (violations,) = [f for f in verdict["findings"] if f["assertion"] == "violations"]
    assert violations["figures"]["kinds"]["no_loss"]["baseline"] == 0
    assert {example["kind"] for example in violations["examples"]} <= {"no_loss", "batch_parity"}
