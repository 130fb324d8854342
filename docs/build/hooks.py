"""Hooks of the site generator: stage the language first, link clauses, link the languages to each other."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import clauses
import stage
from book import Book

_book = Book("en")


def on_config(config: Any) -> Any:
    """Build from the staged tree instead of from docs/; the spec may have changed since the last build."""
    clauses.forget()
    config.docs_dir = str(stage.stage(config.extra["language"]).folder)
    return config


def on_nav(nav: Any, config: Any, **_: Any) -> None:
    """Begin the book of this language, in the order of the navigation."""
    global _book
    _book = Book(config.extra["language"])
    _book.follow(nav.items)


def on_page_content(html: str, **_: Any) -> str:
    """Clause ids in code comments become links, and `Source:` and `Spec:` of a docstring start a line."""
    commented_id = re.compile(rf"# (?P<id>(?:{'|'.join(clauses.families())})\.[a-z0-9-]+)(?=:)")

    def link(match: re.Match[str]) -> str:
        return commented_id.sub(r'# <autoref identifier="\g<id>">\g<id></autoref>', match[0])

    html = re.sub(r'(?<=<span class="c1">)[^<]*', link, html)
    return re.sub(r"\n(?=(?:Spec|Source|Memory|Costs): )", "<br>\n", html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """`alt:xx` becomes the path to the same page in that language, relative, so that it works from a disk too.

    Links to clauses say their sentences.
    """
    here = config.extra["language"]
    to_top = "../" * (page.url.count("/") + (here != "en"))
    for language in stage.LANGUAGES:
        folder = "" if language == "en" else f"{language}/"
        output = output.replace(f'"alt:{language}"', f'"{to_top}{folder}{page.url or "index.html"}"')
    output = clauses.say_sentences(output, here)
    # Written with a blank, which means the same, the theme's script does not look for a site map at each alternative.
    output = output.replace('<link rel="alternate" href', '<link rel="alternate " href')
    _book.add(page.url, output, page.meta)
    return output


def on_post_build(config: Any) -> None:
    """Write the book: all pages on one, to print."""
    _book.write(Path(config.site_dir))


def on_serve(server: Any, config: Any, **_: Any) -> Any:
    """Watch the sources, not the staged tree."""
    server.unwatch(config.docs_dir)
    return server
