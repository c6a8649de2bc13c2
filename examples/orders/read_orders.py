"""Kafka -> standard output: "partition TAB offset TAB order", one a line."""

from __future__ import annotations

import os
import sys

from clients import consumer, read_all_partitions

reader = consumer(os.environ["KAFKA"], os.environ["GROUP"])
read_all_partitions(reader, os.environ["ORDERS"])
while True:
    for record in reader.consume(500, timeout=0.02):
        if record.error():
            print(record.error(), file=sys.stderr)
            continue
        # A line feed or tab would break the protocol. No order has one, so what is left of such a line is refused too.
        order = (record.value() or b"").replace(b"\n", b" ").replace(b"\t", b" ")
        sys.stdout.buffer.write(b"%d\t%d\t%s\n" % (record.partition(), record.offset(), order))
    sys.stdout.buffer.flush()
