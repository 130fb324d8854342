"""What the site adds to the spec's text: code for the Korean reader, and links from each clause to code and tests."""

import html
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

from looplm import spec
from looplm.spec.check import Row, checkout, matrix

_HEADING = re.compile(r"^### \S+ \{#(?P<id>[a-z0-9.-]+)\}$")
_LINK_TO_PLACE = re.compile(r'<a (?P<rest>[^>]*?href="[^"#]*#(?P<id>[a-z0-9-]+\.[a-z0-9.-]+)"[^>]*)>(?P<text>[^<]*)')
_MARKED_LINK = re.compile(r'title="|class="(?:headerlink|md-)')
"""Links of the theme, and those that say something already."""
_WORDS = {
    "en": {"code": "Implemented by", "tests": "Tested by", "cite": "Cite as"},
    "ko": {"code": "구현", "tests": "테스트", "cite": "인용"},
}
_MARKS = {"passed": "✓", "failed": "✗", "skipped": "○", "not run": "○"}


@cache
def rows() -> dict[str, Row]:
    """The matrix, by clause."""
    return {row.id: row for row in matrix()}


def families() -> list[str]:
    """What clause ids begin with."""
    return sorted({id.split(".")[0] for id in rows()})


@cache
def sentences(language: str) -> dict[str, str]:
    """Each clause's sentence in this language."""
    if language == "en":
        return {row.id: row.sentence for row in rows().values()}
    found: dict[str, str] = {}
    for path in sorted((checkout() / "spec").glob(f"*.{language}.md")):
        found |= {clause.id: clause.sentence for clause in spec.parse_clauses(path.read_text(encoding="utf-8"), path.name)}
    return found


def forget() -> None:
    """Read the spec and the matrix anew."""
    for function in (spec.clauses, spec.citation, rows, sentences):
        function.cache_clear()


def say_sentences(page: str, language: str) -> str:
    """A built page with the sentence of a clause as the title of each link to it, which the theme shows as a tooltip.

    Links that are a clause's id get the class `clause`, so that an id is not broken over two lines.
    """
    said = sentences(language)

    def titled(match: re.Match[str]) -> str:
        if match["id"] not in said or _MARKED_LINK.search(match[0]):
            return match[0]
        rest = match["rest"].replace('class="', 'class="clause ') if match["text"] == match["id"] else match["rest"]
        return f'<a title="{html.escape(plain(said[match["id"]]))}" {rest}>{match["text"]}'

    return _LINK_TO_PLACE.sub(titled, page)


_SIGNS = {r"\,": " ", r"\cdot": "·", r"\odot": "⊙", r"\infty": "∞", r"\ge": "≥", r"\le": "≤", r"\times": "×", r"\sqrt": "√"}
_SIGNS |= {r"\Phi": "Φ", r"\lambda": "λ", r"\epsilon": "ε", r"\varepsilon": "ε", r"\theta": "θ", r"\sum": "Σ"}


def plain(sentence: str) -> str:
    """A sentence without its Markdown, and its mathematics as one would type it."""

    def typed(match: re.Match[str]) -> str:
        text = re.sub(r"\\(?:mathrm|text|mathbf)\b", "", match[1])
        for name, sign in _SIGNS.items():
            text = text.replace(name, sign)
        text = re.sub(r"([_^])\{([^{}]*[^a-z{}][^{}]*)\}", r"\1(\2)", text)
        return re.sub(r"[{}]", "", text)

    sentence = re.sub(r"\$([^$]+)\$", typed, sentence)
    sentence = re.sub(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", sentence)
    return re.sub(r"[`*]", "", sentence)


def outcomes(row: Row) -> dict[str, str]:
    """Test function → outcome, its parameters taken together: one failure fails it, one pass is needed to pass."""
    by_function: dict[str, set[str]] = defaultdict(set)
    for node, outcome in row.tests:
        by_function[node.split("[")[0]].add(outcome)
    order = ("failed", "passed", "skipped", "not run")
    return {node: next(o for o in order if o in seen) for node, seen in by_function.items()}


def anchor(node: str) -> str:
    """Id of a test function on the page of the tests: `tests/loop/test_x.py::test_y` → `tests.loop.test_x.test_y`."""
    return re.sub(r"\.py::|::|/", ".", node)


def code_link(name: str) -> str:
    """Link to an object on the API pages; private ones are not there and are only named."""
    parts = name.split(".")
    shown = ".".join(parts[-2:]) if parts[-2][:1].isupper() else parts[-1]
    return f"`{shown}`" if any(part.startswith("_") for part in parts) else f"[`{shown}`][{name}]"


def test_link(node: str, outcome: str) -> str:
    """Link to a test's source, with what came of it."""
    return f"[`{node.rsplit('::')[-1]}`][{anchor(node)}] {_MARKS[outcome]}"


def with_links(text: str, rows: Mapping[str, Row], language: str) -> str:
    """A spec page with a line after each clause: its implementations, its tests, its citation."""
    written: list[str] = []
    for id, lines in _sections(text):
        written += lines
        if id:
            while written and not written[-1]:
                written.pop()
            written += ["", _links(rows[id], language), "{ .clause-links }", ""]
    return "\n".join(written).rstrip() + "\n"


def with_code_of(text: str, english: str) -> str:
    """A Korean spec page with the code, examples and tables of the English one, each under its clause."""
    added = {id: _blocks(lines) for id, lines in _sections(english) if id is not None}
    written = []
    for id, lines in _sections(text):
        while lines and not lines[-1]:
            lines.pop()
        shown_already = id == "" and _blocks(lines)
        written += [*lines, "", *([] if id is None or shown_already else added.get(id, []))]
    return "\n".join(written).rstrip() + "\n"


def fence_examples(text: str) -> str:
    """Worked examples (`>>> …`), which Markdown would take for quotations, become fences."""
    written, fenced, example = [], False, False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        starts = not fenced and not example and line.startswith(">>> ")
        ends = example and not line
        written += (["```pycon"] if starts else []) + (["```"] if ends else []) + [line]
        example = (example or starts) and not ends
    return "\n".join([*written, "```"] if example else written) + "\n"


def _links(row: Row, language: str) -> str:
    words = _WORDS[language]
    parts = []
    if row.implementations:
        parts.append(f"{words['code']} " + ", ".join(map(code_link, row.implementations)))
    if row.tests:
        parts.append(f"{words['tests']} " + ", ".join(test_link(*item) for item in outcomes(row).items()))
    return "<br>\n".join([*parts, f"{words['cite']} `{spec.citation(row.id)}`"])


def _sections(text: str) -> Iterator[tuple[str | None, list[str]]]:
    """The page cut before each heading: lines with the clause's id; "" for the opening, None for other sections."""
    id: str | None = ""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if not fenced and re.match(r"#{2,} ", line):
            yield id, lines
            match = _HEADING.match(line)
            id, lines = match["id"] if match else None, []
        lines.append(line)
    yield id, lines


def _blocks(lines: list[str]) -> list[str]:
    """Fences, examples and tables, with a blank line after each."""
    kept: list[str] = []
    fenced = example = False
    for line in lines:
        edge = line.startswith("```")
        example = not fenced and not edge and line != "" and (example or line.startswith(">>> "))
        if fenced or edge or example or line.startswith("|"):
            kept.append(line)
        elif kept and kept[-1]:
            kept.append("")
        fenced = fenced != edge
    return [*kept, ""] if kept and kept[-1] else kept
