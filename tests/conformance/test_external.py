"""Services that are there already: what is refused and why, what is found out at the start, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from staging import Staging
from waiting import wait_for

from faults import kill, kill_broker, latency, partition, pause, redeliver
from faults.base import Fault
from harness.backends.leftovers import Leftovers
from harness.history import History
from harness.session import Session
from harness.topology import UsageError
from harness.watching import Watch
from pipelines_under_test.kappa.pipeline import kappa

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def staging(stagings: Callable[[str], Staging]) -> Staging:
    return stagings("beside")


def prepared(endpoints: Path) -> Any:
    with Session("external", endpoints) as session:
        return session.prepare(kappa)


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "fault",
    [kill("preprocessor"), pause("converter"), partition("converter->kafka"), latency("aggregator->bigtable"),
     redeliver("aggregator")],
    ids=lambda f: f"{f.name} {f.target}",
)  # fmt: skip
def test_what_can_be_done_is_not_refused(staging: Staging, fault: Fault) -> None:
    assert prepared(staging.endpoints).refuses(fault, kappa) == ""


def test_a_service_that_was_there_is_never_ended(staging: Staging) -> None:
    why = prepared(staging.endpoints).refuses(kill_broker("kafka"), kappa)
    assert why == "kafka was there before this run, and this backend neither ends nor starts it"


@pytest.mark.parametrize("fault", [partition("converter->kafka"), latency("converter"), partition("load->kafka")])
def test_a_link_that_kafka_leads_past_its_proxy_cannot_be_cut(staging: Staging, fault: Fault) -> None:
    backend = prepared(staging.file("no-listeners.toml", []))
    why = backend.refuses(fault, kappa)
    assert "past the proxy; give the link a listener" in why
    assert "no-listeners.toml ([kafka.links." in why
    assert backend.refuses(partition("converter->pubsub"), kappa) == ""


def test_a_worker_of_which_nothing_is_seen_cannot_be_proven_dead(staging: Staging) -> None:
    backend = prepared(staging.file("no-listeners.toml", []))
    assert "preprocessor->kafka have no listener" in backend.refuses(kill("preprocessor"), kappa)
    assert backend.refuses(kill("converter"), kappa) == "", "its link to Pub/Sub shows it"


# ------------------------------------------------------------------------------- what is found out at the start


def started(endpoints: Path) -> None:
    with Session("external", endpoints) as session:
        session.stack(kappa)


def test_an_address_where_nothing_is_is_told(staging: Staging) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"No pubsub answers at {nowhere}, where the endpoints file says"):
            started(staging.file("nowhere.toml", [], pubsub=nowhere))


def test_a_listener_that_leads_past_the_proxy_is_told(staging: Staging) -> None:
    """The trap of testcontainers-java #2073: the bootstrap goes through the proxy, and everything after it does not."""
    link, other = "converter->kafka", "preprocessor->kafka"
    listeners = dict(staging.listeners)
    try:
        staging.listeners[link] = (listeners[other][0], listeners[link][1])
        with pytest.raises(
            UsageError, match=rf"leads its clients on to 127.0.0.1:{listeners[other][1]}, past the proxy at "
        ):
            started(staging.file("astray.toml", [link]))
    finally:
        staging.listeners |= listeners


def test_a_door_that_is_taken_is_told(staging: Staging) -> None:
    link = "converter->kafka"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", staging.listeners[link][1]))
        taken.listen()
        with pytest.raises(UsageError, match=f"of the link {link} .* is taken.*One at a time"):
            started(staging.endpoints)


# ---------------------------------------------------------------------------------------------- watching


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "history.jsonl")
    yield made
    made.close()


def test_a_service_that_does_not_answer_for_a_while_is_seen(staging: Staging, history: History) -> None:
    with Session("external", staging.endpoints) as session:
        stack = session.stack(kappa)
        watch = Watch({s: lambda s=s: stack.ask(s) for s in stack.site.existing}, history)  # type: ignore[misc]
        watch.start()
        time.sleep(0.6)
        staging.kill_kafka()
        assert wait_for(lambda: any(r["kind"] == "service-away" for r in history.records), 20)
        time.sleep(1.2)
        staging.start_kafka()
        assert wait_for(lambda: any(r["kind"] == "service-back" for r in history.records), 30)
        watch.stop()
    told = [(r["kind"], r["service"]) for r in history.records if r["kind"] in ("service-away", "service-back")]
    assert told == [("service-away", "kafka"), ("service-back", "kafka")]
    ends = {r["service"]: r for r in history.records if r["kind"] == "service-watch"}
    assert ends.keys() == {"kafka", "pubsub", "bigtable"}
    assert ends["kafka"]["missed"] >= 2
    assert ends["pubsub"]["missed"] == ends["bigtable"]["missed"] == 0
    assert ends["pubsub"]["asked"] >= 4


# ------------------------------------------------------------------------------------------ nothing left

MAKER = """
import sys, time
from pathlib import Path
from harness.session import Session
from pipelines_under_test.kappa.pipeline import kappa
stack = Session("external", Path(sys.argv[1])).stack(kappa)
for service in ("kafka", "pubsub", "bigtable"):
    stack.make(service, "deadbeef")
print("made", flush=True)
time.sleep(300)
"""


def left(staging: Staging) -> set[str]:
    """Whose names end in the tag of the killed run."""
    from google.cloud.bigtable_admin_v2.types import bigtable_table_admin as admin

    from harness.services.bigtable import INSTANCE

    names = set(AdminClient({"bootstrap.servers": staging.kafka.direct}).list_topics(timeout=10).topics)
    publisher, subscriber = staging.pubsub.client()
    names |= {t.name for t in publisher.list_topics(request={"project": "projects/gauntlet"})}
    names |= {s.name for s in subscriber.list_subscriptions(request={"project": "projects/gauntlet"})}
    asked = admin.ListTablesRequest.serialize(admin.ListTablesRequest(parent=INSTANCE))
    found = admin.ListTablesResponse.deserialize(staging.bigtable._admin("ListTables", asked))
    names |= {t.name for t in found.tables}
    return {name for name in names if name.endswith("-deadbeef")}


def test_what_a_killed_harness_made_there_goes_with_the_next_start(staging: Staging) -> None:
    """And what others made there stays."""
    staging.kafka.make(staging.kafka.names("0theirs0"))
    argv = [sys.executable, "-c", MAKER, str(staging.endpoints)]
    harness = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert harness.stdout is not None
    assert harness.stdout.readline() == "made\n"
    notes = Leftovers({s: getattr(staging, s).direct for s in ("kafka", "pubsub", "bigtable")})
    assert list(notes.of_the_dead()) == []
    os.kill(harness.pid, signal.SIGKILL)
    harness.wait()
    assert len(left(staging)) > 5
    assert list(notes.of_the_dead()) == ["deadbeef"]
    end = time.monotonic() + 10  # its Toxiproxy may still hold the doors
    while True:
        try:
            started(staging.endpoints)
            break
        except UsageError:
            assert time.monotonic() < end
            time.sleep(0.2)
    assert left(staging) == set()
    assert list(notes.of_the_dead()) == []
    there = AdminClient({"bootstrap.servers": staging.kafka.direct}).list_topics(timeout=10).topics
    assert "source-0theirs0" in there
    staging.kafka.remove(staging.kafka.names("0theirs0"))


@pytest.mark.longer
def test_the_command_line_runs_on_them(staging: Staging, tmp_path: Path) -> None:
    argv = ["run", "steady", "--backend", "external", "--endpoints", str(staging.endpoints)]
    options = ["--rate", "500", "--seconds", "4", "--out", str(tmp_path), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *argv, *options], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert (verdict["verdict"], verdict["backend"]) == ("pass", "external")
    alive = next(f for f in verdict["findings"] if f["assertion"] == "services_alive")
    assert alive["figures"]["watched"]["kafka"]["asked"] > 10
    assert f"on the services of {staging.endpoints}" in done.stderr.splitlines()[0]
    assert not [t for t in AdminClient({"bootstrap.servers": staging.kafka.direct}).list_topics(timeout=10).topics
                if verdict["run"].endswith(t.rpartition("-")[2])]  # fmt: skip
