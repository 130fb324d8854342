"""The built site as its browser tests know it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"


@dataclass(frozen=True)
class Visit:
    """What a browser saw of one page."""

    requests: list[str]
    errors: list[str]
    """Of scripts and of the console."""
    facts: dict[str, Any]
    """What tests/browser/probe.js found: title, language, headings, links, ids, images, widths, contrast."""


def pages() -> list[Path]:
    """Every page; the one for missing pages belongs to a server."""
    return sorted(path for path in SITE.rglob("*.html") if path.name != "404.html")


def name(page: Path) -> str:
    return page.relative_to(SITE).as_posix()


def is_there(url: str) -> bool:
    return Path(unquote(urlsplit(url).path)).exists()
