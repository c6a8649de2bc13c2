"""Locust's distributed mode: one master and its worker processes share a load, each with a ledger of its own.

The master tells each user which of the load's producers it is, and all of them at once when the load starts, so that the
events are the same as those of one process; what the users do is in `load.users`. Messages, by Locust's own connection
(https://docs.locust.io/en/stable/running-distributed.html#communicating-across-nodes):

    gauntlet-join       worker -> master    a user asks for its number
    gauntlet-joined     master -> worker    the number, 1 … users
    gauntlet-connected  worker -> master    that user has reached Kafka
    gauntlet-start      master -> workers   when the first event is due, epoch milliseconds
    gauntlet-stop       master -> workers   to end early, and how long to wait for delivery reports
    gauntlet-figures    worker -> master    what became of the worker's events so far
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from gevent import Timeout
from gevent.event import AsyncResult
from locust.runners import MasterRunner, WorkerRunner

from harness.errors import StartFailed

JOIN, JOINED, CONNECTED = "gauntlet-join", "gauntlet-joined", "gauntlet-connected"
START, STOP, FIGURES = "gauntlet-start", "gauntlet-stop", "gauntlet-figures"
_ANSWER_WITHIN_S = 30.0
_LEAD_MS = 100


class Registrar:
    """The master's side. With `starts_itself` the load begins with the first user that has reached Kafka."""

    def __init__(self, runner: MasterRunner, *, starts_itself: bool) -> None:
        self._runner, self._starts_itself = runner, starts_itself
        self.figures: dict[str, dict[str, Any]] = {}
        self._begin()
        runner.register_message(JOIN, self._join)
        runner.register_message(CONNECTED, self._connect)
        runner.register_message(FIGURES, self._note)
        runner.environment.events.test_start.add_listener(self._begin)

    def _begin(self, **_: Any) -> None:
        self._joined = self.connected = 0
        self.t0_ms: int | None = None
        self.figures.clear()

    def _join(self, msg: Any, **_: Any) -> None:
        self._joined += 1
        told = {"ask": msg.data["ask"], "number": self._joined}
        self._runner.send_message(JOINED, told, client_id=msg.node_id)

    def _connect(self, msg: Any, **_: Any) -> None:
        self.connected += 1
        if self.t0_ms is not None:
            self._runner.send_message(START, {"t0_ms": self.t0_ms}, client_id=msg.node_id)
        elif self._starts_itself:
            self.start(int(time.time() * 1000) + _LEAD_MS)

    def _note(self, msg: Any, **_: Any) -> None:
        self.figures[msg.node_id] = msg.data

    def start(self, t0_ms: int) -> None:
        self.t0_ms = t0_ms
        self._runner.send_message(START, {"t0_ms": t0_ms})

    def stop(self, drain_s: float | None = None) -> None:
        self._runner.send_message(STOP, {"drain_s": drain_s})

    def total(self, figure: str) -> float:
        """A figure summed over the workers; of how far they are behind, the worst."""
        values = [figures[figure] for figures in self.figures.values()]
        return max(values, default=0.0) if figure == "behind_ms" else sum(values)


class Member:
    """A worker's side: `index` is the worker's, from 0 on."""

    def __init__(
        self, runner: WorkerRunner, start: Callable[[int], None], stop: Callable[[float | None], None]
    ) -> None:
        self._runner = runner
        self.index = int(runner.worker_index)
        self._answers: dict[str, AsyncResult[int]] = {}
        runner.register_message(JOINED, self._joined)
        runner.register_message(START, lambda msg, **_: start(int(msg.data["t0_ms"])))
        runner.register_message(STOP, lambda msg, **_: stop(msg.data["drain_s"]))

    def number(self) -> int:
        """Which of the load's producers a user is. Raises StartFailed where no master answers that."""
        ask = uuid.uuid4().hex
        answer = self._answers[ask] = AsyncResult()
        self._runner.send_message(JOIN, {"ask": ask})
        try:
            return int(answer.get(timeout=_ANSWER_WITHIN_S))
        except Timeout as error:
            raise StartFailed(
                f"load: Locust's master did not say within {_ANSWER_WITHIN_S:g} s which producer this user is. It must "
                "run the same locustfile."
            ) from error

    def _joined(self, msg: Any, **_: Any) -> None:
        answer = self._answers.pop(msg.data["ask"], None)
        if answer is not None:
            answer.set(msg.data["number"])

    def connected(self) -> None:
        self._runner.send_message(CONNECTED, {})

    def tell(self, **figures: Any) -> None:
        self._runner.send_message(FIGURES, figures)
