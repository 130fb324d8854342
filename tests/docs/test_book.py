"""The book: pages on one, each with ids of its own, and links that stay within it."""

from types import SimpleNamespace
from typing import Any

import pytest
from book import Book, name_of


def page(title: str, address: str) -> Any:
    return SimpleNamespace(title=title, url=address, is_page=True, children=None)


def section(title: str, *children: Any) -> Any:
    return SimpleNamespace(title=title, url="", is_page=False, children=list(children))


def article(body: str) -> str:
    return f'<head><link rel="stylesheet" href="assets/a.css"></head><article class="md-content__inner x">{body}</article>'


@pytest.fixture
def book() -> Book:
    made = Book("en")
    made.follow(
        [page("Home", "index.html"), section("Spec", page("H", "spec/h.html")), section("API", page("A", "api/a.html"))]
    )
    links = (
        '<a href="spec/h.html#q">q</a> <a href="spec/h.html">h</a> <a href="api/a.html#x">x</a> <a href="https://e.org/">e</a>'
    )
    made.add("index.html", article(f'<h1 id="top">Home</h1>{links}<script src="a.js"></script>'), {})
    drawing = '<svg><g id="clip"/><use href="#clip"/></svg><img src="../figures/f.svg" alt="f"><details><p>d</p></details>'
    made.add("spec/h.html", article(f'<h1 id="top">Halting</h1><h2 id="q">Why</h2><a href="#q">q</a>{drawing}'), {})
    made.add("api/a.html", article('<h1 id="a">A</h1>'), {"book": False})
    return made


def test_ids_are_told_apart_by_page_and_links_stay_within_the_book(book: Book) -> None:
    text = book.page()
    for part in ('id="index:top"', 'id="spec-h:top"', 'id="spec-h:q"', 'href="#spec-h:q"', 'href="#spec-h"'):
        assert part in text
    assert 'href="api/a.html#x"' in text, "a page outside of the book is linked where it stands"
    assert 'href="https://e.org/"' in text
    assert 'src="figures/f.svg"' in text, "the book stands at the top"
    assert '<g id="clip"/><use href="#clip"/>' in text, "drawings keep their own ids"


def test_the_book_has_one_title_and_no_scripts_of_its_pages(book: Book) -> None:
    text = book.page()
    assert text.count("<h1") == 1
    assert '<h2 id="spec-h:top">Halting</h2><h3 id="spec-h:q">' in text
    assert "a.js" not in text
    assert "<details open>" in text


def test_contents_follow_the_navigation_without_what_is_left_out(book: Book) -> None:
    contents = book.page().partition("<ul>")[2].partition("</ul>")[0]
    assert contents.index(">Home<") < contents.index("Spec") < contents.index(">Halting<")
    assert "API" not in contents


def test_names_have_no_slashes() -> None:
    assert name_of("spec/halting.html") == "spec-halting"
