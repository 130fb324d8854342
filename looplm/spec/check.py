"""Is every clause implemented, tested and told? The matrix, and what is wrong with it.

    clause → implementation (a docstring cites it) → tests (marked with it, with their last outcome) → pages

The outcomes come from the evidence file that the test suite writes. All of this needs a checkout.
"""

import ast
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looplm import spec
from looplm.errors import InputError
from looplm.resources import resource
from looplm.spec.history import history

EVIDENCE = Path("build/evidence.json")
"""Where the test suite writes what it saw, relative to the checkout."""
EVIDENCE_SCHEMA = 1

_CITED = re.compile(r"\[([a-z][a-z0-9]*\.[a-z0-9-]+)\]\[\]")
_LOGGED = re.compile(r'"([a-z][a-z0-9]*\.[a-z0-9-]+)@[0-9a-f]{7}"')
_IN_BRACKETS = re.compile(r"\(([a-z][a-z0-9]*\.[a-z0-9-]+)(?:, [^()]*)?\)")
_IN_COMMENT = re.compile(r"# ([a-z][a-z0-9]*\.[a-z0-9-]+): ")
_FILE_ENDINGS = {"md", "toml", "json", "py", "jsonl", "csv", "svg", "png", "safetensors"}


@dataclass(frozen=True)
class Row:
    """One clause, and everything that names it."""

    id: str
    sentence: str
    implementations: tuple[str, ...]
    """Dotted names, such as looplm.loop.halting.Fixed."""
    tests: tuple[tuple[str, str], ...]
    """Node id and last outcome: passed, failed, skipped or not run."""
    pages: tuple[str, ...]
    """Files of docs and examples, relative to the checkout."""


def checkout() -> Path:
    """The checkout's folder.

    Raises:
        InputError: in an installed package, which has no tests.
    """
    root = resource("spec").parent
    if not (root / "tests" / "conftest.py").exists():
        raise InputError("this needs a checkout of the repository: an installed package carries no tests.")
    return root


def matrix() -> list[Row]:
    """One row per clause, in the order of the spec."""
    root, evidence = checkout(), read_evidence()
    implementations, marks, pages = _implementations(root), _marks(root), _pages(root)
    outcomes = {test: entry["outcome"] for test, entry in evidence["tests"].items()}
    rows = []
    for id, clause in spec.clauses().items():
        ran = {test: outcomes[test] for test, entry in evidence["tests"].items() if id in entry["clauses"]}
        files_ran = {test.split("[")[0] for test in ran}
        tests = ran | {test: "not run" for test in marks[id] if test not in files_ran}
        rows.append(Row(id, clause.sentence, tuple(implementations[id]), tuple(sorted(tests.items())), tuple(pages[id])))
    return rows


def problems() -> list[str]:
    """Everything that is wrong, a line each, with file and line where there is one; empty if all is well."""
    root = checkout()
    malformed = _malformed(root)
    if malformed:
        return malformed
    found = list(_unknown_ids(root)) + list(_language_gaps(root))
    for row in matrix():
        if "MUST" in row.sentence and not any(outcome == "passed" for _, outcome in row.tests):
            seen = ", ".join(sorted({outcome for _, outcome in row.tests})) or "none is marked with it"
            found.append(f"{row.id}: no test of it ran and passed ({seen})")
        found += [f"{row.id}: {test} failed" for test, outcome in row.tests if outcome == "failed"]
    return found


def read_evidence() -> dict[str, Any]:
    """What the test suite last saw; without a file, nothing."""
    path = checkout() / EVIDENCE
    empty = {"schema": EVIDENCE_SCHEMA, "commit": "", "tests": {}}
    if not path.exists():
        return empty
    evidence = json.loads(path.read_text(encoding="utf-8"))
    return evidence if evidence.get("schema") == EVIDENCE_SCHEMA else empty


def outdated() -> int:
    """How many outcomes were seen with other sources than those here now."""
    now = sources_digest()
    return sum(entry["sources"] != now for entry in read_evidence()["tests"].values())


def sources_digest() -> str:
    """One hash over the package, the kernels, the tests and the spec."""
    root, digest = checkout(), hashlib.sha256()
    for folder, pattern in (("looplm", "*.py"), ("kernels", "*.py"), ("tests", "*.py"), ("spec", "*.*")):
        for path in sorted((root / folder).rglob(pattern)):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _implementations(root: Path) -> dict[str, list[str]]:
    """Functions and classes whose docstring cites a clause, and kernels that list it in SPEC."""
    found: dict[str, list[str]] = defaultdict(list)

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}"
                for id in _CITED.findall(ast.get_docstring(child) or ""):
                    found[id].append(inner)
                visit(child, inner)
            elif isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "SPEC":
                for id in ast.literal_eval(child.value):
                    found[id].append(name)

    for top, base in (("looplm", root), ("looplm_kernels", root / "kernels")):
        for path in sorted((base / top).rglob("*.py")):
            module = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            visit(ast.parse(path.read_text(encoding="utf-8")), module)
    return found


def _marks(root: Path) -> dict[str, list[str]]:
    """Tests by the clauses of their `@pytest.mark.spec(...)`, without parameters."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for id in _ids_of_marks(node):
                    found[id].append(f"{path.relative_to(root)}::{node.name}")
    return found


def _ids_of_marks(function: ast.FunctionDef) -> list[str]:
    marks = [d for d in function.decorator_list if isinstance(d, ast.Call) and ast.unparse(d.func) == "pytest.mark.spec"]
    return [ast.literal_eval(argument) for mark in marks for argument in mark.args]


def _pages(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in [*sorted((root / "docs").rglob("*.md")), *sorted((root / "examples").glob("*.py")), root / "README.md"]:
        for id in sorted(set(_CITED.findall(path.read_text(encoding="utf-8")))):
            found[id].append(str(path.relative_to(root)))
    return found


def _malformed(root: Path) -> list[str]:
    """What stops the clauses from being read or run."""
    found = []
    for path in sorted((root / "spec").glob("*.md")):
        name = path.name
        text = path.read_text(encoding="utf-8")
        try:
            parsed = spec.parse_clauses(text, name)
        except ValueError as error:
            found.append(f"spec/{error}")
            continue
        for line, source in spec.fences(text.splitlines()):
            try:
                compile("\n" * line + source, name, "exec")
            except SyntaxError as error:
                found.append(f"spec/{name}:{error.lineno}: the fence does not compile: {error.msg}")
        ids = [clause.id for clause in parsed]
        found += [
            f"spec/{name}:{clause.line}: the id {clause.id} stands twice" for clause in parsed if ids.count(clause.id) > 1
        ]
    return found


def _unknown_ids(root: Path) -> Iterator[str]:
    """Citations of clauses that do not exist: in code, tests, pages, examples and committed results."""
    known = spec.clauses()
    families = {id.split(".")[0] for id in known}
    recorded = known.keys() | {wording.id for wording in history()}  # a result keeps the citations of its day
    texts: list[tuple[str, tuple[re.Pattern[str], ...]]] = [
        *((pattern, (_CITED, _IN_COMMENT)) for pattern in ("looplm/**/*.py", "kernels/**/*.py", "examples/*.py")),
        *((pattern, (_CITED, _IN_BRACKETS)) for pattern in ("docs/**/*.md", "spec/*.md", "*.md")),
        *((pattern, (_LOGGED,)) for pattern in ("docs/data/*.json", "looplm/assets/**/*.json")),
    ]
    for pattern, expressions in texts:
        for path in sorted(root.glob(pattern)):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                for id in (id for expression in expressions for id in expression.findall(line)):
                    family, _, name = id.partition(".")
                    there = recorded if _LOGGED in expressions else known
                    if id not in there and family in families and name not in _FILE_ENDINGS:
                        yield f"{path.relative_to(root)}:{number}: there is no clause {id}"
    for id, tests in _marks(root).items():
        if id not in known:
            yield f"{tests[0]}: there is no clause {id}"


def _language_gaps(root: Path) -> Iterator[str]:
    """Clauses that stand in one language only."""
    for path in sorted((root / "spec").glob("*.md")):
        if path.name.endswith(".ko.md") or path.name == "README.md":
            continue
        korean = path.with_suffix(".ko.md")
        english = {c.id: c.line for c in spec.parse_clauses(path.read_text(encoding="utf-8"), path.name)}
        text = korean.read_text(encoding="utf-8") if korean.exists() else ""
        other = {c.id: c.line for c in spec.parse_clauses(text, korean.name)}
        yield from (f"spec/{path.name}:{english[id]}: {id} has no Korean sentence" for id in english.keys() - other.keys())
        yield from (f"spec/{korean.name}:{other[id]}: {id} stands in Korean only" for id in other.keys() - english.keys())
