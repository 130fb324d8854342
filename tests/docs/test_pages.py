"""Pages, before any of them is built: both languages say the same, and what the site carries is what was reviewed."""

import json
import re
from pathlib import Path

import clauses
import hooks
import parity
import pytest
import render
import stage
import vendor

from looplm.evaluate.scores import Cell
from looplm.runs.results import make_summary
from looplm.spec.check import Row

ROOT = Path(__file__).parents[2]
PAIRS = list(parity.pairs(ROOT))


@pytest.mark.parametrize(("english", "korean"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_both_languages_have_the_same_skeleton(english: str, korean: str) -> None:
    assert parity.differences(english, korean) == []


@pytest.mark.parametrize(
    ("english", "korean", "what"),
    [
        ("# A {#a}", "# 가 {#b}", "headings"),
        ("# A", "# 가", "no id"),
        ("See [halting.fixed][].", "[halting.freeze][]를 보라.", "citations"),
        ("$x_0$ and $h$", "$x_0$", "mathematics"),
        ("```python\nx = 1  # one\n```", "```python\nx = 2  # 하나\n```", "code"),
        ("[a](a.md)", "[a](b.ko.md)", "links"),
    ],
)
def test_a_difference_is_seen(english: str, korean: str, what: str) -> None:
    (found,) = parity.differences(english, korean)
    assert what in found


def test_comments_and_word_order_may_differ() -> None:
    english = "$a$ of $b$: [halting.fixed][], [z](z.md)\n```python\nx = 1  # one\n```"
    korean = "[z](z.ko.md), [halting.fixed][]: $b$의 $a$\n```python\nx = 1  # 하나\n```"
    assert parity.differences(english, korean) == []


def test_every_link_of_a_page_is_right_in_the_repository_too() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith("figures/"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_both_languages_have_the_same_navigation() -> None:
    def pages(name: str) -> list[str]:
        nav = (ROOT / name).read_text(encoding="utf-8").split("\nnav:\n")[1].split("\n\n")[0]
        return re.findall(r"([\w/]+\.md)$", nav, re.MULTILINE)

    assert pages("mkdocs.yml") == pages("mkdocs.ko.yml") != []


def test_every_module_has_an_api_entry() -> None:
    asked = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/api").glob("*.md")))
    entries = render.fill(asked, "en", ROOT / "docs/api").splitlines()
    for path in sorted((ROOT / "looplm").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if "cli" not in path.parts and not path.stem.startswith("_"):
            assert f"::: {name}" in entries, f"{name} is on no page of docs/api"


def test_asking_for_something_unknown_is_an_error() -> None:
    with pytest.raises(ValueError, match="asks for 'weather'; there are results, fixed, controls"):
        render.fill("<!-- render: weather tomorrow -->", "en", Path("page.md"))


def test_missing_results_are_said_and_not_invented() -> None:
    assert "`docs/data/nothing.json` is missing" in render.results("nothing", "en")


def test_results_are_rendered_from_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell(kind, 5, 100, 99, 2.5, 40.0, 0.1).as_json() for kind in ("uniform", "carry-heavy")]
    result = {"preset": "mine", "title": "mine", "seed": 0, "parameters": 1, "cells": cells}
    result |= {"task": "addition", "axis": "digits", "trained_sizes": [1, 4]}
    (tmp_path / "mine.json").write_text(json.dumps(make_summary([result])), encoding="utf-8")
    monkeypatch.setattr(render, "resource", lambda name: tmp_path)
    english, korean = render.results("mine", "en"), render.results("mine", "ko")
    assert english.startswith("| digits | target |")
    assert korean.startswith("| 자릿수 | 목표 |")
    assert not re.search("[a-z]{4}", korean), "a word is not translated"
    assert english.split("\n")[1:] == korean.split("\n")[1:]
    assert "99.0 [" in english


def test_the_floor_stands_beside_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("held-out", 64, 100, 0, 1.0, 64.0, 0.1, nats_per_token=4.0, bits_per_character=3.25).as_json()
    result = {"preset": "mine", "title": "mine", "seed": 0, "parameters": 1, "cells": [cell]}
    result |= {"task": "language", "axis": "pieces", "trained_sizes": [64, 64]}
    counted = {"order": 2, "cells": [{"size": 64, "bits_per_character": [5.5, 3.75]}]}
    (tmp_path / "mine.json").write_text(json.dumps(make_summary([result]) | {"ngram": counted}), encoding="utf-8")
    monkeypatch.setattr(render, "resource", lambda name: tmp_path)
    rows = "\n| ---: | ---: | ---: | ---: |\n| 64 | 3.250 | 5.500 | 3.750 |"
    assert render.floor("mine", "en") == "| pieces | `mine` | 1-gram | 2-gram |" + rows
    assert render.floor("mine", "ko") == "| 조각 | `mine` | 1-그램 | 2-그램 |" + rows
    assert "`docs/data/nothing.json` is missing" in render.floor("nothing", "en")


def test_a_page_without_translation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"every page stands in en and ko; write it"):
        stage.in_language(tmp_path / "new.md", "ko")


def test_links_lead_to_the_staged_tree() -> None:
    assert stage.docs_links("[a](b.ko.md#c) [d](../spec/e.md) [f](../examples/01_g.py)") == (
        "[a](b.md#c) [d](spec/e.md) [f](examples/01_g.md)"
    )
    assert stage.docs_links("[a](../../spec/b.ko.md)") == "[a](../spec/b.md)"
    assert stage.site_links("[a](../docs/glossary.ko.md) [b](../spec/c.md)") == "[a](../glossary.md) [b](../spec/c.md)"


ENGLISH = (
    "# Rules\n\n```python\nimport math\n```\n\n### r.one {#r.one}\nIt MUST.\n\n```python\ny = 1\n```\n\n>>> y\n1\n\nNote: no.\n"
)
KOREAN = "# 규칙\n\n여는 말.\n\n### r.one {#r.one}\n그래야 한다(MUST).\n"


def test_a_korean_clause_shows_the_english_code_and_examples() -> None:
    shown = clauses.fence_examples(clauses.with_code_of(KOREAN, ENGLISH))
    assert shown == (
        "# 규칙\n\n여는 말.\n\n```python\nimport math\n```\n\n### r.one {#r.one}\n그래야 한다(MUST).\n\n"
        "```python\ny = 1\n```\n\n```pycon\n>>> y\n1\n```\n"
    )


def test_a_clause_links_its_code_and_its_tests() -> None:
    tests = (("tests/a/test_b.py::test_c[1]", "passed"), ("tests/a/test_b.py::test_c[2]", "failed"))
    row = Row("halting.fixed", "It MUST.", ("looplm.loop.halting.Fixed", "looplm.x.Y.z", "looplm.x._hidden"), tests, ())
    linked = clauses.with_links("### halting.fixed {#halting.fixed}\nIt MUST.\n\n## Next\n", {"halting.fixed": row}, "en")
    assert "[`Fixed`][looplm.loop.halting.Fixed], [`Y.z`][looplm.x.Y.z], `_hidden`" in linked
    assert "[`test_c`][tests.a.test_b.test_c] ✗" in linked
    assert linked.index("{ .clause-links }") < linked.index("## Next")


def test_clause_ids_in_comments_become_links_and_file_names_do_not() -> None:
    html = '<span class="c1"># halting.freeze: h stays</span> <span class="c1"># model.json: weights</span>'
    linked = hooks.on_page_content(html)
    assert '# <autoref identifier="halting.freeze">halting.freeze</autoref>: h stays' in linked
    assert "# model.json: weights" in linked


def test_a_link_to_a_clause_says_its_sentence_in_the_language_of_the_page() -> None:
    page = '<a class="autorefs" href="../spec/halting.html#halting.freeze">halting.freeze</a>'
    assert 'title="The state, logits and loops_taken of a halted token' in clauses.say_sentences(page, "en")
    assert 'title="멈춘 토큰의 상태와 로짓' in clauses.say_sentences(page, "ko")
    for kept in (
        '<a class="headerlink" href="#halting.freeze" title="x">',
        '<a href="#looplm.spec">',
        '<a href="#halting.freez">',
    ):
        assert clauses.say_sentences(kept, "en") == kept


def test_a_sentence_is_told_in_plain_text() -> None:
    told = clauses.plain(r"`h` MUST be $h_{l-1} + W_\text{up}\,x \ge \sqrt{K}$, see [this](a.md#b) and $10^{-6}$.")
    assert told == "h MUST be h_(l-1) + W_up x ≥ √K, see this and 10^(-6)."


def test_carried_files_are_those_that_were_reviewed() -> None:
    listed = set()
    for name, package in vendor.read_manifest().items():
        for file, entry in package["files"].items():
            path = vendor.FOLDER / name / file
            listed.add(path)
            assert vendor.sha256(path) == entry["sha256"], f"{path.relative_to(ROOT)} was changed"
        assert vendor.FOLDER / name / "LICENSE" in listed
        assert f"{name} {package['version']}" in (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert {path for path in vendor.FOLDER.rglob("*") if path.is_file()} == listed | {vendor.MANIFEST}
