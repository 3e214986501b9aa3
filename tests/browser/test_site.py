"""The site that ``make docs`` built: nothing beside the page, nothing from elsewhere, a search that finds."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

SITE = Path(__file__).parents[2] / "build" / "docs"
WIDE = """() => [...document.querySelectorAll("article *")].filter((element) => {
    const box = element.getBoundingClientRect();
    if (!box.width || box.right <= innerWidth + 1) return false;
    for (let above = element; above; above = above.parentElement)
        if (["auto", "scroll", "hidden"].includes(getComputedStyle(above).overflowX)) return false;
    return true;
}).map((element) => element.outerHTML.slice(0, 80))"""


@pytest.mark.skipif(not SITE.exists(), reason="make docs builds the site")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_page_fits_and_asks_for_nothing_from_elsewhere(browser: Browser, width: int, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    pages = [path for path in SITE.rglob("*.html") if not {"_modules", "_static"} & set(path.parts)]
    assert len(pages) > 30
    for path in pages:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert not page.evaluate(WIDE), path
    assert not said
    page.goto(f"{(SITE / 'search.html').as_uri()}?q=adapt")  # of a file it shows titles alone, and says so
    page.wait_for_selector("#search-results li")
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    context.close()
