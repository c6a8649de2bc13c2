"""A run of the harness that a figure is taken from: only one that passed has any."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessFault
from harness.history import Listener
from harness.run import Outcome
from harness.scenario import Scenario
from harness.session import Session


@contextmanager
def passed(scenario: Scenario, listeners: Sequence[Listener] = ()) -> Iterator[Outcome]:
    """As processes, on a stack of its own; its folder is gone with the context. Raises HarnessFault unless it passes."""
    with tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-") as out, Session("process") as session:
        outcome = session.run(scenario, Path(out), listeners)
        if outcome.verdict["verdict"] != "pass":
            told = [f"{f['assertion']}: {f['summary']}" for f in outcome.verdict["findings"] if f["verdict"] != "pass"]
            name = scenario.pipeline.name
            raise HarnessFault(f"a run of {name} did not pass, so its figures say nothing: {'; '.join(told)}")
        yield outcome
