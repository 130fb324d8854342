"""The whole site on one page, to print: the pages in the order of the navigation, as they were built.

A page that does not belong into a book (the API, the list of tests) says `book: false` in its front matter. Ids get the
page's name in front, so that two chapters may both have `#exercises`, and links to pages of the book stay within it.
"""

import html
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "book.html"
_ARTICLE = re.compile(r'<article class="md-content__inner[^>]*>(?P<body>.*)</article>', re.DOTALL)
_SHEET = re.compile(r'<link rel="stylesheet" href="(?P<path>[^"]+)">')
_LEFT_OUT = re.compile(
    r'<script.*?</script>|<a[^>]*class="(?:headerlink|md-content__button)[^>]*>.*?</a>'
    r'|<a[^>]*class="download"[^>]*>.*?</a>|<aside class="md-source-file".*?</aside>',
    re.DOTALL,
)
_WORDS = {
    "en": {
        "subtitle": "A textbook of looped language models that runs",
        "contents": "Contents",
        "other": "한국어",
        "site": "Site",
    },
    "ko": {"subtitle": "실행하며 읽는 루프 언어 모델 교과서", "contents": "차례", "other": "English", "site": "사이트"},
}
_OTHER = {"en": ("ko", "ko/"), "ko": ("en", "../")}


@dataclass
class Book:
    """Collects pages while they are built, and writes them as one."""

    language: str
    order: list[tuple[int, str, str]] = field(default_factory=list)
    """Depth in the navigation, title, and address, which is empty for a section."""
    articles: dict[str, str] = field(default_factory=dict)
    """Address → the page's content."""
    sheets: list[str] = field(default_factory=list)

    def follow(self, items: Any, depth: int = 0) -> None:
        """Take the order from the navigation."""
        for item in items:
            self.order.append((depth, item.title or "", item.url if item.is_page else ""))
            self.follow(item.children or [], depth + 1)

    def add(self, address: str, output: str, meta: Mapping[str, Any]) -> None:
        """Keep what a built page says, unless it wants no place in the book."""
        if address == "index.html":
            self.sheets = _SHEET.findall(output)
        if meta.get("book", True) and (match := _ARTICLE.search(output)):
            self.articles[address] = _LEFT_OUT.sub("", match["body"])

    def write(self, folder: Path) -> None:
        """Write the book beside the pages."""
        (folder / NAME).write_text(self.page(), encoding="utf-8")

    def page(self) -> str:
        """The whole book."""
        words = _WORDS[self.language]
        other, to_other = _OTHER[self.language]
        elsewhere = f'<a href="index.html">{words["site"]}</a> · <a href="{to_other}{NAME}" lang="{other}">{words["other"]}</a>'
        parts = list(self._parts())
        contents = "\n".join(f'<li class="depth-{depth}">{line}</li>' for depth, line, _ in parts)
        sheets = "\n".join(f'<link rel="stylesheet" href="{path}">' for path in [*self.sheets, "assets/css/book.css"])
        return f"""<!doctype html>
<html lang="{self.language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>LoopLM: {words["subtitle"]}</title>
{sheets}
<script src="assets/vendor/katex/katex.min.js" defer></script>
<script src="assets/vendor/katex/auto-render.min.js" defer></script>
<script src="assets/js/book.js" defer></script>
</head>
<body data-md-color-scheme="default" data-md-color-primary="custom" data-md-color-accent="custom">
<main class="md-typeset book">
<header>
<h1>LoopLM</h1>
<p class="subtitle">{words["subtitle"]}</p>
<p class="elsewhere">{elsewhere}</p>
</header>
<nav aria-label="{words["contents"]}">
<h2 class="contents">{words["contents"]}</h2>
<ul>
{contents}
</ul>
</nav>
{"".join(body for _, _, body in parts)}
</main>
</body>
</html>
"""

    def _parts(self) -> Iterator[tuple[int, str, str]]:
        """Depth, line of the contents, and content of each part; sections without pages in the book are left out."""
        for number, (depth, title, address) in enumerate(self.order):
            if address in self.articles:
                body = self._as_part(address, self.articles[address])
                title = re.sub(r"<.*?>", "", re.findall(r"<h2[^>]*>(.*?)</h2>", body, re.DOTALL)[0])
                yield depth, f'<a href="#{name_of(address)}">{title.strip()}</a>', body
            elif not address and any(a in self.articles for a in self._pages_below(number)):
                yield depth, html.escape(title), ""

    def _pages_below(self, section: int) -> Iterator[str]:
        for depth, _, address in self.order[section + 1 :]:
            if depth <= self.order[section][0]:
                return
            yield address

    def _as_part(self, address: str, body: str) -> str:
        """A page's content as a part of the book: headings a level lower, ids and links its own, details open."""

        def rewrite(text: str) -> str:
            text = re.sub(r"<(/?)h([1-5])\b", lambda m: f"<{m[1]}h{int(m[2]) + 1}", text)
            text = re.sub(r'\b(id|for|name|aria-labelledby)="([^"]+)"', rf'\1="{name_of(address)}:\2"', text)
            text = re.sub(r'\b(href|src)="([^"]+)"', lambda m: f'{m[1]}="{self._link(address, m[2])}"', text)
            return text.replace("<details", "<details open")

        pieces = re.split(r"(<svg.*?</svg>)", body, flags=re.DOTALL)  # drawings have ids of their own already
        inside = "".join(piece if piece.startswith("<svg") else rewrite(piece) for piece in pieces)
        return f'<section class="page" id="{name_of(address)}">{inside}</section>\n'

    def _link(self, address: str, target: str) -> str:
        """A link of the page, as it is from the book, which stands at the top."""
        if re.match(r"[a-z]+:|//", target):
            return target
        path, _, place = target.partition("#")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(address), path)) if path else address
        if there not in self.articles:
            return there + (f"#{place}" if place else "")
        return f"#{name_of(there)}:{place}" if place else f"#{name_of(there)}"


def name_of(address: str) -> str:
    """What stands before the ids of a page: `spec/halting.html` → `spec-halting`."""
    return address.removesuffix(".html").replace("/", "-")
