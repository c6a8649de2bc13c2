"""Runs of several pipelines, one after another under the same load, kept in one folder and judged side by side.

<out>/<UTC time>-<name>-<tag>/
    runs.json          which runs there are: name, seed, backend, and a folder each
    <run folders>      each whole, as `gauntlet run` leaves any
    verdict.json  junit.xml  report.html      of all of them
    manifest.json      written last: sums of runs.json and of the runs' own manifests
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assertions.base import worst
from assertions.judge import judge
from harness.history import Views, nobody
from harness.report import comparison
from harness.report.html import RUNS
from harness.run import Outcome
from harness.run_folder import FORMAT, DamagedRun, check_listed, new_folder, read_json, write_json, write_manifest
from harness.scenario import SideBySide
from harness.session import Session
from harness.store import SavedRun


def execute(side: SideBySide, session: Session, out: Path, views: Views | None = None) -> Outcome:
    """Runs each scenario from deploy to verdict. Raises as `harness.run.execute` does; what there is by then is kept,
    and readable as unfinished."""
    side.validate()
    folder, tag, started = new_folder(out, side.name)
    asked: dict[str, Any] = {
        "format": FORMAT,
        "run": tag,
        "started": started.isoformat(timespec="milliseconds"),
        "scenario": side.name,
        "about": side.about,
        "seed": side.seed,
        "load": {"profile": side.load.as_dict()},
        "backend": None,
        "runs": [{"scenario": s.name, "pipeline": s.pipeline.name, "folder": None} for s in side.scenarios],
    }
    write_json(folder / RUNS, asked)
    for scenario, told in zip(side.scenarios, asked["runs"], strict=True):
        with (views or nobody)() as view:
            outcome = session.run(scenario, folder, [view])
        told["folder"], asked["backend"] = outcome.folder.name, outcome.verdict["backend"]
        write_json(folder / RUNS, asked)
    verdict = _judged(folder, asked)
    write_answers(folder, verdict)
    names = [told["folder"] for told in asked["runs"]]
    write_manifest(folder, [folder / RUNS, *(folder / name / "manifest.json" for name in names)])
    return Outcome(verdict, folder)


def is_one(folder: Path) -> bool:
    return (folder / RUNS).is_file()


def judge_again(folder: Path) -> dict[str, Any]:
    """The verdict of saved runs. Raises UnfinishedRun (exit 3) if one was never finished, DamagedRun (exit 4)."""
    check_listed(folder, RUNS)
    return _judged(folder, read_json(folder / RUNS))


def _judged(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    runs = [SavedRun.load(folder / name) for name in _folders(folder, asked)]
    verdicts = [judge(run) for run in runs]
    return {
        "verdict": worst(verdict["verdict"] for verdict in verdicts),
        "scenario": asked["scenario"],
        "run": str(folder),
        "backend": asked["backend"],
        "seed": asked["seed"],
        "runs": verdicts,
        "table": comparison.table([comparison.measured(*pair) for pair in zip(verdicts, runs, strict=True)]),
    }


def _folders(folder: Path, asked: Mapping[str, Any]) -> list[str]:
    try:
        names = [str(told["folder"]) for told in asked["runs"]]
    except (KeyError, TypeError) as error:
        raise DamagedRun(f"{folder / RUNS}: does not say which runs there are ({error!r}).") from error
    if len(names) < 2 or any("/" in name or name == "None" for name in names):
        raise DamagedRun(f"{folder / RUNS}: names no folders of runs: {', '.join(names)}.")
    return names


def write_unfinished(folder: Path) -> None:
    """The page of runs of which not all came to their end. Raises only OSError."""
    from harness.report.side_by_side import write_page

    write_page(folder, {}, folder / "report.html")


def write_answers(folder: Path, verdict: Mapping[str, Any]) -> None:
    """The verdict, three ways. Raises only OSError."""
    from harness.report.junit import write_junit
    from harness.report.side_by_side import write_page

    write_json(folder / "verdict.json", verdict)
    write_page(folder, verdict, folder / "report.html")
    write_junit(verdict, folder / "junit.xml")
