"""The README's numbers are those of the committed results, and its commands exist."""

import re
from pathlib import Path

import claims

from looplm.runs.results import as_markdown, comparison_table, control_results, groups_of, read_summary, work_note

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_results_table_is_rendered_from_the_committed_summary() -> None:
    results = groups_of(read_summary(ROOT / "docs/data/first-light.json")["results"])["first-light"]
    controls = control_results("first-light")
    table = as_markdown(*comparison_table(results, controls))
    match = re.search(r"<!-- results: .* -->\n(.*?)\n<!-- /results -->", README, re.DOTALL)
    assert match
    assert match[1].strip() == f"{table}\n\n{work_note([*results, *controls])}".strip()


def test_the_table_of_the_parallel_adder_is_rendered_from_the_committed_summary() -> None:
    results = read_summary(ROOT / "docs/data/parallel.json")["results"]
    assert len(results) == 5
    match = re.search(r"<!-- parallel: .* -->\n(.*?)\n<!-- /parallel -->", README, re.DOTALL)
    assert match
    assert match[1].strip() == as_markdown(*comparison_table(results, []))


def test_sentences_with_numbers_are_those_of_the_committed_data() -> None:
    for mark, sentences in (("tested", claims.tested), ("saved", claims.saved)):
        blocks = re.findall(rf"<!-- {mark}: ([\w-]+) -->\n(.*?)\n<!-- /{mark} -->", README, re.DOTALL)
        assert blocks
        for name, told in blocks:
            assert " ".join(told.split()) == sentences(name, "en")


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        for target in re.findall(r"make ([a-z-]+)", text):
            if target in ("demo", "test", "test-fast", "format", "results", "adder", "figures"):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
