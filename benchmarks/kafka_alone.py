"""A Kafka of our own with one topic, and the load process that fills it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessFault
from harness.ledger import Ledger, ledgers
from harness.session import Session
from harness.topology import Kafka, KafkaHop, Pipeline
from load.profiles import Steady
from load.spec import LoadSpec
from pipelines_under_test.kappa.pipeline import content_in_source, id_in_source

PARTITIONS = 8
RUN = "1a2b3c4d"
#: The one topic, as the hop that it is.
HOP = KafkaHop("events", "kafka", "source", topic="events", event_id=id_in_source, content=content_in_source)
ALONE = Pipeline("kafka-alone", services=(Kafka("kafka", topics={"events": PARTITIONS}),), workers=(), hops=(HOP,))


@dataclass(frozen=True)
class Topic:
    """`server` and `folder` are gone with the context that it comes from."""

    server: Any
    name: str
    folder: Path

    @property
    def bootstrap(self) -> str:
        return str(self.server.direct)

    def records(self) -> int:
        return sum(self.server.ends(self.name).values())

    def must_hold(self, records: int) -> None:
        """Raises HarnessFault unless it does: what was not done was not fast."""
        if (there := self.records()) != records:
            raise HarnessFault(f"of {records:,} records {there:,} are in the topic")


@contextmanager
def topic() -> Iterator[Topic]:
    """An empty one, in a Kafka that was started for it."""
    with Session("process") as session, tempfile.TemporaryDirectory(prefix="gauntlet-benchmark-") as folder:
        stack = session.stack(ALONE)
        server: Any = stack.servers["kafka"]
        names = stack.names(uuid.uuid4().hex[:8])
        server.make(names)
        yield Topic(server, names["events"], Path(folder))


def fill(one: Topic, events: int, processes: int = 1, keyed: bool = True) -> tuple[LoadSpec, int, Ledger]:
    """Loads as fast as the load process can: as `load`, with all of it overdue at once."""
    return load(one, Steady(rate=events * 10, seconds=0.1), processes, keyed=keyed)


def load(
    one: Topic, profile: Steady, processes: int = 1, lead_s: float = 0.0, keyed: bool = True
) -> tuple[LoadSpec, int, Ledger]:
    """Loads by a profile, with the ledger, `lead_s` from now; returns what was asked, when the load began (epoch ms) and
    what became of it. Raises HarnessFault unless every event was acknowledged and is there."""
    events = profile.events
    t0_ms = int((time.time() + lead_s) * 1000)
    (one.folder / "go.json").write_text(json.dumps({"t0_ms": t0_ms}))
    spec = LoadSpec(
        one.bootstrap,
        one.name,
        run=RUN,
        seed=7,
        users=processes,
        processes=processes,
        profile=profile,
        ledger=str(one.folder / "ledger.bin"),
        status=str(one.folder / "status.jsonl"),
        go=str(one.folder / "go.json"),
        keyed=keyed,
    )
    spec.write(one.folder / "spec.json")
    command = [sys.executable, "-m", "load.main", str(one.folder / "spec.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise HarnessFault(f"the load came to nothing:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    ledger = Ledger.read(*ledgers(spec.ledger))
    if (acked := ledger.totals()["acked"]) != events:
        raise HarnessFault(f"of {events:,} events {acked:,} were acknowledged")
    one.must_hold(events)
    return spec, t0_ms, ledger
