"""The declaration: the Kappa pipeline and, beside it, its warehouse."""

from __future__ import annotations

import dataclasses

from harness.topology import BigQuery, BigQueryHop, Pipeline, PubSub, Warehouse, Worker
from pipelines_under_test.kappa.pipeline import command, kappa
from pipelines_under_test.warehouse.bigquery import SQL

#: Each message of the raw export once, however often it was written.
MESSAGES = """
SELECT message_id, ANY_VALUE(event_id) AS event_id, ANY_VALUE(publish_ms) AS created_ms, MIN(exported_ms) AS seen_ms
FROM raw GROUP BY message_id
"""
#: Each cell of the counts export as it is now.
COUNTS = """
SELECT dimension, key, window_s, window_start_ms, count, weight FROM counts WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY dimension, key, window_s, window_start_ms ORDER BY version DESC) = 1
"""


raw_export = Worker(
    "raw-export",
    command("warehouse.raw_export"),
    uses={"PUBSUB": "pubsub", "BIGQUERY": "bigquery"},
    env={"SUBSCRIPTION": "{raw-export}", "DATASET": "{warehouse}"},
    reads="published",
    writes=("raw",),
)

counts_export = Worker(
    "counts-export",
    command("warehouse.counts_export"),
    uses={"BIGTABLE": "bigtable", "BIGQUERY": "bigquery"},
    env={"TABLE": "{aggregates}", "DATASET": "{warehouse}"},
    reads="aggregates",
    writes=("counts",),
)

monitor = Worker(
    "monitor", command("warehouse.monitor"), uses={"BIGQUERY": "bigquery"}, env={"DATASET": "{warehouse}"}, reads="raw"
)

parity = Worker(
    "parity",
    command("warehouse.parity"),
    uses={"KAFKA": "kafka", "BIGQUERY": "bigquery"},
    env={"SOURCE_TOPIC": "{source}", "DATASET": "{warehouse}", "LATE_AFTER_S": str(kappa.late_after_s)},
    reads="counts",
)


def with_warehouse(pipeline: Pipeline, name: str, about: str) -> Pipeline:
    """A pipeline of the shape of kappa (a mutant of it, say) with the warehouse beside it."""
    services = [
        dataclasses.replace(s, subscriptions={**s.subscriptions, "raw-export": "published"})
        if isinstance(s, PubSub)
        else s
        for s in pipeline.services
    ]
    return dataclasses.replace(
        pipeline,
        name=name,
        about=about,
        services=(*services, BigQuery("bigquery", datasets=("warehouse",))),
        workers=(*pipeline.workers, raw_export, counts_export, monitor, parity),
        hops=(
            *pipeline.hops,
            BigQueryHop("raw", "bigquery", dataset="warehouse", query=MESSAGES),
            BigQueryHop("counts", "bigquery", dataset="warehouse", query=COUNTS, counts=True),
        ),
        warehouse=Warehouse(
            "warehouse",
            messages=("published", "raw"),
            counts=("aggregates", "counts"),
            duplicates=str(SQL / "duplicates.sql"),
            parity=str(SQL / "parity.sql"),
        ),
    )


kappa_warehouse = with_warehouse(
    kappa,
    "kappa-warehouse",
    "kappa with its exports to BigQuery: raw messages and counts, a duplicate monitor and a scheduled parity query",
)
