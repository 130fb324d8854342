"""What a reader does: searches, changes the language, goes by keyboard."""

import re
from pathlib import Path

import pytest
from built_site import SITE, name, pages
from playwright.sync_api import Page, expect

FOLDERS = {"en": SITE, "ko": SITE / "ko"}


def search(tab: Page, language: str, words: str) -> list[str]:
    """The pages and places that a search gives, best first."""
    tab.goto(f"{(FOLDERS[language] / 'glossary.html').as_uri()}?q={words}")
    meta = tab.locator(".md-search-result__meta")
    expect(meta).to_contain_text("일치" if language == "ko" else "matching")
    links = tab.locator(".md-search-result__list a.md-search-result__link")
    found = links.evaluate_all("links => links.map(link => link.href.replace(/\\?[^#]*/, ''))")
    return [link.removeprefix(FOLDERS[language].as_uri() + "/") for link in found]


@pytest.mark.parametrize(
    ("language", "words", "place"),
    [
        ("ko", "정지를", "spec/halting.html"),
        ("ko", "빈칸은", "examples/"),
        ("ko", "받아올림은", "examples/"),
        ("ko", "publish", "spec/halting.html#halting.kv-publish"),
        ("en", "publish", "spec/halting.html#halting.kv-publish"),
        ("en", "taken", "spec/halting.html#halting.loops-taken"),
        ("en", "argmaxes", "spec/halting.html#halting.two-equal-argmaxes"),
        ("en", "argmaxes", "api/model.html#looplm.loop.halting.two_equal_argmaxes.TwoEqualArgmaxes"),
        ("en", "halting.freeze", "spec/halting.html#halting.freeze"),
    ],
)
def test_search_finds(tab: Page, language: str, words: str, place: str) -> None:
    assert any(found.startswith(place) for found in search(tab, language, words)[:12])


@pytest.mark.parametrize("word", ["루프", "정지", "확신도", "받아올림", "임계값", "빈칸"])
def test_a_korean_word_is_found_whatever_its_particle(tab: Page, word: str) -> None:
    bare = search(tab, "ko", word)
    final = (ord(word[-1]) - ord("가")) % 28 > 0  # whether the last syllable ends in a consonant
    for particle in ("은", "을", "이") if final else ("는", "를", "가"):
        assert search(tab, "ko", word + particle) == bare
    for page in {found.split("#")[0] for found in bare}:
        assert word in (FOLDERS["ko"] / page).read_text(encoding="utf-8"), f"{page} was found, but lacks {word}"


@pytest.mark.parametrize("page", [n for n in map(name, pages()) if not n.startswith("ko/") and n != "book.html"])
def test_the_language_switch_stays_on_the_page(tab: Page, page: str) -> None:
    tab.goto((SITE / page).as_uri())
    for language, folder in (("ko", FOLDERS["ko"]), ("en", FOLDERS["en"])):
        tab.locator("[aria-label='Select language'], [aria-label='언어설정']").first.focus()
        link = tab.locator(f"a.md-select__link[hreflang={language}]").first
        tab.goto(str(link.evaluate("link => link.href")))
        assert tab.url == (folder / page).as_uri()
        assert tab.locator("html").get_attribute("lang") == language


FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {
    what: e.tagName + "#" + e.id + " " + (e.getAttribute("href") || e.textContent.trim().slice(0, 30)),
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
    seen: box.bottom > 0 && box.top < innerHeight && box.width > 0,
    inArticle: !!e.closest("article"),
  };
}"""


@pytest.mark.parametrize("page", ["index.html", "ko/spec/halting.html"])
def test_the_keyboard_reaches_links_in_order_and_shows_where_it_is(tab: Page, page: str) -> None:
    tab.goto((SITE / page).as_uri())
    tab.locator("article h1").evaluate("h => { h.tabIndex = -1; h.focus() }")
    seen = []
    for _ in range(25):
        tab.keyboard.press("Tab")
        at = tab.evaluate(FOCUSED)
        if not at["inArticle"]:
            break
        seen.append(at["what"])
        assert at["ring"], f"{at['what']} shows no ring when it has the focus"
        assert at["seen"], at["what"]
    assert len(seen) >= 5


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("index.html", "MUST never change again"),
        ("ko/index.html", "다시는 바뀌지 않아야"),
        ("api/model.html", "MUST never change again"),
        ("examples/01_one_loop.html", "MUST never change again"),
    ],
)
def test_a_clause_shows_its_sentence_to_mouse_and_keyboard(tab: Page, page: str, sentence: str) -> None:
    tab.goto((SITE / page).as_uri())
    link = tab.locator("article a[href*='halting.html#halting.freeze']").first
    for show in (link.hover, link.focus):
        show()
        tip = tab.locator(".md-tooltip2--active")
        expect(tip).to_contain_text(sentence)
        assert link.get_attribute("aria-describedby") == tip.get_attribute("id")
        tab.mouse.move(0, 0)
        link.blur()
        expect(tip).to_have_count(0)


def test_the_first_tab_offers_to_skip_the_navigation(tab: Page) -> None:
    tab.goto((SITE / "spec" / "halting.html").as_uri())
    tab.keyboard.press("Tab")
    assert "md-skip" in tab.evaluate("document.activeElement.className")


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_book_holds_every_chapter_and_prints(tab: Page, language: str, tmp_path: Path) -> None:
    """Chapters and the spec are in the book, the API is not; nothing is wider than the paper."""
    folder = FOLDERS[language]
    tab.goto((folder / "book.html").as_uri())
    parts = set(tab.locator("section.page").evaluate_all("parts => parts.map(part => part.id)"))
    chapters = {f"examples-{path.stem}" for path in (folder / "examples").glob("*.html")}
    spec = {f"spec-{path.stem}" for path in (folder / "spec").glob("*.html")}
    assert parts >= chapters | spec | {"index", "glossary"}
    assert not any(part.startswith(("api", "tests", "matrix", "live")) for part in parts)
    expect(tab.locator("html[data-ready]")).to_have_count(1)
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 658, "height": 983})  # the paper between its margins, 174 by 260 mm
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(overflow) <= 0
    tab.emulate_media(media="screen")
    printed = tab.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > len(parts)
