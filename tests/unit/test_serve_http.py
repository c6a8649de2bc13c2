"""The service over HTTP, in process: who may do what, names that mean harm, large bodies, many clients, and the pages."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from saved_run import World
from schemathesis.specs.openapi.checks import positive_data_acceptance

from assertions.judge import judge
from harness.cli import main
from harness.run_folder import write_json
from harness.service.access import MOST_BODY, Access, cookie_of, token_of
from harness.service.app import application
from harness.service.entries import Entry
from harness.service.jobs import Jobs
from harness.service.keeper import Keeper
from harness.service.retention import Keep
from harness.service.webhook import Webhook
from harness.topology import UsageError

TOKEN = "0123456789abcdef-token"
GIVEN = {"Authorization": f"Bearer {TOKEN}"}
NAME = "20261126T010203Z-steady-0000000a"
MARKUP = "20261126T010203Z-<img src=x onerror=alert(1)>\"'&-0000000b"
#: Stands in for `gauntlet`: ends at once.
PROGRAM = (sys.executable, "-c", "pass")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = World().fault("kill", "converter", 3.0, 3.2).save(tmp_path_factory.mktemp("whole"))
    write_json(run.path / "verdict.json", judge(run))
    (run.path / "report.html").write_text("<script>stolen = document.cookie</script>")
    return run.path


def client_of(
    store: Path, bound_to: str = "127.0.0.1", hosts: tuple[str, ...] = (), base: str = "http://127.0.0.1"
) -> TestClient:
    keeper = Keeper(store, Jobs(store, program=PROGRAM), Keep(), None, lambda text: None)
    return TestClient(
        application(keeper, Access.of(TOKEN, bound_to, hosts)), base_url=base, raise_server_exceptions=False
    )


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "store" / NAME)
    return tmp_path / "store"


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    with client_of(store) as made:
        yield made


# ---------------------------------------------------------------------------------------------------------- access


CHANGES = (
    ("POST", "/api/jobs", {"kind": "run", "scenario": "steady"}),
    ("POST", "/api/jobs/none/cancel", None),
    ("DELETE", f"/api/runs/{NAME}", None),
    ("PUT", "/api/schedules/x", {"cron": "0 1 * * *", "request": {"kind": "run"}}),
    ("DELETE", "/api/schedules/x", None),
    ("POST", "/api/index", None),
    ("POST", "/start", None),
    ("POST", "/schedules", None),
    ("POST", f"/runs/{NAME}/remove", None),
    ("POST", "/jobs/none/cancel", None),
)


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_change_needs_the_token(client: TestClient, store: Path, method: str, path: str, body: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {TOKEN}"},
                    {"Cookie": "gauntlet=wrong"}, {"Cookie": f"gauntlet={TOKEN}"}, {"Authorization": f"Bearer {TOKEN}x"}):  # fmt: skip
        answer = client.request(method, path, json=body, headers=headers)
        assert (answer.status_code, TOKEN in answer.text) == (401, False), headers
    assert (store / NAME).is_dir()
    assert client.get("/api/jobs").json() == {"jobs": []}


def test_every_change_of_the_api_is_in_that_list(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()["paths"]
    changes = {(m.upper(), path) for path, methods in described.items() for m in methods if m != "get"}
    tested = {
        (method, path.replace("none", "{id_}").replace(NAME, "{name}").replace("schedules/x", "schedules/{name}"))
        for method, path, _ in CHANGES
        if path.startswith("/api")
    }
    assert changes == tested


def test_a_cookie_changes_only_from_a_page_of_this_service(client: TestClient) -> None:
    given = client.post("/login", data={"token": "wrong"})
    assert (given.status_code, "gauntlet" in client.cookies) == (401, False)
    given = client.post("/login", data={"token": TOKEN}, follow_redirects=False)
    assert given.status_code == 303
    assert "HttpOnly" in given.headers["set-cookie"]
    assert TOKEN not in given.headers["set-cookie"]
    for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}):
        answer = client.post("/start", data={"kind": "run", "scenario": "steady"}, headers=origin)
        assert answer.status_code == 403, origin
    here = client.post("/start", data={"kind": "run", "scenario": "steady"}, headers={"Origin": "http://127.0.0.1"})
    assert here.url.path.startswith("/jobs/")
    client.post("/logout", headers={"Origin": "http://127.0.0.1"})
    assert client.post("/start", headers={"Origin": "http://127.0.0.1"}).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1", "x" * 5000]
)
def test_a_strange_host_is_refused_on_loopback(client: TestClient, host: str) -> None:
    assert client.get("/api/runs", headers={"Host": host}).status_code == 421
    assert client.get("/healthz", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8321", "127.0.0.1", "[::1]:8321", "LOCALHOST"])
def test_the_own_names_are_known(client: TestClient, host: str) -> None:
    assert client.get("/api/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("bound_to", ["0.0.0.0", "127.0.0.1"])
def test_bound_elsewhere_or_behind_a_name_reading_needs_the_token_as_well(store: Path, bound_to: str) -> None:
    with client_of(store, bound_to, ("ci.example",), "http://ci.example") as client:
        for path in ("/api/runs", "/metrics", f"/runs/{NAME}", f"/runs/{NAME}/files/verdict.json", "/api/openapi.json"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers=GIVEN).status_code == 200, path
        assert client.get("/healthz").json() == {"status": "ok"}
        to_login = client.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
        assert (to_login.status_code, to_login.headers["location"]) == (303, "/login")
        assert client.get("/", headers={"Cookie": f"gauntlet={cookie_of(TOKEN)}"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 421


def test_the_token_is_made_once_and_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "token"
    made = token_of(None, own)
    assert token_of(None, own) == made
    assert len(made) > 30
    assert own.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("GAUNTLET_TOKEN", "of-the-environment")
    assert token_of(None, own) == "of-the-environment"
    file = tmp_path / "file"
    for text, told in (
        ("short", "16 or more"),
        ("with a space in the middle", "without a space"),
        ("é" * 20, "printable"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=told):
            token_of(file, own)
    with pytest.raises(UsageError, match="cannot be read"):
        token_of(tmp_path / "nothing", own)


# ------------------------------------------------------------------------------------------------ what means harm


@pytest.mark.parametrize(
    "path",
    [
        "../../secret", "..%2f..%2fsecret", "%2e%2e/%2e%2e/secret", "..\\..\\secret", "/etc/passwd", "%2fetc%2fpasswd",
        "logs/../../../secret", "out", ".hidden", "verdict.json%00.html", "%00", "a" * 5000, "hops", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("base", ["/runs", "/api/runs"])
def test_no_path_leads_out_of_a_folder(client: TestClient, store: Path, base: str, path: str) -> None:
    (store.parent / "secret").write_text("the secret")
    (store / NAME / ".hidden").write_text("the secret")
    (store / NAME / "out").symlink_to(store.parent / "secret")
    answer = client.get(f"{base}/{NAME}/files/{path}")
    assert answer.status_code in (404, 405, 422), answer.text
    assert "the secret" not in answer.text


@pytest.mark.parametrize(
    "name", ["..", ".", ".service", "%2e%2e", "..%2f..", "x" * 300, "%00", "\N{SNOWMAN}", "a/b", "*"]
)
def test_no_name_leads_out_of_the_store(client: TestClient, store: Path, name: str) -> None:
    for path in (f"/api/runs/{name}", f"/runs/{name}", f"/runs/{name}/files/token", f"/api/runs/{name}/files/token"):
        answer = client.get(path)
        assert answer.status_code in (200, 404, 422), answer.text
        assert TOKEN not in answer.text
        assert answer.status_code != 200 or answer.url.path in ("/", "/api/runs", "/runs")
    assert client.delete(f"/api/runs/{name}", headers=GIVEN).status_code in (404, 405, 422)
    assert (store / ".service").is_dir()


def test_a_name_with_markup_is_text_on_every_page(client: TestClient, store: Path, whole: Path) -> None:
    folder = shutil.copytree(whole, store / MARKUP)
    evil = "</title></script><script>alert(1)</script>"
    write_json(folder / "run.json", {**json.loads((folder / "run.json").read_text()), "scenario": evil})
    (store / "zoo.jsonl").write_text(json.dumps({"asked": {}}) + "\n")
    client.post("/api/index", headers=GIVEN)
    found = client.get("/api/runs", params={"text": "onerror"}).json()["entries"]
    assert [entry["name"] for entry in found] == [MARKUP]
    from urllib.parse import quote

    name = quote(MARKUP, safe="")
    pages = ["/", f"/runs/{name}", f"/runs/{name}/now", "/scenarios", f"/comparisons?a={name}&b={NAME}", "/zoo",
             f"/?text={quote(evil)}&kind={quote(evil)}", f"/start?pipeline={quote(evil)}", f"/scenarios/{quote(evil, safe='')}",
             f"/runs/{quote(evil, safe='')}"]  # fmt: skip
    for page in pages:
        answer = client.get(page, headers={"Accept": "text/html"})
        assert answer.status_code in (200, 404), page
        for sign in ("<img src=x", "<script>alert"):
            assert sign not in answer.text, page
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert client.delete(f"/api/runs/{name}", headers=GIVEN).status_code == 204
    assert not folder.exists()


def test_what_a_run_left_has_no_right(client: TestClient) -> None:
    report = client.get(f"/runs/{NAME}/files/report.html")
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    for path in ("verdict.json", "history.jsonl", "ledger.bin"):
        answer = client.get(f"/runs/{NAME}/files/{path}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "html" not in answer.headers["content-type"]


def test_a_body_of_100_mb_is_refused_before_it_is_read(client: TestClient) -> None:
    read = 0

    def body() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1600):
            read += MOST_BODY
            yield b"x" * MOST_BODY

    told = client.post("/api/jobs", content=b"x" * (MOST_BODY + 1), headers=GIVEN)
    assert (told.status_code, "64 KiB" in told.json()["detail"]) == (413, True)
    for path in ("/api/jobs", "/login"):
        answer = client.post(path, content=body(), headers={**GIVEN, "Content-Type": "application/json"})
        assert answer.status_code == 413
    wrong = client.post("/api/jobs", content=b"{}", headers={**GIVEN, "Content-Length": "-5"})
    assert wrong.status_code == 413


def test_fifty_clients_at_once_lose_nothing(client: TestClient) -> None:
    def one(number: int) -> str:
        assert client.get("/").status_code == 200
        assert client.get(f"/api/runs/{NAME}").json()["standing"] != "damaged"
        answer = client.post("/api/jobs", json={"kind": "run", "scenario": "steady", "seed": number}, headers=GIVEN)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(50) as pool:
        ids = list(pool.map(one, range(50)))
    known = client.get("/api/jobs").json()["jobs"]
    assert sorted(job["id"] for job in known) == sorted(ids)
    assert {job["request"]["seed"] for job in known} == set(range(50))
    assert len(os.listdir("/proc/self/fd")) < before + 20


# ---------------------------------------------------------------------------------------------------- what is asked


def test_what_was_asked_wrongly_is_told(client: TestClient) -> None:
    for body, status, told in (
        ({"kind": "run", "scenario": "restart"}, 400, "'restarts'"),
        ({"kind": "run", "rate": 0}, 422, "rate"),
        ({"kind": "run", "colour": "red"}, 422, "colour"),
        ({"kind": "soak", "resume": "none"}, 400, "no soak"),
        ({"kind": "dance"}, 422, "dance"),
        ([], 422, ""),
    ):
        answer = client.post("/api/jobs", json=body, headers=GIVEN)
        assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert client.get("/api/runs/nothing").json()["detail"] == "There is no folder 'nothing' in the store."


def test_a_store_that_cannot_be_written_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.service.jobs.write_json", full)
    answer = client.post("/api/jobs", json={"kind": "run", "scenario": "steady"}, headers=GIVEN)
    assert (answer.status_code, "No space left" in answer.json()["detail"]) == (507, True)
    assert client.get("/api/jobs").json() == {"jobs": []}, "what was refused is not started later"


def test_the_pages_take_what_the_api_takes(client: TestClient) -> None:
    client.post("/login", data={"token": TOKEN})
    origin = {"Origin": "http://127.0.0.1"}
    wrong = client.post("/start", data={"kind": "run", "scenario": "steady", "rate": "many"}, headers=origin)
    assert (wrong.status_code, "rate: " in wrong.text) == (400, True)
    nightly = {"kind": "soak", "name": "nightly", "cron": "30 1 * * *", "hours": "2"}
    kept = client.post("/schedules", data=nightly, headers=origin)
    assert (kept.status_code, "of 2.0 h" in kept.text) == (200, True)
    wrong = client.post("/schedules", data={**nightly, "cron": "at night"}, headers=origin)
    assert (wrong.status_code, "minute hour day month weekday" in wrong.text) == (400, True)
    wrong = client.post("/schedules", data={**nightly, "name": "../x"}, headers=origin)
    assert wrong.status_code == 400
    assert (
        "nightly" not in client.post("/schedules/nightly/remove", headers=origin).text.split("A soak by the clock")[0]
    )
    gone = client.post(f"/runs/{NAME}/remove", headers=origin)
    assert (gone.url.path, NAME in gone.text) == ("/", False)


def test_a_job_is_followed_to_its_end(client: TestClient, store: Path) -> None:
    id_ = client.post("/api/jobs", json={"kind": "run", "scenario": "steady"}, headers=GIVEN).json()["id"]
    told = client.get(f"/api/jobs/{id_}/events").text
    assert told.rstrip().split("\n\n")[-1].startswith("event: end")
    assert '"status":0' in told
    run = client.get(f"/api/runs/{NAME}/events").text
    assert run.count("event: record") == len((store / NAME / "history.jsonl").read_text().splitlines())


def test_the_description_is_whole_and_asks_nobody_for_anything(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()
    assert {"/api/jobs", "/api/jobs/{id_}/events", "/api/runs/{name}/verdict"} <= set(described["paths"])
    assert all("summary" in one for methods in described["paths"].values() for one in methods.values())
    assert client.get("/docs").status_code == 404
    for page in ("/", f"/runs/{NAME}", "/zoo", "/start"):
        assert "//" not in client.get(page).text.replace("http://www.w3.org/2000/svg", ""), page


def test_the_api_holds_what_its_description_promises(store: Path) -> None:
    """Whatever is sent: an answer that the description knows, of the form that it states, and never a 500."""
    with client_of(store, hosts=("testserver",)) as client:

        async def begun(scope: Any, receive: Any, send: Any) -> None:
            """The application, which lives already."""
            if scope["type"] != "lifespan":
                await client.app(scope, receive, send)
                return
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})

        schema = schemathesis.openapi.from_asgi("/api/openapi.json", begun, headers=GIVEN)
        operations = [operation.ok() for operation in schema.get_all_operations()]
        assert len(operations) >= 18
        for operation in operations:
            tried(operation)


def tried(operation: Any) -> None:
    @settings(
        max_examples=12,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        # A name may be well formed and yet none of a scenario, a soak, a time: that is told by 400.
        answer = case.call(headers=GIVEN)
        excluded = [positive_data_acceptance] if answer.status_code == 400 else []
        case.validate_response(answer, headers=GIVEN, excluded_checks=excluded)

    one()


# --------------------------------------------------------------------------------------------------------- webhook


class _Told(BaseHTTPRequestHandler):
    told: list[dict[str, Any]]
    answers: list[int]

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.answers.pop(0) if self.answers else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def told() -> Iterator[type[_Told]]:
    handler = type("Told", (_Told,), {"told": [], "answers": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handler.port = server.server_port  # type: ignore[attr-defined]
        yield handler
        server.shutdown()


def soon(check: Any) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_violation_is_told_once_and_again_until_it_is_heard(tmp_path: Path, told: Any) -> None:
    (tmp_path / ".service").mkdir()
    told.answers = [500]
    lines: list[str] = []
    address = f"http://127.0.0.1:{told.port}/"
    hook = Webhook(tmp_path, address, lines.append)
    hook.begun(["known-before"])
    hook.add(Entry("known-before", "run", "violation"))
    hook.add(Entry("new", "run", "violation", violated=("no_loss",)))
    hook.add(Entry("new", "run", "violation"))
    soon(lambda: hook.delivered)
    hook.stop()
    assert [one["name"] for one in told.told] == ["new", "new"], "once more, because the first was not heard"
    assert (told.told[0]["event"], told.told[0]["violated"]) == ("violation", ["no_loss"])
    assert (hook.failures, "tries again" in lines[0]) == (1, True)
    again = Webhook(tmp_path, address, lines.append)
    again.add(Entry("new", "run", "violation"))
    again.stop()
    assert len(told.told) == 2, "it is known after a restart"


def test_a_violation_is_told_though_nothing_can_be_noted(
    tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    lines: list[str] = []
    hook = Webhook(tmp_path, f"http://127.0.0.1:{told.port}/", lines.append)
    monkeypatch.setattr("harness.service.webhook.write_json", full)
    for name in ("one", "two"):
        with pytest.raises(OSError, match="no space left"):
            hook.add(Entry(name, "run", "violation"))
        soon(lambda name=name: any(one["name"] == name for one in told.told))
    soon(lambda: len(lines) == 2)
    assert "that one was told could not be noted: no space left" in lines[0]
    hook.stop()


def test_what_could_not_be_told_is_told_by_the_next_service(tmp_path: Path, told: Any) -> None:
    (tmp_path / ".service").mkdir()
    hook = Webhook(tmp_path, "http://127.0.0.1:9/", lambda text: None)
    hook.begun([])
    hook.add(Entry("new", "run", "violation"))
    soon(lambda: hook.failures)
    hook.stop()
    again = Webhook(tmp_path, f"http://127.0.0.1:{told.port}/", lambda text: None)
    soon(lambda: again.delivered)
    again.stop()
    assert [one["name"] for one in told.told] == ["new"]


def test_a_violation_that_a_page_has_seen_first_is_told_too(whole: Path, tmp_path: Path, told: Any) -> None:
    address = f"http://127.0.0.1:{told.port}/"
    keeper = Keeper(tmp_path, Jobs(tmp_path, program=PROGRAM), Keep(), address, lambda text: None)
    run = shutil.copytree(whole, tmp_path / NAME)
    verdict = (run / "verdict.json").read_text()
    (run / "verdict.json").unlink()
    keeper.index.refresh()
    assert keeper.index.names("violation") == set()
    write_json(run / "verdict.json", violated(json.loads(verdict)))
    shown = keeper.index.check(NAME)
    assert shown is not None
    assert shown.standing == "violation", shown.why
    keeper.once()
    soon(lambda: keeper.webhook.delivered)
    keeper.once()
    keeper.stop()
    assert [one["name"] for one in told.told] == [NAME]


def violated(verdict: dict[str, Any]) -> dict[str, Any]:
    first, *others = verdict["findings"]
    return {**verdict, "verdict": "violation", "findings": [{**first, "verdict": "violation"}, *others]}


def test_a_chore_that_fails_keeps_no_other_from_being_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    keeper = Keeper(tmp_path, Jobs(tmp_path, program=PROGRAM), Keep(), None, lambda text: None)

    def fail() -> None:
        raise OSError("no space left")

    monkeypatch.setattr(keeper.schedules, "tick", fail)
    shutil.copytree(whole, tmp_path / NAME)
    with pytest.raises(OSError, match="no space left"):
        keeper.once()
    assert keeper.index.entry(NAME) is not None
    keeper.stop()


# ------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535, not 70000"),
        (["--at-once", "0"], "--at-once must be 1 or more"),
        (["--keep-days", "0"], "--keep-days must be more than 0 days"),
        (["--keep-others-days", "nan"], "--keep-others-days must be more than 0 days"),
        (["--webhook", "ftp://x"], "--webhook must be an address with http:// or https://"),
        (["--token-file", "nothing"], "The token cannot be read from nothing"),
        (["--host", "192.0.2.1"], "Cannot listen at 192.0.2.1"),
        (["--store", "/dev/null"], "Take another --store"),
    ],
)
def test_a_wrong_option_is_told_and_nothing_is_started(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken_and_a_store_that_has_a_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", "--store", str(tmp_path), "--port", str(other.getsockname()[1])]) == 2
    assert "Address already in use. Take another --port." in capsys.readouterr().err
    lock = tmp_path / ".service" / "lock"
    with lock.open("w") as held:
        held.write("4711\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["serve", "--store", str(tmp_path), "--port", "0"]) == 2
    assert "Another `gauntlet serve` (process 4711) has" in capsys.readouterr().err
