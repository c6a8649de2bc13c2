"""The declaration of the shop's pipeline. Try it: gauntlet run steady --pipeline examples.orders.pipeline:orders"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from examples.orders import schema
from harness.topology import Cells, CountedCell, Kafka, KafkaHop, Pipeline, Sqlite, SqliteHop, Worker

HERE = Path(__file__).parent

enrich = Worker(
    "enrich",
    ("sh", str(HERE / "enrich.sh"), "{python}"),
    uses={"KAFKA": "kafka"},
    env={"ORDERS": "{orders}", "PRICED": "{priced}", "REFUSED": "{refused}", "GROUP": "{enrichers}"},
    reads="orders",
    writes=("priced", "refused"),
    group="enrichers",
)

counter = Worker(
    "counter",
    ("{python}", str(HERE / "counter.py")),
    uses={"KAFKA": "kafka"},
    env={"PRICED": "{priced}", "GROUP": "{counters}", "DATABASE": "{shop}"},
    reads="priced",
    writes=("sales",),
    group="counters",
)


def cells_in_row(row: Sequence[Any]) -> Iterator[CountedCell]:
    country, channel, window_start, count, cents = row
    yield CountedCell("country", (country, channel), 30, window_start * 1000, count, cents)


orders = Pipeline(
    name="orders",
    about="an example: a web shop that counts its orders, in shell, Perl, plain Python and SQLite",
    services=(Kafka("kafka", topics={"orders": 2, "priced": 2, "refused": 1}), Sqlite("sqlite", databases=("shop",))),
    workers=(enrich, counter),
    hops=(
        KafkaHop("orders", "kafka", "source", "orders", schema.event_id, schema.content_of_line),
        KafkaHop("priced", "kafka", "path", "priced", schema.event_id, schema.content_of_priced),
        KafkaHop("refused", "kafka", "dead-letter", "refused", schema.event_id),
        SqliteHop(
            "sales",
            "sqlite",
            database="shop",
            query="SELECT country, channel, window_start, orders, cents FROM sales",
            cells=cells_in_row,
        ),
    ),
    cells=(Cells("country", key=("country", "client"), windows_s=(30,)),),
    encode="examples.orders.schema:encode",
    # A request to Kafka that was swallowed gives up after 3 s, is repeated within 1 s (clients.py), and what it brings
    # is counted within 0.5 s. There is no consumer session to run out and no redelivery deadline.
    max_quiet_s=5.0,
)

hasty_counter = dataclasses.replace(counter, command=(*counter.command, "--commit-first"))
hasty_orders = dataclasses.replace(
    orders,
    name="orders-commit-first",
    about="the same with a planted bug: what was read is committed before it is counted",
    workers=(enrich, hasty_counter),
)

#: The first worker alone, in the image of its Dockerfile: a pipeline that can live in containers, as SQLite's file cannot.
pricing = Pipeline(
    name="orders-pricing",
    about="the shop's first worker alone, in an image of its own",
    services=(Kafka("kafka", topics={"orders": 2, "priced": 2, "refused": 1}),),
    workers=(dataclasses.replace(enrich, command=("sh", "/app/enrich.sh", "python3"), image="orders-enrich:1"),),
    hops=orders.hops[:3],
    encode=orders.encode,
    max_quiet_s=orders.max_quiet_s,
)
