"""Duplicate monitor: asks BigQuery every second how many are doubled before and after deduplication, and keeps the series.

    BIGQUERY DATASET GAUNTLET_WORKER

Everything it knows is what `sql/duplicates.sql` answers; it appends that to the table `duplicates` with its time.
"""

from __future__ import annotations

import sys
import time

from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped, open_log, setting, stop_on_signals
from pipelines_under_test.warehouse.bigquery import SQL, Dataset

EVERY_S = 1.0
#: So far out of order the raw export may be: a lost lease keeps a message back for as long as Pub/Sub's deadline.
BEHIND_MS = 10_000


def main() -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1)."""
    log = open_log(setting("GAUNTLET_WORKER", "monitor"))
    stop, progress = stop_on_signals(), Progress(log)
    dataset = Dataset(setting("BIGQUERY"), setting("DATASET"), stop, log)
    sql = (SQL / "duplicates.sql").read_text()
    try:
        dataset.make_tables()
        while not stop.is_set():
            begin = time.time()
            [found] = dataset.select(sql, behind_ms=BEHIND_MS)
            dataset.append("duplicates", [{"at_ms": int(begin * 1000), **found}])
            progress.add(asked=1)
            stop.wait(max(0.0, EVERY_S - (time.time() - begin)))
    except Stopped as stopped:
        log.warning("stopped while it asked: %s", stopped)
    except Fatal as fatal:
        log.error("%s", fatal)
        return 1
    log.info("ends: %s", progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
