"""A web shop that counts its orders: Kafka -> a shell pipeline around Perl -> Kafka -> plain Python -> SQLite.

    orders (topic, ";"-separated text)  ->  enrich.sh  ->  priced (topic, nested JSON)  ->  counter.py  ->  sales.sqlite
                                                \\->  refused (topic): lines that are no order

schema.py     the two forms of an order: how load writes one, and how a record shows its id and content
enrich.sh     worker 1: read_orders.py | enrich.pl | write_orders.py
counter.py    worker 2: orders and revenue per country and channel, in windows of 30 s
clients.py    what the three scripts that speak Kafka have in common
pipeline.py   the declaration: the only file here, with schema.py, that knows the harness

Walked through in docs/bring-your-own-pipeline.md; tested in tests/chaos/test_examples.py.
"""
