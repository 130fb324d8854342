"""The spec is well-formed, bilingual, cited rightly, and covered; its code is run from the Markdown."""

import doctest
import re
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

import looplm
from looplm import spec
from looplm.errors import InputError
from looplm.resources import resource
from looplm.spec import check as spec_check
from looplm.train.recipe import read_recipe, recipe_names

ROOT = Path(__file__).parents[2]
SPEC_FILES = sorted(p for p in (ROOT / "spec").glob("*.md") if not p.name.endswith(".ko.md") and p.name != "README.md")


def test_the_spec_has_no_problem_but_evidence_still_to_come() -> None:
    # What this very run proves is known only when it ends: `make test` then runs `looplm spec check`.
    rows = spec_check.matrix()
    assert not [row.id for row in rows if "MUST" in row.sentence and not row.tests], "clauses that no test is marked with"
    assert not [problem for problem in spec_check.problems() if "no test of it ran" not in problem and "failed" not in problem]


def test_every_executable_clause_has_an_implementation_that_cites_it() -> None:
    assert not [row.id for row in spec_check.matrix() if spec.clauses()[row.id].code and not row.implementations]


def test_clauses_of_every_preset_exist() -> None:
    for name in recipe_names():
        for id in read_recipe(name).clauses():
            assert id in spec.clauses()


@pytest.mark.parametrize("path", SPEC_FILES, ids=lambda p: p.stem)
def test_korean_has_the_same_clauses_in_the_same_order(path: Path) -> None:
    korean_path = path.with_suffix(".ko.md")
    english = [c.id for c in spec.parse_clauses(path.read_text(encoding="utf-8"), path.name)]
    korean = spec.parse_clauses(korean_path.read_text(encoding="utf-8"), korean_path.name)
    assert [c.id for c in korean] == english
    for clause in korean:
        assert re.search(r"[가-힣].*다\.?", clause.sentence), f"{clause.id} has no Korean sentence"
        assert not clause.code, "the code stands once, in English"


@pytest.mark.parametrize("path", SPEC_FILES, ids=lambda p: p.stem)
def test_worked_examples_are_right(path: Path) -> None:
    module = spec.oracle(path.stem)
    for clause in spec.clauses().values():
        if clause.file == path.name and clause.examples:
            found = doctest.DocTestParser().get_doctest(
                clause.examples + "\n", vars(module).copy(), clause.id, str(path), clause.line
            )
            result = doctest.DocTestRunner(verbose=False).run(found)
            assert result.attempted
            assert not result.failed, clause.id


def test_tracebacks_show_the_line_in_the_markdown() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        spec.oracle("training").cosine(0, 0, 0, 1.0, 0.0)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert Path(frame.filename).name == "training.md"
    assert frame.line is not None
    assert "step / steps" in frame.line


def test_one_spec_file_may_import_another() -> None:
    from spec.addition import longest_chain

    assert longest_chain(999, 1) == 3


def test_version_is_one_number() -> None:
    assert looplm.__version__ == spec.version() == (ROOT / "spec" / "VERSION").read_text().strip()
    assert f"## {spec.version()}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {spec.version()}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_an_unknown_id_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"halting.kv-publish"):
        spec.find("halting.kv-publsh")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("### halting.x {#halting.x}\n\nNo modal verb here.\n", r"halting.md:1: .*with MUST, SHOULD or MAY"),
        ("\n### other.x {#other.x}\n\nIt MUST.\n", r"halting.md:2: .*starting with the file's"),
        ("### halting.x {#halting.y}\n\nIt MUST.\n", r"halting.md:1: "),
    ],
)
def test_a_malformed_clause_is_refused_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec.parse_clauses(text, "halting.md")


def test_a_hash_knows_the_meaning_and_not_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    original = spec.clauses()["addition.carries"]

    def hash_of(clause: spec.Clause) -> str:
        spec.citation.cache_clear()
        monkeypatch.setattr(spec, "clauses", lambda: {clause.id: clause})
        return spec.citation(clause.id)

    before = hash_of(original)
    commented = original.code.replace("chain = 1\n", "chain = 1  # a note\n\n")
    assert hash_of(replace(original, code=commented)) == before
    assert hash_of(replace(original, code=original.code.replace('"""For', '"""Of'))) == before
    assert hash_of(replace(original, sentence=original.sentence.replace(" carry ", "  carry "))) == before
    assert hash_of(replace(original, code=original.code.replace(">= 10", "> 10"))) != before
    assert hash_of(replace(original, sentence=original.sentence.replace("MUST", "SHOULD"))) != before
    spec.citation.cache_clear()


def test_a_hash_covers_what_the_code_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (resource("spec") / "addition.md").read_text(encoding="utf-8")
    before = spec.citation("addition.longest-chain")
    (tmp_path / "addition.md").write_text(text.replace("pair >= 10", "pair > 10"), encoding="utf-8")
    monkeypatch.setattr(spec, "resource", lambda name: tmp_path)
    spec.citation.cache_clear()
    assert spec.citation("addition.longest-chain") != before
    spec.citation.cache_clear()
