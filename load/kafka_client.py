"""How load talks to Kafka: the configuration of its producer, and the wait for its topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException, Producer

from harness.errors import StartFailed

#: An event that was not acknowledged this long after it was enqueued is reported as failed (and is ambiguous). Longer
#: than any fault on the load's link that a run may inject and heal.
MESSAGE_TIMEOUT_S = 60.0


def producer_config(bootstrap: str) -> dict[str, Any]:
    """librdkafka's settings for load.

    Idempotence makes librdkafka's own retries leave no duplicate in the source log. Reconnecting is quick, so that a
    restarted broker is used within a fraction of a second; metadata.recovery.strategy=none, because the default throws
    the broker's connection state away when all brokers are down, and recovers seconds later. The queue holds a minute
    at 10,000 events a second; when it is full, load waits and is behind, it never drops.
    """
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "gauntlet-load",
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 5,
        "batch.size": 262_144,
        "batch.num.messages": 10_000,
        "queue.buffering.max.messages": 600_000,
        "queue.buffering.max.kbytes": 1 << 20,
        "message.timeout.ms": int(MESSAGE_TIMEOUT_S * 1000),
        "request.timeout.ms": 10_000,
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "retry.backoff.ms": 50,
        "retry.backoff.max.ms": 500,
        "metadata.recovery.strategy": "none",
        "allow.auto.create.topics": False,
        "broker.address.family": "v4",
        "log_level": 2,  # broken connections are what the run is about; only what is critical goes to the log
    }


def wait_for_topic(
    producer: Producer,
    topic: str,
    bootstrap: str,
    timeout_s: float = 30.0,
    given_up: Callable[[], bool] = lambda: False,
) -> bool:
    """Waits until Kafka answers and knows the topic. False if `given_up` said so; StartFailed when the time is up.

    Asking blocks for up to a second, under gevent too; between two questions other greenlets and signals get a turn.
    """
    deadline = time.monotonic() + timeout_s
    while not given_up():
        try:
            found = producer.list_topics(topic, timeout=1).topics[topic]
            if found.error is None and found.partitions:
                return True
            reason = str(found.error or "it has no partitions")
        except KafkaException as error:
            reason = str(error.args[0])
        if time.monotonic() > deadline:
            raise StartFailed(f"load: no topic {topic!r} at {bootstrap} within {timeout_s:g} s: {reason}.")
        time.sleep(0.05)
    return False
