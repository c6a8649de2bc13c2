"""The command line as others script against it: exit statuses, the JSON object, run folders, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import leftovers
import psutil
import pytest
from waiting import gone

from harness.backends import docker

pytestmark = pytest.mark.chaos

GAUNTLET = [sys.executable, "-m", "harness.cli"]
# A suite that was started in the background ignores Ctrl-C, and its children would inherit that. Not by `preexec_fn`: with it
# Python forks for real, and gRPC's fork handlers abort the child now and then when other threads are in a call
# (github.com/labgrid-project/labgrid/pull/1905; 9 of 400 such children died of SIGABRT here, none of 400 without).
HEEDS_CTRL_C = ["env", "--default-signal=INT"]


def gauntlet(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    if words and words[0] == "run" and "--backend" not in words:
        words = (*words, "--backend", "process")  # whatever else this machine has
    return subprocess.run([*GAUNTLET, *map(str, words)], capture_output=True, text=True, timeout=300, cwd=cwd)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One short healthy run: its verdict, as printed."""
    done = gauntlet("run", "steady", "--seconds", "3", "--rate", "500", "--seed", "11", "--json",
                    "--out", tmp_path_factory.mktemp("healthy"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_last_thing_on_stdout_is_the_object_of_the_contract(healthy: dict[str, Any]) -> None:
    assert set(healthy) >= {
        "verdict",
        "run",
        "pipeline",
        "scenario",
        "backend",
        "seed",
        "events",
        "findings",
        "faults",
        "timing",
    }
    assert (healthy["verdict"], healthy["pipeline"], healthy["backend"], healthy["seed"]) == (
        "pass",
        "kappa",
        "process",
        11,
    )
    assert healthy["events"] == {"sent": 1500, "acked": 1500, "ambiguous": 0, "failed": 0}
    assert set(healthy["timing"]) >= {"deploy", "load", "drain", "check"}
    for finding in healthy["findings"]:
        assert set(finding) >= {"assertion", "verdict", "summary", "figures", "examples"}
    named = {f["assertion"] for f in healthy["findings"]}
    assert named >= {"no_loss", "duplicate_rate", "batch_parity", "content", "latency", "recovery", "load_delivered",
                     "taps_complete", "faults_effective", "services_alive", "clock_steady", "machine_healthy"}  # fmt: skip


def test_a_run_folder_holds_all_that_is_promised(healthy: dict[str, Any]) -> None:
    folder = Path(healthy["run"])
    for name in (
        *("run.json", "history.jsonl", "ledger.bin", "verdict.json", "report.html", "junit.xml", "manifest.json"),
        *("batch.parquet", "links.parquet", "progress.parquet"),
        *("hops/source.parquet", "hops/published.parquet", "hops/aggregates.parquet"),
        *("logs/converter.log", "logs/kafka.log", "logs/load.log"),
    ):
        assert (folder / name).is_file(), name


def test_check_gives_the_same_answer(healthy: dict[str, Any]) -> None:
    done = gauntlet("check", healthy["run"], "--json")
    again = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0
    assert again["verdict"] == healthy["verdict"]
    assert again["findings"] == healthy["findings"]
    assert again["faults"] == healthy["faults"]


def test_check_of_a_damaged_run_is_a_failure_of_the_harness(healthy: dict[str, Any], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(healthy["run"], tmp_path / "copy"))
    target = copy / "hops" / "published.parquet"
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    done = gauntlet("check", copy)
    assert done.returncode == 4
    assert "published.parquet" in done.stderr


def test_check_of_an_unfinished_run_is_inconclusive(healthy: dict[str, Any], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(healthy["run"], tmp_path / "copy"))
    (copy / "manifest.json").unlink()
    assert gauntlet("check", copy).returncode == 3
    assert gauntlet("report", copy).returncode == 3


def test_report_writes_the_page_again(healthy: dict[str, Any]) -> None:
    page = Path(healthy["run"]) / "report.html"
    page.unlink()
    done = gauntlet("report", healthy["run"])
    assert done.returncode == 0
    assert done.stdout.strip() == str(page)
    assert "kappa" in page.read_text()


def test_faults_on_links_that_carry_nothing_make_the_run_inconclusive(tmp_path: Path) -> None:
    """The load is over when the links are cut: nothing was proven, so nothing passes."""
    # So little that all of it is through before the first link is cut, or what waits behind that cut is carried in the next.
    done = gauntlet("run", "partitions", "--seconds", "0.5", "--rate", "200", "--json", "--out", tmp_path)
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, verdict["verdict"]) == (3, "inconclusive")
    effective = next(f for f in verdict["findings"] if f["assertion"] == "faults_effective")
    assert effective["verdict"] == "inconclusive"
    assert [f["bit"] for f in verdict["faults"]][1:] == [False, False]
    assert all(f["verdict"] == "pass" for f in verdict["findings"] if f["assertion"] in ("no_loss", "duplicate_rate"))


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker" and (reason := docker.why_not()):
        pytest.skip(f"no containers: {reason}")
    return str(request.param)


def _begin(out: Path, backend: str, stage: str) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """A run in mid-flight, and every process of it on this machine."""
    options = ["--seconds", "2" if stage == "drain" else "30", "--rate", "200"]
    harness = subprocess.Popen(
        [*HEEDS_CTRL_C, *GAUNTLET, "run", "steady", "--backend", backend, *options, "--out", str(out)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    sign = {"deploy": '"service-start"', "load": '"acked"', "drain": '"stage": "drain"'}[stage]
    end = time.monotonic() + 90
    while True:
        histories = list(out.glob("*/history.jsonl"))
        if histories and sign in histories[0].read_text().replace('":"', '": "'):
            break
        assert harness.poll() is None, "the run ended too early"
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)
    return harness, psutil.Process(harness.pid).children(recursive=True)


def _left(processes: list[psutil.Process]) -> list[str]:
    return [str(p) for p in processes if not gone(p)]


def test_sigkill_in_mid_flight_leaves_nothing_and_a_readable_folder(tmp_path: Path) -> None:
    harness, processes = _begin(tmp_path, "process", "load")
    assert len(processes) >= 9, "keeper, four services, three workers, load"
    folders = {Path(word) for p in processes for word in p.cmdline() if "/gauntlet-" in word and word.startswith("/")}
    harness.kill()
    harness.wait()
    time.sleep(5)
    assert _left(processes) == []
    assert not any(f.exists() for f in folders)
    folder = next(tmp_path.iterdir())
    done = gauntlet("check", folder)
    assert done.returncode == 3
    assert "not finished" in done.stderr or "never finished" in done.stderr or "manifest" in done.stderr
    assert gauntlet("report", folder).returncode == 3
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("deploy", signal.SIGINT),
        ("load", signal.SIGINT),
        ("load", signal.SIGTERM),
        ("drain", signal.SIGINT),
    ],
)
def test_an_interrupted_run_stops_everything_and_keeps_what_there_is(
    tmp_path: Path, backend: str, stage: str, number: signal.Signals
) -> None:
    volumes = leftovers.volumes() if backend == "docker" else set()
    harness, processes = _begin(tmp_path, backend, stage)
    if backend == "docker":
        assert leftovers.in_docker(harness.pid)
    os.kill(harness.pid, number)
    assert harness.wait(40) == 130
    assert _left(processes) == []
    if backend == "docker":
        assert leftovers.in_docker(harness.pid) == []
        assert leftovers.volumes() <= volumes
    folder = next(tmp_path.iterdir())
    if stage != "deploy":
        assert (folder / "links.parquet").is_file()
        assert (folder / "logs" / "kafka.log").is_file()
    assert gauntlet("check", folder).returncode == 3


@pytest.mark.longer
def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path, backend: str) -> None:
    """One of a healthy pipeline and one of a pipeline that mixes fields up: to each its own verdict. Without faults, which
    two runs on one small machine could keep from biting."""

    def begin(pipeline: str) -> subprocess.Popen[str]:
        options = ["--pipeline", pipeline, "--backend", backend, "--rate", "500", "--seconds", "6", "--json"]
        with open(tmp_path / f"{pipeline}.stderr", "wb") as stderr:
            return subprocess.Popen(
                [*GAUNTLET, "run", "steady", *options, "--out", str(tmp_path / pipeline)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    runs = [begin(pipeline) for pipeline in ("kappa", "mixed-up-keys")]
    said = [run.communicate(timeout=300) for run in runs]
    verdicts = [json.loads(out.splitlines()[-1]) for out, _ in said]
    assert [(run.returncode, v["verdict"]) for run, v in zip(runs, verdicts, strict=True)] == [
        (0, "pass"),
        (1, "violation"),
    ]
    for run in runs:
        assert backend == "process" or leftovers.in_docker(run.pid) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "stedy"], "Did you mean 'steady'"),
        (["run", "--pipeline", "kapa"], "Did you mean 'kappa'"),
        (["run", "--pipeline", "no_such_module:x"], "cannot be imported"),
        (["run", "--pipeline", "pipelines_under_test.kappa.pipeline:kapa"], "Did you mean 'kappa'"),
        (["run", "--rate", "0"], "at least 1 event"),
        (["run", "--seconds", "-1"], "longer than 0 seconds"),
        (["run", "--rate", "many"], "invalid int value"),
        (["run", "--backend", "dockr"], "invalid choice"),
        (["run", "--schedule", "sometimes"], "no schedule 'sometimes'"),
        (["run", "--out", "/proc/nowhere"], "Take another --out"),
        (["check", "/nonexistent"], "not a run folder"),
        (["frobnicate"], "invalid choice"),
        ([], "required"),
    ],
)
def test_bad_input_is_a_usage_error_that_helps(words: list[str], told: str) -> None:
    done = gauntlet(*words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_list_names_everything_and_what_catches_each_mutant() -> None:
    found = json.loads(gauntlet("list", "--json").stdout)
    assert set(found) == {"scenarios", "pipelines", "faults", "assertions", "mutants"}
    scenarios = {s["name"] for s in found["scenarios"]}
    assertions = {a["name"] for a in found["assertions"]}
    assert len(found["mutants"]) >= 5
    for mutant in found["mutants"]:
        assert mutant["caught_by"] in assertions
        assert mutant["scenario"] in scenarios
        assert mutant["runs"] >= 1


def test_help_teaches_the_exit_statuses() -> None:
    done = gauntlet("--help")
    assert done.returncode == 0
    assert "3  inconclusive" in done.stdout
