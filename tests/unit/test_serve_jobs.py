"""Following commands: their turn, their end, their cancelling, and a service that was killed in between.

The commands here stand in for `gauntlet`; the real one is followed in tests/conformance/test_serve.py.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.run_folder import JOB_VARIABLE
from harness.service import jobs as jobs_module
from harness.service.access import TOKEN_VARIABLE
from harness.service.following import Follower, event
from harness.service.jobs import Full, Job, Jobs
from harness.service.requests import RunRequest, SoakRequest, ZooRequest, check_names, command_of
from harness.service.schedules import REQUEST, Schedules, next_after
from harness.topology import UsageError

PYTHON = (sys.executable, "-c")
WAITS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("cleaned", flush=True), sys.exit(130)))
print("ready", file=sys.stderr, flush=True)
time.sleep(600)
"""
ENDS = """print('{"verdict": "violation"}'); raise SystemExit(1)"""


def submit(jobs: Jobs, program: str) -> Job:
    return jobs.submit({"kind": "run"}, lambda id_: [program])


def until(jobs: Jobs, job: Job, check: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 30
    while True:
        jobs.tick()
        now = jobs.get(job.id)
        assert now is not None
        if check(now):
            return now
        assert time.monotonic() < deadline, now
        time.sleep(0.02)


def ended(jobs: Jobs, job: Job) -> Job:
    return until(jobs, job, lambda j: j.over)


def ready(jobs: Jobs, job: Job) -> Job:
    return until(jobs, job, lambda j: j.state == "running" and "ready" in jobs.output(j))


def test_a_job_runs_to_its_end_and_tells_what_came_out(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    job = ended(jobs, submit(jobs, ENDS))
    assert (job.status, job.verdict) == (1, "violation")


@pytest.mark.parametrize(("status", "note"), [(2, "as it was asked"), (4, "harness failed"), (130, "interrupted")])
def test_an_end_is_told_in_words(tmp_path: Path, status: int, note: str) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    job = ended(jobs, submit(jobs, f"raise SystemExit({status})"))
    assert (job.status, note in job.note, job.verdict) == (status, True, "")


def test_a_program_that_is_not_there_and_one_that_is_killed(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=[str(tmp_path / "nothing")])
    assert "could not be started" in ended(jobs, submit(jobs, "")).note
    jobs = Jobs(tmp_path, program=PYTHON)
    job = ready(jobs, submit(jobs, WAITS))
    psutil.Process(job.pid).kill()
    assert "signal 9" in ended(jobs, job).note


def test_jobs_take_turns_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, at_once=1, program=PYTHON)
    first, second = submit(jobs, WAITS), submit(jobs, ENDS)
    ready(jobs, first)
    assert [job.state for job in jobs.all()] == ["waiting", "running"]
    jobs.cancel(first.id)
    assert ended(jobs, first).status == 130
    assert ended(jobs, second).status == 1


def test_a_cancelled_job_is_interrupted_once_and_cleans_up(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    job = ready(jobs, submit(jobs, WAITS))
    jobs.cancel(job.id)
    jobs.cancel(job.id)
    job = ended(jobs, job)
    assert (job.status, jobs.output(job, "stdout").strip()) == (130, "cleaned")
    waiting = submit(jobs, ENDS)
    assert jobs.cancel(waiting.id) is not None
    jobs.tick()
    told = jobs.get(waiting.id)
    assert told is not None
    assert (told.state, told.started) == ("ended", ""), "it never started"
    assert jobs.cancel("nothing") is None


def test_a_job_has_its_name_in_its_environment_and_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a-secret-of-the-service")
    jobs = Jobs(tmp_path, program=PYTHON)
    shows = f"import os; print(os.environ['{JOB_VARIABLE}'], os.environ.get('{TOKEN_VARIABLE}'))"
    job = ended(jobs, submit(jobs, shows))
    assert jobs.output(job, "stdout").split() == [job.id, "None"]


KILLED = """
import sys, time
from pathlib import Path
from harness.service.jobs import Jobs
jobs = Jobs(Path(sys.argv[1]), program=[sys.executable, "-c"])
jobs.submit({"kind": "run"}, lambda id_: [sys.argv[2]])
while True:
    jobs.tick()
    for job in jobs.all():
        if job.state == "running" and "ready" in jobs.output(job):
            print("under way", flush=True)
    time.sleep(0.02)
"""


def killed_service(store: Path, program: str) -> None:
    """A service that started a job and was killed with it under way."""
    service = subprocess.Popen([sys.executable, "-c", KILLED, str(store), program], stdout=subprocess.PIPE)
    assert service.stdout is not None
    assert service.stdout.readline() == b"under way\n"
    service.kill()
    service.wait()
    service.stdout.close()


def test_a_killed_service_finds_its_job_again_and_follows_it_on(tmp_path: Path) -> None:
    killed_service(tmp_path, WAITS)
    jobs = Jobs(tmp_path, program=PYTHON)
    (job,) = jobs.all()
    assert job.state == "running"
    assert jobs.found == [f"{job.id} (run) goes on as process {job.pid}"]
    jobs.tick()
    assert len(jobs.under_way()) == 1, "and it starts none in its place"
    jobs.cancel(job.id)
    job = ended(jobs, job)
    assert (job.status, "not seen" in job.note) == (None, True)
    assert jobs.output(job, "stdout").strip() == "cleaned"


def test_a_job_that_ended_meanwhile_is_told_by_its_output(tmp_path: Path) -> None:
    program = WAITS.replace(
        'print("cleaned", flush=True), sys.exit(130)', """print('{"verdict": "pass"}'), sys.exit(0)"""
    )
    killed_service(tmp_path, program)
    saved = json.loads(next(tmp_path.glob(".service/jobs/*/job.json")).read_text())
    process = psutil.Process(saved["pid"])
    process.send_signal(signal.SIGINT)
    psutil.wait_procs([process], 30)
    (job,) = Jobs(tmp_path, program=PYTHON).all()
    assert (job.state, job.status, job.verdict) == ("ended", None, "pass")
    assert "while the service was away" in job.note


def test_a_pid_that_is_anothers_by_now_is_not_taken_for_the_job(tmp_path: Path) -> None:
    killed_service(tmp_path, WAITS)
    path = next(tmp_path.glob(".service/jobs/*/job.json"))
    saved = json.loads(path.read_text())
    own = psutil.Process(saved["pid"])
    path.write_text(json.dumps({**saved, "process_started": saved["process_started"] - 100}))
    jobs = Jobs(tmp_path, program=PYTHON)
    assert jobs.under_way() == []
    jobs.cancel(saved["id"])
    assert own.is_running(), "it was not touched"
    own.kill()


def test_a_service_that_was_killed_before_it_noted_the_pid_finds_the_job_by_its_environment(tmp_path: Path) -> None:
    killed_service(tmp_path, WAITS)
    path = next(tmp_path.glob(".service/jobs/*/job.json"))
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "state": "starting", "pid": None, "process_started": None}))
    jobs = Jobs(tmp_path, program=PYTHON)
    (job,) = jobs.under_way()
    assert job.pid == saved["pid"]
    jobs.cancel(job.id)
    ended(jobs, job)


def test_half_a_job_spoils_no_other_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    kept = [ended(jobs, submit(jobs, ENDS)) for _ in range(2)]
    half = tmp_path / ".service" / "jobs" / "20260101T000000-000000-aaaaaa"
    half.mkdir()
    (half / "job.json").write_text('{"id": "20')
    jobs = Jobs(tmp_path, program=PYTHON)
    assert [job.id for job in jobs.all()] == [job.id for job in reversed(kept)]
    jobs.forget(but=1)
    assert [job.id for job in jobs.all()] == [kept[1].id]


def test_too_many_that_wait_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MOST_WAITING", 2)
    jobs = Jobs(tmp_path, program=PYTHON)
    submit(jobs, ENDS), submit(jobs, ENDS)
    with pytest.raises(Full, match="2 jobs wait already"):
        submit(jobs, ENDS)


# ------------------------------------------------------------------------------------------------------- requests


def parsed(asked: Any, store: Path) -> Any:
    """What the command line makes of a request's command."""
    from harness.cli import _parser

    return _parser().parse_args(command_of(asked, store, "job-1"))


def test_a_request_becomes_the_ordinary_command(tmp_path: Path) -> None:
    run = parsed(
        RunRequest(kind="run", scenario="restarts", pipeline="no-dedup", seed=3, rate=100, schedule="random"), tmp_path
    )
    assert (run.scenario, run.pipeline, run.seed, run.rate, run.schedule) == ("restarts", "no-dedup", 3, 100, "random")
    assert (run.out, run.json) == (tmp_path, True)
    soak = parsed(SoakRequest(kind="soak", hours=0.5, stop=True), tmp_path)
    assert (soak.hours, soak.stop, soak.cycle_seconds) == (0.5, True, 60)
    assert parsed(SoakRequest(kind="soak", resume="a-soak"), tmp_path).resume == tmp_path / "a-soak"
    zoo = parsed(ZooRequest(kind="zoo", mutants=["no-dedup"]), tmp_path)
    assert (zoo.mutants, zoo.out) == (["no-dedup"], tmp_path / "zoo-job-1")
    assert parsed(ZooRequest(kind="zoo", healthy=3), tmp_path).healthy == 3


@pytest.mark.parametrize(
    "asked",
    [
        {"scenario": "--out=/etc"},
        {"scenario": "-x"},
        {"pipeline": "--endpoints=/etc/passwd"},
        {"pipeline": "a/../b"},
        {"kind": "soak", "resume": "../elsewhere"},
        {"kind": "soak", "resume": ".."},
        {"kind": "zoo", "mutants": ["--out=/x"]},
        {"kind": "compare", "baseline": "--json", "candidate": "kappa"},
        {"kind": "run", "out": "/etc"},
        {"kind": "rm"},
        {"kind": "run", "seconds": float("inf")},
    ],
)
def test_no_text_becomes_an_option_or_a_way_out(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        REQUEST.validate_python({"kind": "run", **asked})


def test_a_name_that_is_none_is_told_with_the_nearest_that_is(tmp_path: Path) -> None:
    for asked, told in (
        (RunRequest(kind="run", scenario="restart"), "'restarts'"),
        (RunRequest(kind="run", pipeline="kapa"), "'kappa'"),
        (ZooRequest(kind="zoo", mutants=["no-dedupe"]), "'no-dedup'"),
        (SoakRequest(kind="soak", resume="gone"), "no soak 'gone'"),
    ):
        with pytest.raises(UsageError, match=told):
            check_names(asked, tmp_path)


# ------------------------------------------------------------------------------------------------------ schedules


def test_a_schedule_starts_its_job_when_it_is_due_and_not_twice_at_once(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    schedules = Schedules(tmp_path, jobs)
    one = schedules.put("nightly", "30 1 * * *", RunRequest(kind="run", seed=1))
    due = datetime.fromisoformat(one.next)
    schedules.tick(due - timedelta(seconds=1))
    assert jobs.all() == []
    schedules.tick(due)
    (job,) = jobs.all()
    assert (job.origin, job.request["seed"]) == ("nightly", 1)
    (kept,) = schedules.all()
    assert datetime.fromisoformat(kept.next) == due + timedelta(days=1)
    schedules.tick(due + timedelta(days=1))
    assert len(jobs.all()) == 1
    assert "still under way" in schedules.all()[0].note
    (again,) = Schedules(tmp_path, jobs).all()
    assert again.next == schedules.all()[0].next, "it is there after a restart"
    assert schedules.remove("nightly")
    assert not schedules.remove("nightly")


def test_what_was_missed_is_told_and_not_made_up_for(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    Schedules(tmp_path, jobs).put("hourly", "0 * * * *", RunRequest(kind="run"))
    path = tmp_path / ".service" / "schedules.json"
    path.write_text(path.read_text().replace('"next": "2', '"next": "1'))
    again = Schedules(tmp_path, jobs)
    again.tick()
    assert jobs.all() == []
    assert again.all()[0].note.startswith("The service was away at 1")


@pytest.mark.parametrize("cron", ["", "every night", "61 * * * *", "* * * * * *", "0 0 31 2 *", "@daily"])
def test_what_is_no_time_is_refused(cron: str) -> None:
    with pytest.raises(UsageError, match="minute hour day month weekday"):
        next_after(cron, datetime(2026, 11, 26, tzinfo=UTC))


def test_a_schedule_that_another_version_has_kept_is_left_out_and_the_others_are_not(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    for name in ("before", "nightly", "then"):
        due = datetime.fromisoformat(
            Schedules(tmp_path, jobs).put(name, "30 1 * * *", RunRequest(kind="run", seed=1)).next
        )
    path = tmp_path / ".service" / "schedules.json"
    saved = json.loads(path.read_text())
    next(one for one in saved["schedules"] if one["name"] == "nightly")["request"]["colour"] = "red"
    path.write_text(json.dumps(saved))
    schedules = Schedules(tmp_path, jobs)
    schedules.tick(due)
    assert sorted(job.origin for job in jobs.all()) == ["before", "then"]
    (strange,) = [one for one in schedules.all() if one.name == "nightly"]
    assert "what it asks for is nothing that can be done: run.colour: Extra inputs are not permitted." in strange.note
    assert datetime.fromisoformat(strange.next) == due + timedelta(days=1)


def test_schedules_that_cannot_be_read_are_not_thrown_away(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=PYTHON)
    (tmp_path / ".service" / "schedules.json").write_text('{"schedules": [{"na')
    with pytest.raises(UsageError, match="schedules.json cannot be read"):
        Schedules(tmp_path, jobs)


# ------------------------------------------------------------------------------------------------------ following


def test_a_follower_gives_each_record_once_across_the_runs_of_a_folder(tmp_path: Path) -> None:
    for name, numbers in (("a", (1, 2)), ("b", (3,))):
        (tmp_path / "cycles" / name).mkdir(parents=True)
        text = "".join(json.dumps({"n": n}) + "\n" for n in numbers)
        (tmp_path / "cycles" / name / "history.jsonl").write_text(text)
    follower = Follower(tmp_path)
    told = list(follower.new())
    assert [record["n"] for _, record in told] == [1, 2, 3]
    assert list(follower.new()) == []
    with (tmp_path / "cycles" / "b" / "history.jsonl").open("a") as history:
        history.write('{"n": 4}\nno json\n[5]\n{"n": 6')
    assert [record["n"] for _, record in follower.new()] == [4]
    with (tmp_path / "cycles" / "b" / "history.jsonl").open("a") as history:
        history.write("}\n")
    assert [record["n"] for _, record in follower.new()] == [6], "half a line waits for its end"
    assert [record["n"] for _, record in Follower(tmp_path, told[0][0]).new()] == [2, 3, 4, 6], "from a place on"


def test_a_follower_goes_on_behind_a_cycle_that_was_dropped(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "cycles" / f"{number}").mkdir(parents=True)
        (tmp_path / "cycles" / f"{number}" / "history.jsonl").write_text(f'{{"n": {number}}}\n')
    place = next(iter(Follower(tmp_path).new()))[0]
    (tmp_path / "cycles" / "1" / "history.jsonl").unlink()
    assert [record["n"] for _, record in Follower(tmp_path, place).new()] == [2, 3]
    (tmp_path / "cycles" / "2" / "history.jsonl").unlink()
    assert [record["n"] for _, record in Follower(tmp_path, "cycles/2/history.jsonl@9").new()] == [3]


@pytest.mark.parametrize("place", ["", "x", "../../etc/passwd@0", "@-1", "a@99999999999999999999", "@9"])
def test_a_place_that_is_none_leads_nowhere(tmp_path: Path, place: str) -> None:
    (tmp_path / "history.jsonl").write_text('{"n": 1}\n')
    assert [record["n"] for _, record in Follower(tmp_path, place).new()] == [1]


def test_an_event_is_one_event_whatever_it_holds() -> None:
    assert event("record", {"text": "a\n\ndata: b\revent: end"}, "x@1").count("\n\n") == 1
    assert event("record", {}, "a\nevent: end@1").count("\n") == 3
