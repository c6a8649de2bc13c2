"""The page in a real browser: it renders, asks nobody for anything, and reports no error."""

from __future__ import annotations

import http.server
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from saved_run import World

from assertions.judge import judge
from harness.report.html import write_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         "--v=0")  # fmt: skip

#: Chromium asks this host what time it is, whatever page it shows.
BROWSERS_OWN = "clients2.google.com/"


def page_in(tmp_path: Path) -> Path:
    page = tmp_path / "report.html"
    if not page.exists():
        run = World().fault("kill", "converter", 3.0, 3.2).save(tmp_path / "runs")
        write_html(run, judge(run), page)
    return page


def browse(tmp_path: Path, *flags: str, address: str = "") -> subprocess.CompletedProcess[str]:
    address = address or page_in(tmp_path).as_uri()
    words = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, address]
    return subprocess.run(words, capture_output=True, text=True, timeout=90)


def test_every_section_is_in_the_document_and_no_script_fails(tmp_path: Path) -> None:
    done = browse(tmp_path, "--dump-dom")
    for title in ("What was run", "Counts by hop", "Rate at each hop", "Findings", "Fault evidence", "Versions"):
        assert title in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr


@pytest.mark.parametrize("size", ["1280,2400", "420,2400"])
def test_the_page_can_be_seen(tmp_path: Path, size: str) -> None:
    target = tmp_path / "shot.png"
    browse(tmp_path, f"--screenshot={target}", f"--window-size={size}")
    width, height, colours = _read(target)
    assert f"{width},{height}" == size
    assert colours > 20, "a blank page has one colour"


def test_dark_is_dark_and_light_is_light(tmp_path: Path) -> None:
    for scheme, flags, low, high in (
        ("light", [], 200, 256),
        ("dark", ["--blink-settings=preferredColorScheme=0"], 0, 60),
    ):
        target = tmp_path / f"{scheme}.png"
        browse(tmp_path, f"--screenshot={target}", "--window-size=800,600", *flags)
        assert low <= _corner(target) < high, scheme


def asked_of_the_network(tmp_path: Path, page: str) -> list[str]:
    """All that a browser asks for while it shows the page: every host name leads to this one server."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.headers['Host'].partition(':')[0]}{self.path}")
            found = self.path == "/report.html"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode() if found else b"")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        rules = f"--host-resolver-rules=MAP * 127.0.0.1:{port}"
        browse(
            tmp_path,
            "--dump-dom",
            rules,
            "--virtual-time-budget=3000",
            address=f"http://report.test:{port}/report.html",
        )
        server.shutdown()
    return [what for what in asked if not what.startswith(BROWSERS_OWN)]


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    assert asked_of_the_network(tmp_path, page_in(tmp_path).read_text()) == ["report.test/report.html"]


def test_a_page_that_asks_would_be_caught(tmp_path: Path) -> None:
    page = '<!doctype html><title>x</title><img src="http://elsewhere.test/x.png"><p>asks'
    assert "elsewhere.test/x.png" in asked_of_the_network(tmp_path, page)


def test_the_policy_of_the_page_stops_what_slipped_through(tmp_path: Path) -> None:
    evil = '<img src="http://elsewhere.test/x.png"><script>document.title = "taken over"</script></body>'
    page = page_in(tmp_path).read_text().replace("</body>", evil)
    assert asked_of_the_network(tmp_path, page) == ["report.test/report.html"]
    (tmp_path / "evil.html").write_text(page)
    done = browse(tmp_path, "--dump-dom", address=(tmp_path / "evil.html").as_uri())
    assert "<title>taken over" not in done.stdout


def _read(png: Path) -> tuple[int, int, int]:
    """(width, height, how many different byte values its rows hold): enough to tell a page from a blank sheet."""
    data = png.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    return width, height, len(set(zlib.decompress(packed)))


def _corner(png: Path) -> int:
    """The red of the first pixel of an 8-bit picture; no filter changes that pixel."""
    data = png.read_bytes()
    return zlib.decompressobj().decompress(data[data.index(b"IDAT") + 4 :], 16)[1]
