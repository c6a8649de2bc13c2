"""How well the load keeps to a rate that was set: by how many percent what was sent in a second differs from it, and so
that none is sent early and none skipped. The worst second of each run counts.

There is nobody to compare with but itself: at a hundredth of the rate.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.kafka_alone import load, topic
from benchmarks.measure import Benchmark, Side
from harness.ledger import INTENT
from load.profiles import Steady

RATES = (2_000, 20_000, 100_000, 200_000)
SECONDS = 6
#: Percent that a rate may be off.
MOST = 1.0
#: The load's process is up by then.
_LEAD_S = 4.0


def benchmark() -> Benchmark:
    return Benchmark(
        "pacing",
        "Deviation from the rate that was set, the worst second of six",
        "%",
        [Side(f"{rate:,} events a second", partial(off, rate), most=MOST) for rate in RATES],
        f"{RATES[0]:,} events a second",
        notes=["Locust, open loop: each event is due by its place in the sequence; one process, one user"],
    )


def off(rate: int) -> float:
    with topic() as one:
        _, t0_ms, ledger = load(one, Steady(rate=rate, seconds=SECONDS), lead_s=_LEAD_S)
        records = ledger.records
        sent = records[records["kind"] == INTENT]
        second = (sent["t_us"] - t0_ms * 1000) // 1_000_000
        a_second = np.bincount(np.clip(second, 0, SECONDS), sent["n"], SECONDS + 1)[:SECONDS]
        return float(np.abs(a_second / rate - 1).max() * 100)
