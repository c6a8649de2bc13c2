"""`python -m benchmarks.soak`: a soak of 20 minutes, its harness killed twice, and what memory and disk came to.

It is no series of runs against a peer: it writes benchmarks/results/soak.json, the figures into docs/performance.md and
the picture docs/soak.svg. It fails where a cycle did, where a measure grows, or where events are unaccounted for.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.plot import picture_of_a_soak
from benchmarks.tables import put
from harness.errors import HarnessFault

HERE = Path(__file__).parent
RESULT, PAGE, PICTURE = (
    HERE / "results" / "soak.json",
    *(HERE.parent / "docs" / n for n in ("performance.md", "soak.svg")),
)
#: The cycles in the midst of whose load the harness is killed.
KILLED_IN = (3, 6)
WITHIN_S = 600.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=24.0, help="how long (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=2_500, help="events a second (default: %(default)s)")
    parser.add_argument("--cycle-seconds", type=float, default=45.0, help="of load (default: %(default)s)")
    args = parser.parse_args(argv)
    words = [
        "--hours",
        f"{args.minutes / 60:.6f}",
        "--rate",
        str(args.rate),
        "--cycle-seconds",
        f"{args.cycle_seconds:g}",
    ]
    on = machine()
    with tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-") as out:
        begun = ["--backend", "process", "--out", out, *words]
        for cycle in KILLED_IN:
            _killed(begun, Path(out), cycle)
            begun = ["--resume", str(next(Path(out).glob("*-soak-*")))]
        done = subprocess.run([*_COMMAND, *begun, "--json"], stdout=subprocess.PIPE, text=True, check=False)
        verdict: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    verdict |= {"machine": on, "asked": vars(args)}
    problems = unsound(verdict)
    print(table(verdict), *problems, sep="\n")
    if problems:
        return 1
    # Without the folder that is gone by now.
    RESULT.write_text(json.dumps(verdict, indent=1).replace(f"{out}/", "") + "\n")
    PAGE.write_text(put(PAGE.read_text(), "soak", table(verdict)))
    PICTURE.write_text(picture_of_a_soak(verdict["cycles"]))
    return 0


_COMMAND = [sys.executable, "-m", "harness.cli", "soak"]


def _killed(words: Sequence[str], out: Path, cycle: int) -> None:
    """A soak that goes on until the load of that cycle is under way, and is killed."""
    soak = subprocess.Popen([*_COMMAND, *words])
    try:
        until = time.monotonic() + WITHIN_S
        while not _under_load(out, cycle):
            if soak.poll() is not None or time.monotonic() > until:
                raise HarnessFault(f"cycle {cycle} never began; the soak ended with {soak.poll()}")
            time.sleep(0.2)
        time.sleep(10)
    finally:
        soak.send_signal(signal.SIGKILL)
        soak.wait()


def _under_load(out: Path, cycle: int) -> bool:
    histories = out.glob(f"*/cycles/*-cycle-{cycle:05d}-*/history.jsonl")
    return any('"stage":"load"' in history.read_text() for history in histories)


def unsound(verdict: dict[str, Any]) -> list[str]:
    """Why this soak shows nothing, or shows something bad."""
    found = [] if verdict["verdict"] == "pass" else [f"it is no pass but {verdict['verdict']}"]
    numbers = [c["number"] for c in verdict["cycles"] if c["verdict"] != "inconclusive"]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append(f"not every cycle was judged once: {numbers}")
    acked = [cut["events"]["acked"] for cut in verdict["cut"]]
    if len(acked) != len(KILLED_IN) or not all(acked):
        found.append(f"the harness was not killed in the midst of {len(KILLED_IN)} cycles: {verdict['cut']}")
    if verdict["unjudged"]["cut_off"]:
        found.append(f"of what was cut off not all was judged: {[cut['why'] for cut in verdict['cut']]}")
    if not verdict["findings"][0]["figures"]["claimed"]:
        found.append("there are too few cycles to claim anything of trends")
    each = acked + [c["events"]["acked"] for c in verdict["cycles"] if c["verdict"] != "inconclusive"]
    if sum(each) != verdict["events"]["acked"]:
        found.append(f"{verdict['events']['acked']} events are told, {sum(each)} were judged")
    return found


def table(verdict: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["| Measure | first cycles | last cycles | grows |", "|---|---|---|---|"]
    for one in verdict["findings"][0]["figures"]["measures"]:
        if one["first"] is not None:
            lines.append(f"| {one['measure']} | {one['first']:.1f} | {one['last']:.1f} | {_grows(one)} |")
    on = verdict["machine"]
    cycles, cut = len(verdict["cycles"]), sum(one["events"]["acked"] for one in verdict["cut"])
    return "\n".join(
        [
            *lines,
            "",
            f"{verdict['events']['acked']:,} events acknowledged and judged in {cycles} cycles of "
            f"{verdict['asked']['cycle_seconds']:g} s of load under {verdict['faults']} faults, "
            f"{verdict['hours'] * 60:.0f} minutes in all; the harness was killed twice in the midst of one, and the "
            f"{cut:,} events that were acknowledged there are among them.  ",
            f"Machine: {on['cores']} cores ({on['processor']}), {on['memory_gib']} GiB, {on['system']}, "
            f"Python {on['python']}, load average before {on['load_before']}.",
        ]
    )


def _grows(measure: dict[str, Any]) -> str:
    return "**yes**" if measure["verdict"] == "drifts" else "no"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # whatever was begun cleans up after itself
    sys.exit(main())
