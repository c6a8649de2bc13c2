"""What a person sees of a soak while it goes on."""

from __future__ import annotations

import io

from rich.console import Console
from test_soak import cycle, state

from harness.report.soak_view import SoakView
from harness.soak.state import State


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(soak: State, terminal: bool = False) -> tuple[SoakView, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    return SoakView(soak, Console(file=stream, force_terminal=terminal, width=200), clock), clock, stream


def test_the_status_line_tells_where_it_stands() -> None:
    figures = {
        "memory of aggregator (MiB)": 212.4,
        "memory of converter (MiB)": None,
        "memory of the harness (MiB)": 150.0,
    }
    soak = state(cycle(1), cycle(2, **figures), spent_s=600.0)
    view, clock, _ = shown(soak)
    clock.now += 30
    view.on({"kind": "stage", "stage": "load"})
    view.on({"kind": "load", "acked": 500})
    view.on({"kind": "fault-end"})
    view.on({"kind": "progress", "hop": "source", "count": 7})
    assert view.line() == "cycle 3, load · 0:49:30 left · 2,480 events, 7 faults · aggregator 212 MiB"


def test_an_attempt_that_is_made_again_and_cycles_that_did_not_pass_are_told() -> None:
    view, clock, _ = shown(state(cycle(1, "violation"), cycle(2, "inconclusive"), spent_s=10.0))
    clock.now += 3_600
    assert view.line() == "cycle 2 again (2), deploy · the last one · 1,980 events, 6 faults · 2 cycles did not pass"


def test_each_cycle_stays_as_a_line_with_its_time() -> None:
    soak = state(spent_s=3_000.0)
    view, clock, stream = shown(soak)
    with view:
        clock.now += 725
        soak.cycles.append(cycle(1))
        view.tell("cycle 1: pass, 990 events")
    assert stream.getvalue() == "1:02:05 cycle 1: pass, 990 events\n", "and where nobody looks, nothing else"


def test_on_a_terminal_the_status_line_is_there_and_goes() -> None:
    view, _, stream = shown(state(cycle(1)), terminal=True)
    with view:
        view.on({"kind": "stage", "stage": "drain"})
        view._status._live.refresh()
    assert "cycle 2, drain" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K"), "the cursor is back, and the line is cleared"
