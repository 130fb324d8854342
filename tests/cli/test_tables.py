"""No cell is ever cut: a narrow terminal gets fewer columns, which are named, and a pipe gets every column whole."""

import re
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from looplm.cli.tables import print_comparison, print_table, print_trace
from looplm.runs.results import committed_results, control_results

WIDTHS = pytest.mark.parametrize("width", [20, 40, 80, 200, None])


def console(width: int | None) -> Console:
    """A terminal so wide, or a pipe."""
    return Console(file=StringIO(), width=width or 80, force_terminal=width is not None, color_system=None, highlight=False)


def printed(to: Console) -> list[str]:
    assert isinstance(to.file, StringIO)
    return to.file.getvalue().splitlines()


words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=12)


@given(st.data(), st.integers(1, 8), st.integers(1, 4), st.sampled_from([20, 40, 80, 200, None]))
def test_every_cell_that_is_shown_is_whole_and_every_column_is_shown_or_named(
    data: st.DataObject, columns: int, rows: int, width: int | None
) -> None:
    header = [f"{number}{data.draw(words)}" for number in range(columns)]
    cells = [[data.draw(words) for _ in header] for _ in range(rows)]
    to = console(width)
    print_table(to, header, cells)
    lines = printed(to)
    shown = [name for name in header if name in lines[0].split()]
    assert shown, "the first column is always there"
    for row, line in zip(cells, lines[1:], strict=False):
        assert line.split() == [cell for name, cell in zip(header, row, strict=True) if name in shown]
    named = "".join(lines[1 + rows :]).replace(" ", "")
    assert all(name in named for name in header if name not in shown)
    assert shown == header if width is None else len(shown) == 1 or cell_len(lines[1].rstrip()) < width


@WIDTHS
@pytest.mark.parametrize("recipe", ["first-light", "parallel", "prefix-sums"])
def test_the_tables_of_results_are_never_cut(recipe: str, width: int | None) -> None:
    results = [result for result in committed_results(recipe) if result["preset"] == recipe]
    to = console(width)
    print_comparison(to, results, control_results(recipe))
    text = "\n".join(printed(to))
    assert "…" not in text
    sizes = {str(cell["size"]) for result in results for cell in result["cells"]}
    assert sizes <= {line.split()[0] for line in printed(to) if line.strip()}
    if width is None:
        assert "Not shown" not in text


@WIDTHS
def test_a_trace_shows_every_token(width: int | None) -> None:
    tokens = [
        {"text": text, "role": "answer", "loops_taken": loops, "confidences": [0.999] * loops, "guesses": [text] * loops}
        for text, loops in zip("0123456789" * 4, [1, 2, 12, 3] * 10, strict=True)
    ]
    trace = {"problem": "1+1", "answer": "2", "correct": True, "tokens": tokens, "rule": "r", "prompt_rule": "p"}
    to = console(width)
    print_trace(to, trace | {"max_loops": 12, "block_evaluations": 1.0})
    lines = printed(to)
    assert "".join("".join(line.split()) for line in lines if re.fullmatch(r"[ 0-9]+", line)) == "0123456789" * 4
    taken = [line.split()[1:] for line in lines if line.split()[:1] == ["loops"]]
    assert [loops for block in taken for loops in block] == ["1", "2", "12", "3"] * 10
    assert width is None or max(map(len, lines[2:-4])) <= width
