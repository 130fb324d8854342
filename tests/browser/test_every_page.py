"""Every page of the built site, in both languages, as a browser sees it from the disk."""

from collections import Counter
from itertools import pairwise
from urllib.parse import unquote, urldefrag, urlsplit

from built_site import SITE, Visit, is_there


def test_all_pages_were_seen_in_both_languages(visits: dict[str, Visit]) -> None:
    english = [page for page in visits if not page.startswith("ko/")]
    assert {f"ko/{page}" for page in english} == set(visits) - set(english)
    assert len(english) >= 20


def test_nothing_is_asked_of_another_machine(visits: dict[str, Visit]) -> None:
    asked = {(page, url) for page, visit in visits.items() for url in visit.requests}
    assert {(page, url) for page, url in asked if urlsplit(url).scheme not in ("file", "data", "blob")} == set()
    missing = {(page, url) for page, url in asked if url.startswith("file:") and not is_there(url)}
    assert missing == set()


def test_no_script_complains(visits: dict[str, Visit]) -> None:
    assert {page: visit.errors for page, visit in visits.items() if visit.errors} == {}


def test_every_link_within_the_site_leads_to_a_page_and_a_place_on_it(visits: dict[str, Visit]) -> None:
    ids = {(SITE / page).as_uri(): {"", *visit.facts["ids"]} for page, visit in visits.items()}
    broken = set()
    for page, visit in visits.items():
        for link in visit.facts["links"]:
            address, place = urldefrag(link)
            if urlsplit(address).scheme == "file":
                there = unquote(place) in ids[address] if address in ids else is_there(address)
                broken |= set() if there else {(page, link)}
    assert broken == set()


def test_ids_are_unique_on_a_page(visits: dict[str, Visit]) -> None:
    twice = {page: [id for id, n in Counter(visit.facts["ids"]).items() if n > 1] for page, visit in visits.items()}
    assert {page: ids for page, ids in twice.items() if ids} == {}


def test_no_page_is_wider_than_a_phone(visits: dict[str, Visit]) -> None:
    assert {page: visit.facts["wide"] for page, visit in visits.items() if visit.facts["overflow"] > 0} == {}


def test_a_page_says_its_language_and_has_one_title(visits: dict[str, Visit]) -> None:
    for page, visit in visits.items():
        assert visit.facts["language"] == ("ko" if page.startswith("ko/") else "en"), page
        assert visit.facts["headings"] == 1, page
        assert visit.facts["title"], page


def test_headings_skip_no_level(visits: dict[str, Visit]) -> None:
    """In a spec file without sections, a clause follows the title."""
    for page, visit in visits.items():
        levels = [level for level in visit.facts["levels"] if not ("spec/" in page and level < 3)]
        skipped = [(above, below) for above, below in pairwise(levels) if below > above + 1]
        assert skipped == [], page


def test_what_is_seen_is_also_said(visits: dict[str, Visit]) -> None:
    for page, visit in visits.items():
        assert visit.facts["images"] == [], f"{page}: images without an alternative text"
        assert visit.facts["graphics"] == 0, f"{page}: plots without one"
        assert visit.facts["nameless"] == [], f"{page}: controls without a name"
        assert visit.facts["unloaded"] == [], page


def test_all_mathematics_is_typeset(visits: dict[str, Visit]) -> None:
    assert {page: visit.facts["untypeset"] for page, visit in visits.items() if visit.facts["untypeset"]} == {}


def test_text_stands_out_from_its_background_as_wcag_asks(visits: dict[str, Visit]) -> None:
    """Level AA: a ratio of 4.5, or of 3 for large text."""
    for scheme in ("light", "dark"):
        faint = {page: visit.facts["faint"][scheme] for page, visit in visits.items() if visit.facts["faint"][scheme]}
        assert faint == {}, scheme
