"""Locust users that produce the events of a plan to Kafka: open loop, on schedule, each event in the ledger.

`python -m load.main` runs them as one process of a run. They are ordinary Locust users too; in your own locustfile:

    from load.profiles import Steady
    from load.spec import LoadSpec
    from load.users import EventUser

    class Load(EventUser):
        spec = LoadSpec(bootstrap="127.0.0.1:9092", topic="raw", run="1a2b3c4d", seed=7, users=2,
                        profile=Steady(rate=500, seconds=60), ledger="ledger.bin")

and `locust --headless -u 2 -f locustfile.py` (as many users as the spec says; each is one producer). The load starts
when the first user has connected, and each user stops after its last event. What Locust counts as a request is a
batch of events; its response time counts from when the batch was due.

With `--processes 2`, or `--master` and `--worker` on several machines, the users are spread over the workers and send the
same events together (`load.distributed`). Each worker writes a ledger of its own, `ledger-0.bin` and so on in the place
of `ledger.bin`; `Ledger.read(*ledgers("ledger.bin"))` reads them as one.

Importing this module imports locust, which patches the standard library for gevent: so it is never imported by the
harness itself, nor by pytest.

*Pacing.* An event is sent when it is due, never before, a few milliseconds' worth of them at a time; a user that is
behind sends larger batches until it has caught up, and never skips. Time is the monotonic clock, tied to the wall
clock once, at the start: a step of the wall clock does not disturb the load.

*Delivery reports* come in a callback from C, in which switching to another greenlet aborts the process: it does
nothing but count and write to the ledger by os.write; the pump greenlet tells Locust afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gevent
import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from gevent.event import Event
from locust import User, constant, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, Runner, WorkerRunner
from numpy.typing import NDArray

from harness.errors import StartFailed
from harness.ledger import LedgerWriter, ledger_of_worker
from load.distributed import Member, Registrar
from load.events import Encoder, Plan, columns, encode, encode_with, keys, load_encoder
from load.kafka_client import producer_config, wait_for_topic
from load.spec import LoadSpec

#: Events of this much time go out as one batch.
BATCH_S = 0.005
#: Largest batch, for a user that is behind.
MOST_IN_BATCH = 1_000
_PUMP_S = 0.004
_QUEUE_FULL_PAUSE_S = 0.01


class Load:
    """What the users of one process share: the plan, the ledger, the clock, the counts."""

    def __init__(self, spec: LoadSpec, runner: Runner | None = None) -> None:
        self.spec = spec
        self.member = Member(runner, self.start, self.stop) if isinstance(runner, WorkerRunner) else None
        self.encoder: Encoder | None = load_encoder(spec.encode, spec.profile.share_poison) if spec.encode else None
        path = spec.ledger if self.member is None else ledger_of_worker(spec.ledger, self.member.index)
        self.ledger = LedgerWriter(path, spec.run)
        columns(spec.plan(t0_ms=10**12), 1, 0, 1)  # builds the tables now, and not when the first event is due
        self.plan: Plan | None = None
        self.started = Event()
        self.stopping = Event()
        self.users: list[EventUser] = []
        self.broken: BaseException | None = None
        #: Events by what became of them. `sent` entered the client's queue; sent - acked is ambiguous, now or for good.
        self.sent = self.acked = self.failed = 0
        self._drain_until: float | None = None
        self._wall_minus_mono = 0.0

    def join(self, user: EventUser) -> int:
        """The number of the producer that this user is to be; 0 if there are already as many as the spec says."""
        number = len(self.users) + 1 if self.member is None else self.member.number()
        if number > self.spec.users:
            return 0
        self.users.append(user)
        return number

    def start(self, t0_ms: int) -> None:
        """Lets the users begin: the first event is due at this epoch millisecond (which may be to come, or past)."""
        self._wall_minus_mono = time.time() - time.monotonic()
        self.plan = self.spec.plan(t0_ms)
        self.started.set()

    def stop(self, drain_s: float | None = None) -> None:
        """Ends the load early. drain_s: how long to wait for delivery reports instead of what the spec says."""
        if drain_s is not None:
            self._drain_until = time.monotonic() + drain_s
        self.stopping.set()
        self.started.set()

    def fail(self, error: BaseException) -> None:
        """The load cannot go on: remembers why and ends it."""
        self.broken = self.broken or error
        self.stop(drain_s=0)

    def now(self) -> float:
        """Epoch seconds, by the monotonic clock."""
        return time.monotonic() + self._wall_minus_mono

    def drain_until(self) -> float:
        """Until when (monotonic) a user that begins to drain now may wait."""
        usual = time.monotonic() + self.spec.drain_s
        return usual if self._drain_until is None else min(usual, self._drain_until)

    def drain_is_over(self, until: float) -> bool:
        until = until if self._drain_until is None else min(until, self._drain_until)
        return time.monotonic() >= until

    def figures(self) -> dict[str, float]:
        """sent, acked and failed events, and by how many milliseconds the next event of some user is overdue."""
        behind = max((user.behind_s() for user in self.users), default=0.0)
        return {"sent": self.sent, "acked": self.acked, "failed": self.failed, "behind_ms": round(behind * 1000, 1)}


class Batch:
    """One batch on its way. `delivered` is the one callback of all its events."""

    __slots__ = ("due_s", "errors", "left", "lo", "n", "producer", "refused", "shared", "user", "values")

    def __init__(self, user: EventUser, shared: Load, lo: int, values: list[bytes], due_s: float) -> None:
        self.user, self.shared, self.producer = user, shared, user.number
        self.lo, self.n, self.left, self.due_s = lo, len(values), len(values), due_s
        self.values = values
        self.errors: list[tuple[bytes | None, int]] = []
        self.refused = 0

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Called from C: must not yield, log, or fire events. An exception here comes out of the pump's poll()."""
        if error is not None:
            self.errors.append((message.value(), error.code()))
        self.left -= 1
        if not self.left:
            self._settle()

    def refuse(self, sequence: int, code: int) -> None:
        """The client did not take this event: it was never sent."""
        self.shared.ledger.failed(self.producer, sequence, 1, code)
        self.shared.failed += 1
        self.refused += 1
        self.left -= 1
        if not self.left:
            self._settle()

    def _settle(self) -> None:
        if self.errors:
            place = {value: i for i, value in enumerate(self.values)}
            for value, code in self.errors:
                self.shared.ledger.error(self.producer, self.lo + place[value or b""], code)
        self.shared.ledger.ack(self.producer, self.lo, self.n)
        self.shared.acked += self.n - self.refused - len(self.errors)
        self.values = []
        self.user.settled.append(self)


@dataclass(frozen=True)
class Chunk:
    """Events made ahead, ready to be sent; batches are slices of it."""

    lo: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes]
    created_ms: Sequence[int]
    due_s: NDArray[np.float64]


class EventUser(User):
    """One producer of a load. Subclasses state the `spec`; all users of one class share one `Load`."""

    abstract = True
    wait_time = constant(0)
    spec: ClassVar[LoadSpec]
    shared: ClassVar[Load | None] = None
    #: Whether the load begins with its first user (a locustfile) or when somebody calls Load.start (load.main).
    starts_itself: ClassVar[bool] = True

    number: int
    settled: list[Batch]

    # -- life ----------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        kind = type(self)
        if kind.shared is None:
            kind.shared = Load(self.spec, self.environment.runner)
        self.load: Load = kind.shared
        self.connected = self.done = False
        self.settled = []
        self._next = 0
        self._chunk: Chunk | None = None
        try:
            self.number = self.load.join(self)
        except StartFailed as error:
            self.number = 0
            self.load.fail(error)
        if not self.number:
            self.done = True
            return
        try:
            self._producer = Producer(producer_config(self.spec.bootstrap))
            connected = wait_for_topic(
                self._producer, self.spec.topic, self.spec.bootstrap, given_up=self.load.stopping.is_set
            )
        except Exception as error:
            self.load.fail(error)
            connected = False
        if not connected:
            self.done = True
            return
        self._pump = gevent.spawn(self._pump_reports)
        self.connected = True
        if self.load.member is not None:
            self.load.member.connected()
        elif self.starts_itself and not self.load.started.is_set():
            self.load.start(int(time.time() * 1000) + 100)
        self.load.started.wait()

    @task
    def send_next(self) -> None:
        """Waits until the next batch is due and hands it to the client; stops after the last one."""
        if self.done or self._next >= self._end() or self.load.stopping.is_set():
            raise StopUser
        try:
            self._send_when_due()
        except Exception as error:
            self.load.fail(error)
            raise StopUser from error

    def on_stop(self) -> None:
        """Drains, whoever ends this user: its last event, Load.stop, or Locust."""
        if self.done:
            return
        try:
            self._drain()
        except Exception as error:
            self.load.fail(error)
        finally:
            self.done = True

    def _end(self) -> int:
        return self.load.plan.events_of(self.number) if self.load.plan else 0

    # -- sending -------------------------------------------------------------------------------------------------

    def behind_s(self) -> float:
        """By how much the next event to be sent is overdue."""
        plan = self.load.plan
        if plan is None or self.done or self._next >= self._end():
            return 0.0
        due = int(plan.due_us(self.number, np.array([self._next]))[0]) / 1e6
        return max(0.0, self.load.now() - due)

    def _send_when_due(self) -> None:
        chunk = self._events_ahead()
        at = self._next - chunk.lo
        n = min(self._usual_batch, len(chunk.values) - at)
        # A batch goes when its *last* event is due: no event is sent before its time.
        wait = chunk.due_s[at + n - 1] - self.load.now()
        if wait > 0:
            if self.load.stopping.wait(wait):
                return
        elif wait < -BATCH_S:
            due_now = int(np.searchsorted(chunk.due_s, self.load.now(), side="right")) - at
            n = max(n, min(due_now, MOST_IN_BATCH))
        self._send(chunk, at, n)

    def _send(self, chunk: Chunk, at: int, n: int) -> None:
        part = slice(at, at + n)
        lo, values = chunk.lo + at, list(chunk.values[part])
        batch = Batch(self, self.load, lo, values, float(chunk.due_s[at]))
        self.load.ledger.intent(self.number, lo, n)
        self._next += n
        topic, produce, delivered = self.spec.topic, self._producer.produce, batch.delivered
        # One by one, because produce_batch refuses timestamps (NotImplementedError in confluent-kafka 2.16); and by
        # position, because names cost a fifth of the call.
        created = chunk.created_ms[part]
        for sequence, (key, value, created_ms) in enumerate(zip(chunk.keys[part], values, created, strict=True), lo):
            try:
                produce(topic, value, key, -1, delivered, None, created_ms)
            except (BufferError, KafkaException) as error:
                self._send_again(batch, sequence, error, (value, key, created_ms))
        self.load.sent += n - batch.refused

    def _send_again(
        self, batch: Batch, sequence: int, error: Exception, event: tuple[bytes, bytes | None, int]
    ) -> None:
        """Until the client takes the event: while its queue is full, which empties as this greenlet sleeps."""
        value, key, created_ms = event
        while isinstance(error, BufferError):
            if self.load.stopping.wait(_QUEUE_FULL_PAUSE_S):
                batch.refuse(sequence, KafkaError._QUEUE_FULL)
                return
            try:
                self._producer.produce(self.spec.topic, value, key, -1, batch.delivered, None, created_ms)
                return
            except (BufferError, KafkaException) as again:
                error = again
        batch.refuse(sequence, error.args[0].code())

    def _events_ahead(self) -> Chunk:
        chunk = self._chunk
        if chunk is not None and self._next < chunk.lo + len(chunk.values):
            return chunk
        plan = self.load.plan
        assert plan is not None
        per_second = self.spec.profile.rate / self.spec.users
        self._usual_batch = max(1, min(MOST_IN_BATCH, int(per_second * BATCH_S)))
        most = 500 if self.load.encoder else 5_000  # a user's encoder is slow; making a chunk must not delay the next
        size = max(self._usual_batch, min(most, int(per_second / 2)))
        size -= size % self._usual_batch
        made = columns(plan, self.number, self._next, min(size, self._end() - self._next))
        found_keys: Sequence[bytes | None]
        values: Sequence[bytes]
        if self.load.encoder is None:
            found_keys = keys(made) if self.spec.keyed else [None] * len(made)
            values = encode(made, plan, self.number)
        else:
            found_keys, values = encode_with(self.load.encoder, made, plan, self.number)
        due_s = plan.due_us(self.number, made.sequence) / 1e6
        self._chunk = Chunk(self._next, found_keys, values, made.created_ms.tolist(), due_s)
        return self._chunk

    # -- delivery reports ----------------------------------------------------------------------------------------

    def _pump_reports(self) -> None:
        try:
            while not self.done:
                self._producer.poll(0)
                self._tell_locust()
                gevent.sleep(_PUMP_S)
        except Exception as error:
            self.load.fail(error)

    def _tell_locust(self) -> None:
        settled, self.settled = self.settled, []
        now = self.load.now()
        for batch in settled:
            code = batch.errors[0][1] if batch.errors else None
            self.environment.events.request.fire(
                request_type="kafka",
                name=f"produce to {self.spec.topic}",
                response_time=(now - batch.due_s) * 1000,
                response_length=batch.n,
                exception=None if code is None else RuntimeError(str(KafkaError(code))),
                context={},
            )

    def _drain(self) -> None:
        """Waits for the last delivery reports. What is still out when the time is up stays ambiguous."""
        until = self.load.drain_until()
        while len(self._producer) and not self.load.drain_is_over(until):
            gevent.sleep(0.01)
        if len(self._producer):
            # Lets go of what is queued, so that the client can be closed; the reports say "purged": ambiguous.
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            patience = time.monotonic() + 2
            while len(self._producer) and time.monotonic() < patience:
                gevent.sleep(0.01)
        gevent.sleep(2 * _PUMP_S)
        self._tell_locust()


class PlannedUser(EventUser):
    """A user of a run: its load begins when somebody says so."""

    starts_itself = False


@events.init.add_listener
def _register(environment: Any, runner: Runner | None = None, **_: Any) -> None:
    """The master of a locustfile of one's own tells the users of its workers who they are."""
    if isinstance(runner, MasterRunner):
        Registrar(runner, starts_itself=True)
