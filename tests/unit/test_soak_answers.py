"""A saved soak is judged and shown again, from what its folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from saved_run import World
from test_soak import cycle, state

from assertions.judge import judge
from harness import cli
from harness.run_folder import DamagedRun, UnfinishedRun
from harness.soak.answers import judge_again, write_answers
from harness.soak.books import summary
from harness.soak.state import Cut, Cycle, State

MEMORY = "memory of converter (MiB)"


def soak_of(folder: Path, a_cycle: float = 0.0, spent_s: float = 3_600.0) -> State:
    cycles = [cycle(n, **{MEMORY: 200.0 + a_cycle * n, "latency p99 (s)": None}) for n in range(1, 31)]
    found = state(*cycles, cycle(31, "inconclusive"), cycle(31, "violation", attempt=2), spent_s=spent_s)
    found.cut.append(Cut("/runs/cut-one", {"sent": 300, "acked": 290, "ambiguous": 10, "failed": 0}))
    found.save(folder)
    return found


def test_it_is_judged_again_from_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = soak_of(tmp_path)
    assert judge_again(tmp_path) == summary(saved, tmp_path)
    assert cli.main(["check", str(tmp_path), "--json"]) == cli.VIOLATION
    assert json.loads(capsys.readouterr().out) == summary(saved, tmp_path)


def test_one_that_was_ended_before_its_time_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soak_of(tmp_path, spent_s=60.0)
    with pytest.raises(UnfinishedRun, match=f"after 31 cycles.*gauntlet soak --resume {tmp_path}"):
        judge_again(tmp_path)
    assert cli.main(["check", str(tmp_path)]) == cli.INCONCLUSIVE
    assert cli.main(["report", str(tmp_path)]) == cli.INCONCLUSIVE
    page = (tmp_path / "report.html").read_text()
    assert "No verdict" in page
    assert f"gauntlet soak --resume {tmp_path}" in page
    assert not (tmp_path / "verdict.json").exists()
    (error,) = ET.parse(tmp_path / "junit.xml").iter("error")
    assert "not judged" in error.get("message", "")


def test_a_run_that_is_still_there_must_say_what_its_line_says(tmp_path: Path) -> None:
    run = World().save(tmp_path / "cycles")
    verdict = judge(run)
    line = Cycle(
        1,
        1,
        7,
        verdict["verdict"],
        f"/moved/cycles/{run.path.name}",
        dict(verdict["events"]),
        0,
        {},
        judged=verdict["events"]["acked"],
    )
    state(line).save(tmp_path)
    assert judge_again(tmp_path)["events"] == verdict["events"]
    line.events["acked"] += 1
    state(line).save(tmp_path)
    with pytest.raises(DamagedRun, match=f"says of cycle 1 .* but its run {run.path.name}"):
        judge_again(tmp_path)


def test_a_run_that_was_cut_off_and_judged_must_say_what_its_line_says(tmp_path: Path) -> None:
    run = World().save(tmp_path / "cycles")
    verdict = judge(run)
    cut = Cut(f"/moved/cycles/{run.path.name}", dict(verdict["events"]), verdict["verdict"], judged=2_000)
    soak = state(cycle(1))
    soak.cut.append(cut)
    soak.save(tmp_path)
    assert judge_again(tmp_path)["events"]["acked"] == 990 + verdict["events"]["acked"]
    cut.events["acked"] += 1
    soak.save(tmp_path)
    with pytest.raises(DamagedRun, match=f"says of what was cut off .* but its run {run.path.name}"):
        judge_again(tmp_path)


def test_the_page_tells_cycles_trends_and_what_was_not_judged(tmp_path: Path) -> None:
    soak_of(tmp_path, a_cycle=4.0)
    kept = tmp_path / "cycles" / "31" / "report.html"
    kept.parent.mkdir(parents=True)
    kept.write_text("a run")
    assert cli.main(["report", str(tmp_path)]) == cli.PASS
    page = (tmp_path / "report.html").read_text()
    assert "Violation" in page
    assert f"{MEMORY} grows by 4 a cycle" in page
    assert '<a href="cycles/31/report.html">31</a>' in page, "only what is still there can be followed"
    assert page.count("not kept") == 31
    assert "290 cut off with the harness, 990 tried again" in page
    assert f'aria-label="{MEMORY} over 31 cycles"' in page
    assert page.index("31, attempt 2") < page.index("<td>30</td>"), "those that did not pass come first"
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "violation"


def test_each_cycle_is_a_test_case_of_junit(tmp_path: Path) -> None:
    saved = soak_of(tmp_path)
    write_answers(tmp_path, summary(saved, tmp_path))
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("34", "1", "0")
    assert [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None] == ["cycle 00031"]
