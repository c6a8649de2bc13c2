"""Aggregator: Pub/Sub -> deduplicate and count -> Bigtable, as a Beam pipeline on the engine of the DirectRunner.

    PUBSUB SUBSCRIPTION REFUSED_TOPIC BIGTABLE TABLE DEDUP_HORIZON_S DEDUP_GRACE_S LEASE_S RELEASE GAUNTLET_WORKER

Source, decoding and the durable write are one fused stage: no shuffle, no state, no timer between a message and its
cells. The source acknowledges when the bundle is over, thus after the write. Windows are part of the rows, from event
time alone; late events go where they belong. Counting is adding to a set (`rows.py`), so a replay changes nothing.

Messages that cannot be read, and events past the deduplication horizon (whose `seen` cells may be gone), are published
to REFUSED_TOPIC with their reason, and only then acknowledged.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import apache_beam as beam
from apache_beam.io.unbounded_source import ReadFromUnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from google.pubsub_v1.types import PublishRequest

from pipelines_under_test.kappa import events, rows, rpc, subscription
from pipelines_under_test.kappa.compaction import Compactor, Horizon
from pipelines_under_test.kappa.subscription import PubsubRecord
from pipelines_under_test.kappa.table import Table
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals

RawRequest = PublishRequest.pb()

COMPACT_EVERY_S = 60.0


@dataclass(frozen=True)
class Settings:
    name: str
    pubsub: str
    subscription: str
    refused_topic: str
    bigtable: str
    table: str
    horizon: Horizon

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(
            setting("GAUNTLET_WORKER", "aggregator"),
            setting("PUBSUB"),
            setting("SUBSCRIPTION"),
            setting("REFUSED_TOPIC"),
            setting("BIGTABLE"),
            setting("TABLE"),
            Horizon(float(setting("DEDUP_HORIZON_S", "3600")), float(setting("DEDUP_GRACE_S", "600"))),
        )


class Process:
    """What all DoFns of this process share. Beam pickles DoFns, and these things cannot be."""

    stop = threading.Event()
    log = logging.getLogger("aggregator")
    progress = Progress(log)


@dataclass(frozen=True)
class Update:
    """One event, decoded: what it adds to the table."""

    event: events.Event
    uuid: str

    def cells(self) -> Iterable[tuple[bytes, tuple[bytes, bytes]]]:
        """(row key, (qualifier, value)) for each dimension."""
        e = self.event
        cell = rows.seen_qualifier(e.engagement, self.uuid), rows.seen_value(e.weight, e.event_id)
        yield rows.row_key("tweet", str(e.tweet_id), e.event_time_ms), cell
        yield rows.row_key("author", str(e.author_id), e.event_time_ms), cell


def by_row(updates: Iterable[Update]) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Row key -> what these events add to it: a row is written once, whatever number of them it has."""
    cells: dict[bytes, list[tuple[bytes, bytes]]] = defaultdict(list)
    for update in updates:
        for key, cell in update.cells():
            cells[key].append(cell)
    return cells


@dataclass(frozen=True)
class Refused:
    """A message that is not counted, and why."""

    message: PubsubRecord
    reason: str


class Decode(beam.DoFn):  # type: ignore[misc]
    """A batch of messages -> a batch of Update and Refused."""

    def __init__(self, horizon: Horizon) -> None:
        self.horizon = horizon

    def process(self, batch: list[PubsubRecord]) -> Iterable[list[Update | Refused]]:
        now_ms = time.time() * 1000
        yield [self.decode(message, now_ms) for message in batch]

    def decode(self, message: PubsubRecord, now_ms: float) -> Update | Refused:
        try:
            event = events.from_message(message.data)
            uuid = self.uuid(event, message)
        except events.Poison as poison:
            return Refused(message, str(poison))
        if self.horizon.refuses(event.event_time_ms, now_ms):
            return Refused(message, "past the deduplication horizon")
        return Update(event, uuid)

    def uuid(self, event: events.Event, message: PubsubRecord) -> str:
        return events.uuid_attribute(message.attributes)


class Write(beam.DoFn):  # type: ignore[misc]
    """Makes a bundle durable in `finish_bundle`: the aggregates, then the refused messages."""

    table_kind: ClassVar[type[Table]] = Table

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def setup(self) -> None:
        self.table = self.table_kind(self.settings.bigtable, self.settings.table, Process.stop, Process.log)
        self.pubsub = rpc.Connection(self.settings.pubsub, Process.stop, Process.log)

    def start_bundle(self) -> None:
        self.updates: list[Update] = []
        self.refused: list[Refused] = []

    def process(self, batch: list[Update | Refused]) -> None:
        for one in batch:
            if isinstance(one, Update):
                self.updates.append(one)
            else:
                self.refused.append(one)

    def finish_bundle(self) -> None:
        if self.updates:
            self.count(self.updates)
        if self.refused:
            self.publish_refused(self.refused)
        if self.updates or self.refused:
            Process.progress.add(counted=len(self.updates), refused=len(self.refused))

    def count(self, updates: list[Update]) -> None:
        """Returns when every update is in the table."""
        oldest_ms = min(update.event.event_time_ms for update in updates)
        horizon = self.settings.horizon
        self.table.add_seen(by_row(updates), lambda: horizon.too_late_to_write(oldest_ms, time.time() * 1000))

    def publish_refused(self, refused: list[Refused]) -> None:
        """Returns when Pub/Sub has acknowledged them. Data and attributes stay; why and who are added."""
        request = RawRequest(topic=self.settings.refused_topic)
        for one in refused:
            message = request.messages.add(data=one.message.data)
            message.attributes.update(one.message.attributes)
            message.attributes.update({"reason": one.reason, "worker": self.settings.name})
        raw = request.SerializeToString()
        self.pubsub.insist(
            "publish refused",
            lambda channel: channel.unary_unary("/google.pubsub.v1.Publisher/Publish", None, None)(
                raw, timeout=rpc.ATTEMPT_S
            ),
        )


def main(
    messages: type[subscription.Subscription] = subscription.Subscription,
    decode: type[Decode] = Decode,
    write: type[Write] = Write,
) -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    settings = Settings.from_environment()
    Process.log = log = open_log(settings.name)
    Process.progress = Progress(log)
    Process.stop = stop = stop_on_signals()
    log.info("starts: %s at %s -> %s at %s", settings.subscription, settings.pubsub, settings.table, settings.bigtable)
    leased = subscription.open_subscription(settings.pubsub, settings.subscription, stop, log, messages)
    start_compaction(settings)
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(["--streaming"]))
    source = subscription.SubscriptionSource(settings.pubsub, settings.subscription)
    (
        pipeline
        | "Messages" >> ReadFromUnboundedSource(source, poll_interval=0, max_records_per_bundle=1)
        | "Decode" >> beam.ParDo(decode(settings.horizon))
        | "Count" >> beam.ParDo(write(settings))
    )
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        if stop.is_set():
            log.warning("stopped in mid-bundle, which will be redelivered: %s", _last_line(error))
        elif isinstance(error, (Fatal, Stopped)) or "Fatal" in str(error):
            log.error("%s", _last_line(error))
            return 1
        else:
            log.exception("the pipeline failed")
            return 1
    leased.give_back()
    log.info("ends: %s", Process.progress.total())
    return 0


def start_compaction(settings: Settings) -> None:
    table = Table(settings.bigtable, settings.table, Process.stop, Process.log)
    every_s = min(COMPACT_EVERY_S, max(1.0, settings.horizon.grace_s / 2))
    compactor = Compactor(table, settings.horizon)
    threading.Thread(target=compactor.run_on, args=(Process.stop, every_s), name="compaction", daemon=True).start()


def _last_line(error: BaseException) -> str:
    """Beam wraps an error in its traceback; what happened is in the last line of it."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


if __name__ == "__main__":
    # Under its own name, or what Beam pickles would belong to `__main__` and be copied.
    from pipelines_under_test.kappa import aggregator

    sys.exit(aggregator.main())
