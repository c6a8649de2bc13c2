"""The service's pages in a real browser: each renders, no script fails, nothing is asked of anybody else, dark is dark."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.test_report_browser import BROWSER, _corner, _read, browse

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from saved_run import World

from assertions.judge import judge
from harness.run_folder import write_json

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")


@contextlib.contextmanager
def served(store: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "harness.cli", "serve", "--store", str(store), "--port", "0"]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "GAUNTLET_TOKEN": "0" * 20})
    assert child.stderr is not None
    try:
        yield next(line.split(" at ")[1].strip() for line in child.stderr if " at http://" in line)
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
        child.stderr.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service over a run that passed, one that is damaged, one under way."""
    store = tmp_path_factory.mktemp("store")
    run = World().fault("kill", "converter", 3.0, 3.2).save(store)
    write_json(run.path / "verdict.json", judge(run))
    run.path.rename(store / "20261126T010203Z-steady-0000000a")
    damaged = shutil.copytree(store / "20261126T010203Z-steady-0000000a", store / "20261126T010203Z-steady-0000000b")
    (damaged / "ledger.bin").write_bytes(b"")
    going = shutil.copytree(store / "20261126T010203Z-steady-0000000a", store / "20261126T010203Z-steady-0000000c")
    for name in ("manifest.json", "verdict.json"):
        (going / name).unlink()
    (going / "history.jsonl").touch()
    with served(store) as found:
        yield found


PAGES = {
    "/": ("Damaged", "Under way", "20261126T010203Z-steady-0000000a"),
    "/runs/20261126T010203Z-steady-0000000a": ("Findings", "Fault evidence", "Life of the run"),
    "/runs/20261126T010203Z-steady-0000000b": ("Damaged", "ledger.bin"),
    "/runs/20261126T010203Z-steady-0000000c": ("Under way", "Stage"),
    "/scenarios": ("Flake rate",),
    "/comparisons?a=20261126T010203Z-steady-0000000a&b=20261126T010203Z-steady-0000000a": ("Figures and findings of both",),
    "/zoo": ("No zoo was run in this store",),
    "/start": ("Start the soak", "Give the token"),
    "/schedules": ("A soak by the clock",),
    "/jobs": ("Nothing was started here yet",),
    "/login": ("Token",),
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_every_page_renders_and_no_script_fails(tmp_path: Path, address: str, page: str) -> None:
    # What is under way has a stream that stays open: such a page is never done loading.
    done = browse(tmp_path, "--dump-dom", "--timeout=2000", address=address + page)
    for text in PAGES[page]:
        assert text in done.stdout, text
    assert "CONSOLE" not in done.stderr, done.stderr


@pytest.mark.parametrize("size", ["1280,1400", "420,1400"])
def test_the_runs_can_be_seen_in_light_and_dark(tmp_path: Path, address: str, size: str) -> None:
    for scheme, flags, low, high in (
        ("light", [], 200, 256),
        ("dark", ["--blink-settings=preferredColorScheme=0"], 0, 60),
    ):
        target = tmp_path / f"{scheme}.png"
        browse(tmp_path, f"--screenshot={target}", f"--window-size={size}", *flags, address=address + "/")
        width, height, colours = _read(target)
        assert f"{width},{height}" == size
        assert colours > 20, "a blank page has one colour"
        assert low <= _corner(target) < high, scheme
