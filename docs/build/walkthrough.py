"""Turn a bilingual percent-format script into one page and one notebook per language; its code runs once for both.

    # %% [markdown] lang="en"      narration, in pairs: English, then Korean
    # %% [markdown] lang="ko"
    # %%                           code, shown in both
    # %% tags=["solution"]         the same, folded: a solution of an exercise, which the exercise's test checks

Outputs are kept in build/walkthroughs under a key made of all that can change them: the script's code, the package's and
the kernels' (without docstrings and comments), weights, presets and profiles, the spec's code, and the results of
docs/data that the script names. Editing prose runs nothing.
"""

import ast
import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jupytext
import nbformat

_RUNNER = Path(__file__).with_name("run_cells.py")
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WORDS = {
    "en": ("Notebook with outputs", "Script", "A solution"),
    "ko": ("출력이 담긴 노트북", "스크립트", "풀이 하나"),
}
Output = dict[str, str]
"""`text`, or `svg` with `uid` and `alt`: a figure."""


@dataclass(frozen=True)
class Cell:
    """A cell of the script."""

    code: bool
    language: str
    """Of a narration; empty for code."""
    source: str
    solution: bool = False
    """Code that solves an exercise."""


def chapters(root: Path) -> list[Path]:
    """The scripts that are pages, in order: examples/NN_name.py; what else lies there is code to run."""
    return sorted((root / "examples").glob("[0-9][0-9]_*.py"))


def read_cells(text: str) -> list[Cell]:
    """The cells of a percent-format script, without its docstring, which stands before the first of them."""
    cells = [
        Cell(
            cell.cell_type == "code",
            cell.metadata.get("lang", ""),
            cell.source.strip("\n"),
            solution="solution" in cell.metadata.get("tags", []),
        )
        for cell in jupytext.reads(text, fmt="py:percent").cells
    ]
    return cells[1:] if cells and cells[0].code and not _bare_statements(cells[0].source) else cells


def key(script: Path, root: Path) -> str:
    """Changes exactly when the outputs might."""
    digest = hashlib.sha256(" ".join([platform.python_version(), *map(version, ("torch", "matplotlib"))]).encode())
    for cell in read_cells(script.read_text(encoding="utf-8")):
        if cell.code:
            digest.update(_bare(cell.source))
    code = [path for folder in ("looplm", "kernels") for path in sorted((root / folder).rglob("*.py"))]
    for path in [_RUNNER, *code]:
        digest.update(_bare(path.read_text(encoding="utf-8")))
    for path in sorted((root / "spec").glob("*.md")):
        for fence in _FENCE.findall(path.read_text(encoding="utf-8")):
            digest.update(_bare(fence))
    text = script.read_text(encoding="utf-8")
    settings = [path for folder in ("presets", "profiles") for path in sorted((root / "spec" / folder).rglob("*.toml"))]
    named = [path for path in sorted((root / "docs" / "data").glob("*")) if path.name in text]
    for path in [*settings, *named, *sorted((root / "looplm" / "assets").rglob("*.safetensors"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run(script: Path, root: Path) -> list[list[Output]]:
    """Outputs of each code cell, from the cache where nothing has changed.

    Raises:
        RuntimeError: if a cell fails, with its traceback.
    """
    kept = root / "build" / "walkthroughs" / f"{script.stem}-{key(script, root)}.json"
    if not kept.exists():
        code = [cell.source for cell in read_cells(script.read_text(encoding="utf-8")) if cell.code]
        command = [sys.executable, str(_RUNNER), script.name]
        done = subprocess.run(command, input=json.dumps(code), capture_output=True, text=True, encoding="utf-8", cwd=root)
        if done.returncode != 0:
            raise RuntimeError(f"{script} does not run:\n{done.stderr}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob(f"{script.stem}-*.json"):
            old.unlink()
        kept.write_text(done.stdout, encoding="utf-8")
    outputs: list[list[Output]] = json.loads(kept.read_text(encoding="utf-8"))
    return outputs


def build(script: Path, language: str, root: Path) -> dict[str, str]:
    """File name → content: the page, the notebook and the script."""
    text = script.read_text(encoding="utf-8")
    cells = [cell for cell in read_cells(text) if cell.code or cell.language == language]
    outputs = run(script, root)
    return {
        f"{script.stem}.md": page(cells, outputs, script.stem, language),
        f"{script.stem}.ipynb": notebook(cells, outputs),
        script.name: text,
    }


def page(cells: Sequence[Cell], outputs: Sequence[Sequence[Output]], stem: str, language: str) -> str:
    """The chapter in Markdown: downloads under the title, then narration, code and outputs in order."""
    notebook_word, script_word, solution_word = _WORDS[language]
    downloads = f"[{notebook_word}]({stem}.ipynb){{ .download download }} [{script_word}]({stem}.py){{ .download download }}"
    title, _, opening = cells[0].source.partition("\n")
    parts, waiting = [title, downloads, opening.strip()], iter(outputs)
    for cell in cells[1:]:
        if cell.code:
            shown = [f"```python\n{cell.source}\n```", *map(_output, next(waiting))]
            if cell.solution:
                shown = ['<details class="solution" markdown="1">', f"<summary>{solution_word}</summary>", *shown, "</details>"]
            parts += shown
        else:
            parts.append(cell.source)
    return "\n\n".join(parts) + "\n"


def notebook(cells: Sequence[Cell], outputs: Sequence[Sequence[Output]]) -> str:
    """The same as a Jupyter notebook (format 4.5), with its outputs."""
    written, shown = [], iter(outputs)
    for number, cell in enumerate(cells):
        if cell.code:
            made = nbformat.v4.new_code_cell(cell.source, outputs=[_notebook_output(output) for output in next(shown)])
            if cell.solution:
                made["metadata"] = {"tags": ["solution"], "jupyter": {"source_hidden": True}}
        else:
            made = nbformat.v4.new_markdown_cell(cell.source)
        made["id"] = f"cell-{number}"  # not drawn at random, so that the same script gives the same bytes
        written.append(made)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    text: str = nbformat.writes(nbformat.v4.new_notebook(cells=written, metadata=kernel))
    return text + "\n"


def _output(output: Output) -> str:
    if "svg" in output:
        fixed_ink = " card" if "#000000" in output["svg"] else ""
        return f'<figure class="plot{fixed_ink}" data-search-exclude>{_inline(**output)}</figure>'
    return f'<div class="output" markdown="1">\n\n```text\n{output["text"].rstrip()}\n```\n\n</div>'


def _inline(svg: str, uid: str, alt: str) -> str:
    """An SVG as a part of the page: ids of its own, words for it, the page's font, width up to its natural one."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{uid}-', svg)
    svg = re.sub(r'\bhref="#', f'href="#{uid}-', svg).replace("url(#", f"url(#{uid}-")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)
    svg = re.sub(
        r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'<svg \1style="max-width:\2pt;width:100%;height:auto"', svg
    )
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return re.sub(r"\s*\n\s*", " ", svg)


def _notebook_output(output: Output) -> Any:
    if "svg" in output:
        return nbformat.v4.new_output("display_data", data={"image/svg+xml": output["svg"]})
    return nbformat.v4.new_output("stream", name="stdout", text=output["text"])


def _bare_statements(source: str) -> list[ast.stmt]:
    """Statements of a cell, its docstring aside."""
    tree = ast.parse(source)
    return tree.body[1:] if ast.get_docstring(tree) is not None else tree.body


def _bare(source: str) -> bytes:
    """Code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree).encode()
