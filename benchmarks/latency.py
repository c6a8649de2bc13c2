"""How long events take through the reference pipeline, from when they were due to when they are counted: the 99th percentile
of a whole run, quiet or with a single fault in it.

The peer is the same pipeline with nothing injected. What a killed aggregator held leased comes again when Pub/Sub's
deadline for acknowledgements is over (10 s, the least that there is), and no sooner: its limit is that and 5 s.
"""

from __future__ import annotations

from functools import partial

from assertions import latency, no_loss
from benchmarks.measure import Benchmark, Side
from benchmarks.passed import passed
from faults import kill, kill_broker, partition, pause
from faults.base import Fault
from harness.scenario import Scenario
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa

PEER = "nothing injected"
LOAD = Steady(rate=2_000, seconds=14)
QUIET_S, FAULT_S, REDELIVERY_S = 2.0, 10.0, 15.0
FAULTS: dict[str, tuple[Fault, float]] = {
    "the preprocessor killed": (kill("preprocessor").at(4), FAULT_S),
    "the converter killed": (kill("converter").at(4), FAULT_S),
    "the aggregator killed": (kill("aggregator").at(4), REDELIVERY_S),
    "the aggregator paused for 3 s": (pause("aggregator").at(4).lasting(3), REDELIVERY_S),
    "Kafka killed, started again after 1 s": (kill_broker("kafka").at(4).lasting(1), FAULT_S),
    "the converter cut off from Pub/Sub for 2 s": (partition("converter->pubsub").at(4).lasting(2), FAULT_S),
    "the aggregator cut off from Bigtable for 2 s": (partition("aggregator->bigtable").at(4).lasting(2), FAULT_S),
}


def benchmark() -> Benchmark:
    sides = [Side(name, partial(p99, fault), most=most) for name, (fault, most) in FAULTS.items()]
    return Benchmark(
        "latency",
        "99th percentile from due to counted",
        "s",
        [Side(PEER, partial(p99, None), most=QUIET_S), *sides],
        PEER,
        notes=[f"{LOAD.rate:,} events a second for {LOAD.seconds:g} s, everything on the same cores"],
    )


def p99(fault: Fault | None) -> float:
    """Of one run, in seconds. Raises HarnessFault for a run that lost something or whose fault did not bite."""
    scenario = Scenario("latency", kappa, LOAD, [fault] if fault else (), [no_loss(), latency()])
    with passed(scenario) as outcome:
        findings = outcome.verdict["findings"]
    figures = next(f["figures"] for f in findings if f["assertion"] == "latency")
    return float(figures["p99_s"])
