"""What each service does alone with the events that a pipeline is given: the physical limit of what passes through it.

Nothing else runs meanwhile, no worker, proxy or tap, and what is sent was put into bytes before the clock starts. What was
to be done is checked to have been done.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from google.cloud.bigtable_v2.types import MutateRowsRequest
from google.pubsub_v1.types import AcknowledgeRequest, PublishRequest, PubsubMessage, PullRequest, PullResponse

from benchmarks.kafka_alone import RUN
from harness.errors import HarnessFault
from harness.services.bigtable import read_rows
from harness.session import Session
from load.events import Plan, columns, encode
from load.profiles import Steady
from pipelines_under_test.kappa import events as form
from pipelines_under_test.kappa.aggregator import Update, by_row
from pipelines_under_test.kappa.converter import IN_FLIGHT, PER_REQUEST
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.kappa.pulling import BATCH, PULL, PULLERS
from pipelines_under_test.kappa.table import seen_entry

#: Requests that are under way at once at the Bigtable emulator; more do not make it faster on two cores.
WRITERS = 2
_WITHIN_S = 120.0


def _updates(events: int) -> list[Update]:
    plan = Plan(Steady(rate=events, seconds=1, share_poison=0.0), 7, 1, int(time.time() * 1000), RUN)
    made = [form.from_source(value) for value in encode(columns(plan, 1, 0, events), plan, 1)]
    return [Update(event, form.uuid_of(event.event_id)) for event in made]


@contextmanager
def _service(kind: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """The server of that kind in a stack of the reference pipeline's, and the names of what was made in it."""
    with Session("process") as session:
        stack = session.stack(kappa)
        server: Any = next(s for s in stack.servers.values() if s.service.kind == kind)  # type: ignore[attr-defined]
        names = server.names(uuid.uuid4().hex[:8])
        server.make(names)
        yield server, names


def bigtable(events: int) -> float:
    """Events a second of which the cells of every dimension are written, in requests like those of the aggregator."""
    updates = _updates(events)
    with _service("bigtable") as (server, names):
        table = names["aggregates"]
        requests = []
        for i in range(0, events, BATCH):
            entries = [seen_entry(key, added) for key, added in by_row(updates[i : i + BATCH]).items()]
            requests.append(MutateRowsRequest.pb()(table_name=table, entries=entries).SerializeToString())
        write = server.channel.unary_stream("/google.bigtable.v2.Bigtable/MutateRows", None, None)
        took = _timed(lambda: _at_once(WRITERS, requests, lambda request: list(write(request, timeout=_WITHIN_S))))
        counted = sum(len(row.cells) for row in read_rows(server.channel, table) if b"#tweet#" in row.key)
    if counted != events:
        raise HarnessFault(f"of {events:,} events {counted:,} are in the table")
    return events / took


def pubsub(events: int) -> float:
    """Events a second that are published, pulled and acknowledged, all at once, in requests like those of the workers."""
    updates = _updates(events)
    with _service("pubsub") as (server, names):
        topic, subscription = names["published"], names["aggregator"]
        publish, pull, acknowledge = (_unary(server, method) for method in _METHODS)
        messages = [
            PubsubMessage.pb()(data=form.to_message(u.event), attributes={"uuid": u.uuid, "source": "source/0/0"})
            for u in updates
        ]
        requests = [
            PublishRequest.pb()(topic=topic, messages=messages[i : i + PER_REQUEST]).SerializeToString()
            for i in range(0, events, PER_REQUEST)
        ]
        got = [0] * PULLERS
        wanted = PullRequest.pb()(subscription=subscription, max_messages=PULL, return_immediately=True)
        asked = wanted.SerializeToString()
        until = time.monotonic() + _WITHIN_S

        def take(puller: int) -> None:
            while time.monotonic() < until:
                if sum(got) >= events:
                    return
                pulled = PullResponse.pb().FromString(pull(asked, timeout=_WITHIN_S)).received_messages
                if not pulled:
                    time.sleep(0.005)
                    continue
                done = AcknowledgeRequest.pb()(subscription=subscription, ack_ids=[one.ack_id for one in pulled])
                acknowledge(done.SerializeToString(), timeout=_WITHIN_S)
                got[puller] += len(pulled)  # nobody else writes there

        def all_of_it() -> None:
            with ThreadPoolExecutor(PULLERS) as pullers:
                taken = [pullers.submit(take, i) for i in range(PULLERS)]
                _at_once(IN_FLIGHT, requests, lambda request: publish(request, timeout=_WITHIN_S))
                for one in taken:
                    one.result()

        took = _timed(all_of_it)
    if sum(got) != events:
        raise HarnessFault(f"of {events:,} events {sum(got):,} were acknowledged")
    return events / took


_METHODS = ("Publisher/Publish", "Subscriber/Pull", "Subscriber/Acknowledge")


def _unary(server: Any, method: str) -> Any:
    channel = server.client()[0].transport.grpc_channel
    return channel.unary_unary(f"/google.pubsub.v1.{method}", None, None)


def _at_once(threads: int, requests: Sequence[bytes], do: Callable[[bytes], object]) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(do, requests):
            pass


def _timed(do: Callable[[], object]) -> float:
    begin = time.monotonic()
    do()
    return time.monotonic() - begin
