"""Clauses of the specification: found, cited, and run.

A clause is a heading `### id {#id}` in a spec file, the sentence under it, and perhaps a ```python fence. The fences of
one file, in order, are one module, `spec.<file>`: the oracle that tests compare the package with.
"""

import ast
import functools
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from looplm.errors import InputError
from looplm.resources import resource

_HEADING = re.compile(r"^### (?P<title>\S+) \{#(?P<id>[a-z0-9.-]+)\}$")
_FENCE = re.compile(r"^```(?P<language>\w*)$")


@dataclass(frozen=True)
class Clause:
    """One rule of the specification."""

    id: str
    file: str
    """Relative to the spec folder."""
    line: int
    """Of its heading, from 1."""
    sentence: str
    code: str
    """Its Python, empty where it computes nothing."""
    examples: str
    """Lines of worked examples, as in an interactive session."""


def version() -> str:
    """The version of the specification, which is the package's."""
    return (resource("spec") / "VERSION").read_text(encoding="utf-8").strip()


@functools.cache
def clauses() -> dict[str, Clause]:
    """All clauses by id, in the order of the files and of their text."""
    found: dict[str, Clause] = {}
    for path in _files():
        for clause in parse_clauses(path.read_text(encoding="utf-8"), path.name):
            if clause.id in found:
                raise ValueError(f"{path.name}:{clause.line}: the id {clause.id} is already used in {found[clause.id].file}")
            found[clause.id] = clause
    return found


def parse_clauses(text: str, file: str) -> list[Clause]:
    """The clauses of one spec file.

    Raises:
        ValueError: with file and line, if a clause has no sentence or its id does not start with the file's name.
    """
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("#") and not _inside_fence(lines, i)]
    found = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        match = _HEADING.match(lines[start])
        if not match:
            continue
        id, body = match["id"], lines[start + 1 : end]
        if match["title"] != id or not id.startswith(file.split(".")[0] + "."):
            raise ValueError(f"{file}:{start + 1}: a clause's heading is `### name {{#name}}`, name starting with the file's")
        sentence = next((line for line in body if line), "")
        if not re.search(r"\b(MUST|SHOULD|MAY)\b", sentence) and not file.endswith(".ko.md"):
            raise ValueError(f"{file}:{start + 1}: the first line under {id} must be its sentence, with MUST, SHOULD or MAY")
        code = "\n\n".join(source for _, source in fences(body))
        examples = "\n".join(_examples(body))
        found.append(Clause(id, file, start + 1, sentence, code, examples))
    return found


def find(id: str) -> Clause:
    """The clause of this id.

    Raises:
        InputError: if there is none; the nearest ids are named.
    """
    if id not in clauses():
        near = get_close_matches(id, clauses(), n=3, cutoff=0.4)
        hint = f"the nearest are {', '.join(near)}" if near else "see spec/README.md"
        raise InputError(f"There is no clause {id!r}; {hint}.")
    return clauses()[id]


@functools.cache
def citation(id: str) -> str:
    """`id@hash`: the hash changes when the sentence, or the code with what it calls, changes; never by layout alone."""
    clause = find(id)
    text = " ".join(clause.sentence.split()) + "\n" + _meaning(clause)
    return f"{id}@{hashlib.sha256(text.encode()).hexdigest()[:7]}"


def oracle(name: str) -> ModuleType:
    """The fences of spec/<name>.md as a module; tracebacks show file and line of the Markdown."""
    if f"spec.{name}" in sys.modules:
        return sys.modules[f"spec.{name}"]
    spec = _SpecFiles().find_spec(f"spec.{name}")
    if spec is None:
        raise InputError(f"There is no spec file {name!r}; there are: {', '.join(p.stem for p in _files())}.")
    module = module_from_spec(spec)
    sys.modules[f"spec.{name}"] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


class _SpecFiles:
    """Lets a fence say `from spec.addition import chains`: finds and loads spec/<name>.md as a module."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == "spec":
            return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        parent, _, stem = name.partition(".")
        if parent != "spec" or not (resource("spec") / f"{stem}.md").exists():
            return None
        return ModuleSpec(name, self, origin=str(resource("spec") / f"{stem}.md"))  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        if module.__spec__.origin is None:
            return
        path = Path(module.__spec__.origin)
        module.__file__ = str(path)
        for line, source in fences(path.read_text(encoding="utf-8").splitlines()):
            exec(compile("\n" * line + source, str(path), "exec"), module.__dict__)


def _files() -> Sequence[Path]:
    return sorted(path for path in resource("spec").glob("*.md") if not path.name.endswith(".ko.md"))


def _inside_fence(lines: list[str], index: int) -> bool:
    return sum(line.startswith("```") for line in lines[:index]) % 2 == 1


def fences(lines: list[str]) -> list[tuple[int, str]]:
    """The python fences of a Markdown text: number of lines before the code, and the code."""
    found: list[tuple[int, str]] = []
    start: int | None = None
    language = ""
    for number, line in enumerate(lines):
        match = _FENCE.match(line)
        if match and start is None:
            start, language = number + 1, match["language"]
        elif match and start is not None:
            if language == "python":
                found.append((start, "\n".join(lines[start:number])))
            start = None
    return found


def _examples(lines: list[str]) -> list[str]:
    kept, inside = [], False
    for line in lines:
        inside = line.startswith(">>> ") or (inside and line != "" and not line.startswith("```"))
        if inside:
            kept.append(line)
    return kept


def _meaning(clause: Clause) -> str:
    """The syntax of the clause's code and of everything it calls in its file, without layout or docstrings."""
    if not clause.code:
        return ""
    defined: dict[str, ast.stmt] = {}
    text = (resource("spec") / clause.file).read_text(encoding="utf-8")
    for _, source in fences(text.splitlines()):
        for statement in ast.parse(source).body:
            for name in _names_bound(statement):
                defined[name] = statement
    pending: list[ast.stmt] = list(ast.parse(clause.code).body)
    dumps: list[str] = []
    while pending:
        statement = pending.pop(0)
        dump = ast.dump(_without_docstrings(statement))
        if dump in dumps:
            continue
        dumps.append(dump)
        used = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
        pending += [defined[name] for name in sorted(set(used)) if name in defined]
    return "\n".join(dumps)


def _names_bound(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return []


def _without_docstrings(statement: ast.stmt) -> ast.stmt:
    statement = ast.parse(ast.unparse(statement)).body[0]
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return statement


sys.meta_path.append(_SpecFiles())
