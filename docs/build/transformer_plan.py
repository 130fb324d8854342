"""The plan's statements on the Transformer, from docs/data/transformer-plan.toml: read and checked, and as tables of a page.

The plan is in no checkout: the file keeps its hash and, of each statement, the line, how it is decided, and what became of it.
"""

import json
import operator
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, get_args

import clauses
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.resources import resource
from looplm.runs.results import as_markdown
from looplm.settings import STRICT, parse, read_toml

Verdict = Literal["held", "did not hold", "not settled", "open", "cannot be asked"]
DECIDED = ("held", "did not hold", "not settled")
"""Verdicts that something stands behind."""
LAYERS = 5
"""Four of the plan's, and what it says after them."""

_CONDITION = re.compile(r"(?P<file>[a-z0-9-]+):(?P<path>[\w.]+) (?P<sign><=|>=|<|>) (?P<number>-?[\d.]+)")
_NUMBER = re.compile(r"\{(?P<file>[a-z0-9-]+):(?P<path>[\w.]+):(?P<format>[^}]*)\}")
_SIGNS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Statement:
    """One statement; sentences in Korean beside the English ones."""

    number: int = Field(ge=1)
    line: int = Field(ge=1)
    also: tuple[int, ...] = ()
    """Later lines that say the same."""
    layer: int = Field(ge=1, le=LAYERS)
    kind: Literal["count", "mechanism", "learnt", "decoding", "optimisation", "reason"]
    said: str = Field(min_length=1)
    """In Korean, in the plan's words as far as they are short."""
    english: str = Field(min_length=1)
    test: str = ""
    test_ko: str = ""
    verdict: Verdict
    reason: str = ""
    """Why it cannot be asked."""
    reason_ko: str = ""
    when: str = ""
    """It held if this is so, such as `transformer-start:loss.off <= 0.25`; several are joined by ` and `."""
    by: tuple[str, ...] = ()
    """Ids of clauses, tests as `file::name`, files of docs/data."""
    finding: str = ""
    finding_ko: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        asked = self.verdict != "cannot be asked"
        if asked != bool(self.test) or asked == bool(self.reason):
            raise ValueError("what can be asked has a `test`, what cannot a `reason`, and neither has both")
        if (self.verdict in DECIDED) != bool(self.by):
            raise ValueError(f"`by` names what decided, and nothing if it is not decided: got {self.by}, {self.verdict!r}")
        for name in ("test", "reason", "finding"):
            if bool(getattr(self, name)) != bool(getattr(self, f"{name}_ko")):
                raise ValueError(f"`{name}` stands in both languages, or in none")
        if list(self.also) != sorted({*self.also} - set(range(self.line + 1))):
            raise ValueError(f"`also` are later lines, in order: got {self.also}")
        if self.when and not all(_CONDITION.fullmatch(part) for part in self.when.split(" and ")):
            raise ValueError(f"`when` compares numbers of a file, as in `FILE:PATH <= 0.5`: got {self.when!r}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Source:
    """The plan that was read."""

    title: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    lines: int = Field(ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Statements:
    """All statements of a plan."""

    plan: Source
    statements: tuple[Statement, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if [each.number for each in self.statements] != list(range(1, len(self.statements) + 1)):
            raise ValueError("`number` counts the statements from 1, without gaps")
        for one, next in pairwise(self.statements):
            if next.line < one.line or next.layer < one.layer:
                raise ValueError(f"statements stand in the plan's order: {next.number} does not")
        for each in self.statements:
            if max(each.line, *each.also) > self.plan.lines if each.also else each.line > self.plan.lines:
                raise ValueError(f"statement {each.number} is beyond the plan's {self.plan.lines} lines")
        return self


def read_statements(path: Path) -> Statements:
    """The statements of a file.

    Raises:
        InputError: with every mistake at once.
    """
    return parse(Statements, read_toml(path), path.name)


def holds(condition: str) -> bool:
    """Whether the numbers of docs/data are so."""
    found = [_CONDITION.fullmatch(part) for part in condition.split(" and ")]
    return all(_SIGNS[m["sign"]](_value(m["file"], m["path"]), float(m["number"])) for m in found if m)


_WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "verdicts": dict(zip(get_args(Verdict), get_args(Verdict), strict=True)),
        "layers": ["Architecture", "Parameters", "Output", "Loss and optimisation", "What the plan says after them"],
        "layer": "Layer {}: {}",
        "line": "l. {}",
        "head": ["no.", "statement and test", "verdict"],
        "counts": "layer",
        "after": "after",
        "all": "all",
        "made": "*{device}, {seeds} seeds, PyTorch {torch}, commit {commit} (`docs/data/{name}.json`).*",
    },
    "ko": {
        "verdicts": dict(
            zip(get_args(Verdict), ("성립", "성립하지 않음", "판가름할 수 없음", "미측정", "측정할 수 없음"), strict=True)
        ),
        "layers": ["아키텍처", "파라미터", "출력", "손실과 최적화", "네 층 다음에 말한 것"],
        "layer": "{}층: {}",
        "line": "{}행",
        "head": ["번호", "진술과 판정 방법", "판정"],
        "counts": "층",
        "after": "그 뒤",
        "all": "모두",
        "made": "{device}, 시드 {seeds}개, PyTorch {torch}, 커밋 {commit}(`docs/data/{name}.json`).",
    },
}


def counts_table(name: str, language: str) -> str:
    """How many statements of each layer have each verdict, and where the numbers come from of which they speak."""
    statements, words = _read(name).statements, _WORDS[language]
    found = Counter((each.verdict, each.layer) for each in statements)
    layers = range(1, LAYERS + 1)
    rows = []
    for verdict, told in words["verdicts"].items():
        counted = [found[verdict, layer] for layer in layers]
        rows.append([told, *map(str, counted), str(sum(counted))])
    whole = [sum(each.layer == layer for each in statements) for layer in layers]
    rows.append([words["all"], *map(str, whole), str(len(statements))])
    table = _framed(as_markdown([words["counts"], *map(str, range(1, LAYERS)), words["after"], words["all"]], rows), "counts")
    files = {file: _read_data(file) for file in sorted(data_files(statements))}
    made = [words["made"].format(**data, name=file) for file, data in files.items()]
    return "\n\n".join([table, *made])


def statements_table(name: str, language: str) -> str:
    """A heading and a table for each layer: number and lines, the statement with its test, the verdict with what decided it."""
    statements, words = _read(name).statements, _WORDS[language]
    parts = []
    for layer, title in enumerate(words["layers"], 1):
        heading = words["layer"].format(layer, title) if layer < LAYERS else title
        rows = [_row(each, language) for each in statements if each.layer == layer]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in [words["head"], ["---"] * 3, *rows])
        parts.append(f"### {heading} {{#{name}-{layer}}}\n\n{_framed(lines, 'plan')}")
    return "\n\n".join(parts)


def _framed(table: str, name: str) -> str:
    return f'<div class="{name}" markdown="1">\n\n{table}\n\n</div>'


def _read(name: str) -> Statements:
    return read_statements(resource("docs/data") / f"{name}.toml")


def _row(each: Statement, language: str) -> list[str]:
    words, korean = _WORDS[language], language == "ko"
    lines = words["line"].format(", ".join(map(str, (each.line, *each.also))))
    said = each.said if korean else each.english
    how = (each.test_ko or each.reason_ko) if korean else (each.test or each.reason)
    finding = _filled(each.finding_ko if korean else each.finding)
    parts = [f"**{_escaped(said)}**", f"<small>{_escaped(how)}</small>", _escaped(finding)]
    parts.append(f"<small>{', '.join(map(_reference, each.by))}</small>" if each.by else "")
    return [f"{each.number}<br><small>{lines}</small>", "<br>".join(filter(None, parts)), words["verdicts"][each.verdict]]


def _reference(one: str) -> str:
    """A link to a clause, or to a test that is on the tests' page; others are named."""
    if "::" in one:
        marked = {node for row in clauses.rows().values() for node in clauses.outcomes(row)}
        short = f"`{one.rsplit('::')[-1]}`"
        return f"[{short}][{clauses.anchor(one)}]" if one in marked else short
    return f"[{one}][]" if one in clauses.rows() else f"`{one}`"


def _escaped(text: str) -> str:
    """Text that is no Markdown but for code: bars would end a cell, angle brackets begin a tag."""

    def escape(plain: str) -> str:
        return re.sub(r"([|*_\[\]$])", r"\\\1", plain.replace("<", "&lt;").replace(">", "&gt;"))

    return "`".join(part if inside % 2 else escape(part) for inside, part in enumerate(text.split("`")))


def _filled(text: str) -> str:
    return _NUMBER.sub(lambda m: format(_value(m["file"], m["path"]), m["format"]), text)


def _value(file: str, path: str) -> float:
    """A number of docs/data/FILE.json, at a path of keys."""
    value = _read_data(file)
    for key in path.split("."):
        value = value[key]
    return float(value)


def _read_data(file: str) -> Any:
    return json.loads((resource("docs/data") / f"{file}.json").read_bytes())


def data_files(statements: Sequence[Statement]) -> set[str]:
    """Names of the files of docs/data of which conditions and findings speak."""
    texts = " ".join(f"{each.when} {each.finding} {each.finding_ko}" for each in statements)
    return {m["file"] for pattern in (_CONDITION, _NUMBER) for m in pattern.finditer(texts)}
