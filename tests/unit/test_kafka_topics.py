"""Topics are made once, whatever becomes of the connection on which they were asked for."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from harness.errors import StartFailed
from harness.services.kafka import KafkaServer

LOST, THERE, REFUSED = KafkaError._DESTROY_BROKER, KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS


class Admin:
    """Answers each topic by one error code after the other (0: made)."""

    def __init__(self, **answers: list[int]) -> None:
        self.answers, self.asked = answers, list[list[str]]()

    def create_topics(self, topics: list[NewTopic], operation_timeout: float) -> dict[str, Future[None]]:
        self.asked.append([topic.topic for topic in topics])
        found: dict[str, Future[None]] = {}
        for name in self.asked[-1]:
            found[name] = Future()
            code = self.answers[name].pop(0)
            if code:
                found[name].set_exception(KafkaException(KafkaError(code)))
            else:
                found[name].set_result(None)
        return found


def made(admin: Any) -> list[list[str]]:
    server = object.__new__(KafkaServer)
    server.name, server._admin = "kafka", admin
    server._create([NewTopic(name, 1) for name in admin.answers])
    return admin.asked  # type: ignore[no-any-return]


def test_what_was_lost_on_the_way_is_asked_for_again_and_may_be_there_already() -> None:
    assert made(Admin(a=[0], b=[0])) == [["a", "b"]]
    assert made(Admin(a=[LOST, 0], b=[0], c=[LOST, THERE])) == [["a", "b", "c"], ["a", "c"]]


@pytest.mark.parametrize(
    "admin",
    [Admin(a=[THERE]), Admin(a=[REFUSED]), Admin(a=[LOST, REFUSED]), Admin(a=[LOST, LOST])],
    ids=["it was there before", "refused", "refused the second time", "lost twice"],
)
def test_what_cannot_be_made_is_an_error_that_names_it(admin: Admin) -> None:
    with pytest.raises(StartFailed, match="kafka: the topic a could not be made"):
        made(admin)
