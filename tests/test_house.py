"""The rules that the house itself keeps."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Rows of the house, top first: a module may import from its own row and from rows above, never from below.
ROWS: list[set[str]] = [
    {"errors", "files", "resources", "shapes", "choices", "chosen", "draws", "settings", "config", "spec", "hangul"},
    {"layers"},
    {"loop"},
    {"models"},
    {"task", "think"},
    {"evaluate"},
    {"hardware"},
    {"train"},
    {"runs"},
    {"lab", "interop", "stories"},
    {"tasks"},
    {"bench"},
    {"cli"},
]
TOP = {"__init__": "gives the public names, lazily", "__main__": "runs the command line"}


def part_of(path: Path) -> str:
    """The room to which a file belongs; what a task brings to the command line belongs there."""
    return "cli" if path.name == "verbs.py" else path.relative_to(ROOT / "looplm").with_suffix("").parts[0]


def row(part: str) -> int:
    for number, parts in enumerate(ROWS):
        if part in parts:
            return number
    raise AssertionError(f"looplm/{part} stands in no row; give it one in tests/test_house.py and in DESIGN")


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Line and full name of everything that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the full name, not a relative import"
            found.append((node.lineno, node.module or ""))
    return found


def modules() -> list[Path]:
    return sorted((ROOT / "looplm").rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_upwards(path: Path) -> None:
    part = part_of(path)
    if part in TOP:
        return
    for line, name in imports_of(path):
        if name.startswith("looplm."):
            target = name.split(".")[1]
            assert row(target) <= row(part), f"{path}:{line}: {part} must not import {target}, which stands below it"
        assert not name.startswith(("tests", "examples", "docs")), f"{path}:{line}: the package imports {name}"


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for path in modules():
        part = part_of(path)
        if part not in TOP:
            targets = {name.split(".")[1] for _, name in imports_of(path) if name.startswith("looplm.")}
            edges.setdefault(part, set()).update(targets - {part})
    waiting = dict(edges)
    while waiting:
        ready = [part for part, targets in waiting.items() if not targets & set(waiting)]
        assert ready, f"these import each other in a circle: {sorted(waiting)}"
        for part in ready:
            del waiting[part]


NAMES_OF_ONE_TASK = re.compile(r"(?<![a-z])(additions?|digits?|carry)(?![a-z])", re.IGNORECASE)
MAY_NAME_IT = {
    "looplm/__init__.py": "`looplm.solve` lives in the task's folder",
    "looplm/hardware/formulas.py": "an addition beside each multiplication",
    "looplm/loop/work.py": "`carry` is a way to offer keys and values (halting.kv-alternatives)",
    "looplm/models/looped.py": "`carry` is a way to offer keys and values (halting.kv-alternatives)",
    "looplm/tasks/language/tokenizer.py": "a setting of SentencePiece: a number is read figure by figure",
    "looplm/spec/__init__.py": "an example of a spec file that imports another",
    "looplm/tasks/translation/words.py": "a verb among others",
}
"""Where such a word means something else, or the one name that users call."""


def words_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Identifiers, texts and docstrings of a file, each with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.alias(name=text):
                yield line, text
            case ast.keyword(arg=str(text)) | ast.ImportFrom(module=str(text)) | ast.Constant(value=str(text)):
                yield line, text
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text) | ast.ClassDef(name=text):
                yield line, text


def test_only_its_own_folder_names_a_task() -> None:
    naming: dict[str, list[str]] = {}
    for path in [*modules(), *sorted((ROOT / "kernels").rglob("*.py"))]:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("looplm/tasks/addition/"):
            for line, text in words_of(ast.parse(path.read_text(encoding="utf-8"))):
                naming.setdefault(name, []).extend(f"{name}:{line}: {m[0]}" for m in NAMES_OF_ONE_TASK.finditer(text))
    found = {name: lines for name, lines in naming.items() if lines}
    known = [line for name, lines in found.items() if name not in MAY_NAME_IT for line in lines]
    assert not known, "tasks are known by their face alone (tasks.face): " + ", ".join(known)
    assert set(found) == set(MAY_NAME_IT), "a file that no longer names it needs no leave"


def test_tasks_do_not_know_each_other() -> None:
    for path in sorted((ROOT / "looplm/tasks").rglob("*.py")):
        own = path.relative_to(ROOT / "looplm/tasks").parts[0]
        for line, name in imports_of(path):
            if name.startswith("looplm.tasks.") and path.parent.name != "tasks":
                assert name.split(".")[2] == own, f"{path}:{line}: {own} must not import {name}"


def test_kernels_import_torch_and_never_looplm() -> None:
    for path in (ROOT / "kernels").rglob("*.py"):
        for line, name in imports_of(path):
            assert name.split(".")[0] != "looplm", f"{path}:{line}: a kernel takes tensors and numbers, not {name}"


def test_the_name_kernels_is_left_to_others() -> None:
    for folder in ("kernels", "tests/kernels"):
        assert not (ROOT / folder / "__init__.py").exists(), f"{folder}/__init__.py would capture `import kernels`"


def test_heavy_libraries_are_not_imported_by_help() -> None:
    light = ["__init__", "__main__", "errors", "resources", *(f"cli/{p.stem}" for p in (ROOT / "looplm/cli").glob("*.py"))]
    for name in light:
        tree = ast.parse((ROOT / "looplm" / f"{name}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if name != "cli/tables" and isinstance(node, ast.Import | ast.ImportFrom):
                text = ast.unparse(node)
                assert not any(word in text for word in ("torch", "matplotlib", "datasets")), f"{name}: {text}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_tell_one_story(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "a file says what it tells"
