"""Run code cells one after another, as a notebook would, and print what each put out.

    python run_cells.py NAME < cells.json > outputs.json

Takes a list of sources; gives for each a list of {"text": …} and {"svg": …, "uid": …, "alt": …}. As in a notebook, the
value of a cell's last line is shown, and open pyplot figures too. Colours that would vanish on a dark page are left to
the page.
"""

import ast
import io
import json
import sys
import warnings
from contextlib import redirect_stdout
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_INK, _GRID = "#0a0b0c", "#c0c1c2"
"""Stand-ins, replaced by the page's own colours; nobody picks them by accident."""
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
_STYLE: Any = {
    **dict.fromkeys(_INKED, _INK),
    "grid.color": _GRID,
    "legend.edgecolor": _GRID,
    "legend.framealpha": 0,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "looplm",
}


def run_all(sources: list[str], name: str) -> list[list[dict[str, str]]]:
    """Outputs of each cell; all share one namespace."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    for number, source in enumerate(sources, 1):
        text = io.StringIO()
        with redirect_stdout(text):
            figures = _run(source, f"{name}, code cell {number}", namespace)
        shown = [{"text": text.getvalue()}] if text.getvalue() else []
        stem = f"{name.partition('.')[0].replace('_', '-')}-{number}"
        shown += [
            {"svg": _svg(figure), "uid": f"{stem}-{k}", "alt": _alternative(figure)} for k, figure in enumerate(figures, 1)
        ]
        outputs.append(shown)
    return outputs


def _run(source: str, where: str, namespace: dict[str, Any]) -> list[Figure]:
    """Run one cell: print its last value, or give it if it is a figure, with the figures that pyplot opened."""
    tree = ast.parse(source, where)
    value = None
    for statement in tree.body:
        if statement is tree.body[-1] and isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), where, "eval"), namespace)
        else:
            exec(compile(ast.Module([statement], []), where, "exec"), namespace)
    figures = [value] if isinstance(value, Figure) else []
    if value is not None and not figures:
        print(repr(value))
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        figures += [figure for number in pyplot.get_fignums() if (figure := pyplot.figure(number)) not in figures]
        pyplot.close("all")
    return figures


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().replace(_INK, "currentColor").replace(_GRID, "var(--md-default-fg-color--lighter)")


def _alternative(figure: Figure) -> str:
    """What a reader hears who does not see the figure: its titles and what its axes show."""
    said = [figure.get_suptitle()]
    for axes in figure.axes:
        said += [axes.get_title(), " × ".join(filter(None, (axes.get_xlabel(), axes.get_ylabel())))]
    return ". ".join(" ".join(text.split()) for text in said if text)


if __name__ == "__main__":
    mpl.use("agg")
    mpl.rcParams.update(_STYLE)
    warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's font has Hangul
    json.dump(run_all(json.load(sys.stdin), sys.argv[1]), sys.stdout, ensure_ascii=False)
