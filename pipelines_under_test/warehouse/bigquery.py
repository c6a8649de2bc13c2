"""The dataset that the exports write to and the monitors query, and patience with the service behind it.

An address of the form host:port is an emulator, asked in plain text without credentials; a URL is the real service,
for which the client finds its credentials by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests
from google.api_core import exceptions, retry
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipelines_under_test.kappa.worker import Fatal, Stopped

SQL = Path(__file__).parent / "sql"
#: One attempt, so that a black hole shows.
ATTEMPT_S = 5.0
QUERY_S = 30.0
#: No retries of the client's own: `insist` is the one that counts attempts.
ONCE: Any = {"retry": None, "timeout": ATTEMPT_S}
LONGEST_DELAY_S = 1.0
ROWS_PER_REQUEST = 1000

CELL = {"dimension": "STRING", "key": "STRING", "window_s": "INT64", "window_start_ms": "INT64"}
#: The tables and their columns. Times are epoch ms.
TABLES: Mapping[str, Mapping[str, str]] = {
    "raw": {
        "message_id": "STRING",
        "publish_ms": "INT64",
        "exported_ms": "INT64",
        "event_id": "STRING",
        "created_ms": "INT64",
        "event_time_ms": "INT64",
        "tweet_id": "INT64",
        "author_id": "INT64",
        "engagement": "STRING",
        "weight": "INT64",
        "country": "STRING",
    },
    "counts": {**CELL, "count": "INT64", "weight": "INT64", "version": "INT64"},
    "batch": {**CELL, "count": "INT64", "weight": "INT64"},
    "duplicates": {
        "at_ms": "INT64",
        "messages": "INT64",
        "events": "INT64",
        "before": "FLOAT64",
        "settled": "INT64",
        "counted": "INT64",
        "after": "FLOAT64",
    },
    "parity": {
        "at_ms": "INT64",
        "closed_ms": "INT64",
        "cells": "INT64",
        "exact": "INT64",
        "explained": "INT64",
        "wrong": "INT64",
    },
}

Answer = TypeVar("Answer")

#: What may pass by itself. A table that was just made may not be known everywhere yet.
TRANSIENT = (
    exceptions.ServerError,
    exceptions.TooManyRequests,
    exceptions.NotFound,
    exceptions.RetryError,
    auth_exceptions.TransportError,
    requests.RequestException,
    TimeoutError,
)


class Dataset:
    """One dataset, asked until it answers. Every call raises Fatal for what never will be, and Stopped when asked to stop
    meanwhile."""

    def __init__(self, address: str, name: str, stop: threading.Event, log: logging.Logger) -> None:
        """`name`: project.dataset"""
        self.name, self.stop, self.log = name, stop, log
        self._client = bigquery.Client(
            project=name.split(".")[0],
            credentials=None if "://" in address else AnonymousCredentials(),
            client_options={"api_endpoint": address if "://" in address else f"http://{address}"},
        )
        self._said = 0.0

    def make_tables(self) -> None:
        """Makes those that are not there yet."""
        for table, columns in TABLES.items():
            made = bigquery.Table(f"{self.name}.{table}", [bigquery.SchemaField(*column) for column in columns.items()])
            self.insist(f"make {table}", partial(self._client.create_table, made, exists_ok=True, **ONCE))

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Returns when all rows are in the table: once each, or more often where an answer was lost."""
        # No ids for the service to deduplicate by: it promises that for a minute only, so the queries do not rely on it.
        insert = partial(self._client.insert_rows_json, row_ids=bigquery.AutoRowIDs.DISABLED, **ONCE)
        for i in range(0, len(rows), ROWS_PER_REQUEST):
            part = rows[i : i + ROWS_PER_REQUEST]
            errors = self.insist(f"append to {table}", partial(insert, f"{self.name}.{table}", part))
            if errors:
                raise Fatal(f"{table} does not take a row: {errors[0]}")

    def replace(self, table: str, parquet: Path) -> None:
        """All of a table at once, by a load job: whoever queries it sees the old one or the new one."""
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET, write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE
        )

        def load() -> None:
            with parquet.open("rb") as file:
                target = f"{self.name}.{table}"
                job = self._client.load_table_from_file(file, target, job_config=config, timeout=ATTEMPT_S)
                job.result(retry=None, timeout=QUERY_S)

        self.insist(f"load {table}", load)

    def select(self, sql: str, **parameters: int) -> list[Mapping[str, Any]]:
        """All rows that a query over the tables answers, its parameters by @name."""
        given = [bigquery.ScalarQueryParameter(name, "INT64", value) for name, value in parameters.items()]
        config = bigquery.QueryJobConfig(default_dataset=self.name, query_parameters=given)

        def ask() -> list[Mapping[str, Any]]:
            job = self._client.query(sql, job_config=config, job_retry=None, **ONCE)
            return [dict(row) for row in job.result(retry=None, job_retry=None, timeout=QUERY_S)]

        return self.insist("query", ask)

    def insist(self, what: str, attempt: Callable[[], Answer]) -> Answer:
        patient = retry.Retry(
            predicate=lambda error: isinstance(error, TRANSIENT) and not self.stop.is_set(),
            initial=0.05,
            maximum=LONGEST_DELAY_S,
            multiplier=2,
            timeout=None,
            on_error=lambda error: self._note(what, error),
        )
        try:
            return patient(attempt)()
        except (exceptions.GoogleAPICallError, *TRANSIENT) as error:
            if self.stop.is_set():
                raise Stopped(f"{what}: {error}") from error
            raise Fatal(f"{what}: {error}") from error

    def _note(self, what: str, error: Exception) -> None:
        if time.monotonic() - self._said > 1:
            self._said = time.monotonic()
            self.log.warning("%s: %s; trying again", what, str(error)[:300])
