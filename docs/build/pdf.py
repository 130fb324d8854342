"""Print the book of each language as a PDF, with the system's Chromium: `python docs/build/pdf.py build/site`."""

import os
import shutil
import sys
from pathlib import Path

from book import NAME
from playwright.sync_api import Browser, Playwright, sync_playwright

FILE = "looplm.pdf"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FOOTER = '<p style="width: 100%; text-align: center; font: 8px sans-serif"><span class="pageNumber"></span></p>'


def launch(playwright: Playwright) -> Browser:
    """Start the system's Chromium, or the one that CHROMIUM names.

    Raises:
        SystemExit: if there is none.
    """
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        raise SystemExit("this needs Chromium: install it, or name it, as in CHROMIUM=/opt/chromium/chrome make ...")
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


def print_book(browser: Browser, folder: Path) -> Path:
    """Write the PDF beside the book; links that lead out of the book, into the site, are only text in it."""
    page = browser.new_page()
    page.goto((folder / NAME).resolve().as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate("document.querySelectorAll('a:not([href^=\"#\"], [href^=http])').forEach(a => a.removeAttribute('href'))")
    page.emulate_media(media="print")
    path = folder / FILE
    page.pdf(
        path=path, prefer_css_page_size=True, print_background=True, outline=True, tagged=True,
        display_header_footer=True, header_template="<span></span>", footer_template=_FOOTER,
    )  # fmt: skip
    page.close()
    return path


if __name__ == "__main__":
    site = Path(sys.argv[1])
    with sync_playwright() as playwright:
        started = launch(playwright)
        for folder in (site, site / "ko"):
            written = print_book(started, folder)
            print(f"{written}: {written.stat().st_size / 1e6:.1f} MB")
        started.close()
