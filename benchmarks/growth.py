"""How the cost of judging grows with the run: processor time an event, over runs of a hundred thousand to a hundred million
events, every assertion over the four hops of the reference pipeline. The peer is a run of a million events; a ratio of no
more than 1 says that the cost grows no faster than their number. `plot` draws it, with the memory that `memory` tells.
"""

from __future__ import annotations

import tempfile
from functools import cache, partial
from pathlib import Path

from benchmarks import large_run
from benchmarks.large_run import Judged
from benchmarks.measure import Benchmark, Side

SIZES = {"a hundred thousand events": 10**5, "a million": 10**6, "ten million": 10**7, "a hundred million": 10**8}
PEER = "a million"
#: What was measured in this process, so that `memory` need not judge everything again.
_known: dict[int, list[Judged]] = {}


def benchmark() -> Benchmark:
    sides = [Side(name, partial(_us_an_event, events)) for name, events in SIZES.items()]
    return Benchmark(
        "growth",
        "Processor time to judge an event of a run of",
        "us",
        sides,
        PEER,
        notes=["Four hops, every assertion; the runs were made by the generator; the start of Python is among it"],
    )


def _us_an_event(events: int) -> float:
    found = large_run.judged(_made(events)[1])
    _known.setdefault(events, []).append(found)
    return found.cpu_s / events * 1e6


def memory_mib(events: int) -> float:
    """The most that the process held which judged a run of this size."""
    if not _known.get(events):
        _us_an_event(events)
    return _known[events].pop(0).memory_mib


@cache
def _made(events: int) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    folder = tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-")
    return folder, large_run.make(events, Path(folder.name))
