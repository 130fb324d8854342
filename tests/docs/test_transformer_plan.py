"""Every statement of the plan on the Transformer is numbered, decided by something that exists, and stands on both pages."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import render
import transformer_plan
from transformer_plan import LAYERS, holds, read_statements

from looplm.errors import InputError
from looplm.spec import clauses

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/data/transformer-plan.toml"
PLAN = read_statements(FILE)


def defined_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_the_statements_are_those_of_one_plan_in_its_order() -> None:
    assert PLAN.plan.sha256 == "4ab39df3a6f6145fde4e8809de28af31f4cbb262161c4b051467c5e60eb2064f"
    assert [each.number for each in PLAN.statements] == list(range(1, len(PLAN.statements) + 1))
    lines = [each.line for each in PLAN.statements]
    assert lines == sorted(lines)
    assert lines[0] >= 1 and lines[-1] <= PLAN.plan.lines
    assert {each.layer for each in PLAN.statements} == set(range(1, LAYERS + 1))


def test_no_statement_stands_twice() -> None:
    for language in ("said", "english"):
        told = [getattr(each, language) for each in PLAN.statements]
        assert len(set(told)) == len(told)


def test_nearly_all_statements_can_be_asked() -> None:
    not_asked = [each for each in PLAN.statements if each.verdict == "cannot be asked"]
    assert len(not_asked) <= 0.15 * len(PLAN.statements)


@pytest.mark.parametrize("each", [s for s in PLAN.statements if s.by], ids=lambda s: str(s.number))
def test_what_decided_a_statement_exists(each: transformer_plan.Statement) -> None:
    for one in each.by:
        path, _, name = one.partition("::")
        if name:
            assert name in defined_in(ROOT / path), one
        elif "/" in one:
            assert (ROOT / one).is_file(), one
        else:
            assert one in clauses(), one


@pytest.mark.parametrize("each", [s for s in PLAN.statements if s.when], ids=lambda s: str(s.number))
def test_a_verdict_is_what_the_numbers_say(each: transformer_plan.Statement) -> None:
    if each.verdict in ("held", "did not hold"):
        assert each.verdict == ("held" if holds(each.when) else "did not hold"), each.when


def test_a_statement_that_speaks_of_numbers_names_their_file() -> None:
    for each in PLAN.statements:
        for name in transformer_plan.data_files([each]):
            assert f"docs/data/{name}.json" in each.by, each.number


def test_findings_hold_no_number_of_ours_that_a_command_did_not_write() -> None:
    for each in PLAN.statements:
        for finding in (each.finding, each.finding_ko):
            assert not re.search(r"\d\.\d", re.sub(r"\{[^}]*\}", "", finding).replace("0.1", "")), finding


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_has_a_row_for_every_statement(language: str) -> None:
    path = ROOT / "docs" / ("transformer.md" if language == "en" else "transformer.ko.md")
    page = render.fill(path.read_text(encoding="utf-8"), language, path)
    rows = re.findall(r"^\| (\d+)<br>.*$", page, re.MULTILINE)
    assert [int(number) for number in rows] == [each.number for each in PLAN.statements]
    assert len(re.findall(r"^\| \d+<br>(?:[^|\\]|\\.)*\|(?:[^|\\]|\\.)*\|(?:[^|\\]|\\.)*\|$", page, re.MULTILINE)) == len(rows)
    assert "{transformer" not in page.replace("{#transformer", "")


def test_counts_add_up() -> None:
    for language in ("en", "ko"):
        *rows, whole = [
            [int(cell) for cell in re.findall(r"\| (\d+)", line)]
            for line in transformer_plan.counts_table("transformer-plan", language).splitlines()[4:]
            if line.startswith("|")
        ]
        assert whole == [sum(column) for column in zip(*rows, strict=True)]
        assert whole[-1] == len(PLAN.statements) == sum(whole[:-1])


ENTRY = {
    "number": "1",
    "line": "1",
    "layer": "1",
    "kind": '"count"',
    "said": '"가"',
    "english": '"a"',
    "test": '"b"',
    "test_ko": '"나"',
    "verdict": '"open"',
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "2"}, "counts the statements from 1"),
        ({"line": "9"}, "statement 1 is beyond the plan's 5 lines"),
        ({"also": "[1]"}, "`also` are later lines"),
        ({"also": "[9]"}, "statement 1 is beyond"),
        ({"verdict": '"sure"'}, "verdict"),
        ({"verdict": '"held"'}, "`by` names what decided"),
        ({"by": '["seq2seq.row"]'}, "`by` names what decided"),
        ({"verdict": '"cannot be asked"'}, "what cannot a `reason`"),
        ({"test_ko": '""'}, "`test` stands in both languages"),
        ({"when": '"loss is small"'}, "`when` compares numbers of a file"),
        ({"colour": '"red"'}, "colour"),
    ],
)
def test_a_wrong_entry_is_refused(change: dict[str, str], message: str, tmp_path: Path) -> None:
    def file(entry: dict[str, Any]) -> Path:
        lines = [f"{key} = {value}" for key, value in entry.items()]
        text = ["[plan]", 'title = "t"', f'sha256 = "{"0" * 64}"', "lines = 5", "[[statements]]", *lines]
        path = tmp_path / "plan.toml"
        path.write_text("\n".join(text), encoding="utf-8")
        return path

    assert len(read_statements(file(ENTRY)).statements) == 1
    with pytest.raises(InputError, match=re.escape(message)):
        read_statements(file(ENTRY | change))
