"""Aggregator on Beam's own Pub/Sub source and DirectRunner: acknowledges before it processes.

The same environment as `pipelines_under_test.kappa.aggregator`, the same decoding and the same rows. A streaming
pipeline that reads Pub/Sub always ends on the bundle-based DirectRunner: 650 to 1450 messages a second, a watermark
that follows the wall clock (harmless here: windows are in the rows' keys), and the acknowledgement first.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines_under_test.kappa.aggregator import Decode, Process, Settings, Write
from pipelines_under_test.kappa.subscription import PubsubRecord
from pipelines_under_test.kappa.worker import Progress, open_log, stop_on_signals


def as_batch(message: Any) -> list[PubsubRecord]:
    """A batch of one, in the form that the reference pipeline's DoFns take."""
    return [PubsubRecord(message.data, dict(message.attributes), message.message_id or "")]


def main() -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    settings = Settings.from_environment()
    os.environ["PUBSUB_EMULATOR_HOST"] = settings.pubsub
    Process.log = log = open_log(settings.name)
    Process.progress = Progress(log)
    Process.stop = stop = stop_on_signals()
    log.info("starts: %s at %s -> %s at %s", settings.subscription, settings.pubsub, settings.table, settings.bigtable)
    options = PipelineOptions()
    options.view_as(StandardOptions).streaming = True
    pipeline = beam.Pipeline(runner="DirectRunner", options=options)
    (
        pipeline
        | "Messages" >> beam.io.ReadFromPubSub(subscription=settings.subscription, with_attributes=True)
        | "Batch" >> beam.Map(as_batch)
        | "Decode" >> beam.ParDo(Decode(settings.horizon))
        | "Count" >> beam.ParDo(Write(settings))
    )
    result = pipeline.run()
    # The runner's threads cannot be asked to finish: the process ends as soon as it is told to, or they fail.
    threading.Thread(target=_leave_on, args=(stop, log), daemon=True).start()
    try:
        result.wait_until_finish()
    except Exception:
        log.exception("the pipeline failed")
        return 1
    return 0


def _leave_on(stop: threading.Event, log: logging.Logger) -> None:
    stop.wait()
    log.info("ends: %s", Process.progress.total())
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    from pipelines_under_test.stock_beam import aggregator

    sys.exit(aggregator.main())
