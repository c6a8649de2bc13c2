"""BigQuery: the emulator bqemulator, or the real one where the endpoints file says so. All of the emulator in memory.

Both are asked by the ordinary client of google-cloud-bigquery: an emulator at "host:port" in plain text, the real one
by its URL, with the credentials that the client finds by itself.

Only `Client.query` is used: `query_and_wait` answers nothing at all where the emulator should look for tables in the
default dataset.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from harness.backends.base import Child, Site
from harness.errors import HarnessFault
from harness.services.base import PolledTap, ServiceExit, SinkReading, SinkTap, TapResult, wait_until_up
from harness.topology import BigQuery, BigQueryHop, Cells, CountedCell, Link, UsageError

#: The project of the emulator's datasets; of the real service the endpoints file names one.
PROJECT = "gauntlet"
#: How long one query may take, in seconds.
QUERY_WITHIN_S = 60.0


class BigQueryServer:
    """`names`: "project.dataset" of each dataset."""

    def __init__(self, service: BigQuery, site: Site, on_exit: ServiceExit) -> None:
        self.name, self.service = service.name, service
        self._site, self._on_exit = site, on_exit
        self._log = site.folder / "logs" / f"{service.name}.log"
        self._port = site.port(self.name, "direct")
        self.direct, self.inside = site.direct(self.name, self._port), self._port.reach
        self.children: dict[str, Child] = {}
        self.project = site.projects.get(self.name, PROJECT)

    def start(self, process: str = "") -> None:
        child = self._site.start_emulator(
            self.name, "bigquery", self._port, self.log(), on_exit=lambda e: self._on_exit(self.name, e)
        )
        self.children = {self.name: child} if child is not None else {}

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        wait_until_up(self, self._site, self._answers, timeout_s)

    def _answers(self) -> bool:
        self.client().list_datasets(max_results=1, retry=None, timeout=5)
        return True

    def client(self) -> Any:
        """A google.cloud.bigquery.Client of the harness's own, past every fault; one for each thread."""
        return connect(self.direct, self.project)

    def log(self, process: str = "") -> Path:
        return self._log

    def upstreams(self, link: Link) -> list[str]:
        url = urlsplit(url_of(self._port.reach))
        return [f"{url.hostname}:{url.port or 443}"]

    def names(self, run: str) -> dict[str, str]:
        return {dataset: f"{self.project}.{dataset}_{run}" for dataset in self.service.datasets}

    def make(self, names: Mapping[str, str]) -> None:
        with contextlib.closing(self.client()) as client:
            for dataset in self.service.datasets:
                client.create_dataset(names[dataset], timeout=20)

    def remove(self, names: Mapping[str, str]) -> None:
        with contextlib.closing(self.client()) as client:
            for dataset in self.service.datasets:
                client.delete_dataset(names[dataset], delete_contents=True, not_found_ok=True, timeout=20)

    def sweep(self, run: str) -> None:
        with contextlib.closing(self.client()) as client:
            for dataset in list(client.list_datasets(timeout=20)):
                if dataset.dataset_id.endswith(f"_{run}"):
                    client.delete_dataset(dataset.reference, delete_contents=True, not_found_ok=True, timeout=20)


def url_of(address: str) -> str:
    return address if "://" in address else f"http://{address}"


def connect(address: str, project: str) -> Any:
    """A client of what answers there: the real BigQuery at a URL, an emulator at "host:port"."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    return bigquery.Client(
        project=project,
        credentials=None if "://" in address else AnonymousCredentials(),
        client_options={"api_endpoint": url_of(address)},
    )


def select(client: Any, dataset: str, sql: str, parameters: Mapping[str, int | str] | None = None) -> list[Any]:
    """All rows that a query over the tables of a dataset answers; `parameters` as @name."""
    from google.cloud import bigquery

    kinds = {int: "INT64", str: "STRING"}
    given = [bigquery.ScalarQueryParameter(n, kinds[type(v)], v) for n, v in (parameters or {}).items()]
    config = bigquery.QueryJobConfig(default_dataset=dataset, query_parameters=given)
    return list(client.query(sql, job_config=config, timeout=QUERY_WITHIN_S).result(timeout=QUERY_WITHIN_S))


def probe(address: str, timeout_s: float = 5.0) -> float:
    """Seconds that an HTTP server takes to answer, whatever it answers."""
    import requests

    start = time.monotonic()
    try:
        requests.get(f"{url_of(address)}/discovery/v1/apis/bigquery/v2/rest", timeout=timeout_s).close()
    except requests.RequestException as error:
        raise HarnessFault(f"{address} did not answer: {error}") from error
    return time.monotonic() - start


# ---------------------------------------------------------------------------------------------------------- taps


def bigquery_tap(
    hop: BigQueryHop,
    server: BigQueryServer,
    dataset: str,
    cells: Sequence[Cells],
    run: str,
    now: Callable[[], float],
) -> MessagesTap | SinkTap:
    """Reads by the hop's query; a table that is not there yet holds nothing."""
    client = server.client()
    if not hop.counts:
        return MessagesTap(hop, client, dataset, run)
    dimension, window_s = cells[0].dimension, cells[0].windows_s[0]

    def read() -> SinkReading:
        sql = f"SELECT dimension, key, window_s, window_start_ms, count, weight FROM ({hop.query})"
        rows = [row.values() for row in _there(lambda: select(client, dataset, sql))]
        return SinkReading([CountedCell(d, tuple(key.split("|")), *rest) for d, key, *rest in rows], None)

    def glance() -> SinkReading:
        sql = f"SELECT SUM(count) FROM ({hop.query}) WHERE dimension = @dimension AND window_s = @window_s"
        rows = _there(lambda: select(client, dataset, sql, {"dimension": dimension, "window_s": window_s}))
        counted = (rows[0][0] if rows else 0) or 0
        return SinkReading([CountedCell(dimension, (), window_s, 0, counted, 0)] if counted else [], None)

    return SinkTap(hop.name, read, cells, now, glance)


class MessagesTap(PolledTap):
    """Reads a table of single messages: how many there are while the run goes on, and all of them at its end."""

    def __init__(self, hop: BigQueryHop, client: Any, dataset: str, run: str) -> None:
        super().__init__(hop.name)
        self._client, self._dataset, self._run, self._query = client, dataset, run, hop.query
        self._warm, self._messages, self._events = 0, 0, 0

    def pass_over(self) -> None:
        """Raises UsageError: which rows are whose is told by their ids only."""
        raise UsageError(f"{self.hop}: an export to BigQuery cannot be read from the middle, so it cannot be soaked.")

    def count(self) -> int:
        return self._messages

    def distinct(self) -> int:
        return self._events

    def warm(self) -> bool:
        return self._warm > 0

    def _look(self) -> int:
        self._warm, self._messages, self._events = self._numbers()
        self._error = None
        return self._warm + self._messages

    def _numbers(self) -> tuple[int, int, int]:
        """(messages of the warm-up, messages of load, distinct events of load)"""
        load = f"NOT STARTS_WITH(event_id, '{self._run}-0000-')"
        sql = (
            f"SELECT COUNTIF(NOT {load}), COUNTIF({load}), COUNT(DISTINCT IF({load}, event_id, NULL)) FROM ({self._query}) "
            f"WHERE STARTS_WITH(event_id, '{self._run}-')"
        )
        rows = _there(lambda: select(self._client, self._dataset, sql))
        return rows[0].values() if rows else (0, 0, 0)

    def finish(self) -> TapResult:
        """Reads all of them, after the workers were stopped, and counts once more. Two that differ are no census."""
        self.abandon()
        self._thread.join(90)
        frame, reason = self._frame([]), ""
        try:
            frame = self._frame(_there(lambda: select(self._client, self._dataset, self._query)))
            counted = _there(lambda: select(self._client, self._dataset, f"SELECT COUNT(*) FROM ({self._query})"))
            if frame.height != (counted[0][0] if counted else 0):
                reason = "what was read is not what was counted after it, though every worker was stopped"
        except Exception as error:
            reason = f"the table could not be read: {error!r}"
        return TapResult(frame, not reason, reason or "what was read is what was counted after it", rows=len(frame))

    def _frame(self, rows: Sequence[Any]) -> pl.DataFrame:
        from load.events import parse_event_ids

        ids = [row["event_id"] for row in rows]
        producer, sequence = parse_event_ids(ids, self._run)
        strange = [(i or "").encode() if p < 0 else None for i, p in zip(ids, producer.tolist(), strict=True)]
        return pl.DataFrame(
            {
                "message_id": pl.Series([row["message_id"] for row in rows], dtype=pl.String),
                "created_ms": pl.Series([row["created_ms"] for row in rows], dtype=pl.Int64),
                "seen_ms": pl.Series([row["seen_ms"] for row in rows], dtype=pl.Float64),
                "producer": producer,
                "sequence": sequence,
                "raw": pl.Series(strange, dtype=pl.Binary),
            }
        )


def _there(ask: Callable[[], list[Any]]) -> list[Any]:
    from google.api_core.exceptions import NotFound

    try:
        return ask()
    except NotFound:
        return []
