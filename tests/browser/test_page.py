"""The report in a browser: on a phone, a tablet and a desk, light and dark, printed, and with names that attack it."""

import itertools
import re
from collections.abc import Callable

import pytest

from tests.browser.pages import HOSTILE, SIZES, Opened

Open = Callable[..., Opened]
REPORTS = ("full", "hostile", "one", "stream")


@pytest.fixture(params=REPORTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_cut_off_overlaps_or_is_too_small_to_read(opened: Open, name: str, size: str) -> None:
    seen = opened(name, size)
    assert seen.judge("cutOff()") == []
    assert seen.judge("overlapping()") == []
    assert seen.judge("tiny(12, 8.9)") == []
    assert seen.judge("unseen()") == []


@pytest.mark.parametrize(
    ("judge", "style"),
    [
        ("cutOff()", "h2 { width: 3000px }"),
        ("cutOff()", ".scroll { overflow: hidden !important }"),
        ("cutOff()", "th { max-width: 3rem; white-space: nowrap }"),
        ("cutOff()", "svg { transform: none } [id*=text_1] { transform: translate(900px) }"),
        ("overlapping()", "figcaption { margin-top: -2rem }"),
        ("overlapping()", "[id*=text_] { transform: scale(3); transform-box: fill-box }"),
        ("tiny(12, 8.9)", "table { font-size: 0.7rem }"),
        ("tiny(12, 8.9)", "svg { min-width: 0 !important; width: 200px }"),
        ("faint(4.5)", "figcaption { color: #888 }"),
        ("faint(4.5)", "td { background: #777 !important }"),
        ("faint(4.5)", "svg { fill: #999; color: #999 }"),
        ("faint(4.5)", "[id*=patch_] path { fill: #30343b !important }"),
        ("unseen()", "figure:last-child svg { visibility: hidden }"),
        ("unseen()", "table { display: none }"),
    ],
)
def test_the_judges_see_what_is_wrong(opened: Open, judge: str, style: str) -> None:
    seen = opened("full", "phone")
    seen.page.set_viewport_size({"width": 390, "height": 8000})
    assert seen.judge(judge) == []
    seen.page.add_style_tag(content=style)
    assert seen.judge(judge) != []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(opened: Open, name: str, scheme: str) -> None:
    seen = opened(name, scheme=scheme)
    page = seen.page
    dark = sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))) < 200
    assert dark == (scheme == "dark")
    # what lies under a letter can be asked only within the window
    page.set_viewport_size({"width": 1440, "height": page.evaluate("document.documentElement.scrollHeight")})
    assert seen.judge("faint(4.5)") == []


def test_it_asks_for_nothing_and_complains_of_nothing(opened: Open, name: str) -> None:
    seen = opened(name)
    seen.page.wait_for_load_state("networkidle")
    assert seen.requests == [seen.page.url]
    assert seen.said == []
    assert seen.page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_it_needs_no_scripts(opened: Open, name: str) -> None:
    still, page = opened(name, js=False).page, opened(name).page
    assert page.locator("script, [onclick], [onload], [onerror]").count() == 0
    text = page.inner_text("body")
    assert len(text) > 800
    assert still.inner_text("body") == text
    assert [still.locator(tag).count() for tag in ("svg", "table")] == [
        page.locator(tag).count() for tag in ("svg", "table")
    ]


def test_structure(opened: Open, name: str) -> None:
    page = opened(name).page
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.compatMode") == "CSS1Compat"
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    titles = page.get_by_role("heading", level=2).all_inner_texts()
    assert page.get_by_role("navigation").get_by_role("link").all_inner_texts() == titles
    assert page.get_by_role("main").get_by_role("region").count() == len(titles)
    shown = "Evidence of a change" if name == "stream" else "The causal graph"
    assert page.get_by_role("img", name=shown).is_visible()
    assert page.get_by_role("img").count() == page.locator("svg").count() > 0


def test_wide_tables_scroll_in_their_own_box_by_keyboard(opened: Open) -> None:
    seen = opened("hostile", "phone")
    page = seen.page
    box = page.locator(".scroll", has=page.locator("table")).filter(has_text="class 13").last
    assert box.evaluate("(box) => box.scrollWidth > 2 * box.clientWidth"), "nothing to scroll"
    box.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("(box) => box.scrollLeft > 60", arg=box.element_handle())
    assert page.evaluate("scrollX") == 0
    assert seen.judge("lostNames()") == []


def test_the_tab_key_reaches_every_link_and_box_visibly(opened: Open) -> None:
    page = opened("full").page
    expected = page.evaluate("[...document.querySelectorAll('a, .scroll')].length")
    reached = []
    for _ in range(expected):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(
            "[[...document.querySelectorAll('a, .scroll')].indexOf(document.activeElement),"
            "getComputedStyle(document.activeElement).outlineStyle, document.activeElement.getAttribute('aria-label')"
            "|| document.activeElement.textContent]"
        ))  # fmt: skip
    assert [place for place, _, _ in reached] == list(range(expected))
    assert {outline for _, outline, _ in reached}.isdisjoint({"none", "hidden"})
    assert all(label for _, _, label in reached)
    page.get_by_role("link", name="Calibration").press("Enter")
    title = page.get_by_role("heading", name="Calibration")
    assert -1 < title.evaluate("(title) => title.getBoundingClientRect().top") < 900


def test_on_paper_it_is_light_and_whole(opened: Open, name: str) -> None:
    seen = opened(name, scheme="dark")
    page = seen.page
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 within its margins
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert seen.judge("cutOff()") == []
    assert not page.get_by_role("navigation").is_visible()
    page.set_viewport_size({"width": 720, "height": page.evaluate("document.documentElement.scrollHeight")})
    assert seen.judge("faint(4.5)") == []
    assert page.pdf(format="A4").startswith(b"%PDF-")


def test_names_are_text_and_turn_nothing_around(opened: Open) -> None:
    page = opened("hostile").page
    assert page.title() == "Report on y"
    assert page.locator("script, img, iframe").count() == 0
    text = page.inner_text("body")
    for name in HOSTILE[:4]:
        assert name in text
    assert HOSTILE[-1] in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", page.content())
    assert r"\u202eright to left" in text


def test_a_single_class_predicted(opened: Open) -> None:
    page = opened("one").page
    table = page.locator("section", has=page.get_by_role("heading", name="Confusion")).locator("table")
    assert table.count() == 1
    counts = [[int(cell) for cell in row.locator("td").all_inner_texts()] for row in table.locator("tbody tr").all()]
    assert sum(any(column) for column in zip(*counts, strict=True)) == 1
    assert sum(any(row) for row in counts) > 1
