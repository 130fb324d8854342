"""Code on pages runs, commands on pages exist, and the README's numbers are those of the committed results."""

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from looplm import cli
from looplm.cli.commands import all_commands
from looplm.runs.results import groups_of, read_summary

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "spec").glob("*.md")]
    if path.relative_to(ROOT).parts[:2] not in {("docs", "data"), ("docs", "build")}
)
FENCE = re.compile(r"^(?P<sketch><!-- a sketch -->\n\n?)?```(?P<kind>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(kinds: set[str]) -> list[Any]:
    """(page, code, whether it is only a sketch), with ids for pytest; the spec's Python is the oracle, loaded elsewhere."""
    found = []
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for number, match in enumerate(FENCE.finditer(page.read_text(encoding="utf-8")), 1):
            if match["kind"] in kinds and not (match["kind"] == "python" and name.startswith("spec/")):
                found.append(pytest.param(name, match["code"], bool(match["sketch"]), id=f"{name}-{number}"))
    return found


@pytest.mark.parametrize(("page", "code", "sketch"), fences({"python"}))
def test_python_on_a_page_runs_and_gives_what_its_comments_say(page: str, code: str, sketch: bool) -> None:
    """`expression  # value: words` gives that value; what follows `<!-- a sketch -->` only has to be Python."""
    tree = ast.parse(code, page)
    if sketch:
        return
    namespace: dict[str, Any] = {}
    lines = code.splitlines()
    for statement in tree.body:
        if not isinstance(statement, ast.Expr):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(ast.Module([statement], []), page, "exec"), namespace)
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            value = eval(compile(ast.Expression(statement.value), page, "eval"), namespace)
        _, _, said = lines[(statement.end_lineno or 1) - 1].partition("  # ")
        if said:
            assert said.split(":")[0] in repr(value), f"{page}: {ast.unparse(statement)} gives {value!r}"


def test_fences_were_found() -> None:
    assert len(fences({"python"})) >= 3
    assert len(commands("looplm")) > 15


def commands(program: str) -> list[Any]:
    """(page, arguments) of each command line in a shell fence that calls the program."""
    found = []
    for fence in fences({"sh", "console", "bash"}):
        page, code, _ = fence.values
        for line in code.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].rsplit("/", 1)[-1] == program:
                found.append(pytest.param(page, words[1:], id=f"{page}: {' '.join(words[1:])}"))
    return found


@pytest.mark.parametrize(("page", "arguments"), commands("looplm"))
def test_a_looplm_command_on_a_page_is_one(page: str, arguments: list[str]) -> None:
    assert callable(cli.parse(arguments).run), page  # and not run


@pytest.mark.parametrize(("page", "arguments"), commands("make"))
def test_a_make_command_on_a_page_is_one(page: str, arguments: list[str]) -> None:
    for target in (word for word in arguments if "=" not in word):
        assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), f"{page}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_named_in_a_sentence_exist(page: Path) -> None:
    known = all_commands()
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for program, name in re.findall(r"`(?:\.venv/bin/)?(looplm|make) ([a-z-]+)[^`]*`", prose):
        there = name in known if program == "looplm" else re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)
        assert there, f"`{program} {name}`"


def test_the_readmes_figures_are_drawn_by_commands() -> None:
    for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert re.search(rf"^\t\$\(BIN\).*{re.escape(path)}", MAKEFILE, re.MULTILINE), f"no rule of the Makefile draws {path}"


def said_of_results() -> list[tuple[str, Callable[[], str]]]:
    """Words of the README that hold numbers, as a pattern, and what the committed results say in their place."""
    light = groups_of(read_summary(ROOT / "docs/data/first-light.json")["results"])
    parallel = read_summary(ROOT / "docs/data/parallel.json")["results"]
    own, controls = light["first-light"], [run for name, runs in light.items() if name != "first-light" for run in runs]

    def counts(runs: list[Any]) -> str:
        return f"{max(cell['n'] for run in runs for cell in run['cells']):,}"

    others = (ROOT / "docs/data/others-addition.toml").read_text(encoding="utf-8")
    fewest, most = own[0]["trained_sizes"]
    return [
        (r"Trained on sums of (.+?) digits only", lambda: f"{fewest} to {most}"),
        (r"over (\d+) seeds", lambda: f"{len(own)}"),
        (r"for the controls ([\d,]+)\suniform", lambda: counts(controls)),
        (r"\. (\d+)\sseeds, again", lambda: f"{len(parallel)}"),
        (r"again trained on at most (\d+) digits", lambda: f"{parallel[0]['trained_sizes'][1]}"),
        (r"up to (\d-\d) digits", lambda: re.findall(r"up to (\d-\d) digits", others)[0]),
    ]


def test_every_number_that_the_readme_says_of_results_is_checked() -> None:
    """A new number under "What was measured" belongs into a rendered table, or into `said_of_results`."""
    section = README.split("## What was measured")[1].split("\n## ")[0]
    section = re.sub(r"<!-- (\w+): .*? -->.*?<!-- /\1 -->", "", section, flags=re.DOTALL)  # rendered, tested elsewhere
    section = re.sub(r"\]\([^)]*\)", "]", section)
    left = section
    for pattern, told in said_of_results():
        match = re.search(pattern, section)
        assert match, f"the README no longer says {pattern!r}"
        assert match[1] == told(), pattern
        left = left[: match.start(1)] + "x" * len(match[1]) + left[match.end(1) :]
    assert re.findall(r".{0,30}\b\d[\d,.]*\b.{0,20}", left) == [], "numbers that nothing checks"


def test_what_the_readme_concludes_is_in_the_results() -> None:
    light = groups_of(read_summary(ROOT / "docs/data/first-light.json")["results"])
    beyond = light["first-light"][0]["trained_sizes"][1] + 1
    at = {(name, cell["size"]): cell for name, runs in light.items() for run in runs for cell in run["cells"]}
    assert at["first-light-rope", beyond]["correct"] == 0
    for control in ("first-light-static", "first-light-one-layer"):
        assert all(cell["accuracy"] == 1.0 for run in light[control] for cell in run["cells"])
    assert light["first-light-one-layer"][0]["parameters"] <= light["first-light"][0]["parameters"]
