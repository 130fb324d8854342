"""Stage one language: docs/, spec/ and examples/ become one plain tree that any site generator can read.

`name.md` is English and `name.ko.md` beside it Korean; the staged tree of a language holds only `name.md`.
"""

import re
import sys
from pathlib import Path

import clauses
import live
import render
import walkthrough

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "ko")
_NOT_PAGES = {"build", "data"}
"""Folders of docs/ that hold machinery and numbers."""


class Tree:
    """A folder that is filled anew: unchanged files keep their times, files of an earlier filling go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: dict[str, Path] = {}
        """Staged path → the file that it came from."""

    def put(self, name: str, content: str | bytes, source: Path) -> None:
        """Write one file, unless it already stands there as it is."""
        path, data = self.folder / name, content.encode() if isinstance(content, str) else content
        self.sources[name] = source
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def prune(self) -> None:
        """Remove what was not put."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in self.sources:
                path.unlink()


def stage(language: str, root: Path = ROOT) -> Tree:
    """Fill build/docs/<language> and give what came from where."""
    tree = Tree(root / "build" / "docs" / language)
    _stage_docs(tree, language, root)
    _stage_spec(tree, language, root)
    tree.put(live.SCRIPT, live.script(), root / "looplm" / "assets")
    for script in walkthrough.chapters(root):
        for name, content in walkthrough.build(script, language, root).items():
            if name.endswith(".md"):
                content = render.fill(site_links(content), language, script)
            tree.put(f"examples/{name}", content, script)
    tree.prune()
    return tree


def english_pages(folder: Path) -> list[Path]:
    """The Markdown files of a folder that are pages, and no translations."""
    found = sorted(path for path in folder.rglob("*.md") if not path.name.endswith(".ko.md"))
    return [path for path in found if path.relative_to(folder).parts[0] not in _NOT_PAGES]


def in_language(path: Path, language: str) -> Path:
    """The file that tells the English page `path` in this language.

    Raises:
        FileNotFoundError: if nobody has written it.
    """
    path = path if language == "en" else path.with_suffix(f".{language}.md")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: every page stands in {' and '.join(LANGUAGES)}; write it.")
    return path


def site_links(text: str) -> str:
    """Links that are right in the repository, made right for the staged tree.

    There `name.ko.md` is `name.md`, a script in examples/ is a page, and docs/ is the top, with spec/ and examples/ in it.
    """
    text = re.sub(r"(\]\([^)\s]+)\.ko\.md", r"\1.md", text)
    text = re.sub(r"(\]\([^)\s]*examples/\w+)\.py\b", r"\1.md", text)
    return re.sub(r"\]\(((?:\.\./)*)\.\./docs/", r"](\1../", text)


def docs_links(text: str) -> str:
    """The same for a page of docs/, which stands one folder nearer to spec/ and examples/ in the staged tree."""
    return re.sub(r"\]\(((?:\.\./)*)\.\./(?=spec/|examples/)", r"](\1", site_links(text))


def _stage_docs(tree: Tree, language: str, root: Path) -> None:
    folder = root / "docs"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or name.parts[0] in _NOT_PAGES:
            continue
        if path.suffix != ".md":
            tree.put(name.as_posix(), path.read_bytes(), path)
        elif not path.name.endswith(".ko.md"):
            source = in_language(path, language)
            text = render.fill(docs_links(source.read_text(encoding="utf-8")), language, source)
            tree.put(name.as_posix(), text, source)


def _stage_spec(tree: Tree, language: str, root: Path) -> None:
    rows = clauses.rows()
    for path in english_pages(root / "spec"):
        source = in_language(path, language)
        text = site_links(source.read_text(encoding="utf-8"))
        if language != "en":
            text = clauses.with_code_of(text, path.read_text(encoding="utf-8"))
        text = clauses.with_links(clauses.fence_examples(text), rows, language)
        tree.put(f"spec/{path.name}", text, source)
    for path in sorted((root / "spec").rglob("*")):
        if path.is_file() and path.suffix != ".md":
            tree.put(f"spec/{path.relative_to(root / 'spec').as_posix()}", path.read_bytes(), path)


if __name__ == "__main__":
    for language in sys.argv[1:] or LANGUAGES:
        staged = stage(language)
        print(f"{staged.folder.relative_to(ROOT)}: {len(staged.sources)} files")
