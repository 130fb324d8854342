"""One browser for all tests, and what it sees of every page of the built site: `make docs-test`.

The site is opened from the disk, as a reader may open it: without a server, and with nothing to fetch from elsewhere.
"""

from collections.abc import Iterator
from pathlib import Path

import pdf
import pytest
from built_site import SITE, Visit, name, pages
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PATIENCE_MS = 180_000
"""The machine may be busy; nothing is timed."""
PROBE = (Path(__file__).parent / "probe.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not (SITE / "ko" / "index.html").exists():
        pytest.fail("the site is not built: run `make docs-test`, which builds it first.")
    with sync_playwright() as playwright:
        started = pdf.launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    made.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Page]:
    """A fresh tab; an error of a script fails the test."""
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


@pytest.fixture(scope="session")
def visits(context: BrowserContext) -> dict[str, Visit]:
    """Every page, looked at once."""
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 740})  # a small phone
    seen: dict[str, Visit] = {}
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    for path in pages():
        requests.clear()
        errors.clear()
        page.goto(path.as_uri(), wait_until="load")
        facts = page.evaluate(PROBE)
        seen[name(path)] = Visit(list(requests), list(errors), facts)
    page.close()
    return seen
