"""The service's pages in a real browser: each renders, no script fails, nothing is asked of anybody else, dark is dark, a
narrow window cuts nothing off, and all of it works from the keyboard alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.test_report_browser import BROWSER, _corner, _read
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from saved_run import World

from assertions.judge import judge
from harness.run_folder import write_json

pytestmark = [
    pytest.mark.longer,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)"),
]

TOKEN = "a-token-of-this-test"
PASSED, DAMAGED, GOING = (f"20261126T010203Z-steady-0000000{letter}" for letter in "abc")


@contextlib.contextmanager
def served(store: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "harness.cli", "serve", "--store", str(store), "--port", "0"]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "GAUNTLET_TOKEN": TOKEN})
    assert child.stderr is not None
    try:
        yield next(line.split(" at ")[1].strip() for line in child.stderr if " at http://" in line)
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
        child.stderr.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that passed, one that is damaged, one under way."""
    store = tmp_path_factory.mktemp("store")
    run = World().fault("kill", "converter", 3.0, 3.2).save(store)
    write_json(run.path / "verdict.json", judge(run))
    run.path.rename(store / PASSED)
    damaged = shutil.copytree(store / PASSED, store / DAMAGED)
    (damaged / "ledger.bin").write_bytes(b"")
    going = shutil.copytree(store / PASSED, store / GOING)
    for name in ("manifest.json", "verdict.json"):
        (going / name).unlink()
    (going / "history.jsonl").touch()
    return store


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    with served(store) as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a browser that knows no token. A script that fails or a request to anybody else fails the test."""
    context = browser.new_context(base_url=address)
    page = context.new_page()
    trouble: list[str] = []
    refused = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"  # a wrong token
    page.on("pageerror", lambda error: trouble.append(f"script: {error}"))
    page.on(
        "console",
        lambda said: trouble.append(f"console: {said.text}") if said.type == "error" and said.text != refused else None,
    )
    page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else trouble.append(asked.url))
    yield page
    context.close()
    assert trouble == []


PAGES = {
    "/": ("Damaged", "Under way", PASSED),
    f"/runs/{PASSED}": ("Findings", "Fault evidence", "Life of the run"),
    f"/runs/{DAMAGED}": ("Damaged", "ledger.bin"),
    f"/runs/{GOING}": ("Under way", "Stage"),
    "/scenarios": ("Flake rate",),
    f"/comparisons?a={PASSED}&b={PASSED}": ("Figures and findings of both",),
    "/zoo": ("No zoo was run in this store",),
    "/start": ("Start the soak", "Start the comparison", "Give the token"),
    "/schedules": ("A soak by the clock",),
    "/jobs": ("Nothing was started here yet",),
    "/login": ("Token",),
}  # fmt: skip


@pytest.mark.parametrize("where", PAGES)
def test_every_page_renders_and_no_script_fails(page: Page, where: str) -> None:
    # What is under way has a stream that stays open: such a page is never done loading.
    page.goto(where, wait_until="domcontentloaded")
    page.wait_for_timeout(300)
    content = page.content()
    for text in PAGES[where]:
        assert text in content, text


#: What a person can act on and sees; what a closed <details> holds is not seen.
CONTROLS = """[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
    .filter(e => e.checkVisibility() && !e.disabled)"""
FOCUS = f"""() => {{
    const on = document.activeElement, style = getComputedStyle(on), named = on.labels?.[0] || on;
    return {{ place: {CONTROLS}.indexOf(on), html: on.outerHTML.slice(0, 160),
              outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
              inside: on.getBoundingClientRect().right > 0,
              name: on.getAttribute("aria-label") || named.innerText || named.textContent }} }}"""


def keyboard_troubles(page: Page) -> list[str]:
    """What somebody without a mouse would stumble over."""
    wanted = page.evaluate(f"() => {CONTROLS}.map(e => e.outerHTML.slice(0, 160))")
    assert len(wanted) > 5
    found, reached = [], set()
    for _ in range(len(wanted) + 5):
        page.keyboard.press("Tab")
        told = page.evaluate(FOCUS)
        if told["place"] < 0:
            continue  # the browser's own
        reached.add(told["place"])
        for good, what in (
            (told["outlined"], "the focus cannot be seen"),
            (told["inside"], "outside the window"),
            (told["name"].strip(), "no name"),
        ):
            if not good:
                found.append(f"{what}: {told['html']}")
    return found + [f"never reached: {html}" for place, html in enumerate(wanted) if place not in reached]


@pytest.mark.parametrize("where", PAGES)
def test_every_control_is_reached_by_tab_and_seen_to_be_and_has_a_name(page: Page, where: str) -> None:
    page.goto(where, wait_until="domcontentloaded")
    page.wait_for_timeout(100)
    assert keyboard_troubles(page) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("e => e.tabIndex = -1", "never reached"),
        ("e => e.style.outline = 'none'", "the focus cannot be seen"),
        ("e => e.style.cssText = 'position: absolute; left: -9999px'", "outside the window"),
        ("e => e.textContent = ''", "no name"),
        ("e => e.addEventListener('keydown', pressed => pressed.preventDefault())", "never reached"),
    ],
    ids=["passed over", "not outlined", "outside", "without a name", "a trap"],
)
def test_a_control_that_is_not_in_order_is_told(page: Page, spoil: str, told: str) -> None:
    page.goto("/start")
    page.locator("main button").first.evaluate(spoil)
    found = keyboard_troubles(page)
    assert found
    assert all(trouble.startswith(told) for trouble in found), found


def test_the_first_tab_leads_past_the_navigation(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.innerText") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.querySelector('main').contains(document.activeElement)")


def press_to(page: Page, control: Locator) -> None:
    """Tab until it has the focus."""
    for _ in range(80):
        if control.evaluate("e => e === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never comes to {control}")


def test_runs_are_found_by_keyboard(page: Page) -> None:
    page.goto("/")
    press_to(page, page.get_by_label("Search"))
    page.keyboard.type("0000000b")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table").get_by_role("link")).to_have_count(1)
    press_to(page, page.get_by_role("table").get_by_role("link"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Damaged")


def test_a_run_under_way_is_followed_without_a_reload(page: Page, store: Path) -> None:
    page.goto(f"/runs/{GOING}", wait_until="domcontentloaded")
    page.evaluate("() => { window.same = true }")
    stage = page.locator("#now dt", has_text="Stage").locator("xpath=following-sibling::dd")
    expect(stage).not_to_have_text("check")
    path = store / GOING / "history.jsonl"
    last = json.loads(path.read_text().splitlines()[-1])
    with path.open("a") as history:
        history.write(json.dumps({"t": last["t"] + 1, "kind": "stage", "stage": "check"}) + "\n")
    expect(stage).to_have_text("check", timeout=15_000)
    assert page.evaluate("() => window.same"), "the page itself stayed"


def test_the_token_is_given_and_forgotten_by_keyboard_and_a_wrong_one_is_refused(page: Page) -> None:
    page.goto("/start")
    press_to(page, page.get_by_role("link", name="Give the token").first)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/login"))
    for token, refused in (("wrong", True), (TOKEN, False)):
        press_to(page, page.get_by_label("Token"))
        page.keyboard.type(token)
        with page.expect_response(re.compile("/login")) as answer:
            page.keyboard.press("Enter")
        page.wait_for_load_state()
        assert (answer.value.status >= 400) is refused
        expect(page.get_by_role("button", name="Forget the token")).to_have_count(0 if refused else 1)
    press_to(page, page.get_by_role("button", name="Forget the token"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Give the token").first).to_be_visible()


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize(("scheme", "low", "high"), [("light", 200, 256), ("dark", 0, 60)])
def test_every_page_fits_the_window_in_light_and_dark(
    browser: Browser, address: str, tmp_path: Path, width: int, scheme: str, low: int, high: int
) -> None:
    context = browser.new_context(
        base_url=address,
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    for number, where in enumerate(PAGES):
        page.goto(where, wait_until="domcontentloaded")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, f"{where} is cut off"
        target = tmp_path / f"{number}.png"
        page.screenshot(path=target)
        _, _, colours = _read(target)
        assert colours > 20, "a blank page has one colour"
        assert low <= _corner(target) < high, where
    context.close()
