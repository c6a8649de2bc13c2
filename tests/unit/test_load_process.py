"""The load process without Kafka: what it says when it cannot begin, and what becomes of bad delivery reports.

`load.users` is imported in a process of its own each time, because it patches the standard library for gevent.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from harness.ledger import Ledger, ledger_of_worker, ledgers
from load.profiles import Steady
from load.spec import LoadSpec

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, and does not just die of it."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (number - 1))


def spec(folder: Path, **change: Any) -> LoadSpec:
    fields = {"bootstrap": "127.0.0.1:1", "topic": "t", "run": "1a2b3c4d", "seed": 7, "profile": Steady(rate=100)}
    paths = {name: str(folder / name) for name in ("ledger", "status", "go", "stop")}
    return LoadSpec(**{**fields, **paths, **change})  # type: ignore[arg-type]


def test_without_a_spec_it_says_how_it_is_used() -> None:
    done = run("-m", "load.main")
    assert done.returncode == 2
    assert "usage: python -m load.main SPEC.json" in done.stderr


def test_a_spec_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    done = run("-m", "load.main", str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert "none.json cannot be read" in done.stderr


def test_an_encoder_that_ignores_poison_is_a_usage_error_in_the_status_too(tmp_path: Path) -> None:
    wrong = spec(tmp_path, encode="tests.unit.test_events:blind")
    wrong.write(tmp_path / "spec.json")
    done = run("-m", "load.main", str(tmp_path / "spec.json"))
    assert done.returncode == 2
    last = json.loads((tmp_path / "status").read_text().splitlines()[-1])
    assert last["state"] == "error"
    assert "does not damage events" in last["text"]


def test_events_are_importable_without_gevent_and_polars() -> None:
    done = run(
        "-c",
        "import sys, load.events, load.warmup, harness.ledger; print([m in sys.modules for m in NAMES])".replace(
            "NAMES", "('gevent', 'locust', 'polars')"
        ),
    )
    assert done.stdout.strip() == "[False, False, False]", done.stderr


REPORTS = """
import sys
from types import SimpleNamespace
from gevent import monkey
monkey.patch_all()
from load.spec import LoadSpec
from load.users import Batch, Load

class Error:
    def __init__(self, code): self._code = code
    def code(self): return self._code

class Message:
    def __init__(self, value): self._value = value
    def value(self): return self._value

load = Load(LoadSpec.read(sys.argv[1]))
user = SimpleNamespace(number=1, settled=[])

def batch(lo, values):
    load.ledger.intent(1, lo, len(values))
    load.sent += len(values)
    return Batch(user, load, lo, values, 0.0)

first = batch(0, [b"a", b"b", b"c", b"d"])
first.delivered(None, Message(b"a"))
first.delivered(Error(-192), Message(b"c"))
first.delivered(None, Message(b"b"))
first.delivered(Error(-192), Message(b"d"))

second = batch(4, [b"e", b"f", b"g"])
second.delivered(None, Message(b"g"))
second.refuse(5, -184)
load.sent -= 1
second.delivered(None, Message(b"e"))

third = batch(7, [b"h", b"i"])
third.delivered(None, Message(b"h"))
print(load.sent, load.acked, load.failed, len(user.settled))
"""


def test_delivery_reports_go_into_the_ledger_event_by_event(tmp_path: Path) -> None:
    spec(tmp_path).write(tmp_path / "spec.json")
    done = run("-c", REPORTS, str(tmp_path / "spec.json"))
    assert done.stdout.split() == ["8", "4", "1", "2"], done.stderr
    ledger = Ledger.read(tmp_path / "ledger")
    assert ledger.acked(1).tolist() == [0, 1, 4, 6]
    assert ledger.ambiguous(1).tolist() == [2, 3, 7, 8]
    assert ledger.failed(1).tolist() == [5]


@pytest.mark.parametrize("listening", [False, True])
def test_a_kafka_that_never_answers_can_be_given_up_by_signal(tmp_path: Path, listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if listening else 1
        spec(tmp_path, bootstrap=f"127.0.0.1:{port}").write(tmp_path / "spec.json")
        process = subprocess.Popen([sys.executable, "-m", "load.main", str(tmp_path / "spec.json")], cwd=REPOSITORY)
        try:
            assert wait_for(lambda: catches(process.pid, signal.SIGTERM), 30)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            assert "ready" not in (tmp_path / "status").read_text()
            process.terminate()
            assert process.wait(10) == 0
            last = json.loads((tmp_path / "status").read_text().splitlines()[-1])
            assert (last["state"], last["ended"], last["sent"]) == ("done", "signal", 0)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("processes", "users", "told"),
    [(0, 1, "must be 1 or more, not 0"), (True, 1, "not True"), (3, 2, "2 load user(s) cannot be spread over 3")],
)
def test_processes_that_cannot_share_a_load_are_a_usage_error(
    tmp_path: Path, processes: Any, users: int, told: str
) -> None:
    spec(tmp_path, users=users, processes=processes).write(tmp_path / "spec.json")
    done = run("-m", "load.main", str(tmp_path / "spec.json"))
    assert done.returncode == 2
    assert told in done.stderr


def test_the_ledgers_of_a_load_are_found_by_their_names(tmp_path: Path) -> None:
    assert ledgers(tmp_path / "ledger.bin") == []
    for name in ("ledger-10.bin", "ledger-2.bin", "ledger.bin", "ledger-x.bin", "ledger-1.bin.old", "warmup.bin"):
        (tmp_path / name).touch()
    found = [path.name for path in ledgers(tmp_path / "ledger.bin")]
    assert found == ["ledger.bin", "ledger-2.bin", "ledger-10.bin"]
    assert ledger_of_worker(tmp_path / "ledger.bin", 10) == tmp_path / "ledger-10.bin"
