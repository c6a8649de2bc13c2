"""Pipelines that do not come up: an error that says what to do, exit status 2 or 4, and never a verdict."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from assertions import batch_parity, no_loss
from harness.backends.images import BASE
from harness.errors import NothingArrives, WorkerDied
from harness.scenario import Scenario
from harness.session import Session
from harness.store import SavedRun, UnfinishedRun
from harness.topology import Pipeline
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

pytestmark = pytest.mark.chaos


def with_command(worker: str, command: Sequence[str]) -> Pipeline:
    """In containers it runs in an image that has a shell and not much else."""
    changed = {"command": command, "image": BASE}
    workers = [dataclasses.replace(w, **changed) if w.name == worker else w for w in kappa.workers]
    return dataclasses.replace(kappa, workers=workers)


def scenario(pipeline: Pipeline) -> Scenario:
    return Scenario("broken", pipeline, Steady(rate=100, seconds=2), (), [no_loss()])


def only_folder(out: Path) -> Path:
    (folder,) = out.iterdir()
    return folder


def test_a_worker_that_dies_at_its_start_is_told_with_its_last_lines(gauntlet_session: Session, tmp_path: Path) -> None:
    broken = with_command("converter", ["sh", "-c", "echo there is no such queue >&2; exit 3"])
    with pytest.raises(WorkerDied, match="(?s)worker converter dies at its start.*there is no such queue"):
        gauntlet_session.run(scenario(broken), tmp_path)
    with pytest.raises(UnfinishedRun):
        SavedRun.load(only_folder(tmp_path))
    history = (only_folder(tmp_path) / "history.jsonl").read_text().splitlines()
    assert any("no such queue" in json.loads(line).get("text", "") for line in history)
    assert (only_folder(tmp_path) / "report.html").is_file()


def test_a_command_that_does_not_exist_is_told_by_name(gauntlet_session: Session, tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=r"(?s)converter (cannot be started|dies).*\./no-such-converter"):
        gauntlet_session.run(scenario(with_command("converter", ["./no-such-converter"])), tmp_path)


def test_a_pipeline_that_passes_nothing_on_is_told_by_the_hop_that_stays_empty(
    gauntlet_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.run.WARM_UP_WITHIN_S", 4.0)
    silent = with_command("preprocessor", ["sleep", "600"])  # the first: no other has to be fast then
    with pytest.raises(NothingArrives, match="(?s)No event was seen at the hop 'intermediate'.*log of preprocessor"):
        gauntlet_session.run(scenario(silent), tmp_path)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["sh", "-c", "echo no such log >&2; exit 5"], "batch truth ended with status 5.*command: sh -c .*no such log"),
        (["./no-such-batch"], r"batch truth (could not be started|ended with status 127).*\./no-such-batch"),
    ],
)
def test_a_batch_job_that_fails_is_told_and_leaves_parity_open(
    gauntlet_session: Session, tmp_path: Path, command: list[str], told: str
) -> None:
    assert kappa.batch is not None
    broken = dataclasses.replace(kappa, batch=dataclasses.replace(kappa.batch, command=command, image=BASE))
    claims = [no_loss(), batch_parity(least=0.95)]
    run = gauntlet_session.run(Scenario("broken", broken, Steady(rate=100, seconds=2), (), claims), tmp_path)
    found = {f["assertion"]: f["verdict"] for f in run.verdict["findings"]}
    assert (found["no_loss"], found["batch_parity"], run.verdict["verdict"]) == ("pass", "inconclusive", "inconclusive")
    errors = [r["text"] for r in SavedRun.load(run.folder).history if r["kind"] == "error"]
    assert any(re.search(f"(?s){told}", text) for text in errors), errors
    assert run.verdict["backend"] == "process" or all(BASE in text for text in errors)


def test_a_run_after_a_failed_one_gets_a_stack_of_its_own(gauntlet_session: Session, tmp_path: Path) -> None:
    outcome = gauntlet_session.run(scenario(kappa), tmp_path)
    assert outcome.verdict["verdict"] == "pass"
