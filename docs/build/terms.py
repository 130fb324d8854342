"""The words of the Korean text: which it avoids, and where one of them still stands.

`docs/data/korean-words.toml` names each word, what stands in its place, and, where only some uses are wrong, the regular
expression that finds those.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from looplm.resources import resource

_PYTHON = ("docs/build", "looplm", "examples")
_OTHERS = (
    "docs/**/*.ko.md",
    "spec/*.ko.md",
    "docs/glossary.md",
    "docs/korean.md",
    "spec/world.md",
    "docs/data/transformer-plan.toml",
    "docs/assets/js/**/*.js",
    "spec/presets/**/*.toml",
    "mkdocs*.yml",
)

MATERIAL = (
    "docs/data/korean-words.toml",
    "docs/stories.md",
    "looplm/stories/grammar.py",
    "looplm/tasks/language/world/lexicon.py",
    "looplm/tasks/translation/korean.py",
    "looplm/tasks/translation/words.py",
    "spec/history.toml",
    "spec/reasoning.md",
    "spec/translation.md",
)
"""Files whose Korean explains nothing to a reader: words of stories and of a grammar, its rules, and the list itself."""


@dataclass(frozen=True)
class Word:
    """A word that Korean text avoids."""

    avoid: str
    use: str
    find: re.Pattern[str]


def avoided() -> list[Word]:
    """The list, as it is kept."""
    words = tomllib.loads((resource("docs/data") / "korean-words.toml").read_text(encoding="utf-8"))["words"]
    return [Word(w["avoid"], w["use"], re.compile(w.get("find", re.escape(w["avoid"])))) for w in words]


def korean_files(root: Path) -> Iterator[Path]:
    """Every file of the checkout that says something in Korean to a reader: pages, cells, clauses, strings, labels."""
    for folder in _PYTHON:
        yield from (path for path in sorted((root / folder).rglob("*.py")) if path.relative_to(root).as_posix() not in MATERIAL)
    for pattern in _OTHERS:
        yield from sorted(root.glob(pattern))


def found(text: str) -> Iterator[tuple[int, str, Word]]:
    """Line, what stands there, and the word that it is, of each use that is to be mended."""
    words = avoided()
    for number, line in enumerate(text.splitlines(), 1):
        for word in words:
            for match in word.find.finditer(line):
                yield number, match[0], word


_HEAD = {"en": "| not | but |", "ko": "| 쓰지 않는 말 | 대신 쓰는 말 |"}


def table(_: str, language: str) -> str:
    """The list as a table."""
    return "\n".join([_HEAD[language], "|---|---|", *(f"| {word.avoid} | {word.use} |" for word in avoided())])
