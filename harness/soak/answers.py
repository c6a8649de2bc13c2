"""A soak's answers, made of what its folder holds: verdict.json, report.html, junit.xml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assertions.judge import judge
from harness.report.junit import write_junit
from harness.report.soak import write_page
from harness.run_folder import DamagedRun, UnfinishedRun, write_json
from harness.soak.books import summary
from harness.soak.state import Cut, Cycle, State
from harness.store import SavedRun


def is_one(folder: Path) -> bool:
    return (folder / "soak.json").is_file()


def judge_again(folder: Path) -> dict[str, Any]:
    """The verdict of a saved soak: of its lines and, where a cycle's run is still there, of what that one shows.

    Raises UnfinishedRun (exit 3) if its time was not over, DamagedRun (exit 4) if a run says something else than its line.
    """
    state = State.load(folder)
    if not state.over():
        raise UnfinishedRun(
            f"{folder}: this soak was ended before its time, after {len(state.judged)} cycles, so it has no verdict. "
            f"Go on with it: gauntlet soak --resume {folder}"
        )
    for cycle in state.cycles:
        _compare(folder, cycle, f"cycle {cycle.number}")
    for cut in state.cut:
        if cut.verdict:
            _compare(folder, cut, "what was cut off")
    return summary(state, folder)


def _compare(folder: Path, line: Cycle | Cut, named: str) -> None:
    run = folder / "cycles" / Path(line.run).name  # where it is now: a soak's folder may have been moved
    if not (run / "manifest.json").is_file():
        return
    found = judge(SavedRun.load(run))
    if (found["verdict"], found["events"]) != (line.verdict, line.events):
        raise DamagedRun(
            f"{folder / 'soak.json'}: says of {named} {line.verdict} and {line.events}, but its run {run.name} "
            f"shows {found['verdict']} and {found['events']}."
        )


def write_unfinished(folder: Path) -> None:
    """The page and the JUnit file of a soak that did not come to its end. Raises only OSError."""
    write_page(folder, summary(State.load(folder), folder), False, folder / "report.html")
    write_junit(None, folder / "junit.xml")


def write_answers(folder: Path, verdict: Mapping[str, Any]) -> None:
    """The verdict, three ways. Raises only OSError."""
    write_json(folder / "verdict.json", verdict)
    write_page(folder, verdict, True, folder / "report.html")
    write_junit(_for_junit(verdict), folder / "junit.xml")


def _for_junit(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """The same with a finding for each cycle, of its last attempt, and for what was cut off and judged."""
    last = {cycle["number"]: cycle for cycle in verdict["cycles"]}
    found = [
        {
            "assertion": f"cycle {number:05d}",
            "verdict": cycle["verdict"],
            "summary": f"{cycle['events'].get('acked', 0):,} events, {cycle['faults']} faults bit"
            + (f"; violated: {', '.join(cycle['violated'])}" if cycle["violated"] else ""),
            "figures": cycle["figures"],
            "examples": [{"run": cycle["run"]}],
        }
        for number, cycle in last.items()
    ]
    found += [
        {
            "assertion": f"what was cut off in {Path(cut['run']).name}",
            "verdict": cut["verdict"],
            "summary": f"{cut['events'].get('acked', 0):,} events; nothing is claimed of faults and times",
            "figures": {},
            "examples": [{"run": cut["run"]}],
        }
        for cut in verdict["cut"]
        if cut["verdict"]
    ]
    return {**verdict, "run": verdict["soak"], "faults": [], "findings": [*verdict["findings"], *found]}
