"""The page in a real browser: nothing overflows, nothing is fetched, nothing is logged, in light and dark."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from haversack.report import write
from haversack.report.degraded import DegradedRecord
from haversack.report.record import PairRecord

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OVERFLOWING = """() => [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.tagName + '.' + e.className)"""
RUNNING_OUT = """() => [...document.querySelectorAll('.scroll')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label'))"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api") if os.environ.get("CI") != "true" else None
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed: apt-get install -y chromium")
        pytest.skip("chromium is not installed: apt-get install -y chromium")
    if playwright is None:
        from playwright import sync_api as playwright
    with playwright.sync_playwright() as runner:
        started = runner.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def show(browser, tmp_path, request):
    """Open a fixture's page and return (page, requests, messages)."""
    opened = []

    def apply(name, width, scheme):
        path = write(request.getfixturevalue(name), tmp_path)[1]
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.append(page)
        asked, told = [], []
        page.on("request", lambda one: asked.append(one.url))
        page.on("console", lambda one: told.append(one.text))
        page.on("pageerror", lambda one: told.append(str(one)))
        page.goto(path.as_uri())
        return page, [url for url in asked if url != path.as_uri() and not url.startswith("data:")], told

    yield apply
    for page in opened:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["record", "hollow", "many", "worse"])
def test_no_overflow_no_request_no_message(show, name, width, scheme):
    page, asked, told = show(name, width, scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    assert asked == []
    assert told == []


CUT = """() => {
    const svg = [...document.querySelectorAll('.plot svg')].filter(e => e.getBoundingClientRect().width)[0];
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom;
    }).map(e => e.textContent);
}"""
LETTERS = """() => [...document.querySelectorAll('.plot svg .role-legend-label text')]
    .filter(e => e.getBoundingClientRect().width).map(e => [e.textContent, e.getBoundingClientRect().height])"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["record", "six"])
def test_the_plot_cuts_no_word(show, name, width, scheme):
    page, _, _ = show(name, width, scheme)
    assert page.evaluate(CUT) == []
    shown = page.evaluate(LETTERS)
    if name == "six":
        assert [text for text, _ in shown] == ["onnxruntime", "executorch", "litert", "ncnn", "coreml", "tensorrt"]
        assert min(height for _, height in shown) >= 12, "as large on a phone as on a desk"


def test_on_a_desktop_the_tables_of_a_run_need_no_scrolling(show):
    page, _, _ = show("record", 1280, "light")
    assert page.evaluate(RUNNING_OUT) == []


def test_on_a_phone_wide_tables_scroll_inside_their_box(show):
    page, _, _ = show("record", 390, "light")
    wide = page.evaluate(RUNNING_OUT)
    assert "Layers of onnxruntime" in wide
    assert not {"Budget", "Candidates"} & set(wide), "these stack instead"


def test_the_scheme_changes_paper_ink_and_plot(show):
    seen = {}
    for scheme in ("light", "dark"):
        page, _, _ = show("record", 1280, scheme)
        seen[scheme] = page.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('figure svg .mark-symbol path')).stroke]"
        )
    assert seen["light"] == ["rgb(252, 252, 250)", "rgb(27, 29, 31)", "rgb(11, 100, 112)"]
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))


def test_bars_keep_their_proportions(show, record):
    page, _, _ = show("record", 390, "light")
    lengths = page.evaluate("[...document.querySelectorAll('.bar i')].map(e => e.getBoundingClientRect().width)")
    errors = [layer.relative_error for layer in record.candidates[0].layers]
    scale = max(lengths) / max(errors)
    assert len(lengths) == 50
    assert all(abs(length - error * scale) <= 1.0 for length, error in zip(lengths, errors, strict=True))


SPILLED = """() => [...document.querySelectorAll('td.error')].filter(cell => {
    const style = getComputedStyle(cell), edge = cell.getBoundingClientRect().right - parseFloat(style.paddingRight);
    return cell.querySelector('b').getBoundingClientRect().right > edge + 0.5;
}).map(cell => cell.textContent.trim())"""
RAGGED = """() => [...document.querySelectorAll('.candidates td.n')].filter(e => e.offsetParent).filter(cell => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    const rights = [...range.getClientRects()].map(box => box.right);
    return cell.getBoundingClientRect().right - Math.min(...rights) > 0.5;
}).map(cell => cell.dataset.label)"""


@pytest.mark.parametrize("name", ["record", "many"])
@pytest.mark.parametrize("width", [1280, 390])
def test_errors_of_layers_stay_in_their_column(show, name, width):
    page, _, _ = show(name, width, "light")
    assert page.evaluate("document.querySelectorAll('td.error b').length") > 0
    assert page.evaluate(SPILLED) == []


def test_on_a_phone_the_figures_of_stacked_candidates_end_at_the_right(show):
    page, _, _ = show("record", 390, "light")
    assert page.evaluate("document.querySelectorAll('.candidates td.n').length") > 0
    assert page.evaluate(RAGGED) == []


def test_a_hash_is_selected_whole(show):
    page, _, _ = show("record", 1280, "light")
    page.locator(".hash").first.click()
    assert len(page.evaluate("getSelection().toString()").strip()) == 64


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["record", "many"])
def test_the_plot_fits_and_can_be_read(show, name, width):
    page, _, _ = show(name, width, "light")
    (box,) = page.evaluate("""[...document.querySelectorAll('figure .plot svg')].filter(e => e.clientWidth)
        .map(e => ({right: e.getBoundingClientRect().right, scale: e.clientWidth / e.viewBox.baseVal.width}))""")
    assert box["right"] <= width
    assert box["scale"] > 0.85, "12 pixels of a word stay more than 10"


CLIPPED = """() => [...document.querySelectorAll('.candidates tr.ship td.n')].filter(e => e.offsetParent)
    .map(e => e.closest('tr').getBoundingClientRect().right - e.getBoundingClientRect().right)"""


def test_on_a_phone_the_figures_of_the_chosen_candidate_keep_off_the_edge(show):
    page, _, _ = show("record", 390, "light")
    room = page.evaluate(CLIPPED)
    assert room
    assert min(room) >= 8


@pytest.fixture
def compared(many):
    """Runs compared, with names as long as they get."""
    names = ("onnxruntime", "executorch", "reference", "float")
    pairs = [
        PairRecord(one, other, 1_234_567, 12_345_678, 0.000123) for one in names for other in names if one != other
    ]
    return replace(many, across=tuple(pairs))


def test_on_a_phone_the_comparison_of_runtimes_shows_every_column(show):
    page, _, _ = show("compared", 390, "light")
    assert "Across runtimes" not in page.evaluate(RUNNING_OUT)


@pytest.fixture
def worse(many):
    """The run on two targets, both scored on inputs made worse."""
    numbers = {
        "value": 0.1234,
        "clean_value": 0.9987,
        "float_value": 0.2345,
        "float_clean_value": 0.9988,
        "drop": 0.1111,
        "drop_low": -0.1234,
        "drop_high": 0.3456,
        "clean_drop": 0.0001,
        "excess": 0.1110,
        "excess_low": 0.0123,
        "excess_high": 0.3456,
    }
    names = ("blur(sigma=1.5)", "missing_frames(fraction=0.25,seed=3,input=1)")
    rows = [DegradedRecord(t, name, {}, 186, less_robust=True, **numbers) for t in many.targets for name in names]
    lost = DegradedRecord(many.targets[0], "noise(level=0.1)", {}, 186, cause="scores: 3 of its 640 values are NaN")
    return replace(many, degraded=(*rows, lost))


@pytest.mark.parametrize("width", [1280, 390])
def test_what_is_told_of_degraded_inputs_needs_no_scrolling(show, width):
    page, _, _ = show("worse", width, "light")
    assert page.locator("table.degraded").count() == 1
    assert "On degraded inputs" not in page.evaluate(RUNNING_OUT)
