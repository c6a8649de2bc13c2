"""What a soak has trimmed stays away, also when the broker is killed: a batch truth that reads it again counts it again."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from harness.stack import Stack

pytestmark = pytest.mark.services

#: Longer than the broker takes to write down where its logs begin (harness/services/kafka.py says how often it does).
WRITTEN_DOWN_S = 1.5
RECORDS = 400


def begins_and_ends(stack: Stack, topic: str) -> list[tuple[int, int]]:
    """Of each partition. A broker that has just come back leads none of them for a moment."""
    consumer = Consumer({"bootstrap.servers": stack.servers["kafka"].direct, "group.id": "x", "log_level": 0})
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                return [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20) for p in range(4)]
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
    finally:
        consumer.close()


def test_what_was_trimmed_is_not_there_again_after_a_kill(backend: str, stack: Stack) -> None:
    if backend == "external":
        pytest.skip("a broker that is there already is not killed")
    run = uuid.uuid4().hex[:8]
    stack.make("kafka", run)
    topic = f"source-{run}"
    kafka: Any = stack.servers["kafka"]
    try:
        producer = Producer({"bootstrap.servers": kafka.direct, "acks": "all", "log_level": 0})
        for i in range(RECORDS):
            producer.produce(topic, b"x", partition=i % 4)
        assert producer.flush(30) == 0
        assert begins_and_ends(stack, topic) == [(0, 100)] * 4
        kafka.trim(topic)
        time.sleep(WRITTEN_DOWN_S)
        stack.kill_service("kafka")
        stack.start_service("kafka")
        assert begins_and_ends(stack, topic) == [(100, 100)] * 4
    finally:
        stack.remove(run)
