"""What the benchmark of a soak accepts, and how it tells and draws it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.plot import picture_of_a_soak
from benchmarks.soak import table, unsound
from harness.soak.books import summary
from harness.soak.state import Asked, Cut, Cycle, State

EVENTS = {"sent": 1_000, "acked": 990, "ambiguous": 10, "failed": 0}


def verdict(cycles: int = 20, cut: int = 2, grows: float = 0.0, left_out: int = 0) -> dict[str, Any]:
    done = [
        Cycle(
            n, 1, n, "pass", f"/{n}", EVENTS, 4,
            {"memory of aggregator (MiB)": 200 + grows * n, "memory of converter (MiB)": 150.0, "disk (MiB)": 900.0 + n % 3},
            judged=990,
        )
        for n in range(1, cycles + 1) if n != left_out
    ]  # fmt: skip
    state = State(Asked("soak", "kappa", "process", 7, 1.0, 40.0, 4_000), done, 1_200.0)
    state.cut += [Cut(f"/cut-{n}", EVENTS, "pass", judged=990) for n in range(cut)]
    told = summary(state, Path("/soak"))
    on = {"cores": 2, "processor": "P", "memory_gib": 24.0, "system": "Linux 6", "python": "3.11", "load_before": 0.3}
    return json.loads(json.dumps(told)) | {"machine": on, "asked": {"cycle_seconds": 40.0}} | {"cycles": told["cycles"]}


def test_a_sound_soak_is_told_with_its_figures() -> None:
    assert unsound(verdict()) == []
    told = table(verdict())
    assert "| memory of aggregator (MiB) | 200.0 | 200.0 | no |" in told
    assert "21,780 events acknowledged and judged in 20 cycles" in told
    assert "the 1,980 events that were acknowledged there are among them" in told


def test_what_shows_nothing_or_something_bad_is_no_result() -> None:
    assert "no pass but violation" in unsound(verdict(grows=5.0))[0]
    assert "killed in the midst" in unsound(verdict() | {"cut": []})[0]
    lost = {"cut": [{**cut, "verdict": "", "why": "gone"} for cut in verdict()["cut"]], "unjudged": {"cut_off": 1_980}}
    assert "of what was cut off not all was judged: ['gone', 'gone']" in unsound(verdict() | lost)
    assert "too few cycles" in unsound(verdict(cycles=5))[-1]
    assert any("not every cycle was judged once" in told for told in unsound(verdict(left_out=7)))
    assert "events are told" in unsound(verdict() | {"events": {**EVENTS, "acked": 1}})[0]


def test_the_picture_has_a_line_for_each_process() -> None:
    drawn = ElementTree.fromstring(picture_of_a_soak(verdict()["cycles"]))
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"aggregator", "converter", "Memory after each cycle (MiB)", "Disk after each cycle (MiB)"} <= set(words)
