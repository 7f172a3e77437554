"""The studio in a real browser: every view opens without an error, sliders, sorting and the timeline do what they say.

Needs Playwright's package and a Chromium of the system (Debian: chromium-headless-shell); skipped without them.
"""

import gzip
import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.studio.folders import run_folder

pytest.importorskip("uvicorn", reason="the extra `studio` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="the package `playwright` is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SPANS = 400_000


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A studio of one run, whose trace has many spans, and a second of the sample's size."""
    root = tmp_path_factory.mktemp("runs")
    run_folder(root, "small")
    long = run_folder(root, "long")
    events = [{"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "chip"}}]
    for number in range(SPANS):
        track, place = number % 6, number // 6
        event = {"ph": "X", "pid": 1, "tid": track, "name": f"item{place % 9}", "ts": place * 0.01, "dur": 0.008}
        events.append(event)
    (long / "trace.json.gz").write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode(), 1))
    command = [sys.executable, "-m", "tapeout", "studio", str(root), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield re.search(r"http://\S+/", server.stdout.readline())[0]
        server.terminate()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page(viewport={"width": 1000, "height": 700})
    faults = []
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    yield opened
    opened.close()
    assert not faults


@pytest.mark.parametrize("width", [1000, 400])
@pytest.mark.parametrize(
    "view",
    ["", "chips", "compare", "compare?a=small&b=long", "decide", "run/small", "kernels/small", "kernel/small?n=0"],
)
def test_every_view_opens(page, address, view, width):
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(address + view)
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # wide tables scroll by themselves


def test_a_heading_sorts_its_table(page, address):
    page.goto(address + "chips")
    page.locator("thead th", has_text="memory bandwidth").click()
    values = page.evaluate(
        "[...document.querySelectorAll('tbody tr')].map((row) => row.cells[5].dataset.value).filter((x) => x)"
    )
    assert list(map(float, values)) == sorted(map(float, values)) and len(values) > 30


def test_a_slider_changes_the_figures(page, address):
    page.goto(address + "chips")
    answer = page.locator("[aria-live]")
    answer.locator("table").wait_for()
    before = answer.inner_text()
    page.locator("#core_count").fill("15")
    page.wait_for_function("(before) => document.querySelector('[aria-live]').innerText !== before", arg=before)
    assert "mm²" in answer.inner_text() and "3A090" in answer.inner_text()


def test_a_kernels_instructions_fold_out(page, address):
    page.goto(address + "kernel/small?n=0")
    line = page.locator("details").first
    assert not line.locator("pre").is_visible()
    line.locator("summary").click()
    assert line.locator("pre").is_visible()


def test_a_span_tells_its_details(page, address):
    page.goto(address + "timeline/small")
    canvas = page.locator("canvas[data-drawn]")
    canvas.wait_for()
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 33)
    page.locator("td", has_text="operator").wait_for()
    assert page.locator("h2").inner_text().startswith("_")


def test_a_long_trace_scrolls(page, address):
    page.goto(address + "timeline/long")
    canvas = page.locator("canvas[data-drawn]")
    canvas.wait_for()
    assert f"{SPANS:,} spans" in page.locator("p", has_text="spans").inner_text()
    canvas.focus()
    taken = []
    for key in "wwwwwwdddaaasss":
        drawn = int(canvas.get_attribute("data-drawn"))
        page.keyboard.press(key)
        page.wait_for_function("(n) => Number(document.querySelector('canvas').dataset.drawn) > n", arg=drawn)
        taken.append(float(canvas.get_attribute("data-milliseconds")))
    assert max(taken) < 200  # on a busy machine; on a quiet one: docs/how-to/see-and-explore.md
