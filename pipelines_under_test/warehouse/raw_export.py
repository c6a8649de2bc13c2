"""Raw export: every Pub/Sub message -> BigQuery table `raw`, by a subscription of its own. At least once.

    PUBSUB SUBSCRIPTION BIGQUERY DATASET GAUNTLET_WORKER

Loop: pull, append, acknowledge. A kill in between, or a lost answer of BigQuery, writes rows again: whoever queries the
table counts distinct message ids. What was published twice has two of them; that is what the monitor is after.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from pipelines_under_test.kappa import events
from pipelines_under_test.kappa.pulling import Subscription
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals
from pipelines_under_test.warehouse.bigquery import Dataset

#: Columns of an event; of a message that shows none they are NULL.
EVENT = ("event_id", "tweet_id", "author_id", "engagement", "weight", "event_time_ms", "country")


def row_of(message: Any, now_ms: int) -> dict[str, Any]:
    """A row of `raw`, of a PubsubMessage."""
    published = message.publish_time
    row = {
        "message_id": message.message_id,
        "publish_ms": published.seconds * 1000 + published.nanos // 1_000_000,
        "exported_ms": now_ms,
    }
    try:
        event = events.from_message(message.data)
        created_ms = int(message.attributes["created_at_ms"])
    except (events.Poison, KeyError, ValueError):
        return row
    return {**row, "created_ms": created_ms, **{name: getattr(event, name) for name in EVENT}}


def main() -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    log = open_log(setting("GAUNTLET_WORKER", "raw-export"))
    stop, progress = stop_on_signals(), Progress(log)
    dataset = Dataset(setting("BIGQUERY"), setting("DATASET"), stop, log)
    log.info("starts: %s at %s -> %s", setting("SUBSCRIPTION"), setting("PUBSUB"), dataset.name)
    try:
        dataset.make_tables()
        subscription = Subscription(setting("PUBSUB"), setting("SUBSCRIPTION"), stop, log)
        while not stop.is_set():
            received = subscription.take()
            if received:
                now_ms = int(time.time() * 1000)
                dataset.append("raw", [row_of(one.message, now_ms) for one in received])
                subscription.settle([one.ack_id for one in received])
                progress.add(exported=len(received))
        subscription.give_back()
    except Stopped as stopped:
        log.warning("stopped in mid-batch, which will be redelivered: %s", stopped)
    except Fatal as fatal:
        log.error("%s", fatal)
        return 1
    log.info("ends: %s", progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
