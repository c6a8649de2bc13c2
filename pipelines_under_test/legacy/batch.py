"""The batch job: closed log partitions -> counts -> a new version of the batch store. The role of Scalding and Summingbird.

    RAW_LOGS HDFS BATCH_STORE LATE_AFTER_S LOG_PARTITION_S BATCH_EVERY_S GAUNTLET_WORKER
    RAW_LOGS HDFS BATCH_OUTPUT LATE_AFTER_S            once, over all logs, into a Parquet file: the batch truth of a pipeline

A window is counted once, when its end is more than `$LATE_AFTER_S` before the time up to which the logs are closed:
from then on whatever comes for it is late, and discarded. The job counts the windows that became ready since the
version before, from the closed log partitions that can hold their events, each read exactly once, and publishes them
beside all earlier ones. Nothing is added to a count that exists, so a job that is killed half way is just run again.

The counting is `kappa.batch.aggregate`, which is the batch side there as well; nothing is shared with any stream.

Where this differs: Twitter's Scalding jobs pre-processed hourly logs, Summingbird's batch side folded each hour into the
counts of the hour before. Here a window's count is made from the logs in one step, for want of petabytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import polars as pl

from pipelines_under_test.kappa.batch import SCHEMA, WINDOWS_S, aggregate, decode
from pipelines_under_test.kappa.worker import Progress, open_log, setting, stop_on_signals
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.logs import AWAY, LogFile, raw_logs
from pipelines_under_test.legacy.store import NOTHING, Store, Unreadable

#: Windows begin and end at multiples of this.
STEP_MS = min(WINDOWS_S) * 1000
#: The longest window: how far back the events of a window that has just become ready may lie.
LONGEST_MS = max(WINDOWS_S) * 1000


class Batch:
    def __init__(self) -> None:
        self.name = setting("GAUNTLET_WORKER", "batch")
        self.log = open_log(self.name)
        self.stop = stop_on_signals()
        self.progress = Progress(self.log)
        self.late_after_ms = round(float(setting("LATE_AFTER_S", "5")) * 1000)
        self.length_ms = round(float(setting("LOG_PARTITION_S", "10")) * 1000)
        self.logs = raw_logs()
        self._decoded: dict[LogFile, pl.DataFrame] = {}

    # -- again and again

    def run(self) -> None:
        store = Store.at(setting("BATCH_STORE"), self.log)
        every_s = float(setting("BATCH_EVERY_S", "1"))
        self.log.info("starts: %s -> %s", self.logs.root, ", ".join(map(str, store.replicas)))
        healed = False
        while not self.stop.is_set():
            try:
                if not healed:
                    self.heal(store)
                    healed = True
                if self.step(store):
                    continue
            except AWAY as error:
                self.log.warning("%s %.200s; trying again", type(error).__name__, error)
            self.stop.wait(every_s)

    def heal(self, store: Store) -> None:
        try:
            store.heal()
        except Unreadable as error:
            self.log.error("no replica can be read: %s", error)

    def step(self, store: Store) -> bool:
        """Publishes the windows that became ready since the last version; False if there are none."""
        closed_ms = self.logs.closed_until()
        until_ms = self.ready_until(closed_ms)
        try:
            if until_ms <= (store.ask(lambda version: version.covers_until_ms) or 0):
                return False
            base = store.newest()
        except Unreadable as error:
            self.log.error("no replica can be read, all windows are counted again: %s", error)
            base = NOTHING
        since_ms = base.covers_until_ms
        first_ms = since_ms - LONGEST_MS - self.length_ms  # a clock that is ahead creates events before their window
        files = self.logs.files(first_ms, closed_ms)
        cells = self.count(files, since_ms, until_ms)
        number = store.publish(base, cells, until_ms)
        self._decoded = {file: self._decoded[file] for file in files}
        self.progress.add(versions=1, cells=len(cells))
        self.log.info(
            "version %d: %d more cells, from %d files; covers until %d", number, len(cells), len(files), until_ms
        )
        return True

    def ready_until(self, closed_ms: int) -> int:
        return covered_until(closed_ms, self.late_after_ms)

    def count(self, files: Iterable[LogFile], since_ms: int, until_ms: int) -> dict[Cell, Count]:
        """The cells of all windows that end after the one time and not after the other."""
        end_ms = pl.col("window_start_ms") + pl.col("window_s").cast(pl.Int64) * 1000
        return as_cells(self.counted(files).filter(end_ms > since_ms, end_ms <= until_ms))

    def counted(self, files: Iterable[LogFile]) -> pl.DataFrame:
        """The counts of all that these files hold, as `kappa.batch.aggregate` has them."""
        return aggregate(pl.concat([pl.DataFrame(schema=SCHEMA), *map(self.events, files)]), self.late_after_ms / 1000)

    def events(self, file: LogFile) -> pl.DataFrame:
        """The events in a file; each file is read once in the life of the process."""
        if file not in self._decoded:
            records = self.logs.read(file)
            rows = [decode(value, created) for value, created in records.select("value", "created_ms").iter_rows()]
            events = pl.DataFrame([row for row in rows if row is not None], schema=SCHEMA, orient="row")
            self.progress.add(records=records.height, dropped=records.height - events.height)
            self._decoded[file] = events
        return self._decoded[file]

    # -- once

    def write_all(self, output: str) -> None:
        """The counts of all logs, closed or not, as Parquet. For when the source topic itself is closed."""
        files = self.logs.files()
        cells = self.counted(files)
        # Under another name first: a killed batch job leaves nothing that looks like a result.
        cells.write_parquet(f"{output}.part")
        os.replace(f"{output}.part", output)
        self.log.info("%d files, %d cells", len(files), cells.height)


def covered_until(closed_ms: int, late_after_ms: int) -> int:
    """The last moment at which a window can end and yet be ready, when the logs are closed until then. An event is still
    in time exactly `late_after_ms` after its window, so that moment itself must be closed."""
    return max(0, (closed_ms - late_after_ms - 1) // STEP_MS * STEP_MS)


def as_cells(counted: pl.DataFrame) -> dict[Cell, Count]:
    columns = ("dimension", "key", "window_s", "window_start_ms", "count", "weight")
    return {Cell(*row[:4]): Count(*row[4:]) for row in counted.select(columns).iter_rows()}


def main(kind: type[Batch] = Batch) -> int:
    """Runs until SIGTERM (0) or until something a restart may cure (1); with $BATCH_OUTPUT once."""
    job = kind()
    try:
        if output := os.environ.get("BATCH_OUTPUT"):
            job.write_all(output)
        else:
            job.run()
    except AWAY as error:
        job.log.error("%s", error)
        return 1
    job.log.info("ends: %s", job.progress.total())
    return 0


if __name__ == "__main__":
    sys.exit(main())
