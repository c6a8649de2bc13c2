"""Scheduled parity: loads the batch output and compares the pipeline's counts with it in BigQuery, cell by cell.

    KAFKA SOURCE_TOPIC BIGQUERY DATASET LATE_AFTER_S PARITY_EVERY_S GAUNTLET_WORKER

On schedule the batch job reads the source log as far as it is, a load job replaces the table `batch` by what it found,
and `sql/parity.sql` compares the windows that are closed for both sides: those whose late events are no longer waited
for. What it found is a row of the table `parity`.

Twitter's batch output came from the old pipeline; here it is that of the batch truth (`kappa/batch.py`).
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import KafkaException

from pipelines_under_test.kappa import batch
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals
from pipelines_under_test.warehouse.bigquery import SQL, Dataset

#: The pipeline and its export may be so far behind: a window is compared this long after the batch job closed it.
BEHIND_S = 15.0


def load_batch(dataset: Dataset, bootstrap: str, topic: str, late_after_s: float, log: logging.Logger) -> bool:
    """Replaces the table `batch` by the batch output of the log so far; False if the log cannot be read now."""
    try:
        events, _ = batch.read_log(bootstrap, topic)
    except (KafkaException, TimeoutError) as error:
        log.warning("the source log cannot be read: %s; next time", error)
        return False
    with tempfile.TemporaryDirectory(prefix="batch-") as folder:
        file = Path(folder) / "batch.parquet"
        batch.aggregate(events, late_after_s).write_parquet(file)
        dataset.replace("batch", file)
    return True


def compare(dataset: Dataset, sql: str, late_after_s: float, closed_ms: int) -> dict[str, int]:
    """How many cells of the windows that ended by then are of each kind."""
    late_after_ms = round(late_after_s * 1000)
    kinds = Counter(row["kind"] for row in dataset.select(sql, late_after_ms=late_after_ms, closed_ms=closed_ms))
    return {"cells": kinds.total(), **{kind: kinds[kind] for kind in ("exact", "explained", "wrong")}}


def main() -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    log = open_log(setting("GAUNTLET_WORKER", "parity"))
    stop, progress = stop_on_signals(), Progress(log)
    dataset = Dataset(setting("BIGQUERY"), setting("DATASET"), stop, log)
    sql = (SQL / "parity.sql").read_text()
    late_after_s, every_s = float(setting("LATE_AFTER_S", "5")), float(setting("PARITY_EVERY_S", "10"))
    try:
        dataset.make_tables()
        while not stop.wait(every_s):
            begin = time.time()
            if load_batch(dataset, setting("KAFKA"), setting("SOURCE_TOPIC"), late_after_s, log):
                closed_ms = int((begin - late_after_s - BEHIND_S) * 1000)
                found = compare(dataset, sql, late_after_s, closed_ms)
                dataset.append("parity", [{"at_ms": int(begin * 1000), "closed_ms": closed_ms, **found}])
                log.info("%s", ", ".join(f"{count} {kind}" for kind, count in found.items()))
                progress.add(compared=1)
    except Stopped as stopped:
        log.warning("stopped while it compared: %s", stopped)
    except Fatal as fatal:
        log.error("%s", fatal)
        return 1
    log.info("ends: %s", progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
