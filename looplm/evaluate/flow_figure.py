"""A flow as a picture: its steps from top to bottom, and an arc from each to those that read what it made."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from looplm.evaluate.figures import FIGURE_STYLE, LINE_STYLES
from looplm.think.flow import Step

_WIDTH, _HEIGHT, _ROW = 3.4, 0.62, 1.0
MOST_STEPS = 80
"""That a picture has room for."""


def flow_figure(steps: Sequence[Step], tokens: int) -> Figure:
    """One box a step with the shape that it gives; what the next one reads comes straight, all else in an arc.

    Args:
        steps: of a flow; of more than `MOST_STEPS` the first are drawn.
        tokens: of the text.
    """
    drawn = steps[:MOST_STEPS]
    rows = {"tokens": 0} | {step.call: row for row, step in enumerate(drawn, 1)}
    with mpl.rc_context(FIGURE_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(6.4, 0.8 + 0.5 * len(rows)), layout="constrained")
        axes: Axes = figure.add_subplot()
        _box(axes, 0, "tokens", f"1 × {tokens}", "0.92")
        furthest = 1
        for row, step in enumerate(drawn, 1):
            shape = " × ".join(map(str, step.output))
            _box(axes, row, step.call, shape, "#DCEBF7" if step.parameters else "white")
            for name in step.reads:
                if name in rows:
                    _arrow(axes, rows[name], row)
                    furthest = max(furthest, row - rows[name])
        axes.set(xlim=(-_WIDTH / 2 - 0.2, _WIDTH / 2 + 0.6 + _bulge(furthest)), ylim=(-len(rows) + 0.4, 0.6))
        axes.set_axis_off()
        return figure


def _box(axes: Axes, row: int, name: str, shape: str, colour: str) -> None:
    x, y = -_WIDTH / 2, -row * _ROW - _HEIGHT / 2
    axes.add_patch(
        FancyBboxPatch((x, y), _WIDTH, _HEIGHT, boxstyle="round,pad=0,rounding_size=0.12", fc=colour, ec="0.3", lw=0.8)
    )
    axes.text(x + 0.15, -row * _ROW, name, ha="left", va="center", fontsize=9)
    axes.text(x + _WIDTH - 0.15, -row * _ROW, shape, ha="right", va="center", fontsize=9, color="0.25")


def _bulge(rows: int) -> float:
    return 0.25 * rows**0.75


def _arrow(axes: Axes, start: int, end: int) -> None:
    """Straight to the next row; else an arc at the right, the wider the further."""
    look: Any = {"arrowstyle": "-|>", "mutation_scale": 9, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
    if end == start + 1:
        ends = ((0, -start * _ROW - _HEIGHT / 2), (0, -end * _ROW + _HEIGHT / 2))
        axes.add_patch(FancyArrowPatch(*ends, color="0.3", **look))
        return
    right, out = _WIDTH / 2, _bulge(end - start)
    (x, top), bottom = (right, -start * _ROW - 0.12), -end * _ROW + 0.12
    path = mpl.path.Path(
        [(x, top), (x + out * 1.33, top), (x + out * 1.33, bottom), (x, bottom)],
        [mpl.path.Path.MOVETO, mpl.path.Path.CURVE4, mpl.path.Path.CURVE4, mpl.path.Path.CURVE4],
    )
    axes.add_patch(FancyArrowPatch(path=path, color=LINE_STYLES[(end - start) % 2][0], alpha=0.8, **look))
