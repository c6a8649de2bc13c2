"""Standard input -> Kafka: "partition TAB offset TAB topic TAB record"; commits the places of what was acknowledged."""

from __future__ import annotations

import os
import sys

from clients import PATIENCE, commit, consumer
from confluent_kafka import KafkaError, Message, Producer


def die_if_refused(error: KafkaError | None, _: Message) -> None:
    if error is not None:
        print(f"not written: {error}", file=sys.stderr)
        os._exit(1)  # nothing of it is committed, so it will be read again


producer = Producer({**PATIENCE, "bootstrap.servers": os.environ["KAFKA"], "acks": "all", "enable.idempotence": True})
committer = consumer(os.environ["KAFKA"], os.environ["GROUP"])
topics = {b"priced": os.environ["PRICED"], b"refused": os.environ["REFUSED"]}
rest = b""
while chunk := os.read(0, 1 << 16):
    *lines, rest = (rest + chunk).split(b"\n")
    done: dict[int, int] = {}
    for line in lines:
        partition, offset, topic, record = line.split(b"\t", 3)
        producer.produce(topics[topic], record, on_delivery=die_if_refused)
        done[int(partition)] = int(offset)
    while producer.flush(1):  # until all of it is acknowledged
        pass
    commit(committer, os.environ["ORDERS"], done)
