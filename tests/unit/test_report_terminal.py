"""The terminal: what is printed where, what it costs, and that nothing of it can break a run."""

from __future__ import annotations

import gc
import io
import os
import pty
import threading
import time
from typing import Any

import pytest

from harness.report.terminal import LineView, LiveView, QuietView, _panel, _State, _told, make_view, print_verdict

START: dict[str, Any] = {
    "t": 100.0,
    "kind": "run",
    "scenario": "kappa-under-fire",
    "pipeline": "kappa",
    "seed": 7,
    "run": "1a2b3c4d",
    "folder": "out/x",
    "schedule": [
        {"fault": "kill", "target": "converter", "at": 5.0, "seconds": 0.0},
        {"fault": "partition", "target": "converter->pubsub", "at": 8.0, "seconds": 3.0},
    ],
    "hops": ["source", "published"],
    "workers": ["converter", "aggregator"],
    "load": {"kind": "steady", "rate": 2000, "seconds": 20.0},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def progress(t: float, count: int, hop: str = "source") -> dict[str, Any]:
    return {"t": t, "kind": "progress", "hop": hop, "count": count}


def shown(panel: list[list[tuple[str, str]]]) -> str:
    return "\n".join("".join(text for _, text in line) for line in panel)


def panel_after(*events: dict[str, Any], now: float, width: int = 100, height: int = 50) -> str:
    state = _State()
    for event in (START, *events):
        state.take(event)
    return shown(_panel(state, now, width, height))


# ------------------------------------------------------------------------------------------------------- which view


def test_the_view_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_view(io.StringIO()), LineView)
    assert isinstance(make_view(Terminal()), LiveView)
    assert isinstance(make_view(Terminal(), quiet=True), QuietView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_view(Terminal()), LineView)
    assert isinstance(make_view(Terminal(), live=True), LineView)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    assert isinstance(make_view(Terminal()), LineView)


# ------------------------------------------------------------------------------------------------------- line view


def test_the_first_line_says_from_which_seed_the_faults_were_drawn() -> None:
    stream = io.StringIO()
    LineView(stream).on({**START, "schedule_seed": 42})
    assert "2 faults drawn from seed 42" in stream.getvalue().splitlines()[0]
    LineView(stream := io.StringIO()).on(START)
    assert "drawn" not in stream.getvalue()


def test_a_log_has_a_progress_line_every_five_seconds() -> None:
    stream = io.StringIO()
    view = make_view(stream)
    view.on(START)
    for n in range(201):  # 20 s of samples, ten a second
        view.on(progress(101 + n / 10, n * 200))
    view.close()
    lines = [line for line in stream.getvalue().splitlines() if "progress:" in line]
    assert len(lines) == 4
    assert "source 10,000 (2,000/s)" in lines[0]


def test_a_log_says_what_ended_by_itself_and_what_came_back() -> None:
    stream = io.StringIO()
    view = make_view(stream)
    for event in (
        START,
        {"t": 101.0, "kind": "worker-start", "worker": "converter", "pid": 5},
        {
            "t": 102.5,
            "kind": "worker-exit",
            "worker": "converter",
            "pid": 5,
            "status": 1,
            "signal": None,
            "asked": False,
        },
        {"t": 103.0, "kind": "worker-start", "worker": "converter", "pid": 6},
        {"t": 104.0, "kind": "error", "text": "first\nsecond \x1b[2J"},
    ):
        view.on(event)
    text = stream.getvalue()
    assert "   2.50 s  worker converter ended (status 1, not asked for)" in text
    assert "worker converter started again, pid 6" in text
    assert "\x1b" not in text
    assert text.splitlines()[-1].strip() == "second", "a long error keeps its lines"


def test_of_two_versions_of_a_worker_the_end_of_one_is_not_its_own() -> None:
    events = [
        {"t": 101.0, "kind": "worker-start", "worker": "converter", "pid": 5},
        {"t": 103.0, "kind": "worker-start", "worker": "converter", "pid": 6, "version": "RELEASE=2"},
        {"t": 105.0, "kind": "worker-exit", "worker": "converter", "pid": 6, "status": 0, "asked": True},
    ]
    state = _State()
    for event in events:
        state.take(event)
    assert (state.workers["converter"].state, state.workers["converter"].pid) == ("runs", 5)
    assert _told(events[1], state) == ("good", "worker converter started in another version (RELEASE=2), pid 6")
    state.take({**events[2], "pid": 5})
    assert state.workers["converter"].state == "down"


def test_nothing_is_printed_after_the_end() -> None:
    stream = io.StringIO()
    view = make_view(stream)
    view.on(START)
    view.close()
    before = stream.getvalue()
    view.on({"t": 105.0, "kind": "stage", "stage": "load"})
    view.close()
    assert stream.getvalue() == before


# ------------------------------------------------------------------------------------------------------- live view


def test_the_panel_counts_down_to_and_through_a_fault() -> None:
    load = {"t": 110.0, "kind": "stage", "stage": "load"}
    assert "partition converter->pubsub  in 2.0 s" in panel_after(load, now=116.0)
    begun = {"t": 118.0, "kind": "fault-start", "index": 1, "fault": "partition", "target": "converter->pubsub"}
    assert "partition converter->pubsub  active, 1.5 s left" in panel_after(load, begun, now=119.5)
    healed = {
        "t": 121.0,
        "kind": "fault-end",
        "index": 1,
        "fault": "partition",
        "target": "converter->pubsub",
        "bit": False,
    }
    assert "healed after 3.0 s, did not bite" in panel_after(load, begun, healed, now=122.0)


def test_the_panel_shows_rates_and_workers() -> None:
    text = panel_after(
        {"t": 110.0, "kind": "stage", "stage": "load"},
        {"t": 111.0, "kind": "load", "sent": 2000, "acked": 1990, "failed": 0, "behind_ms": 400.0},
        progress(111.0, 1000),
        progress(112.0, 3000),
        {"t": 110.0, "kind": "worker-start", "worker": "converter", "pid": 5},
        {
            "t": 111.5,
            "kind": "worker-exit",
            "worker": "converter",
            "pid": 5,
            "status": -9,
            "signal": "SIGKILL",
            "asked": True,
        },
        now=112.0,
    )
    assert "2,000/s" in text
    assert "400 ms behind" in text
    assert "down for 0.5 s" in text
    assert "▸ load 2.0 s" in text


def test_a_hop_that_stands_still_has_no_rate() -> None:
    line = next(
        x for x in panel_after(progress(111.0, 1000), progress(112.0, 3000), now=120.0).splitlines() if "source" in x
    )
    assert " 0/s" in line


@pytest.mark.parametrize(("width", "height"), [(20, 5), (40, 10), (80, 18), (200, 60)])
def test_the_panel_fits_any_terminal(width: int, height: int) -> None:
    many = {**START, "hops": [f"hop-{i}" for i in range(9)], "workers": [f"w{i}" for i in range(20)]}
    many["schedule"] = [{"fault": "kill", "target": f"w{i}", "at": i, "seconds": 1} for i in range(50)]
    lines = panel_after(
        many, {"t": 101.0, "kind": "load", "acked": 5}, now=105.0, width=width, height=height
    ).splitlines()
    assert len(lines) <= max(height, 8)


@pytest.mark.parametrize("colour", [True, False])
def test_a_real_terminal_gets_a_panel_and_colours_unless_unwanted(
    colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    reading, writing = pty.openpty()
    got: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(reading, 65536):
                got.append(data)
        except OSError:
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(writing, "w") as stream:
        view = make_view(stream)
        assert isinstance(view, LiveView)
        view.on(START)
        view.on({"t": 101.0, "kind": "fault-start", "index": 0, "fault": "kill", "target": "converter"})
        time.sleep(0.6)
        view.close()
    reader.join(5)
    text = b"".join(got).decode()
    assert "kappa-under-fire on kappa" in text
    assert "fault kill converter: injected" in text
    assert ("\x1b[35m" in text) is colour


class Goes(Terminal):
    """A terminal that is closed after some writes."""

    def __init__(self, after: int, error: Exception) -> None:
        super().__init__()
        self.left, self.error = after, error

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)

    flush_error: Exception | None = None

    def flush(self) -> None:
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("closed file")])
@pytest.mark.parametrize("after", [0, 3])
def test_a_terminal_that_goes_away_in_the_middle_is_no_error(live: bool, error: Exception, after: int) -> None:
    stream = Goes(after, error)
    view = make_view(stream, live=live)
    view.on(START)
    for n in range(30):
        view.on({"t": 101.0 + n, "kind": "stage", "stage": f"stage-{n}"})
    time.sleep(0.3 if live else 0)
    view.close()
    print_verdict({"verdict": "pass", "findings": []}, stream)
    assert stream.left < 0, "it was written to until it went away"


def test_telling_and_drawing_never_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.report.terminal.REFRESH_PER_SECOND", 2_000)  # drawing all the time
    view = make_view(Terminal(), live=True)

    def tell() -> None:
        view.on(START)
        for n in range(2_000):
            view.on({"t": 101.0 + n, "kind": "stage", "stage": f"stage-{n}"})
        view.close()

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    telling.join(60)
    assert not telling.is_alive(), "it hangs"


def test_a_stream_that_knows_no_bars_gets_something_else() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    print_verdict(
        {"verdict": "pass", "findings": [{"assertion": "no_loss", "verdict": "pass", "summary": "ü"}]}, stream
    )
    assert b"PASS" in raw.getvalue()
    assert b"no_loss" in raw.getvalue()


@pytest.mark.parametrize("live", [True, False])
def test_many_threads_may_tell_at_once(live: bool) -> None:
    stream = Terminal() if live else io.StringIO()
    view = make_view(stream, live=live)
    view.on(START)
    failed: list[BaseException] = []

    def tell(name: int) -> None:
        try:
            for n in range(200):
                view.on(progress(101 + n / 50, n, f"hop-{name}"))
                if n % 50 == 0:
                    view.on({"t": 101 + n / 50, "kind": "note", "text": f"thread {name}, {n}"})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=tell, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a view that waits for itself would stop the run"
    view.close()
    assert not failed


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"kind": None},
        {"kind": "run", "schedule": "none", "hops": 5},
        {"kind": "load", "t": "soon", "acked": "many"},
        {"kind": "progress", "hop": None, "count": None},
        {"kind": "fault-end", "index": [], "target": {}},
        {"kind": "take"},
        {"kind": "draining", "missing": 7},
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_an_event_of_another_shape_is_no_error(event: dict[str, Any], live: bool) -> None:
    view = make_view(Terminal(), live=live)
    view.on(event)
    view.on(START)
    view.close()


def test_the_live_view_costs_little() -> None:
    """Measured on a free core: 0.5 % of it at 70 events a second. The bound leaves room for a busy machine."""
    view = make_view(Terminal(), live=True)
    view.on(START)
    gc.collect()  # of all that the tests before have left, and not while the view is measured
    used, begin = time.process_time(), time.monotonic()
    n = 0
    while time.monotonic() - begin < 2.0:
        n += 1
        view.on(progress(101 + n / 70, n * 30))
        time.sleep(1 / 70)
    view.close()
    assert (time.process_time() - used) / (time.monotonic() - begin) < 0.06


# ---------------------------------------------------------------------------------------------------------- verdict


def test_the_verdict_names_findings_faults_report_and_exit_status() -> None:
    stream = io.StringIO()
    print_verdict(
        {
            "verdict": "violation",
            "run": "out/x",
            "events": {"sent": 40000, "acked": 40000, "ambiguous": 0, "failed": 0},
            "findings": [
                {"assertion": "no_loss", "verdict": "violation", "summary": "3 of 40 never\narrived", "figures": {}},
                {"assertion": "content", "verdict": "pass", "summary": "fine", "figures": {}},
                {"assertion": "clock_steady", "verdict": "pass", "summary": "steady", "figures": {}},
            ],
            "faults": [
                {"fault": "kill", "target": "converter", "start": 5.0, "end": 5.9, "bit": True, "evidence": {}},
                {
                    "fault": "pause",
                    "target": "w",
                    "start": 6,
                    "end": None,
                    "bit": False,
                    "evidence": {"reason": "idle"},
                },
            ],
        },
        stream,
    )
    text = stream.getvalue()
    assert "✗ VIOLATION" in text
    assert "no_loss          3 of 40 never arrived" in text
    assert "all 1 hold" in text
    assert any(line.split()[:2] == ["kill", "converter"] and line.endswith("yes") for line in text.splitlines())
    assert any("pause" in line and "no" in line and "idle" in line for line in text.splitlines())
    for part in ("out/x/report.html", "gauntlet check out/x", "exit    1 (violation"):
        assert part in text
    assert "\x1b" not in text


@pytest.mark.parametrize("verdict", [None, {}, {"verdict": "pass", "findings": 3, "faults": [1], "events": []}])
def test_a_verdict_of_another_shape_is_no_error(verdict: Any) -> None:
    stream = io.StringIO()
    print_verdict(verdict, stream)
    if not verdict:
        assert "PASS" not in stream.getvalue()
        assert "NO VERDICT" in stream.getvalue()
