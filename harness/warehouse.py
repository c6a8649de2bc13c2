"""The warehouse at a run's end: the batch truth is loaded, and its two files of SQL are asked once more, directly.

What they answer then is final: nothing moves any more, every worker was stopped. `assertions/warehouse_*.py` hold it
against what the taps saw and the generator says.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import HarnessFault
from harness.run_folder import RunFolder
from harness.services.bigquery import QUERY_WITHIN_S, BigQueryServer, select
from harness.store import DUPLICATES, PARITY
from harness.topology import Warehouse

_SUMS = "SELECT SUM(count), SUM(weight) FROM `{}`"
#: Later than the end of any window, in epoch ms.
EVER_MS = 2**62


def collect(
    house: Warehouse,
    server: BigQueryServer,
    dataset: str,
    late_after_s: float,
    folder: RunFolder,
    trouble: Callable[[str], object],
) -> None:
    """Writes `warehouse/duplicates.parquet` and `warehouse/parity.parquet`.

    What cannot be had is told to `trouble` and left out: the assertions that need it then cannot say.
    """
    folder.warehouse_folder.mkdir(exist_ok=True)
    late_after_ms = round(late_after_s * 1000)

    def duplicates(client: Any) -> pl.DataFrame:
        final = select(client, dataset, Path(house.duplicates).read_text(), {"behind_ms": -EVER_MS})
        if len(final) != 1:
            raise HarnessFault(f"{house.duplicates} answers {len(final)} rows, not one")
        names = [name for name in DUPLICATES if name != "final"]
        kept = select(client, dataset, f"SELECT DISTINCT {', '.join(names)} FROM `{house.series}` ORDER BY at_ms")
        rows = [{**row, "final": False} for row in kept]
        rows.append({"at_ms": int(time.time() * 1000), **final[0], "final": True})
        return _frame(rows, DUPLICATES, house.duplicates)

    def parity(client: Any) -> pl.DataFrame:
        load(client, f"{dataset}.{house.batch}", folder.batch)
        given = {"late_after_ms": late_after_ms, "closed_ms": EVER_MS}
        rows = select(client, dataset, Path(house.parity).read_text(), given)
        # A load that a worker of the pipeline had under way when it was ended could have come after ours.
        [[count, weight]] = [row.values() for row in select(client, dataset, _SUMS.format(house.batch))]
        if (count or 0, weight or 0) != (truth := _sums(folder.batch)):
            raise HarnessFault(f"{house.batch} holds {count} events of weight {weight}, and the batch truth {truth}")
        return _frame(rows, PARITY, house.parity)

    with contextlib.closing(server.client()) as client:
        for name, ask in (("duplicates", duplicates), ("parity", parity)):
            try:
                ask(client).write_parquet(folder.warehouse(name))
            except Exception as error:
                trouble(f"the warehouse's {name} could not be had: {error}")


def load(client: Any, table: str, parquet: Path) -> None:
    """Replaces all of a table by a file, in one load job. Raises HarnessFault if not all of its rows came in."""
    from google.cloud import bigquery

    if not parquet.is_file():
        raise HarnessFault("there is no batch truth")
    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET, write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE
    )
    with parquet.open("rb") as file:  # without its size: then the load is resumable, as the emulator wants it
        job = client.load_table_from_file(file, table, job_config=config)
    job.result(timeout=QUERY_WITHIN_S)
    rows = pl.scan_parquet(parquet).select(pl.len()).collect().item()
    if job.output_rows != rows:
        raise HarnessFault(f"{job.output_rows} of {rows} rows came into {table}")


def _sums(parquet: Path) -> tuple[int, int]:
    """(events, their weight) of the batch truth."""
    count, weight = pl.read_parquet(parquet).select(pl.col("count").sum(), pl.col("weight").sum()).row(0)
    return int(count), int(weight)


def _frame(rows: list[Any], schema: dict[str, Any], asked: str) -> pl.DataFrame:
    """Raises HarnessFault where what was selected is not what is to be selected."""
    if rows and (missing := [name for name in schema if name not in dict(rows[0])]):
        raise HarnessFault(f"{asked} selects no column {', '.join(missing)}")
    frame = pl.DataFrame([{name: dict(row)[name] for name in schema} for row in rows], schema=schema, orient="row")
    # A rate of nothing is none.
    if holes := [name for name in schema if name not in ("before", "after") and frame[name].null_count()]:
        raise HarnessFault(f"{asked} has no value for {', '.join(holes)}")
    return frame
