"""What a page asks for with a line `<!-- render: NAME ARGUMENT -->`, written from data while the site is staged."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import claims
import clauses
import terms
from babi_tables import ask_table, babi_table
from controls import controls_table, readings_table
from hardware_tables import hardware
from headers import table_in
from heads_tables import TABLES as HEADS
from speed_tables import claims_table, gpu_table
from transformer_plan import counts_table, statements_table
from world_tables import world_stories, world_table

from looplm.errors import InputError
from looplm.lab.study import load_study, read_study_summary
from looplm.lab.verdicts import Language, rules_table, study_table, values_table, verdict_lines
from looplm.resources import resource
from looplm.runs.results import as_markdown, comparison_table, control_results, groups_of, read_summary, work_not_counted
from looplm.spec.check import checkout, outdated
from looplm.tasks.addition.depth import chain_table, offers_table, read_depth, saved_table

_ASKED = re.compile(r"^<!-- render: (?P<name>\w+)(?: (?P<argument>\S+))? -->$", re.MULTILINE)


_SPEC_LINK = re.compile(r"\]\((?=[a-z][a-z0-9]*\.md#)")
"""A sentence's link to another page of the spec."""


def fill(text: str, language: str, source: Path) -> str:
    """The page with everything that it asks for.

    Raises:
        ValueError: if it asks for something that no function here renders.
    """

    def write(match: re.Match[str]) -> str:
        if match["name"] not in _RENDERERS:
            raise ValueError(f"{source} asks for {match['name']!r}; there are {', '.join(_RENDERERS)}.")
        return _RENDERERS[match["name"]](match["argument"] or "", language)

    return _ASKED.sub(write, text)


_NO_RESULTS = {
    "en": "*The results are not in this checkout: `docs/data/{name}.json` is missing. `make results` writes it.*",
    "ko": "*이 저장소에는 결과가 없다. `docs/data/{name}.json`이 빠져 있으며, `make results`로 만든다.*",
}
_NO_WORK = {
    "en": "Work was not counted when these were measured: {names}. `looplm eval` counts it.",
    "ko": "다음 모델의 계산량은 측정할 때 세지 않았다: {names}. `looplm eval`이 센다.",
}


def results(name: str, language: str) -> str:
    """The table of a committed summary: its preset beside the controls."""
    try:
        own = groups_of(read_summary(resource("docs/data") / f"{name}.json")["results"])[name]
    except InputError:
        return _NO_RESULTS[language].format(name=name)
    controls = control_results(name)
    table = table_in(*comparison_table(own, controls), language)
    names = ", ".join(f"`{preset}`" for preset in work_not_counted([*own, *controls]))
    return f"{table}\n\n{_NO_WORK[language].format(names=names)}" if names else table


def _of_controls(table: Callable[[Path, str, str], str]) -> Callable[[str, str], str]:
    """A table of a summary that `looplm controls` wrote."""

    def render(name: str, language: str) -> str:
        path = resource("docs/data") / f"{name}.json"
        return table(path, name, language) if path.is_file() else _NO_RESULTS[language].format(name=name)

    return render


def fixed(name: str, language: str) -> str:
    """What fixed numbers of loops give and cost: the results of a committed summary, pooled by their number of loops."""
    path = resource("docs/data") / f"{name}.json"
    if not path.is_file():
        return _NO_RESULTS[language].format(name=name)
    by_loops: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in read_summary(path)["results"]:
        by_loops[result["evaluation"]["settings"]["max_loops"]] += result["cells"]
    rows = []
    for loops, cells in sorted(by_loops.items()):
        n, right = sum(cell["n"] for cell in cells), sum(cell["correct"] for cell in cells)
        work = sum(cell["block_evaluations"] * cell["n"] for cell in cells) / n
        rows.append([str(loops), f"{right:,} / {n:,}", f"{work:,.0f}"])
    return table_in(["loops", "right", "work"], rows, language)


def floor(name: str, language: str) -> str:
    """The table of `looplm ngram --out`: bits per character of models, and of counted n-grams on the same windows."""
    path = resource("docs/data") / f"{name}.json"
    if not path.is_file():
        return _NO_RESULTS[language].format(name=name)
    results, counted = read_summary(path)["results"], json.loads(path.read_bytes())["ngram"]
    header = [results[0]["axis"], *(f"`{result['preset']}`" for result in results)]
    header += [f"{n}-gram" for n in range(1, counted["order"] + 1)]
    rows = []
    for i, cell in enumerate(counted["cells"]):
        bits = [*(result["cells"][i]["bits_per_character"] for result in results), *cell["bits_per_character"]]
        rows.append([str(cell["size"]), *(f"{each:.3f}" for each in bits)])
    return table_in(header, rows, language)


_DEPTH_TABLES = {"saved": saved_table, "chains": chain_table, "offers": offers_table}


def _depth(kind: str) -> Callable[[str, str], str]:
    """A table of what `looplm depth` measured."""

    def render(name: str, language: str) -> str:
        path = resource("docs/data") / f"{name}.json"
        if not path.is_file():
            return _NO_RESULTS[language].format(name=name)
        return table_in(*_DEPTH_TABLES[kind](read_depth(path)), language)

    return render


def _claim(sentences: Callable[[str, str], str]) -> Callable[[str, str], str]:
    """Sentences of `claims`, or that their data are missing."""

    def render(name: str, language: str) -> str:
        if not (resource("docs/data") / f"{name}.json").is_file():
            return _NO_RESULTS[language].format(name=name)
        return sentences(name, language)

    return render


_STATE: dict[str, dict[str, str]] = {
    "en": {
        "none": "No test run is recorded in this checkout: `make test` records one.",
        "old": "{old} of the outcomes below were seen with other sources than these; `make test` sees them anew.",
        "head": "| clause | implementation | tests | pages |",
    },
    "ko": {
        "none": "이 저장소에 기록된 테스트 결과가 없다. `make test`가 기록한다.",
        "old": "아래 결과 가운데 {old}개는 지금과 다른 소스에서 나온 것이다. `make test`로 다시 테스트한다.",
        "head": "| 조항 | 구현 | 테스트 | 페이지 |",
    },
}


def matrix(_: str, language: str) -> str:
    """Clause → implementation → tests → pages, a table for each spec file."""
    rows, words = clauses.rows(), _STATE[language]
    sentences = clauses.sentences(language)
    files: dict[str, list[str]] = defaultdict(list)
    for row in rows.values():
        tests = [clauses.test_link(*item) for item in clauses.outcomes(row).items()]
        pages = [link for link in (_page_link(page, language) for page in row.pages) if link]
        code = map(clauses.code_link, row.implementations)
        sentence = sentences[row.id].replace("|", "\\|").replace("](#", f"]({row.id.split('.')[0]}.md#")
        sentence = _SPEC_LINK.sub("](spec/", sentence)
        cells = [f"[{row.id}][]<br>{sentence}", *map("<br>".join, (code, tests, pages))]
        files[row.id.split(".")[0]].append("| " + " | ".join(cells) + " |")
    parts = [_freshness(words)]
    for file, lines in files.items():
        table = "\n".join([words["head"], "|---" * 4 + "|", *lines])
        parts.append(f'## {file} {{#matrix-{file}}}\n\n<div class="matrix" markdown="1">\n\n{table}\n\n</div>')
    return "\n\n".join(part for part in parts if part)


def tests(_: str, language: str) -> str:
    """The source of every test that is marked with a clause, under the id that clauses link to."""
    marked: dict[str, set[str]] = defaultdict(set)
    for row in clauses.rows().values():
        for node in clauses.outcomes(row):
            marked[node].add(row.id)
    parts, file = [], ""
    for node in sorted(marked):
        if node.split("::")[0] != file:
            file = node.split("::")[0]
            parts.append(f"## {file} {{#{clauses.anchor(file).removesuffix('.py').replace('.', '-')}}}")
        cited = ", ".join(f"[{id}][]" for id in sorted(marked[node]))
        parts.append(f"### {node.rsplit('::')[-1]} {{#{clauses.anchor(node)}}}\n\n{cited}\n\n```python\n{_source(node)}\n```")
    return "\n\n".join(parts)


def modules(package: str, language: str) -> str:
    """An API entry for a module, or for every public module of a package and every package in it that defines something."""
    root = checkout() / Path(*package.split("."))
    paths = [root.with_suffix(".py")] if root.with_suffix(".py").exists() else sorted(root.rglob("*.py"))
    if not paths:
        raise ValueError(f"a page asks for the modules of {package}, which does not exist.")
    shown = [path.parent if path.stem == "__init__" and _defines(path) else path for path in paths]
    names = [".".join(path.relative_to(checkout()).with_suffix("").parts) for path in shown]
    return "\n\n".join(f"::: {name}" for name in names if not name.rsplit(".", 1)[1].startswith("_"))


def _defines(path: Path) -> bool:
    return any(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def study(name: str, language: str) -> str:
    """The table of a study, a line on how it was measured, and its verdicts: all from docs/data/study-NAME.json."""
    path = resource("docs/data") / f"study-{name}.json"
    if not path.is_file():
        return _NO_STUDY[language].format(name=name)
    loaded, summary = load_study(name), read_study_summary(path)
    parts = [as_markdown(*study_table(loaded, summary, _tongue(language)))] if loaded.columns else []
    for question, answers in verdict_lines(loaded, summary, _tongue(language)):
        parts.append(f"*{question}*\n\n" + "\n".join(f"- {answer}" for answer in answers))
    return "\n\n".join(parts)


def rules(argument: str, language: str) -> str:
    """Accuracy and work of the halting rules of a study: `rules gate:recipe=A,gate=right:carry-heavy/4,carry-heavy/24`.

    A fourth part keeps the rules whose names begin so.
    """
    name, levels, sets, *begin = argument.split(":")
    path = resource("docs/data") / f"study-{name}.json"
    if not path.is_file():
        return _NO_STUDY[language].format(name=name)
    where = dict(item.split("=") for item in levels.split(","))
    columns = [(kind, int(size)) for kind, size in (item.split("/") for item in sets.split(","))]
    header, rows = rules_table(load_study(name), read_study_summary(path), where, columns, _tongue(language))
    return as_markdown(header, [row for row in rows if row[0].startswith("".join(begin))])


def calibration(name: str, language: str) -> str:
    """The expected calibration error of confidence and gate, by recipe, objective and size; mean over seeds."""
    path = resource("docs/data") / f"study-{name}.json"
    if not path.is_file():
        return _NO_STUDY[language].format(name=name)
    return as_markdown(*values_table(load_study(name), read_study_summary(path), "calibration_error.", _tongue(language)))


def _tongue(language: str) -> Language:
    return "ko" if language == "ko" else "en"


_NO_STUDY = {
    "en": "*The results are not in this checkout: `docs/data/study-{name}.json` is missing. `make studies` writes it.*",
    "ko": "*이 저장소에는 결과가 없다. `docs/data/study-{name}.json`이 빠져 있으며, `make studies`로 만든다.*",
}
_BUILDS_HEAD = {
    "en": "| kernel | profile | Triton | shared memory, bytes | registers | spilled, bytes |",
    "ko": "| 커널 | 프로필 | Triton | 공유 메모리(바이트) | 레지스터 | 스필(바이트) |",
}


def builds(_: str, language: str) -> str:
    """What the compiler made of each kernel for each profile, from docs/data/builds.json."""
    rows = json.loads((resource("docs/data") / "builds.json").read_text(encoding="utf-8"))["rows"]
    names = ("kernel", "profile", "triton", "shared_bytes", "registers", "spilled_bytes")
    cells = [[f"{row[name]:,}" if isinstance(row[name], int) else row[name] for name in names] for row in rows]
    return "\n".join([_BUILDS_HEAD[language], "|---|---|---|---:|---:|---:|", *(f"| {' | '.join(row)} |" for row in cells)])


_KINDS = {
    "Added": "추가",
    "Changed": "변경",
    "Fixed": "수정",
    "Removed": "제거",
    "Spec": "명세",
    "Numbers": "수치",
}


def changelog(_: str, language: str) -> str:
    """CHANGELOG.md without its opening, with ids for its headings and links for its clauses."""
    text = (checkout() / "CHANGELOG.md").read_text(encoding="utf-8")
    parts, version = [], ""
    for line in text[text.index("\n## ") :].splitlines():
        marks, _, title = line.partition(" ")
        if marks == "##":
            version = re.sub(r"[^0-9]+", "-", title.split()[0]).strip("-")
            line = f"{line} {{#changelog-{version}}}"
        elif marks == "###":
            shown = _KINDS.get(title, title) if language == "ko" else title
            line = f"### {shown} {{#changelog-{version}-{title.lower()}}}"
        parts.append(
            re.sub(r"\b[a-z][a-z0-9]*\.[a-z0-9-]+\b", lambda id: f"[{id[0]}][]" if id[0] in clauses.rows() else id[0], line)
        )
    return "\n".join(parts)


_RENDERERS: dict[str, Callable[[str, str], str]] = {
    "results": results,
    "fixed": fixed,
    "controls": _of_controls(controls_table),
    "readings": _of_controls(readings_table),
    "babi": _of_controls(babi_table),
    "ask": _of_controls(ask_table),
    "matrix": matrix,
    "tests": tests,
    "modules": modules,
    "hardware": hardware,
    "builds": builds,
    "gpu": gpu_table,
    "speed": claims_table,
    "study": study,
    "rules": rules,
    "calibration": calibration,
    "floor": floor,
    "world": _of_controls(world_table),
    "world_stories": _of_controls(world_stories),
    "changelog": changelog,
    "plan_counts": counts_table,
    "plan": statements_table,
    "tested": _claim(claims.tested),
    "saved_work": _claim(claims.saved),
    "avoided_words": terms.table,
}
_RENDERERS |= {kind: _depth(kind) for kind in _DEPTH_TABLES}
_RENDERERS |= {name: _of_controls(table) for name, table in HEADS.items()}


def _freshness(words: dict[str, str]) -> str:
    ran = any(outcome != "not run" for row in clauses.rows().values() for _, outcome in row.tests)
    if not ran:
        return f"*{words['none']}*"
    return f"*{words['old'].format(old=outdated())}*" if outdated() else ""


def _page_link(path: str, language: str) -> str:
    """A link to a page of this site under its title; what is no page of it, or a translation, gives nothing."""
    folder = path.split("/")[0]
    if folder not in ("docs", "examples") or path.endswith(".ko.md"):
        return ""
    source = checkout() / path
    translated = source.with_suffix(f".{language}.md")
    text = (translated if translated.exists() else source).read_text(encoding="utf-8")
    titles = re.findall(r"^(?:# )?# (\S.*?) \{#", text, re.MULTILINE)  # a script has one in each language
    title = titles[1 if folder == "examples" and language == "ko" else 0]
    return f"[{title}]({path.removeprefix('docs/').replace('.py', '.md')})"


def _source(node: str) -> str:
    """A test function as it stands, decorators included."""
    path, _, name = node.partition("::")
    text = (checkout() / path).read_text(encoding="utf-8")
    for found in ast.walk(ast.parse(text)):
        if isinstance(found, ast.FunctionDef) and found.name == name.rsplit("::")[-1]:
            first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
            return "\n".join(text.splitlines()[first - 1 : found.end_lineno])
    raise ValueError(f"{node} is in the matrix but not in {path}; run `make test` again.")
