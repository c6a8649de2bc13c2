"""What figures come to, and how they are written down."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks.measure import Benchmark, Result, Side, Summary, measure, summary
from benchmarks.tables import put, save, shown, table

MACHINE = {"cores": 2, "processor": "P", "memory_gib": 24.0, "system": "Linux 6", "python": "3.11", "load_before": 0.3}
RESULT = Result(
    "start", "Time", "s", "theirs", {"ours": [4.0, 3.0, 9.0, 3.5, 3.2], "theirs": [7.0, 7.0, 6.0, 8.0, 7.5]},
    {"ours": 8.0}, {}, ["It depends"], MACHINE,
)  # fmt: skip


def test_a_series_is_its_median_and_its_spread() -> None:
    assert summary([4.0, 3.0, 9.0, 3.5, 3.2]) == Summary(3.5, 3.0, 9.0, 5)
    assert summary([1.0, 2.0]).median == 1.5
    with pytest.raises(ValueError, match="no figures"):
        summary([])


def test_the_ratio_is_that_of_the_medians() -> None:
    assert RESULT.ratio("ours") == 0.5
    assert RESULT.ratio("theirs") == 1


def test_one_run_over_the_limit_is_over_the_limit() -> None:
    assert RESULT.too_much() == ["ours"]
    assert dataclasses.replace(RESULT, most={"ours": 9.0}).too_much() == []
    assert dataclasses.replace(RESULT, most={}).too_much() == []


def test_a_goal_is_a_ratio_of_the_medians() -> None:
    reached, missed = (dataclasses.replace(RESULT, least={"ours": least}) for least in (0.5, 0.51))
    assert reached.too_little() == RESULT.too_little() == []
    assert missed.too_little() == ["ours"]
    assert "Goal for ours: 0.51 times the peer; **missed**." in table(missed)
    assert "Goal for ours: 0.5 times the peer; reached." in table(reached)


def test_rates_are_shown_in_whole_numbers() -> None:
    assert shown(412_345.678, "/s") == "412,346/s"
    assert shown(3.714, "s") == "3.71 s"


def test_the_sides_alternate_and_none_is_always_first() -> None:
    order: list[str] = []
    told: list[str] = []

    def side(name: str) -> Side:
        def do() -> float:
            order.append(name)
            return float(len(order))

        return Side(name, do)

    result = measure(Benchmark("n", "t", "s", [side("a"), side("b")], "b"), 3, told.append)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert result.figures == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}
    assert told[0] == "n 1/3: a: 1.00 s"
    assert result.machine["cores"] > 0


def test_the_table_tells_figures_ratio_limit_and_machine() -> None:
    text = table(RESULT)
    assert "| ours | 3.50 s | 3.00 s | 9.00 s | 5 | 0.50 |" in text
    assert "| theirs | 7.00 s | 6.00 s | 8.00 s | 5 | 1 (the peer) |" in text
    assert "Limit for ours: 8.00 s; **not kept**." in text
    assert "2 cores (P), 24.0 GiB, Linux 6, Python 3.11, load average before 0.3." in text
    assert "It depends." in text
    assert "kept in every run" in table(dataclasses.replace(RESULT, most={"ours": 9.0}))


def test_a_rate_of_something_that_has_a_size_is_told_in_megabytes_too() -> None:
    text = table(dataclasses.replace(RESULT, unit="/s", bytes_each=500_000))
    assert text.splitlines()[0].endswith("| to the peer | MB/s |")
    assert "| ours | 4/s | 3/s | 9/s | 5 | 0.50 | 1.8 |" in text


PAGE = "# Page\n\n<!-- a: begin -->\nold\n<!-- a: end -->\n\n<!-- b: begin -->\nstays\n<!-- b: end -->\n"


def test_a_table_replaces_what_is_between_its_markers_and_nothing_else() -> None:
    once = put(PAGE, "a", "new")
    assert once == PAGE.replace("old\n", "\nnew\n\n")
    assert put(once, "a", "new") == once
    with pytest.raises(ValueError, match="c: begin"):
        put(PAGE, "c", "new")
    with pytest.raises(ValueError, match="a: end"):
        put("<!-- a: begin -->\n", "a", "new")


def test_the_results_are_kept_as_json(tmp_path: Path) -> None:
    saved = json.loads(save(RESULT, tmp_path / "results").read_text())
    assert saved["figures"]["ours"] == [4.0, 3.0, 9.0, 3.5, 3.2]
    assert saved["machine"] == MACHINE


def test_every_benchmark_has_its_place_on_the_page() -> None:
    assert "start" in command.names()
    page = command.PAGE.read_text()
    for name in command.names():
        assert put(page, name, "x") != page


def test_what_cannot_be_measured_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, told in ((["nothing"], "there are audit"), (["--rounds", "2"], "fewer than 5 rounds")):
        with pytest.raises(SystemExit) as raised:
            command.main(argv)
        assert raised.value.code == 2
        assert told in capsys.readouterr().err


def test_a_benchmark_that_lacks_something_says_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    assert command.main(["start"]) == 2
    assert "no Docker daemon answers" in capsys.readouterr().err


def test_the_picture_of_growth_shows_every_size_and_spread() -> None:
    from benchmarks.plot import draw

    cost, memory = [[2.0, 1.9, 2.2], [1.5, 1.4, 1.6]], [[200.0] * 3, [900.0, 880.0, 950.0]]
    picture = draw(cost, memory, [10**6, 10**8])
    assert picture.count('class="dot"') == picture.count('class="spread"') == 4
    assert picture.count(">1,000,000<") == picture.count(">100,000,000<") == 2
    assert ">1000<" in picture  # the axis of the memory
    ElementTree.fromstring(picture)


def test_a_benchmark_that_is_told_to_end_leaves_no_folder(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-m", "benchmarks", "growth", "--dry", "--rounds", "1"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    running = subprocess.Popen(argv, cwd=root, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("gauntlet-benchmark-*")):
            assert time.monotonic() < until
            assert running.poll() is None
            time.sleep(0.05)
        running.terminate()
        assert running.wait(60) == 128 + signal.SIGTERM
    finally:
        running.kill()
        running.wait()
    assert not list(tmp_path.glob("gauntlet-benchmark-*"))
