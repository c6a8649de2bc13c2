"""How long messages are held: leased for a short time, renewed while they are held, dropped once that ran out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from pipelines_under_test.kappa import pulling
from pipelines_under_test.kappa.pulling import RawAck, RawModify, RawPulled, Subscription
from pipelines_under_test.kappa.worker import Fatal


class FakePubSub:
    """Stands for the connection: answers pulls with what is given, and writes down what was asked for."""

    def __init__(self) -> None:
        self.waiting: list[list[str]] = []
        self.asked: list[tuple[str, tuple[str, ...], int]] = []
        self.modify_fails: Exception | bool = False

    def try_once(self, what: str, attempt: partial[Any]) -> Any:
        raw = attempt.args[0]
        if what == "pull":
            answer = RawPulled()
            for ack_id in self.waiting.pop(0) if self.waiting else ():
                answer.received_messages.add(ack_id=ack_id)
            return answer
        request = (RawAck if what == "acknowledge" else RawModify).FromString(raw)
        self.asked.append((what, tuple(request.ack_ids), getattr(request, "ack_deadline_seconds", -1)))
        if isinstance(self.modify_fails, Exception):
            raise self.modify_fails
        return None if self.modify_fails and what != "acknowledge" else b""


@pytest.fixture
def pubsub(monkeypatch: pytest.MonkeyPatch) -> FakePubSub:
    fake = FakePubSub()
    monkeypatch.setattr(pulling.rpc, "Connection", lambda *_: fake)
    monkeypatch.setattr(pulling, "RENEW_EVERY_S", 1000.0)
    return fake


@pytest.fixture
def started() -> Iterator[Callable[[], Subscription]]:
    stop = threading.Event()
    yield lambda: Subscription("nowhere", "sub", stop, logging.getLogger("test"))
    stop.set()


def eventually(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 10
    while not (answer := what()) and time.monotonic() < until:
        time.sleep(0.005)
    assert answer
    return answer


def taken(subscription: Subscription) -> list[str]:
    return [received.ack_id for received in subscription.take()]


def test_what_is_pulled_is_leased_briefly_before_it_is_handed_on(
    pubsub: FakePubSub, started: Callable[[], Subscription]
) -> None:
    pubsub.waiting.append(["a", "b"])
    subscription = started()
    assert eventually(lambda: taken(subscription)) == ["a", "b"]
    assert pubsub.asked == [("modify ack deadline", ("a", "b"), 3)]


def test_what_is_held_is_renewed_until_it_is_settled(
    pubsub: FakePubSub, started: Callable[[], Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "RENEW_EVERY_S", 0.01)
    pubsub.waiting.append(["a", "b"])
    subscription = started()
    eventually(lambda: taken(subscription))
    eventually(lambda: pubsub.asked.count(("modify ack deadline", ("a", "b"), 3)) > 3)
    subscription.settle(["a"])
    settled = pubsub.asked.index(("acknowledge", ("a",), -1))
    eventually(lambda: ("modify ack deadline", ("b",), 3) in pubsub.asked[settled:])
    assert ("modify ack deadline", ("a", "b"), 3) not in pubsub.asked[settled + 2 :]


def test_a_lease_that_ran_out_is_neither_renewed_nor_worked_on(
    pubsub: FakePubSub, started: Callable[[], Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a pause: others may have it by now."""
    monkeypatch.setattr(pulling, "LEASE_S", 0)
    pubsub.waiting.append(["a", "b"])
    subscription = started()
    eventually(lambda: pubsub.asked)
    assert taken(subscription) == []
    subscription.lease_s = 3
    pubsub.waiting.append(["c"])
    assert eventually(lambda: taken(subscription)) == ["c"]
    subscription.give_back()
    assert [ids for what, ids, seconds in pubsub.asked if seconds == 0][-1] == ("c",)


def test_a_lease_that_could_not_be_asked_for_is_no_reason_to_stop(
    pubsub: FakePubSub, started: Callable[[], Subscription]
) -> None:
    pubsub.modify_fails = True
    pubsub.waiting.append(["a"])
    subscription = started()
    assert eventually(lambda: taken(subscription)) == ["a"]


def test_a_subscription_that_is_gone_is_fatal(pubsub: FakePubSub, started: Callable[[], Subscription]) -> None:
    pubsub.modify_fails = Fatal("modify ack deadline: NOT_FOUND")
    pubsub.waiting.append(["a"])
    subscription = started()
    eventually(lambda: pubsub.asked)
    with pytest.raises(Fatal, match="NOT_FOUND"):
        eventually(lambda: subscription.take() and False)


def test_giving_back_what_cannot_be_given_back_is_said_and_no_more(
    pubsub: FakePubSub, started: Callable[[], Subscription], caplog: pytest.LogCaptureFixture
) -> None:
    pubsub.waiting.append(["a"])
    subscription = started()
    eventually(lambda: taken(subscription))
    pubsub.modify_fails = Fatal("modify ack deadline: NOT_FOUND")
    subscription.give_back()
    assert "not given back: modify ack deadline: NOT_FOUND" in caplog.text
