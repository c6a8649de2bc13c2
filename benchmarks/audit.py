"""How fast a Kafka hop is read and judged.

A topic of a million events is read to its end by a tap (each record's place checked, its id and its content read), saved,
and judged: against the ledger, for duplicates, and field by field against what was generated. The figure counts from the
tap's start to the findings. The peer is the client library alone, tuned, which looks at nothing that it gets: the most
that can be had through it.
"""

from __future__ import annotations

import json
import shutil
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from assertions import content, duplicate_rate
from assertions.judge import judge
from benchmarks.kafka_alone import ALONE, HOP, PARTITIONS, RUN, fill, topic
from benchmarks.measure import Benchmark, Side
from harness.errors import HarnessFault
from harness.run_folder import FORMAT, RunFolder
from harness.services.base import TapResult
from harness.services.kafka import KafkaTap
from harness.store import SavedRun
from load.spec import LoadSpec

OURS = "Gauntlet: read, certified, saved and judged"
PEER = "confluent-kafka's consumer, tuned, looking at nothing"
EVENTS = 1_000_000
_WITHIN_S = 120.0


def benchmark() -> Benchmark:
    return Benchmark(
        "audit",
        "Events a second of a Kafka hop",
        "/s",
        [Side(OURS, ours), Side(PEER, peer)],
        PEER,
        notes=[f"{EVENTS:,} events of about 0.2 kB in {PARTITIONS} partitions; the broker on the same cores"],
    )


def ours() -> float:
    with topic() as one:
        spec, t0_ms, _ = fill(one, EVENTS)
        folder = RunFolder.create(one.folder / "runs", "audit", RUN)
        begin = time.monotonic()
        tap = KafkaTap(HOP, one.server, one.name, RUN, lambda: time.time() * 1000)
        tap.start()
        result = tap.finish(_WITHIN_S)
        result.frame.write_parquet(folder.hop(HOP.name))
        _write(folder, spec, t0_ms, result)
        verdict = judge(SavedRun.open_unsealed(folder.path))
        took = time.monotonic() - begin
    found = {finding["assertion"]: finding for finding in verdict["findings"]}
    for name in ("ledger_settled", "duplicate_rate", "taps_complete"):
        if found[name]["verdict"] != "pass":
            raise HarnessFault(f"{name}: {found[name]['summary']}")
    if (events := found["duplicate_rate"]["figures"]["events"]) != EVENTS:
        raise HarnessFault(f"of {EVENTS:,} events {events:,} were found")
    return EVENTS / took


def _write(folder: RunFolder, spec: LoadSpec, t0_ms: int, result: TapResult) -> None:
    """What a run's folder says beside its hops, of a run that is nothing but a source."""
    shutil.copy(spec.ledger, folder.ledger)
    meta = {
        "format": FORMAT,
        "run": RUN,
        "seed": spec.seed,
        "scenario": "audit",
        "backend": "process",
        "pipeline": {
            "name": ALONE.name,
            "late_after_s": 0.0,
            **dict.fromkeys(("services", "workers", "links", "cells"), ()),
            "hops": [{"name": HOP.name, "kind": HOP.kind, "role": HOP.role, "service": HOP.service}],
        },
        "load": {"profile": spec.profile.as_dict(), "users": spec.users, "t0_ms": t0_ms},
        "schedule": [],
        "assertions": [{"assertion": a.name, "params": a.params()} for a in (content(), duplicate_rate(HOP.name))],
    }
    folder.write_json("run.json", meta)
    told = {"hop": HOP.name, "certified": result.certified, "reason": result.reason}
    folder.history.write_text(json.dumps({"t": t0_ms / 1000, "kind": "tap", **told}) + "\n")


def peer() -> float:
    with topic() as one:
        fill(one, EVENTS)
        consumer = Consumer(
            {
                "bootstrap.servers": one.bootstrap,
                "group.id": "peer",
                "enable.auto.commit": False,
                "fetch.message.max.bytes": 8 << 20,
                "queued.min.messages": 1_000_000,
                "queued.max.messages.kbytes": 262_144,
            }
        )
        begin = time.monotonic()
        consumer.assign([TopicPartition(one.name, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        got = 0
        while got < EVENTS:
            got += len(consumer.consume(10_000, 1.0))
            if time.monotonic() - begin > _WITHIN_S:
                raise HarnessFault(f"the peer got {got:,} of {EVENTS:,} records")
        took = time.monotonic() - begin
        consumer.close()
        return EVENTS / took
