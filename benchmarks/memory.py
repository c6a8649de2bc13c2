"""How much memory judging takes, over runs of a hundred thousand to a hundred million events; see `growth`. The goal: 1 GiB for
a hundred million.
"""

from __future__ import annotations

from functools import partial

from benchmarks.growth import PEER, SIZES, memory_mib
from benchmarks.measure import Benchmark, Side

MOST_MIB = 1024.0


def benchmark() -> Benchmark:
    sides = [Side(name, partial(memory_mib, events), most=MOST_MIB) for name, events in SIZES.items()]
    return Benchmark("memory", "Most memory to judge a run of", "MiB", sides, PEER)
