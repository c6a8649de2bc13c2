"""A small pipeline that counts into Redis and answers for its counts over HTTP: what Redis, Files and HttpHop are for.

python served.py count|ask        the two workers
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Consumer, KafkaException

WINDOW_S = 10
#: Counts each event that was not counted before. One script, so that a kill leaves all of it or nothing.
COUNT = """
for i = 1, #ARGV, 3 do
    if redis.call('SADD', KEYS[1], ARGV[i]) == 1 then
        redis.call('HINCRBY', KEYS[2], ARGV[i + 1] .. '|n', 1)
        redis.call('HINCRBY', KEYS[2], ARGV[i + 1] .. '|w', ARGV[i + 2])
    end
end
"""


@cache
def store() -> redis.Redis:
    """With connections that stay open: what only comes and goes, no meter of links sees."""
    host, port = os.environ["REDIS"].split(":")
    return redis.Redis(host, int(port), socket_timeout=2, socket_connect_timeout=2)


def count() -> None:
    reader = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA"],
            "group.id": os.environ["GROUP"],
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
        }
    )
    reader.subscribe([os.environ["EVENTS"]])
    prefix = os.environ["PREFIX"]
    while True:
        records = [r for r in reader.consume(500, timeout=0.2) if not r.error()]
        args: list[Any] = []
        for event in (json.loads(r.value()) for r in records):
            start = event["event_time_ms"] // (WINDOW_S * 1000) * WINDOW_S * 1000
            args += [event["event_id"], f"{event['tweet_id']}|{event['engagement']}|{start}", event["weight"]]
        while args:
            try:
                store().eval(COUNT, 2, f"{prefix}seen", f"{prefix}cells", *args)
                with open(Path(os.environ["NOTES"]) / "batches", "a") as notes:
                    notes.write(f"{len(records)}\n")
                reader.commit(asynchronous=False)
                break
            except (redis.RedisError, KafkaException) as error:
                print(f"not counted or committed yet: {error}", flush=True)
                time.sleep(0.1)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            client = store()
            body = b"".join(cells(client)) if self.path.startswith("/cells") else str(client.ping()).encode()
            status = 200
        except redis.RedisError as error:
            status, body = 503, str(error).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


def cells(client: redis.Redis) -> list[bytes]:
    found: Mapping[bytes, bytes] = client.hgetall(os.environ["PREFIX"] + "cells")  # type: ignore[assignment]
    lines = []
    for field, value in found.items():
        tweet, engagement, start, which = field.decode().split("|")
        if which == "n":
            weight = int(found[field[:-1] + b"w"])
            cell = {"dimension": "tweet", "key": f"{tweet}|{engagement}", "window_s": WINDOW_S}
            cell |= {"window_start_ms": int(start), "count": int(value), "weight": weight}
            lines.append(json.dumps(cell).encode() + b"\n")
    return lines


def ask() -> None:
    host, port = os.environ["LISTEN"].split(":")
    ThreadingHTTPServer((host, int(port)), Answers).serve_forever()


def pipeline() -> Any:
    from harness.topology import Cells, Files, HttpHop, Kafka, KafkaHop, Pipeline, Redis, Worker

    def id_of(value: bytes, attributes: Mapping[str, str]) -> str | None:
        return str(json.loads(value)["event_id"])

    return Pipeline(
        name="served",
        services=[
            Kafka("kafka", topics={"events": 2}),
            Redis("cache", prefixes=["counts"]),
            Files("files", folders=["notes"]),
        ],
        workers=[
            Worker(
                "count",
                ["{python}", __file__, "count"],
                uses={"KAFKA": "kafka", "REDIS": "cache"},
                env={"EVENTS": "{events}", "GROUP": "{counters}", "PREFIX": "{counts}", "NOTES": "{notes}"},
                reads="events",
                writes=["counted"],
                group="counters",
            ),
            Worker(
                "ask",
                ["{python}", __file__, "ask"],
                uses={"REDIS": "cache"},
                env={"PREFIX": "{counts}"},
                serves="LISTEN",
            ),
        ],
        hops=[
            KafkaHop("events", "kafka", "source", topic="events", event_id=id_of),
            HttpHop("counted", worker="ask"),
        ],
        cells=[Cells("tweet", ["tweet_id", "engagement"], windows_s=[WINDOW_S])],
        max_quiet_s=8.0,
    )


if __name__ == "__main__":
    {"count": count, "ask": ask}[sys.argv[1]]()
else:
    served = pipeline()
