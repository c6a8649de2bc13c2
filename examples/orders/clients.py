"""What the scripts that speak Kafka have in common: patience, and a commit that does not give up."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

#: A request gives up after 3 s and is tried again within 1 s; pipeline.py declares how long that is, at the longest.
PATIENCE = {
    "socket.timeout.ms": 3000,
    "socket.connection.setup.timeout.ms": 3000,
    "reconnect.backoff.max.ms": 1000,
    "retry.backoff.max.ms": 1000,
    "metadata.recovery.strategy": "none",
}


def consumer(bootstrap: str, group: str) -> Consumer:
    return Consumer(
        {
            **PATIENCE,
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
        }
    )


def read_all_partitions(reader: Consumer, topic: str) -> None:
    """Reads on from the committed offsets. By assignment: there is one reader, so nobody has to wait for a session."""
    while True:
        try:
            partitions = reader.list_topics(topic, timeout=3).topics[topic].partitions
            break
        except KafkaException as error:
            print(f"Kafka does not answer yet: {error}", file=sys.stderr)
    reader.assign([TopicPartition(topic, partition) for partition in partitions])


def commit(committer: Consumer, topic: str, done: Mapping[int, int]) -> None:
    """Commits partition -> last offset that is done; tries until it succeeds, for without it the lag never ends."""
    offsets = [TopicPartition(topic, partition, offset + 1) for partition, offset in done.items()]
    while offsets:
        try:
            committer.commit(offsets=offsets, asynchronous=False)
            return
        except KafkaException as error:
            print(f"not committed, trying again: {error}", file=sys.stderr)
            time.sleep(0.2)
