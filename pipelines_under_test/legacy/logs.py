"""The raw logs: where the log collector lands what was produced, and the batch job reads it. HDFS's role at Twitter.

    <root>/<log partition>/<Kafka partition>-<first offset>-<last offset>-<newest CreateTime>.parquet
    <root>/_CLOSED-<time>      every log partition before that time is closed: nothing will be added to it
    <root>/.tmp/               what is being written

A log partition is named after its first moment, in ms since the epoch, and holds the records that were created in the
`$LOG_PARTITION_S` seconds from then, as they were: columns offset, created_ms, value. A file's name says all that is
to be known about it, so a listing is enough to go on after a kill, and the same records always get the same name.

The root is a URL of fsspec: a plain folder, `s3://…` and `gs://…` (with s3fs or gcsfs installed), or
`webhdfs://user@host:port/…` (see also `raw_logs`); options of the file system come from fsspec's own variables (FSSPEC_WEBHDFS_USER …). A
file appears whole or not at all: by rename where the file system has one, by the put itself in an object store.

Where this differs: Twitter's logs were compressed Thrift in hourly partitions, written by Scribe and later Flume, and
moved between clusters before a partition was called complete. Here they are Parquet in partitions of seconds.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import fsspec
import polars as pl
import requests
from requests.adapters import HTTPAdapter

from pipelines_under_test.kappa.worker import setting

#: Who the workers say they are where they are not asked to prove it.
USER = "gauntlet"
SCHEMA = {"offset": pl.Int64, "created_ms": pl.Int64, "value": pl.Binary}
#: Seconds to connect to a file system over HTTP, and seconds without a byte. (fsspec itself would wait for ever.)
TIMEOUT_S = (3.0, 10.0)
#: File systems with a rename that is atomic. In the others a file appears when its upload is complete.
WITH_RENAME = frozenset({"file", "local", "webhdfs", "hdfs"})
#: What a file system raises when it is away, slow, or not ready yet. (HDFS in safe mode: a RuntimeError.)
AWAY = (OSError, RuntimeError)


@dataclass(frozen=True, order=True)
class LogFile:
    """Records of one Kafka partition in one log partition. Offsets are inclusive; there may be gaps between them."""

    log_partition_ms: int
    kafka_partition: int
    first: int
    last: int
    newest_ms: int

    @property
    def path(self) -> str:
        name = f"{self.kafka_partition}-{self.first}-{self.last}-{self.newest_ms}.parquet"
        return f"{self.log_partition_ms}/{name}"

    @classmethod
    def of(cls, path: str) -> LogFile | None:
        """The file at this path, of which the last two parts count; None if it is none of ours."""
        found = re.search(r"(\d+)/(\d+)-(\d+)-(\d+)-(\d+)\.parquet$", path)
        return cls(*map(int, found.groups())) if found else None


def raw_logs() -> RawLogs:
    """At $RAW_LOGS; where $HDFS says "<namenode>,<datanode>" (`host:port` of WebHDFS each), at that path in it.

    A NameNode sends its clients on to a DataNode, by the address under which it knows that. Where both are behind proxies,
    the second address is gone to instead.
    """
    root, hdfs = setting("RAW_LOGS"), os.environ.get("HDFS", "")
    if not hdfs:
        return RawLogs(root)
    namenode, _, datanode = hdfs.partition(",")

    def own_way(url: str) -> str:
        parts = urlsplit(url)
        return url if not datanode or parts.netloc == namenode else parts._replace(netloc=datanode).geturl()

    return RawLogs(f"webhdfs://{USER}@{namenode}{root}", data_proxy=own_way)


class RawLogs:
    """One root. Every method raises what `AWAY` lists when the file system cannot be reached. `options`: of the file
    system."""

    def __init__(self, url: str, **options: Any) -> None:
        self.fs: Any
        self.fs, root = fsspec.core.url_to_fs(url, **options)
        self.root = root.rstrip("/")
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        self._renames = bool(protocols & WITH_RENAME)
        if isinstance(session := getattr(self.fs, "session", None), requests.Session):
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Impatient())

    # -- reading

    def closed_until(self) -> int:
        """Every log partition before this time is closed; ms since the epoch, 0 before the first is."""
        return max((int(name[8:]) for name in self._list("") if re.fullmatch(r"_CLOSED-\d+", name)), default=0)

    def files(self, since_ms: int = 0, until_ms: int | None = None) -> list[LogFile]:
        """All that has landed in the log partitions from `since_ms` up to, but without, `until_ms`; oldest first."""
        partitions = [int(name) for name in self._list("") if name.isdigit()]
        wanted = [p for p in partitions if p >= since_ms and (until_ms is None or p < until_ms)]
        paths = (f"{p}/{name}" for p in wanted for name in self._list(str(p)))
        return sorted(file for path in paths if (file := LogFile.of(path)) is not None)

    def read(self, file: LogFile) -> pl.DataFrame:
        """The file's records: columns as in SCHEMA, in the order of their offsets."""
        raw = self.fs.cat_file(self._at(file.path))
        try:
            return pl.read_parquet(io.BytesIO(raw))
        except pl.exceptions.PolarsError as error:  # WebHDFS hands out its error pages as if they were contents
            raise OSError(f"{file.path} cannot be read: {error}") from error

    # -- writing

    def publish(self, file: LogFile, records: pl.DataFrame) -> None:
        """Returns when the file is there, whole and under its name. Doing it again changes nothing."""
        target = self._at(file.path)
        if self.fs.exists(target):
            return
        buffer = io.BytesIO()
        records.write_parquet(buffer)
        if not self._renames:
            self.fs.pipe_file(target, buffer.getvalue())
            return
        # A name of its own for each attempt: HDFS lends a file that was not finished to its writer for a while.
        part = self._at(f".tmp/{uuid.uuid4().hex}")
        self.fs.makedirs(self._at(".tmp"), exist_ok=True)
        self.fs.pipe_file(part, buffer.getvalue())
        self.fs.makedirs(self._at(str(file.log_partition_ms)), exist_ok=True)
        self.fs.mv(part, target)
        if not self.fs.exists(target):  # HDFS answers a rename that failed with a false that fsspec does not look at
            raise OSError(f"{part} could not be renamed to {target}")

    def close_until(self, time_ms: int) -> None:
        """Closes every log partition before this time, for good."""
        self.fs.makedirs(self.root, exist_ok=True)
        self.fs.touch(self._at(f"_CLOSED-{time_ms}"))
        for name in self._list(""):
            if re.fullmatch(r"_CLOSED-\d+", name) and int(name[8:]) < time_ms:
                self.fs.rm_file(self._at(name))

    def clear_unfinished(self) -> None:
        """Removes what a killed writer left half written. For the one writer, before it writes."""
        if self.fs.exists(self._at(".tmp")):
            self.fs.rm(self._at(".tmp"), recursive=True)

    # -- paths

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _list(self, path: str) -> list[str]:
        """Names in a folder; none if there is no such folder."""
        self.fs.invalidate_cache()
        try:
            found: Iterable[str] = self.fs.ls(self._at(path), detail=False)
        except FileNotFoundError:
            return []
        return [name.rstrip("/").rsplit("/", 1)[-1] for name in found]


class _Impatient(HTTPAdapter):
    """Gives every request a time-out that has none."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or TIMEOUT_S
        return super().send(request, *args, **kwargs)
