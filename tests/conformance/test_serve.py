"""The service for real: a run that is started over HTTP, watched to its verdict, and outlives the service that started it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from waiting import wait_for

pytestmark = [pytest.mark.services, pytest.mark.longer]

WITHIN_S = 120.0
TOKEN = "a-token-of-this-test"
GIVEN = {"Authorization": f"Bearer {TOKEN}"}
#: As short as a whole run can be: no faults, a thousand events.
SHORT = {"kind": "run", "scenario": "steady", "backend": "process", "seed": 5, "rate": 200, "seconds": 5}


@contextmanager
def service(store: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A service on a free port: its address and process."""
    env = {**os.environ, "GAUNTLET_TOKEN": TOKEN}
    words = [sys.executable, "-m", "harness.cli", "serve", "--store", str(store), "--port", "0"]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env)
    assert child.stderr is not None
    try:
        for line in child.stderr:
            if " at http://" in line:
                break
        address = line.split(" at ")[1].strip()
        yield address, psutil.Process(child.pid)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        assert child.wait(30) in (0, -signal.SIGKILL), child.stderr.read()
        child.stderr.close()


def events(address: str, last: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, id, data) of each server-sent event, up to the end of the stream."""
    headers = {"Last-Event-ID": last} if last else {}
    with requests.get(address, headers=headers, stream=True, timeout=WITHIN_S) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told: dict[str, str] = {}
        for line in answer.iter_lines(decode_unicode=True):
            if not line and "event" in told:
                yield told["event"], told.get("id", ""), json.loads(told["data"])
                told = {}
            elif ": " in line and not line.startswith(":"):
                key, _, value = line.partition(": ")
                told[key] = value


def test_a_run_outlives_the_service_and_is_watched_to_its_verdict(tmp_path: Path) -> None:
    stages: list[str] = []
    with service(tmp_path) as (address, process):
        assert requests.post(f"{address}/api/jobs", json=SHORT, timeout=10).status_code == 401
        job = requests.post(f"{address}/api/jobs", json=SHORT, headers=GIVEN, timeout=10)
        assert job.status_code == 202, job.text
        id_ = job.json()["id"]
        last = ""
        for name, place, data in events(f"{address}/api/jobs/{id_}/events"):
            last = place or last
            if name == "record" and data["kind"] == "stage":
                stages.append(data["stage"])
                if data["stage"] == "load":
                    break
        running = requests.get(f"{address}/api/jobs/{id_}", timeout=10).json()
        assert running["state"] == "running"
        entry = requests.get(f"{address}/api/runs/{running['run']}", timeout=10).json()
        assert (entry["standing"], entry["job"]) == ("running", id_)
        page = requests.get(f"{address}/runs/{running['run']}", timeout=10)
        assert (page.status_code, "Under way" in page.text) == (200, True)
        assert requests.delete(f"{address}/api/runs/{running['run']}", headers=GIVEN, timeout=10).status_code == 409
        process.kill()
        process.wait(10)
    assert psutil.Process(running["pid"]).is_running(), "the run goes on"
    with service(tmp_path) as (address, _):
        found = requests.get(f"{address}/api/jobs/{id_}", timeout=10).json()
        assert (found["state"], found["pid"], found["run"]) == ("running", running["pid"], running["run"])
        # Where it was left, nothing twice and nothing left out.
        told = list(events(f"{address}/api/jobs/{id_}/events", last))
        stages += [data["stage"] for name, _, data in told if name == "record" and data["kind"] == "stage"]
        assert stages == ["deploy", "warm-up", "load", "heal", "drain", "collect", "check", "store"]
        name, _, end = told[-1]
        assert name == "end"
        assert end["entry"]["standing"] == "pass", end
        assert (end["job"]["state"], end["job"]["verdict"]) == ("ended", "pass")
        verdict = requests.get(f"{address}/api/runs/{running['run']}/verdict", timeout=10).json()
        assert (verdict["verdict"], verdict["events"]["acked"]) == ("pass", 1_000)
        report = requests.get(f"{address}/runs/{running['run']}/files/report.html", timeout=10)
        assert "sandbox" in report.headers["content-security-policy"]
        assert 'gauntlet_last_verdict{backend="process",kind="run",pipeline="kappa",scenario="steady",verdict="pass"} 1.0' in (
            requests.get(f"{address}/metrics", timeout=10).text
        )  # fmt: skip

        # A file that changes after the run: what was a pass is one no longer.
        damaged = tmp_path / "20260101T000000Z-copied-00000000"
        shutil.copytree(tmp_path / running["run"], damaged)
        with (damaged / "ledger.bin").open("r+b") as ledger:
            ledger.seek(100)
            ledger.write(b"\xff\xff")
        assert wait_for(lambda: requests.get(f"{address}/api/runs/{damaged.name}", timeout=10).ok, 30)
        entry = requests.get(f"{address}/api/runs/{damaged.name}", timeout=10).json()
        assert (entry["standing"], "ledger.bin" in entry["why"]) == ("damaged", True)
        assert requests.get(f"{address}/api/runs/{damaged.name}/verdict", timeout=10).status_code == 409


def test_a_run_that_is_cancelled_cleans_up_after_itself(tmp_path: Path) -> None:
    with service(tmp_path) as (address, _):
        asked = {**SHORT, "seconds": 60}
        job = requests.post(f"{address}/api/jobs", json=asked, headers=GIVEN, timeout=10).json()
        watch = f"{address}/api/jobs/{job['id']}/events"
        for name, _, data in events(watch):
            if name == "record" and data["kind"] == "stage" and data["stage"] == "load":
                break
        running = requests.get(f"{address}/api/jobs/{job['id']}", timeout=10).json()
        family = psutil.Process(running["pid"]).children(recursive=True)
        assert len(family) >= 8, "keeper, four services, three workers, load"
        cancelled = requests.post(f"{address}/api/jobs/{job['id']}/cancel", headers=GIVEN, timeout=10)
        assert cancelled.status_code == 202
        *_, (name, _, end) = events(watch)
        assert name == "end"
        assert (end["job"]["state"], end["job"]["status"]) == ("ended", 130)
        assert end["entry"]["standing"] == "broken off"
        _gone, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []


#: As short as a soak can be: one cycle.
SHORT_SOAK = {"kind": "soak", "hours": 0.001, "cycle_seconds": 10, "rate": 100, "backend": "process"}


def test_a_soak_comes_due_by_the_clock_and_ends_by_itself(tmp_path: Path) -> None:
    with service(tmp_path) as (address, _):
        asked = {"cron": "* * * * *", "request": SHORT_SOAK}
        kept = requests.put(f"{address}/api/schedules/nightly", json=asked, headers=GIVEN, timeout=10)
        assert kept.status_code == 200, kept.text
        until = time.monotonic() + 75
        while not (job := requests.get(f"{address}/api/schedules", timeout=10).json()["schedules"][0]["job"]):
            assert time.monotonic() < until, "a minute has come and gone"
            time.sleep(1)
        gone = requests.delete(f"{address}/api/schedules/nightly", headers=GIVEN, timeout=10)
        assert gone.status_code == 204
        *_, (name, _, end) = events(f"{address}/api/jobs/{job}/events")
        assert name == "end"
        assert (end["job"]["origin"], end["job"]["status"]) == ("nightly", 0), end
        assert (end["entry"]["kind"], end["entry"]["standing"], end["entry"]["acked"]) == ("soak", "pass", 1_000), end
        page = requests.get(f"{address}/runs/{end['entry']['name']}", timeout=10)
        assert [page.status_code, *(text in page.text for text in ("Cycles", "The whole report"))] == [200, True, True]


def test_a_comparison_is_started_over_http_and_broken_off(tmp_path: Path) -> None:
    asked = {"kind": "compare", "baseline": "kappa", "candidate": "lingers", "scenario": "steady", "backend": "process"}
    with service(tmp_path) as (address, _):
        words = {**asked, "rate": 200, "seconds": 5, "pairs": 7}
        job = requests.post(f"{address}/api/jobs", json=words, headers=GIVEN, timeout=10)
        assert job.status_code == 202, job.text
        watch = f"{address}/api/jobs/{job.json()['id']}"
        until = time.monotonic() + WITHIN_S
        while not list(tmp_path.glob("*-compare-*/*-pair-01-*")):
            assert time.monotonic() < until
            assert requests.get(watch, timeout=10).json()["state"] != "ended"
            time.sleep(1)
        assert requests.post(f"{watch}/cancel", headers=GIVEN, timeout=10).status_code == 202
        *_, (name, _, end) = events(f"{watch}/events")
        assert name == "end"
        assert (end["job"]["state"], end["job"]["status"]) == ("ended", 130)
        assert (end["entry"]["kind"], end["entry"]["standing"]) == ("compare", "broken off"), end
