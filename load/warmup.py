"""Warm-up events: sent by the harness itself, before the load, to see a first event at the last hop.

No gevent here: a plain producer that blocks until every event has its outcome.
"""

from __future__ import annotations

import os
import time

from confluent_kafka import KafkaError, Message, Producer

from harness.ledger import LedgerWriter
from load.events import WARMUP, Plan, encode, encode_with, keys, load_encoder, warmup_columns
from load.kafka_client import producer_config, wait_for_topic


def send_warmup(
    bootstrap: str,
    topic: str,
    plan: Plan,
    n: int,
    ledger_path: str | os.PathLike[str],
    *,
    lo: int = 0,
    encoder: str | None = None,
    keyed: bool = True,
    timeout_s: float = 30.0,
) -> int:
    """Sends warm-up events lo … lo+n-1 of the plan (its t0_ms being the warm-up's), and returns how many were acked.

    Their due times lie a millisecond apart from plan.t0_ms on; they are sent at once. They are recorded in a ledger
    like the load's. Call again with a higher `lo` to send more. StartFailed if Kafka does not know the topic in time.
    """
    made = warmup_columns(plan, lo, n)
    found_keys: list[bytes | None]
    if encoder is None:
        found_keys = list(keys(made)) if keyed else [None] * len(made)
        values = encode(made, plan, WARMUP)
    else:
        # The warm-up has no poison, so what the encoder does with it is for the load to find out.
        found_keys, values = encode_with(load_encoder(encoder, 0.0), made, plan, WARMUP)
    producer = Producer({**producer_config(bootstrap), "client.id": "gauntlet-warmup", "linger.ms": 0})
    wait_for_topic(producer, topic, bootstrap, timeout_s)

    errors: list[tuple[bytes | None, int]] = []
    settled = 0

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal settled
        settled += 1
        if error is not None:
            errors.append((message.value(), error.code()))

    with LedgerWriter(ledger_path, plan.run) as ledger:
        ledger.intent(WARMUP, lo, n)
        refused = 0
        for key, value, created_ms, sequence in zip(
            found_keys, values, made.created_ms.tolist(), made.sequence.tolist(), strict=True
        ):
            try:
                producer.produce(topic, value, key, on_delivery=delivered, timestamp=created_ms)
            except BufferError:
                ledger.failed(WARMUP, sequence, 1, KafkaError._QUEUE_FULL)
                refused += 1
        deadline = time.monotonic() + timeout_s
        while settled < n - refused and time.monotonic() < deadline:
            producer.poll(0.05)
        if settled < n - refused:
            return settled - len(errors)  # no ACK: which of them are acked is not worth telling apart
        place = {value: lo + i for i, value in enumerate(values)}
        for wrong, code in errors:
            ledger.error(WARMUP, place[wrong or b""], code)
        ledger.ack(WARMUP, lo, n)
    return n - refused - len(errors)
