"""`python -m benchmarks.shares`: who uses the processor while the reference pipeline works off a backlog.

It is no series against a peer: it is the profile that belongs to the throughput benchmark, of the same backlog. From when the
load begins until nothing moves any more, the processor time of every process is divided by the events. It writes
benchmarks/results/shares.json and the table in docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from assertions import no_loss
from benchmarks.measure import LEAST_ROUNDS, machine, summary
from benchmarks.passed import passed
from benchmarks.tables import machine_line, put
from benchmarks.throughput import EVENTS
from harness.scenario import Scenario
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "shares.json", HERE.parent / "docs" / "performance.md"
HARNESS, LOAD = "the harness: taps, samples, the run itself", "the load: Locust and the ledger"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description=__doc__)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="runs (default: %(default)s)")
    args = parser.parse_args(argv)
    on = machine()
    runs = []
    for number in range(args.rounds):
        runs.append(shares())
        print(
            f"shares {number + 1}/{args.rounds}: {sum(runs[-1].values()):.0f} us an event", file=sys.stderr, flush=True
        )
    text = table(runs, on)
    print(text)
    RESULT.write_text(json.dumps({"machine": on, "events": EVENTS, "runs": runs}, indent=1) + "\n")
    PAGE.write_text(put(PAGE.read_text(), "shares", text))
    return 0


def shares() -> dict[str, float]:
    """Microseconds of processor time an event, by program, of one run that passed."""
    watch = _Watch()
    scenario = Scenario("shares", kappa, Steady(rate=EVENTS, seconds=1), (), [no_loss()])
    with passed(scenario, [watch.on]):
        pass
    return {name: seconds / EVENTS * 1e6 for name, seconds in watch.used.items()}


class _Watch:
    """Listens to a run, and looks at the processes when its load begins and when all of it is through."""

    def __init__(self) -> None:
        self.names = {os.getpid(): HARNESS}
        self.before: dict[str, float] = {}
        self.used: dict[str, float] = {}

    def on(self, event: dict[str, Any]) -> None:
        if event["kind"] in ("service-start", "worker-start"):
            self.names[event["pid"]] = event.get("service") or event["worker"]
        elif (event["kind"], event.get("stage")) == ("stage", "load"):
            self.before = self._times()
        elif event["kind"] == "draining" and event["quiet_s"] > 1 and not self.used:
            self.used = {name: seconds - self.before.get(name, 0.0) for name, seconds in self._times().items()}

    def _times(self) -> dict[str, float]:
        """Processor seconds by program, of this process and all beneath it. The load has ended at last, and stands then with
        the process that had started it: both are the load."""
        found: dict[str, float] = {}
        this = psutil.Process()
        for process in [this, *this.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                name, times = self.names.get(process.pid, LOAD), process.cpu_times()
                own = times.user + times.system
                ended = 0.0 if process is this else times.children_user + times.children_system
                found[name] = found.get(name, 0.0) + own + ended
        return found


def table(runs: Sequence[dict[str, float]], on: dict[str, Any]) -> str:
    """In Markdown, the greatest share first."""
    lines = ["| Processor time an event | median | least | most | share |", "|---|---|---|---|---|"]
    found = {name: summary([run.get(name, 0.0) for run in runs]) for name in {name for run in runs for name in run}}
    whole = sum(s.median for s in found.values())
    for name, s in sorted(found.items(), key=lambda item: -item[1].median):
        lines.append(f"| {name} | {s.median:.0f} us | {s.least:.0f} us | {s.most:.0f} us | {s.median / whole:.0%} |")
    told = f"{len(runs)} runs of {EVENTS:,} events each, from the beginning of the load until nothing moved any more."
    return "\n".join([*lines, "", machine_line(on), told])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # whatever was begun cleans up after itself
    sys.exit(main())
