"""Redis, shared folders and answers of a worker: services and a tap of pipelines that serve what they count."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis
from staging import Staging

from faults import kill_service
from harness.backends import docker
from harness.backends.process import Ports, Processes
from harness.provision import provision_one
from harness.services.base import SinkTap
from harness.services.http import healthy, http_tap
from harness.session import Session
from harness.stack import Stack
from harness.topology import Cells, HttpHop
from pipelines_under_test.legacy.pipeline import legacy

# ---------------------------------------------------------------------------------------------- Redis and files


@pytest.fixture(scope="module", params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker" and (reason := docker.why_not() or docker.lacks(legacy)):
        pytest.skip(f"no containers: {reason}")
    return str(request.param)


@pytest.fixture(scope="module")
def stack(backend: str, sessions: Callable[[str], Session]) -> Stack:
    return sessions(backend).stack(legacy)


@pytest.fixture
def run(stack: Stack) -> Iterator[str]:
    tag = uuid.uuid4().hex[:8]
    for service in ("redis", "files"):
        stack.make(service, tag)
    yield tag
    stack.remove(tag)


def client(address: str) -> Any:
    host, port = address.split(":")
    return redis.Redis(host, int(port), socket_timeout=5)


def test_a_killed_redis_comes_back_at_the_same_addresses_with_its_data(stack: Stack, run: str) -> None:
    name = stack.names(run)["counts"]
    assert name == f"counts:{run}:"
    with client(stack.site.doors["speed->redis"].harness) as through, through.pipeline() as pipe:
        for i in range(1000):
            pipe.incr(f"{name}{i % 10}")
        pipe.execute()
    before = stack.kill_service("redis")
    assert before["status"] == -9
    assert stack.probe("query->redis") is None
    after = stack.start_service("redis")
    assert after["pid"] != before["pid"]
    assert stack.probe("query->redis") is not None
    with client(stack.servers["redis"].direct) as direct:
        assert [int(direct.get(f"{name}{i}")) for i in range(10)] == [100] * 10


def test_a_link_to_redis_is_cut_alone(stack: Stack, run: str) -> None:
    stack.toxiproxy.set_enabled("speed->redis", False)
    try:
        assert stack.probe("speed->redis") is None
        assert stack.probe("query->redis") is not None
    finally:
        stack.toxiproxy.set_enabled("speed->redis", True)
    assert stack.probe("speed->redis") is not None


@pytest.mark.parametrize("how", ["remove", "sweep"])
def test_a_runs_keys_go_with_it_and_no_others(stack: Stack, run: str, how: str) -> None:
    server: Any = stack.servers["redis"]
    other = uuid.uuid4().hex[:8]
    with client(server.direct) as direct:
        for tag in (run, other):
            with direct.pipeline() as pipe:
                for i in range(2500):
                    pipe.set(f"counts:{tag}:{i}", i)
                pipe.execute()
        if how == "remove":
            server.remove(server.names(run))
        else:
            server.sweep(run)
        assert sum(1 for _ in direct.scan_iter(f"counts:{run}:*", count=1000)) == 0
        assert sum(1 for _ in direct.scan_iter(f"counts:{other}:*", count=1000)) == 2500
        server.sweep(other)


def test_a_killed_service_that_was_started_here_is_no_reason_to_refuse(
    backend: str, sessions: Callable[[str], Session]
) -> None:
    assert sessions(backend).prepare(legacy).refuses(kill_service("redis"), legacy) == ""


def test_a_shared_folder_is_there_for_a_run_and_goes_with_it(stack: Stack, backend: str) -> None:
    """In containers it is a volume, which the tests of whole pipelines write to."""
    tag = uuid.uuid4().hex[:8]
    stack.make("files", tag)
    path = stack.names(tag)["raw_logs"]
    assert path.endswith(f"/raw_logs-{tag}")
    if backend == "process":
        (Path(path) / "deep").mkdir()
        (Path(path) / "deep" / "file").write_text("x")
    stack.remove(tag)
    if backend == "process":
        assert not Path(path).exists()


# ------------------------------------------------------------------------------------------ answers of a worker

CELLS = [Cells("tweet", ["tweet_id", "engagement"], [10])]
CELL = b'{"dimension":"tweet","key":"7|like","window_s":10,"window_start_ms":1790000000000,"count":%d,"weight":%d}\n'  # fmt: skip


class Answer(BaseHTTPRequestHandler):
    """What the test says: status, headers beside the usual ones, the body of the next answer."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int] = 200
    length: ClassVar[int | None] = 0
    bodies: ClassVar[list[bytes]] = []
    asked: ClassVar[int] = 0
    ends_without_a_word: ClassVar[bool] = False

    def do_GET(self) -> None:
        kind = type(self)
        kind.asked += 1
        body = kind.bodies.pop(0) if len(kind.bodies) > 1 else kind.bodies[0]
        self.send_response(self.status)
        if self.length is not None:
            self.send_header("Content-Length", str(len(body) + self.length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True
        if kind.ends_without_a_word:
            self.rfile.readline()  # whatever is asked next on this connection finds it ended

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def answer() -> Iterator[type[Answer]]:
    """A real server on 127.0.0.1; its port is `answer.port`."""
    kind = type("Given", (Answer,), {"bodies": [CELL % (2, 30) + b"\n" + CELL % (1, 12)]})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    kind.port = server.server_port  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind
    server.shutdown()
    server.server_close()


def tap_of(answer: Any) -> SinkTap:
    return http_tap(HttpHop("counted", worker="ask"), f"127.0.0.1:{answer.port}", CELLS, time.time)


def finished(tap: SinkTap) -> Any:
    tap.start()
    time.sleep(0.1)
    return tap.finish()


def test_answers_are_summed_by_cell_certified_by_two_equal_readings_and_dated(answer: type[Answer]) -> None:
    begin = time.time() * 1000
    result = finished(tap_of(answer))
    assert result.certified, result.reason
    assert result.frame.rows() == [("tweet", "7|like", 10, 1_790_000_000_000, 3, 42)]
    [(dimension, key, window_s, start, seen_ms)] = result.appearances.rows()
    assert (dimension, key, window_s, start) == ("tweet", "7|like", 10, 1_790_000_000_000)
    assert begin <= seen_ms <= time.time() * 1000


def test_single_events_are_read_where_they_are_shown_and_then_nothing_is_dated(answer: Any) -> None:
    hop = HttpHop("counted", worker="ask", sightings="/sightings")
    tap = http_tap(hop, f"127.0.0.1:{answer.port}", CELLS, time.time)
    seen = b'{"event_id":"1a2b3c4d-0001-0000000007","seen_ms":1790000000000.5}\n'
    tap.start()
    time.sleep(0.1)
    tap.abandon()
    tap._thread.join(10)  # or what it still asks for takes an answer that is for the end
    answer.bodies = [CELL % (3, 42), seen, CELL % (3, 42), seen]
    result = tap.finish()
    assert result.certified, result.reason
    assert result.sightings("1a2b3c4d").rows() == [(1, 7, 1_790_000_000_000.5)]
    assert result.appearances is None
    answer.bodies = [b"{}\n"]
    broken = finished(http_tap(hop, f"127.0.0.1:{answer.port}", CELLS, time.time))
    assert not broken.certified


def test_no_answer_is_asked_for_on_a_connection_that_its_server_may_have_ended(answer: type[Answer]) -> None:
    answer.ends_without_a_word = True
    result = finished(tap_of(answer))
    assert result.certified, result.reason


def test_a_cell_keeps_the_date_at_which_it_was_first_seen(answer: type[Answer]) -> None:
    tap = tap_of(answer)
    tap.start()
    deadline = time.monotonic() + 10
    while answer.asked < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    begin = time.time() * 1000
    assert tap.finish().appearances["seen_ms"][0] < begin


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"bodies": [CELL % (i, i) for i in range(1, 99)]}, "differ"),
        ({"status": 503, "bodies": [b"Redis is away"]}, "answered 503: Redis is away"),
        ({"length": None}, "without Content-Length"),
        ({"length": 7}, "IncompleteRead"),
        ({"bodies": [CELL % (1, 1) + b"half a li"]}, "/cells is no cell (JSONDecodeError"),
        ({"bodies": [b'{"dimension":"tweet","key":"7|like"}\n']}, "is no cell (KeyError("),
        ({"bodies": [b"[1]\n"]}, "is no cell"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_an_answer_that_may_not_be_all_is_not_certified(answer: type[Answer], how: dict[str, Any], reason: str) -> None:
    for name, value in how.items():
        setattr(answer, name, value)
    result = finished(tap_of(answer))
    assert not result.certified
    assert reason in result.reason


def test_a_worker_that_has_gone_is_not_certified_and_not_healthy(answer: Any) -> None:
    address = f"127.0.0.1:{answer.port}"
    assert healthy(address, "/healthz")
    answer.status = 503
    assert not healthy(address, "/healthz")
    tap = http_tap(HttpHop("counted", worker="ask"), "127.0.0.1:1", CELLS, time.time)
    result = finished(tap)
    assert (result.certified, "refused" in result.reason) == (False, True)
    assert "cannot be read" in tap.trouble()
    assert not healthy("127.0.0.1:1", "/healthz")


# ----------------------------------------------------------------------------------------- a Redis that was there


def test_a_redis_that_was_there_is_asked_swept_and_never_killed(
    stagings: Callable[[str], Staging], tmp_path: Path
) -> None:
    """By an endpoints file, beside a Kafka that was there, too."""
    tag, other = uuid.uuid4().hex[:8], uuid.uuid4().hex[:8]
    processes, ports = Processes(), Ports()
    port = ports.take()
    processes.spawn(provision_one("redis").start_args("127.0.0.1", port), tmp_path / "redis.log", cwd=tmp_path)
    endpoints = tmp_path / "endpoints.toml"
    kafka = stagings("shared").kafka.direct
    endpoints.write_text(f'[kafka]\naddress = "{kafka}"\n[redis]\naddress = "127.0.0.1:{port}"\n')
    try:
        with Session("external", endpoints) as session:
            stack = session.stack(legacy)
            assert stack.ask("redis") is not None
            assert stack.probe("speed->redis") is not None
            for service in ("redis", "files"):
                stack.make(service, tag)
            with client(stack.servers["redis"].direct) as direct:
                direct.set(f"{stack.names(tag)['counts']}x", 1)
                direct.set(f"counts:{other}:x", 1)
                stack.remove(tag)
                assert list(direct.scan_iter()) == [f"counts:{other}:x".encode()]
            why = session.prepare(legacy).refuses(kill_service("redis"), legacy)
            assert why == "redis was there before this run, and this backend neither ends nor starts it"
        with client(f"127.0.0.1:{port}") as direct:
            assert direct.ping(), "it outlives the session"
    finally:
        processes.close()
        ports.close()
