"""The log collector: each record lands once, wherever a kill comes; and what closes a log partition."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kappa_workers import Inline

from pipelines_under_test.kappa.worker import Progress
from pipelines_under_test.legacy import logs as log_files
from pipelines_under_test.legacy.landing import Landed, Landing
from pipelines_under_test.legacy.logs import LogFile, RawLogs, raw_logs

LOG = logging.getLogger("test")
LENGTH_MS = 10_000


class Record:
    def __init__(self, partition: int, offset: int, created_ms: int) -> None:
        self._place, self._created_ms = (partition, offset), created_ms

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def timestamp(self) -> tuple[int, int]:
        return 1, self._created_ms

    def value(self) -> bytes:
        return b"%d/%d" % self._place


def landed(closed_ms: int = 0, files: Sequence[LogFile] = (), partitions: int = 1) -> Landed:
    return Landed(files, closed_ms, range(partitions), LENGTH_MS)


# ------------------------------------------------------------------------------------------------- where things go


def test_a_file_is_named_after_all_that_is_to_be_known_about_it() -> None:
    records = [Record(3, 7, 12_000), Record(3, 9, 11_000), Record(3, 8, 25_000)]
    assert list(landed().to_land(records)) == [LogFile(10_000, 3, 7, 9, 12_000), LogFile(20_000, 3, 8, 8, 25_000)]
    assert LogFile.of("/somewhere/" + LogFile(10_000, 3, 7, 9, 12_000).path) == LogFile(10_000, 3, 7, 9, 12_000)


def test_what_has_landed_does_not_land_again() -> None:
    known = landed(files=[LogFile(10_000, 0, 5, 8, 11_000)])
    assert known.to_land([Record(0, 7, 11_000), Record(0, 8, 11_000)]) == {}
    assert [f.first for f in known.to_land([Record(0, 8, 11_000), Record(0, 9, 11_000)])] == [9]


def test_what_is_too_late_for_its_log_partition_goes_to_the_oldest_open_one_as_it_is() -> None:
    (file, frame), *others = landed(closed_ms=30_000).to_land([Record(0, 5, 11_000)]).items()
    assert not others
    assert (file.log_partition_ms, frame["created_ms"].to_list()) == (30_000, [11_000])


def test_a_log_partition_closes_when_every_kafka_partition_was_read_past_its_end_and_the_slack() -> None:
    known = landed(partitions=2)
    known.add(LogFile(20_000, 0, 0, 9, 25_000))
    assert known.closable_ms(2000) == 0  # nothing is known of the other one
    known.add(LogFile(20_000, 1, 0, 9, 21_999))
    assert known.closable_ms(2000) == 10_000
    known.add(LogFile(20_000, 1, 10, 10, 22_000))
    assert known.closable_ms(2000) == 20_000


def test_what_is_closed_stays_closed() -> None:
    assert landed(closed_ms=50_000, files=[LogFile(50_000, 0, 0, 0, 51_000)]).closable_ms(2000) == 50_000


# ------------------------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("url", ["{tmp}/raw", "file://{tmp}/raw", "memory://raw/{tmp}"])
def test_the_logs_are_read_back_as_they_were(url: str, tmp_path: Path) -> None:
    logs = RawLogs(url.format(tmp=tmp_path))
    assert (logs.files(), logs.closed_until()) == ([], 0)
    logs.clear_unfinished()
    ((file, frame),) = landed().to_land([Record(0, 1, 12_000), Record(0, 2, 12_001)]).items()
    logs.publish(file, frame)
    logs.publish(file, frame)
    assert logs.files() == [file]
    assert logs.read(file).equals(frame)
    logs.close_until(20_000)
    logs.close_until(30_000)
    assert logs.closed_until() == 30_000
    assert logs.files(since_ms=20_000) == logs.files(until_ms=10_000) == []
    assert [name for name in logs._list("") if name.startswith("_CLOSED")] == ["_CLOSED-30000"]


def test_in_hdfs_a_worker_goes_to_its_own_data_node_wherever_the_name_node_sends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAW_LOGS", "/raw_logs-1a2b3c4d")
    monkeypatch.setenv("HDFS", "127.0.0.1:5001,127.0.0.1:5002")
    logs = raw_logs()
    assert (logs.root, logs.fs.user) == ("/raw_logs-1a2b3c4d", "gauntlet")
    sent_to = "http://127.0.0.1:9864/webhdfs/v1/raw_logs/a?op=CREATE&namenoderpcaddress=127.0.0.1:9000"
    assert logs.fs._apply_proxy(sent_to) == sent_to.replace(":9864/", ":5002/")
    asked = f"{logs.fs.url}/raw_logs"
    assert logs.fs._apply_proxy(asked) == asked == "http://127.0.0.1:5001/webhdfs/v1/raw_logs"
    monkeypatch.setenv("HDFS", "127.0.0.1:5001")
    assert raw_logs().fs._apply_proxy(sent_to) == sent_to


def test_without_hdfs_the_raw_logs_are_where_they_are_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAW_LOGS", str(tmp_path))
    assert raw_logs().root == str(tmp_path)


def test_a_file_that_is_none_is_said_to_be_unreadable(tmp_path: Path) -> None:
    file = LogFile(0, 0, 0, 0, 0)
    (tmp_path / "0").mkdir()
    (tmp_path / file.path).write_bytes(b"<html>404</html>")
    assert RawLogs(str(tmp_path)).files() == [file]
    with pytest.raises(OSError, match="cannot be read"):
        RawLogs(str(tmp_path)).read(file)


def test_a_rename_that_did_not_happen_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = RawLogs(str(tmp_path))
    monkeypatch.setattr(logs.fs, "mv", lambda *_: None)
    with pytest.raises(OSError, match="could not be renamed"):
        logs.publish(LogFile(0, 0, 0, 0, 0), pl.DataFrame(schema=log_files.SCHEMA))
    monkeypatch.undo()
    logs.clear_unfinished()
    assert list(tmp_path.iterdir()) == [tmp_path / "0"]


# ------------------------------------------------------------------------------------------------- kills, anywhere


class Killed(BaseException):
    """The process is gone."""


class Fuse:
    """Burns down a step at each thing that a kill can come before."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def burn(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise Killed


class FragileLogs(RawLogs):
    fuse = Fuse(10**9)

    def publish(self, file: LogFile, records: pl.DataFrame) -> None:
        self.fuse.burn()
        super().publish(file, records)

    def close_until(self, time_ms: int) -> None:
        self.fuse.burn()
        super().close_until(time_ms)


class Topic:
    """Stands for the topic and its group: what is committed outlives a kill."""

    def __init__(self, records: dict[int, list[Record]], order: Sequence[int]) -> None:
        self.records, self.order = records, order
        self.committed = dict.fromkeys(records, 0)
        self.fuse = Fuse(10**9)

    def batches(self, size: int) -> list[list[Record]]:
        """What is not committed, in batches that take from the Kafka partitions in turns."""
        left = {number: records[self.committed[number] :] for number, records in self.records.items()}
        turns = [n for n in self.order for _ in range(size)] + sorted(left)
        mixed = [left[n].pop(0) for n in turns * 50 if left[n]]
        return [mixed[i : i + size] for i in range(0, len(mixed), size)]

    def commit(self, records: Sequence[Record]) -> bool:
        self.fuse.burn()
        for record in records:
            self.committed[record.partition()] = record.offset() + 1
        return True


def one_life(folder: str, topic: Topic, fuse: Fuse, batch: int) -> None:
    """A process from its start until it is killed or has read all."""
    worker: Any = object.__new__(Landing)
    logs = FragileLogs(folder)
    logs.fuse = topic.fuse = fuse
    worker.__dict__.update(
        log=LOG, stop=threading.Event(), progress=Progress(LOG), logs=logs, source=topic, pool=Inline(),
        length_ms=LENGTH_MS, slack_ms=2000, committed=dict(topic.committed),
    )  # fmt: skip
    closed_ms = logs.closed_until()
    worker.landed = Landed(logs.files(since_ms=closed_ms), closed_ms, worker.committed, LENGTH_MS)
    worker.close()
    for records in topic.batches(batch):
        worker.step(records)


times = st.lists(st.integers(0, 60_000), min_size=1, max_size=12)


@settings(max_examples=40)
@given(
    records=st.lists(times, min_size=1, max_size=3),
    order=st.lists(st.integers(0, 2), max_size=4),
    lives=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 7)), max_size=4),
)
def test_every_record_lands_exactly_once_wherever_kills_come(
    records: list[list[int]], order: list[int], lives: list[tuple[int, int]]
) -> None:
    """Records in any order of time, lives of any length with batches of other sizes."""
    topic = Topic(
        {number: [Record(number, i, ms) for i, ms in enumerate(some)] for number, some in enumerate(records)},
        [number for number in order if number < len(records)],
    )
    with tempfile.TemporaryDirectory() as folder:
        for steps, batch in lives:
            try:
                one_life(folder, topic, Fuse(steps), batch)
            except Killed:
                pass
        one_life(folder, topic, Fuse(10**9), 5)
        logs = RawLogs(folder)
        found = [
            (file.kafka_partition, offset, created_ms)
            for file in logs.files()
            for offset, created_ms, value in logs.read(file).iter_rows()
            if value == b"%d/%d" % (file.kafka_partition, offset)
        ]
        assert sorted(found) == [(n, i, ms) for n, some in enumerate(records) for i, ms in enumerate(some)]
        # What is closed follows from the topic alone, however often the collector was killed.
        oldest = min(max(some) for some in records)
        assert logs.closed_until() == max(0, (oldest - 2000) // LENGTH_MS * LENGTH_MS)
