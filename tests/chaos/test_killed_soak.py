"""A soak: cycles on one pipeline, the harness killed in the middle of one, and what goes on after it."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import requests
from google.cloud.bigtable_v2.types import MutateRowsRequest

from harness.backends import docker, reaper
from harness.services.bigtable import INSTANCE, read_rows
from harness.session import Session
from harness.soak.cycles import Soak, scenario_of
from harness.soak.state import Asked, State
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.kappa.table import seen_entry

pytestmark = [pytest.mark.chaos, pytest.mark.longer]

GAUNTLET = [sys.executable, "-m", "harness.cli", "soak"]
WITHIN_S = 180.0
#: Cycles of ten seconds, of which one is enough.
ONE = ["--backend", "process", "--hours", "0.003", "--cycle-seconds", "10", "--rate", "500"]


def begun(folder: Path, cycle: int, what: str = '"stage":"load"') -> bool:
    """Whether the load of a cycle is under way, or something else has happened in it."""
    histories = folder.glob(f"*/cycles/*-cycle-{cycle:05d}-*/history.jsonl")
    return any(what in history.read_text() for history in histories)


def judged(folder: Path) -> dict[str, Any]:
    return dict(json.loads(next(folder.glob("*-soak-*/soak.json")).read_text()))


def killed(folder: Path, cycle: int, what: str, *words: str) -> list[psutil.Process]:
    """A soak whose harness is killed as soon as something happens in a cycle; all that it had started, the keeper first."""
    soak = subprocess.Popen([*GAUNTLET, *words], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + WITHIN_S
        while not begun(folder, cycle, what):
            assert soak.poll() is None, soak.stderr.read() if soak.stderr else ""
            assert time.monotonic() < deadline, f"{what} never was in cycle {cycle}"
            time.sleep(0.01)
        started = psutil.Process(soak.pid).children(recursive=True)
    finally:
        soak.send_signal(signal.SIGKILL)
        soak.wait()
    return started


def resumed(folder: Path, exit_status: int = 0) -> dict[str, Any]:
    """The soak in a folder, gone on with to its end."""
    argv = [*GAUNTLET, "--resume", str(folder), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == exit_status, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def numbers(verdict: dict[str, Any]) -> list[int]:
    """Of the cycles, each once however often it was tried: what a busy machine makes of a fault is not what is tested here."""
    return list(dict.fromkeys(cycle["number"] for cycle in verdict["cycles"]))


def unjudged(verdict: dict[str, Any], cut_off: int) -> dict[str, int]:
    """What must stand there, if so many events were cut off and not judged."""
    last = {cycle["number"]: cycle for cycle in verdict["cycles"]}
    again = [cycle for cycle in verdict["cycles"] if cycle is not last[cycle["number"]]]
    return {"tried_again": sum(cycle["events"]["acked"] for cycle in again), "cut_off": cut_off}


def healed(toxiproxy: int) -> bool:
    proxies = requests.get(f"http://127.0.0.1:{toxiproxy}/proxies", timeout=10).json().values()
    return all(proxy["enabled"] and not proxy["toxics"] for proxy in proxies)


def gone(started: list[psutil.Process]) -> bool:
    return psutil.wait_procs(started, timeout=10)[1] == []


def test_where_nothing_outlives_the_harness_a_soak_goes_on_with_the_cycle_that_was_cut_off(tmp_path: Path) -> None:
    """As after a reboot: the emulators have lost all that was in them, and nothing is claimed of it."""
    words = ["--backend", "process", "--hours", "0.025", "--cycle-seconds", "10", "--rate", "500", "--seed", "3"]
    started = killed(tmp_path, 2, '"stage":"load"', *words, "--out", str(tmp_path))
    assert len(started) >= 9, "keeper, four services, three workers, load"
    first = judged(tmp_path)["cycles"]
    assert [cycle["verdict"] for cycle in first if cycle["verdict"] != "inconclusive"] == ["pass"]
    started[0].kill()
    assert gone(started)
    folder = next(tmp_path.glob("*-soak-*"))
    unfinished = subprocess.run([*GAUNTLET[:-1], "check", str(folder)], capture_output=True, text=True, timeout=60)
    assert unfinished.returncode == 3
    assert f"gauntlet soak --resume {folder}" in unfinished.stderr
    verdict = resumed(folder)
    cycles = numbers(verdict)
    assert cycles == list(range(1, len(cycles) + 1)), "each cycle is judged once"
    assert len(cycles) >= 3, "two of them on one deployment"
    assert verdict["cycles"][: len(first)] == first, "what was judged stays as it was"
    assert verdict["events"]["acked"] == 5_000 * len(cycles)
    (cut,) = verdict["cut"]
    assert Path(cut["run"]).name.split("-")[1:3] == ["cycle", "00002"]
    assert (cut["verdict"], "its processes have ended" in cut["why"]) == ("", True)
    assert verdict["unjudged"] == unjudged(verdict, cut["events"]["acked"])
    assert verdict["findings"][0]["figures"]["claimed"] is False
    last = json.loads((Path(verdict["cycles"][-1]["run"]) / "verdict.json").read_text())
    figures = {finding["assertion"]: finding["figures"] for finding in last["findings"]}
    assert sum(figures["taps_complete"]["hops"]["source"]["ends"]) > 2 * 5_000, "the topic goes on from cycle to cycle"
    assert figures["no_loss"]["must_arrive"] <= 5_000, "and only this cycle's events are judged"
    # The batch truth reads the topic from its beginning: it would count the cycle before, too, were that still there.
    assert figures["batch_parity"]["wrong"] == 0
    # It is judged again from its folder, the runs that are still there too, and to the same answer.
    check = [*GAUNTLET[:-1], "check", str(folder), "--json"]
    checked = subprocess.run(check, capture_output=True, text=True, timeout=120)
    assert (checked.returncode, json.loads(checked.stdout)) == (0, verdict), checked.stderr
    assert {path.name for path in folder.iterdir()} >= {"verdict.json", "report.html", "junit.xml"}


@pytest.mark.parametrize(("seed", "fault"), [(26, "kill_broker"), (3, "pause")])
def test_what_was_acknowledged_before_a_kill_is_judged_after_it(tmp_path: Path, seed: int, fault: str) -> None:
    """Twice: in the middle of a fault, which nobody heals, and while the next harness judges what the first had left."""
    in_force = f'"kind":"fault-start","index":0,"fault":"{fault}"'
    started = killed(tmp_path, 1, in_force, *ONE, "--seed", str(seed), "--out", str(tmp_path))
    assert len(started) >= 8, "keeper, four services, three workers, load, but for one that a fault has killed"
    assert not begun(tmp_path, 1, '"kind":"fault-end"'), "the fault was in force"
    time.sleep(2)
    assert all(p.is_running() and p.status() != psutil.STATUS_STOPPED for p in started), "all of it goes on"
    folder = next(tmp_path.glob("*-soak-*"))
    if fault == "kill_broker":
        again = killed(tmp_path, 1, '"stage":"drain"', "--resume", str(folder))
        assert again == [], "all are the keeper's, and it is another's child"
    verdict = resumed(folder)
    (cut,) = verdict["cut"]
    assert (cut["verdict"], cut["judged"], cut["events"]["acked"]) == ("pass", 5_000, 5_000)
    assert verdict["unjudged"] == unjudged(verdict, 0)
    assert verdict["events"]["acked"] == 5_000 * (1 + len(numbers(verdict)))
    assert verdict["findings"][1]["summary"].endswith("acknowledged events was judged once")
    assert gone(started)
    run = json.loads((Path(cut["run"]) / "verdict.json").read_text())
    assert {f["assertion"] for f in run["findings"]} >= {"no_loss", "duplicate_rate", "batch_parity", "content"}
    checked = subprocess.run([*GAUNTLET[:-1], "check", str(folder)], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(("seed", "fault"), [(26, "kill_broker"), (2, "disconnect")])
def test_containers_in_docker_outlive_a_kill_as_processes_do(tmp_path: Path, seed: int, fault: str) -> None:
    if reason := docker.why_not():
        pytest.skip(f"no containers: {reason}")
    in_force = f'"kind":"fault-start","index":0,"fault":"{fault}"'
    words = ["--backend", "docker", *ONE[2:], "--seed", str(seed), "--out", str(tmp_path)]
    started = killed(tmp_path, 1, in_force, *words)
    assert not begun(tmp_path, 1, '"kind":"fault-end"'), "the fault was in force"
    folder = next(tmp_path.glob("*-soak-*"))
    left = json.loads((folder / "deployment.json").read_text())["site"]
    time.sleep(2)
    api = docker.client().api
    ours = {"label": f"{reaper.LABEL}={left['owner']}"}
    names = {c["Labels"].get(docker.PART) for c in api.containers(filters=ours)}
    assert names >= {"toxiproxy", "pubsub", "bigtable", "preprocessor", "converter", "aggregator"}, "all of it goes on"
    verdict = resumed(folder)
    (cut,) = verdict["cut"]
    assert (cut["verdict"], cut["judged"], cut["events"]["acked"]) == ("pass", 5_000, 5_000)
    assert verdict["unjudged"] == unjudged(verdict, 0)
    assert verdict["events"]["acked"] == 5_000 * (1 + len(numbers(verdict)))
    assert gone(started)
    assert api.containers(all=True, filters=ours) == api.networks(filters=ours) == []


@pytest.mark.parametrize(("done", "by"), [("counted again", "duplicate_rate"), ("lost", "no_loss")])
def test_what_goes_wrong_while_nobody_watches_is_a_violation(tmp_path: Path, done: str, by: str) -> None:
    partition = '"kind":"fault-start","index":0,"fault":"partition"'
    started = killed(tmp_path, 1, partition, *ONE, "--seed", "12", "--stop", "--out", str(tmp_path))
    folder = next(tmp_path.glob("*-soak-*"))
    left = json.loads((folder / "deployment.json").read_text())
    deadline = time.monotonic() + 10
    while not healed(left["site"]["api"]):
        assert time.monotonic() < deadline, "what was cut is healed while nobody is there"
        time.sleep(0.1)
    (port,) = [port for process, what, port in left["site"]["taken"] if (process, what) == ("bigtable", "direct")]
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
        table = f"{INSTANCE}/tables/aggregates-{left['run'].rpartition('-')[2]}"
        count_again(channel, table) if done == "counted again" else lose(channel, table)
    verdict = resumed(folder, exit_status=1)
    (cut,) = verdict["cut"]
    assert cut["verdict"] == verdict["verdict"] == "violation"
    assert by in cut["violated"]
    assert verdict["cycles"] == [], "it was to stop there"
    assert gone(started)


def test_an_old_event_that_is_counted_between_two_cycles_is_a_violation_of_the_next(tmp_path: Path) -> None:
    """The first had drained and was judged, and the second has not begun to look: a gap in which a late duplicate must not
    become part of what "was there before"."""
    asked = Asked("soak", "kappa", "process", seed=3, hours=0.25, cycle_s=10.0, rate=500, stop=True)
    told: list[str] = []
    with Session("process", forgets=True) as session:

        def tell(line: str) -> None:
            told.append(line)
            if sum("pass" in line for line in told) == 1 and "pass" in line:
                server: Any = session.stack(kappa).servers["bigtable"]
                tag = max((tmp_path / "deployments").iterdir()).name.rpartition("-")[2]
                count_again(server.channel, server.names(tag)["aggregates"])

        verdict = Soak(scenario_of(asked, kappa), State(asked), tmp_path, session, tell).run()
    said = [cycle["verdict"] for cycle in verdict["cycles"] if cycle["verdict"] != "inconclusive"]
    assert said == ["pass", "violation"], told
    assert "duplicate_rate" in verdict["cycles"][-1]["violated"]


def test_what_a_cycle_has_left_unread_is_read_by_nobody_in_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker stands still when the load is over, and nobody continues it: the next cycle has a pipeline of its own."""
    monkeypatch.setattr("harness.draining.STUCK_AFTER_S", 3.0)
    monkeypatch.setattr("harness.draining.AT_REST_S", 0.5)
    asked = Asked("soak", "kappa", "process", seed=3, hours=0.25, cycle_s=10.0, rate=500)
    told: list[str] = []
    stopped: list[int] = []
    with Session("process", forgets=True) as session:

        def tell(line: str) -> None:
            told.append(line)
            if "pass" in line:
                soak._begin -= 3600  # that is enough

        def stop(record: Mapping[str, Any]) -> None:
            if record["kind"] == "load" and record.get("acked", 0) > 3_000 and not stopped:
                (child,) = [c for log, c in session.processes.living() if log.name == "converter.log"]
                stopped.append(child.pid)
                os.kill(child.pid, signal.SIGSTOP)

        soak = Soak(scenario_of(asked, kappa), State(asked), tmp_path, session, tell, [stop])
        verdict = soak.run()
    first, *_, last = verdict["cycles"]
    assert (first["verdict"], last["verdict"]) == ("violation", "pass"), told
    assert any("is deployed anew" in line and Path(first["run"]).name in line for line in told)
    assert len(list((tmp_path / "deployments").iterdir())) >= 2
    assert not psutil.pid_exists(stopped[0])


def test_a_worker_that_no_longer_starts_is_a_violation_though_no_cycle_is_under_way(tmp_path: Path) -> None:
    """No run would see it: the cycle before has passed, and the next one does not begin."""
    broken = tmp_path / "broken"
    converter = kappa.worker("converter")
    command = ["sh", "-c", f"test ! -e {broken} || exit 3; exec {shlex.join(converter.command)}"]
    workers = [dataclasses.replace(w, command=command) if w.name == "converter" else w for w in kappa.workers]
    pipeline = dataclasses.replace(kappa, workers=workers)
    asked = Asked("soak", "kappa", "process", seed=3, hours=0.25, cycle_s=10.0, rate=500)
    with Session("process", forgets=True) as session:

        def tell(line: str) -> None:
            if "pass" in line:
                broken.touch()
                (child,) = [c for log, c in session.processes.living() if log.name == "converter.log"]
                os.kill(child.pid, signal.SIGKILL)

        soak = Soak(scenario_of(asked, pipeline), State(asked), tmp_path, session, tell)
        verdict = soak.run()
    assert [c["verdict"] for c in verdict["cycles"] if c["verdict"] != "inconclusive"] == ["pass"]
    assert verdict["verdict"] == "violation"
    (found,) = [f for f in verdict["findings"] if f["verdict"] == "violation"]
    assert found["assertion"] == "at_work"
    assert "The worker converter dies at its start" in found["summary"]
    run = Path(found["examples"][0]["run"])
    assert "dies at its start" in (run / "report.html").read_text()


def count_again(channel: grpc.Channel, table: str) -> None:
    """One event of the last row of tweets gets a second cell there, as from a publisher that gave it another UUID."""
    row = [row for row in read_rows(channel, table) if b"#tweet#" in row.key][-1]
    (_, qualifier), versions = next(iter(row.cells.items()))
    change(channel, table, seen_entry(row.key, [(qualifier.partition(b"|")[0] + b"|again", versions[0][1])]))


def lose(channel: grpc.Channel, table: str) -> None:
    """The last row of tweets is deleted."""
    row = [row for row in read_rows(channel, table) if b"#tweet#" in row.key][-1]
    entry = MutateRowsRequest.Entry.pb()(row_key=row.key)
    entry.mutations.add().delete_from_row.SetInParent()
    change(channel, table, entry)


def change(channel: grpc.Channel, table: str, entry: Any) -> None:
    request = MutateRowsRequest.pb()(table_name=table, entries=[entry])
    assert list(
        channel.unary_stream("/google.bigtable.v2.Bigtable/MutateRows")(request.SerializeToString(), timeout=20)
    )
