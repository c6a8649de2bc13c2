"""The page, the JUnit file and the terminal: whole for a whole run, honest for a partial one, safe with any text."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from saved_run import World
from saved_warehouse import WarehouseWorld

from assertions import no_loss
from assertions.judge import judge
from harness.report.html import write_html
from harness.report.junit import write_junit
from harness.report.terminal import make_view, print_verdict
from harness.store import SavedRun
from load.profiles import Burst

EVIL = '<script>alert(1)</script>\x1b[31m & "quoted" ]]> \x00\x08 ü'


@pytest.fixture
def whole(tmp_path: Path) -> tuple[SavedRun, dict[str, Any]]:
    run = World().fault("kill", "converter", 3.0, 3.2).save(tmp_path)
    return run, judge(run)


def page(run: SavedRun | None, verdict: dict[str, Any], tmp_path: Path) -> str:
    write_html(run, verdict, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_the_page_has_the_verdict_first_and_every_section(whole: Any, tmp_path: Path) -> None:
    text = page(*whole, tmp_path)
    order = ["What was run", "Counts by hop", "Rate at each hop", "Latency", "Findings", "Fault evidence", "Versions"]
    places = [text.index(f">{title}</h2>") if f">{title}</h2>" in text else text.index(title) for title in order]
    assert places == sorted(places)
    for word in ("gauntlet check", "load_delivered", "kill", "converter", "<svg"):
        assert word in text


def test_a_burst_in_the_load_is_told(tmp_path: Path) -> None:
    run = World(profile=Burst(rate=100, seconds=8, times=3, burst_at=1, burst_seconds=2)).save(tmp_path)
    assert "burst 100/s for 8 s (3 times as much for 2 s)" in page(run, judge(run), tmp_path)


def test_a_warehouse_has_a_section_of_its_own_and_nobody_else(whole: Any, tmp_path: Path) -> None:
    assert ">Warehouse</h2>" not in page(*whole, tmp_path)
    world = WarehouseWorld(
        assertions=[{"assertion": n, "params": {}} for n in ("warehouse_duplicates", "warehouse_parity")]
    )
    run = world.double("published", *(int(p) for p in world.sound[:100])).save(tmp_path / "house")
    verdict = judge(run)
    text = page(run, verdict, tmp_path)
    part = text[text.index(">Warehouse</h2>") : text.index(">Findings</h2>")]
    for word in ("before deduplication", "by the warehouse", "by the harness", "Explained by late events", "<svg"):
        assert word in part, word
    assert part.count(f"{len(world.sound) + 100:,}") == 2  # both ways to the messages
    assert "BigQuery table, export" in text


def test_a_warehouse_that_told_nothing_is_told_so(tmp_path: Path) -> None:
    world = WarehouseWorld()
    world.without = {"warehouse duplicates"}
    run = world.save(tmp_path)
    assert "what the warehouse says of duplicates was not stored" in page(run, judge(run), tmp_path)


def test_the_page_needs_nothing_from_elsewhere(whole: Any, tmp_path: Path) -> None:
    text = page(*whole, tmp_path).replace("http://www.w3.org/", "")
    for call in ('src="http', 'href="http', "url(http", "@import", "fetch(", "XMLHttpRequest"):
        assert call not in text
    assert len(text) < 1_000_000


@pytest.mark.parametrize("verdict", ["pass", "violation", "inconclusive"])
def test_each_verdict_is_told_in_a_word(whole: Any, tmp_path: Path, verdict: str) -> None:
    run, found = whole
    found["findings"][0]["verdict"] = verdict
    text = page(run, {**found, "verdict": verdict}, tmp_path)
    assert f"{verdict.capitalize()}" in text[: text.index("What was run")]


def test_markup_and_control_characters_are_shown_not_done(whole: Any, tmp_path: Path) -> None:
    run, found = whole
    found["findings"][0] |= {"summary": EVIL, "examples": [{"event": EVIL, EVIL: EVIL}], "figures": {EVIL: EVIL}}
    found["scenario"] = EVIL
    run.meta["scenario"] = EVIL
    run.meta["notes"] = [EVIL]
    text = page(run, found, tmp_path)
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\x1b" not in text
    assert "\x00" not in text


@pytest.mark.parametrize("missing", ["history.jsonl", "hops", "ledger.bin", "progress.parquet", "run.json"])
def test_a_partial_run_still_gives_a_page_that_says_so(tmp_path: Path, missing: str) -> None:
    folder = World().write(tmp_path)
    target = folder.path / missing
    if target.is_dir():
        for file in target.iterdir():
            file.write_bytes(b"torn")
    else:
        target.unlink()
    text = page(SavedRun.open_unsealed(folder.path), {}, tmp_path)
    assert "</html>" in text
    assert "Pass" not in text[: text.index("What was run")], "without a verdict nothing has passed"


def test_no_run_at_all_still_gives_a_page(tmp_path: Path) -> None:
    assert "</html>" in page(None, {}, tmp_path)


# ------------------------------------------------------------------------------------------------------------ JUnit


def test_junit_tells_violations_from_inconclusive_findings(whole: Any, tmp_path: Path) -> None:
    _, found = whole
    found["findings"][0] |= {"verdict": "violation", "summary": EVIL}
    found["findings"][1] |= {"verdict": "inconclusive"}
    write_junit({**found, "verdict": "violation"}, tmp_path / "junit.xml")
    root = ET.parse(tmp_path / "junit.xml").getroot()
    suite = next(root.iter("testsuite"))
    cases = list(root.iter("testcase"))
    assert len(cases) == len(found["findings"]) == int(suite.get("tests", 0))
    assert len(list(root.iter("failure"))) == int(suite.get("failures", 0))
    errors = list(root.iter("error"))
    assert errors
    assert all(e.get("type") == "inconclusive" for e in errors)
    assert int(suite.get("errors", 0)) == len(errors)


def test_a_run_without_findings_is_no_green_junit_file(tmp_path: Path) -> None:
    write_junit({}, tmp_path / "junit.xml")
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert list(root.iter("error")) or list(root.iter("failure"))


# --------------------------------------------------------------------------------------------------------- terminal

EVENTS: list[dict[str, Any]] = [
    {"t": 1.0, "kind": "run", "scenario": "s", "pipeline": "p", "backend": "process", "seed": 7, "run": "1a2b3c4d",
     "folder": "out/x", "schedule": [], "hops": ["source"], "workers": ["w"], "load": {"rate": 10, "seconds": 2.0}},
    {"t": 1.1, "kind": "stage", "stage": "load"},
    {"t": 1.2, "kind": "worker-start", "worker": "w", "pid": 5},
    {"t": 1.3, "kind": "fault-start", "index": 0, "fault": "kill", "target": "w"},
    {"t": 1.4, "kind": "worker-exit", "worker": "w", "pid": 5, "status": -9, "signal": "SIGKILL", "asked": True},
    {"t": 1.5, "kind": "load", "sent": 20, "acked": 20, "failed": 0, "behind_ms": 1.0},
    {"t": 1.6, "kind": "progress", "hop": "source", "count": 20},
    {"t": 1.7, "kind": "draining", "quiet_s": 1.0, "missing": {"source": 3}, "lags": {}},
    {"t": 1.8, "kind": "error", "text": EVIL},
    {"t": 1.9, "kind": "a kind that nobody knows yet"},
]  # fmt: skip


@pytest.mark.parametrize("live", [True, False])
def test_a_view_shows_every_kind_and_survives_garbage(live: bool) -> None:
    stream = io.StringIO()
    view = make_view(stream, live=live)
    for event in EVENTS:
        view.on(event)
    view.on({"kind": "load", "sent": None})
    view.on({})
    view.close()


def test_lines_for_a_log_say_what_happened() -> None:
    stream = io.StringIO()
    view = make_view(stream, live=False)
    for event in EVENTS:
        view.on(event)
    view.close()
    shown = stream.getvalue()
    for word in ("stage load", "worker w", "SIGKILL", "fault kill w: injected"):
        assert word in shown
    assert "\x1b" not in shown


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("live", [True, False])
def test_a_terminal_that_goes_away_does_not_break_the_run(live: bool) -> None:
    view = make_view(Gone(), live=live)
    for event in EVENTS:
        view.on(event)
    view.close()


def test_the_verdict_is_printed_with_what_to_do_next(whole: Any) -> None:
    _, found = whole
    stream = io.StringIO()
    print_verdict(found, stream)
    shown = stream.getvalue()
    assert found["verdict"].upper() in shown
    assert "gauntlet check" in shown
    assert "exit" in shown


def test_the_page_tells_where_and_why_before_the_findings(tmp_path: Path) -> None:
    world = World()
    run = world.lose("published", *(int(p) for p in world.sound[:2])).save(tmp_path)
    finding = no_loss().check(run).to_json()
    text = page(run, {"verdict": "violation", "findings": [finding]}, tmp_path)
    section = text[text.index('<section id="attribution">') : text.index('<section id="findings">')]
    assert "2 lost: intermediate → published" in section
    assert world.event_id(int(world.sound[0])) in section
    assert "attribution" not in text[text.index('<section id="findings">') : text.index('<section id="faults">')]


def test_the_page_says_what_kept_it_from_telling_where_and_why(whole: Any, tmp_path: Path) -> None:
    run, found = whole
    assert '<section id="attribution">' not in page(run, found, tmp_path)  # nothing was lost or doubled
    figures = {"attribution": [{"cause": EVIL, "kind": EVIL}], "attribution_error": EVIL}
    found["findings"].append({"assertion": "no_loss", "verdict": "violation", "summary": "", "figures": figures})
    text = page(run, found, tmp_path)
    assert "This cannot be said" in text
    assert "<script>alert(1)" not in text
