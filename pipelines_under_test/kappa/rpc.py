"""gRPC with almost infinite patience: short calls, tried again, on a connection that is replaced when it goes silent.

A call that fails because the other side is away, slow or cut off is tried again until it succeeds; a call that can
never succeed (no such topic, bad argument) raises `Fatal`. Every attempt has a deadline, so that a black hole shows.
After a second missed deadline in a row the connection itself is suspect, and a new one is made: a TCP connection
whose packets were dropped for some seconds would need as long again to notice that they pass.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import grpc
from google.api_core import exceptions, retry

from pipelines_under_test.kappa.worker import Fatal, Stopped

ATTEMPT_S = 5.0
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0

TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
TRANSIENT_NUMBERS = frozenset(code.value[0] for code in TRANSIENT)

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long one attempt to connect may take; the default of 20 s would outlast a short partition.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # Without this, a new channel to the same address would get the old connection back.
    ("grpc.use_local_subchannel_pool", 1),
)

Answer = TypeVar("Answer")


class Unfinished(Exception):
    """An answer that says: try the rest again."""


def status_of(error: BaseException) -> grpc.StatusCode | None:
    if isinstance(error, exceptions.GoogleAPICallError):
        return error.grpc_status_code
    if isinstance(error, exceptions.RetryError):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    code = getattr(error, "code", None)
    return code() if isinstance(error, grpc.RpcError) and callable(code) else None


class Connection:
    """One gRPC channel to one address, replaced when it seems dead. May be used by several threads."""

    def __init__(self, address: str, stop: threading.Event, log: logging.Logger) -> None:
        self.address = address
        self._stop, self._log = stop, log
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._missed = 0
        self._said = 0.0

    @property
    def channel(self) -> grpc.Channel:
        with self._lock:
            return self._channel

    def insist(self, what: str, attempt: Callable[[grpc.Channel], Answer]) -> Answer:
        """Calls until the call succeeds. Raises Fatal for what never will, Stopped when asked to stop meanwhile."""

        def once() -> Answer:
            try:
                answer = attempt(self.channel)
            except ValueError as error:  # another thread has just replaced, and closed, the channel
                raise Unfinished(str(error)) from error
            self._missed = 0
            return answer

        patient = retry.Retry(
            predicate=self._worth_another,
            initial=FIRST_DELAY_S,
            maximum=LONGEST_DELAY_S,
            multiplier=2,
            timeout=None,
            on_error=lambda error: self._note(what, error),
        )
        try:
            return patient(once)()
        except (exceptions.GoogleAPICallError, grpc.RpcError, Unfinished) as error:
            if self._stop.is_set():
                raise Stopped(f"{what}: {_short(error)}") from error
            raise Fatal(f"{what}: {_short(error)}") from error

    def try_once(self, what: str, attempt: Callable[[grpc.Channel], Answer]) -> Answer | None:
        """One call; None when it failed for a reason that may pass. Raises Fatal for any other."""
        try:
            answer = attempt(self.channel)
            self._missed = 0
            return answer
        except ValueError:  # another thread has just replaced, and closed, the channel
            return None
        except (exceptions.GoogleAPICallError, grpc.RpcError) as error:
            if status_of(error) not in TRANSIENT:
                raise Fatal(f"{what}: {_short(error)}") from error
            self._note(what, error)
            return None

    def _worth_another(self, error: BaseException) -> bool:
        return not self._stop.is_set() and (isinstance(error, Unfinished) or status_of(error) in TRANSIENT)

    def _note(self, what: str, error: BaseException) -> None:
        now = time.monotonic()
        if now - self._said > 1:
            self._said = now
            self._log.warning("%s: %s; trying again", what, _short(error))
        if status_of(error) is not grpc.StatusCode.DEADLINE_EXCEEDED:
            self._missed = 0
            return
        self._missed += 1
        if self._missed >= 2:
            self._missed = 0
            with self._lock:
                old, self._channel = self._channel, grpc.insecure_channel(self.address, options=OPTIONS)
            self._log.warning("%s: no answer twice from %s, connecting anew", what, self.address)
            old.close()

    def close(self) -> None:
        self.channel.close()


def _short(error: BaseException) -> str:
    details = getattr(error, "details", None)
    text = details() if callable(details) else str(error)
    code = status_of(error)
    return f"{code.name if code else type(error).__name__} {str(text)[:200]}"
