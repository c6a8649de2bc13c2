"""When Ryuk is taken, and that nothing but its own word counts for having reached it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import docker.errors
import pytest

from harness.backends import ryuk
from harness.errors import HarnessFault

OWNER = "3f2a/pid:[4026531836]/4711/99/ab12&label=x"


class Daemon:
    def __init__(self, *refs: str) -> None:
        self._refs = refs
        self.api = self

    def inspect_image(self, ref: str) -> dict[str, Any]:
        if ref not in self._refs:
            raise docker.errors.ImageNotFound(ref)
        return {}


@pytest.fixture(autouse=True)
def by_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ryuk, "disabled", lambda: False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    monkeypatch.delenv("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", raising=False)


def test_it_is_taken_where_its_image_and_a_socket_are() -> None:
    assert ryuk.why_not(Daemon(ryuk.image())) is None


def test_without_its_image_it_is_not() -> None:
    assert ryuk.why_not(Daemon()) == f"the image {ryuk.image()} is not on this machine"


def test_the_user_can_switch_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ryuk, "disabled", lambda: True)
    assert "switches it off" in str(ryuk.why_not(Daemon(ryuk.image())))


def test_a_daemon_without_a_socket_needs_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    assert "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE" in str(ryuk.why_not(Daemon(ryuk.image())))
    monkeypatch.setenv("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", "/run/docker.sock")
    assert ryuk.why_not(Daemon(ryuk.image())) is None


class Server:
    """Accepts; answers each connection in turn, None: closes it at once, as Docker's proxy does before Ryuk listens."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.told: list[bytes] = []
        threading.Thread(target=self._serve, args=(answers,), daemon=True).start()

    def _serve(self, answers: Sequence[bytes | None]) -> None:
        for answer in answers:
            connection, _ = self._socket.accept()
            if answer is not None:
                self.told.append(connection.recv(1000))
                connection.sendall(answer)
            connection.close()


def test_a_connection_that_is_accepted_and_closed_is_no_handover() -> None:
    server = Server([None, None, b"ACK\n"])
    connection = ryuk.hand_over(server.port, OWNER, lambda: False)
    assert connection is not None
    connection.close()
    (line,) = server.told
    assert line.endswith(b"\n")
    assert parse_qs(line.decode().strip()) == {"label": [f"gauntlet.owner={OWNER}"]}, "one filter, whatever is in it"


def test_a_ryuk_that_never_acknowledges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ryuk, "READY_WITHIN_S", 0.2)
    with pytest.raises(HarnessFault, match="did not acknowledge what to remove"):
        ryuk.hand_over(Server([b"NO\n"] * 100).port, OWNER, lambda: False)


def test_it_is_given_up_when_all_is_being_removed() -> None:
    assert ryuk.hand_over(1, OWNER, lambda: True) is None
