"""A soak: cycles on a pipeline that is never redeployed, the harness killed in the middle of one, and what goes on after it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.cloud.bigtable_v2.types import MutateRowsRequest

from harness.catalog import claims
from harness.services.bigtable import read_rows
from harness.session import Session
from harness.soak.cycles import Asked, Soak, State, scenario_of
from harness.stack import Stack
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.kappa.table import seen_entry

pytestmark = [pytest.mark.chaos, pytest.mark.longer]

GAUNTLET = [sys.executable, "-m", "harness.cli", "soak"]
WITHIN_S = 180.0


def begun(folder: Path, cycle: int) -> bool:
    """Whether the load of a cycle is under way."""
    histories = folder.glob(f"*/cycles/*-cycle-{cycle:05d}-*/history.jsonl")
    return any('"stage":"load"' in history.read_text() for history in histories)


def judged(folder: Path) -> dict[str, Any]:
    return dict(json.loads(next(folder.glob("*-soak-*/soak.json")).read_text()))


def test_a_killed_harness_goes_on_with_the_cycle_that_was_cut_off(tmp_path: Path) -> None:
    words = ["--backend", "process", "--hours", "0.025", "--cycle-seconds", "10", "--rate", "500", "--seed", "3"]
    soak = subprocess.Popen([*GAUNTLET, *words, "--out", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + WITHIN_S
        while not begun(tmp_path, 2):
            assert soak.poll() is None, soak.stderr.read() if soak.stderr else ""
            assert time.monotonic() < deadline, "the second cycle never began"
            time.sleep(0.1)
        started = psutil.Process(soak.pid).children(recursive=True)
        assert len(started) >= 9, "keeper, four services, three workers, load"
    finally:
        soak.send_signal(signal.SIGKILL)
        soak.wait()
    first = judged(tmp_path)["cycles"]
    assert [(cycle["number"], cycle["verdict"]) for cycle in first] == [(1, "pass")]
    _gone, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    folder = next(tmp_path.glob("*-soak-*"))
    unfinished = subprocess.run([*GAUNTLET[:-1], "check", str(folder)], capture_output=True, text=True, timeout=60)
    assert unfinished.returncode == 3
    assert f"gauntlet soak --resume {folder}" in unfinished.stderr
    done = subprocess.run([*GAUNTLET, "--resume", str(folder), "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])
    numbers = [cycle["number"] for cycle in verdict["cycles"]]
    assert numbers == list(range(1, len(numbers) + 1)), "each cycle is judged once"
    assert len(numbers) >= 3, "two of them on one deployment"
    assert verdict["cycles"][0] == first[0], "what was judged stays as it was"
    assert verdict["events"]["acked"] == 5_000 * len(numbers)
    assert [Path(cut["run"]).name.split("-")[1:3] for cut in verdict["cut"]] == [["cycle", "00002"]]
    assert verdict["unjudged"] == {"tried_again": 0, "cut_off": verdict["cut"][0]["events"]["acked"]}
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


def test_an_old_event_that_is_counted_between_two_cycles_is_a_violation_of_the_next(tmp_path: Path) -> None:
    """The first had drained and was judged, and the second has not begun to look: a gap in which a late duplicate must not
    become part of what "was there before"."""
    asked = Asked("soak", "kappa", "process", seed=3, hours=0.25, cycle_s=10.0, rate=500, stop=True)
    told: list[str] = []
    with Session("process", forgets=True) as session:

        def tell(line: str) -> None:
            told.append(line)
            if len(told) == 1:
                count_again(session.stack(kappa), next((tmp_path / "deployments").iterdir()).name.rpartition("-")[2])

        verdict = Soak(scenario_of(asked, kappa, claims(kappa)), State(asked), tmp_path, session, tell).run()
    assert [cycle["verdict"] for cycle in verdict["cycles"]] == ["pass", "violation"], told
    assert "duplicate_rate" in verdict["cycles"][1]["violated"]


def count_again(stack: Stack, tag: str) -> None:
    """One event of the last row of tweets gets a second cell there, as from a publisher that gave it another UUID."""
    server: Any = stack.servers["bigtable"]
    table = server.names(tag)["aggregates"]
    row = [row for row in read_rows(server.channel, table) if b"#tweet#" in row.key][-1]
    (_, qualifier), versions = next(iter(row.cells.items()))
    entry = seen_entry(row.key, [(qualifier.partition(b"|")[0] + b"|again", versions[0][1])])
    request = MutateRowsRequest.pb()(table_name=table, entries=[entry])
    call = server.channel.unary_stream("/google.bigtable.v2.Bigtable/MutateRows")
    assert list(call(request.SerializeToString(), timeout=20))
