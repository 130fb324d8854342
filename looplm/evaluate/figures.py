"""Figures, drawn from summaries and traces only; SVG and PNG, the same bytes for the same data."""

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from looplm.files import write_file

# Okabe & Ito's colours, told apart with any kind of colour vision. Each line has a marker and dashes of its own, and
# later lines have smaller markers, so that lines on top of each other can all be seen.
LINE_STYLES = (
    ("#0072B2", "o", 9.0, "-"),
    ("#D55E00", "s", 5.0, "--"),
    ("#009E73", "^", 6.0, "-."),
    ("#CC79A7", "D", 5.0, ":"),
    ("#E69F00", "v", 5.0, "-"),
    ("#56B4E9", "P", 5.0, "--"),
    ("#000000", "x", 5.0, ":"),
)
_LOOPS_DRAWN = 64
"""Most loops of a trace in a figure."""
_FADED = 0.3
"""Opacity of the prompt's cells in a trace: nothing trains them to predict."""
FIGURE_STYLE: Any = {
    "svg.hashsalt": "looplm",
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write `path` as .svg and .png, whatever its own ending; both are given. A sign that the font lacks becomes a box."""
    written = []
    for kind in ("svg", "png"):
        buffer = BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with mpl.rc_context(FIGURE_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
        written.append(path.with_suffix(f".{kind}"))
        write_file(written[-1], buffer.getvalue())
    return written


def accuracy_figure(
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
    trained_sizes: tuple[int, int],
    axis: str,
    others: Mapping[str, Mapping[int, float]],
) -> Figure:
    """Accuracy by size, log axis, with 95 % Wilson intervals and the training range shaded.

    Args:
        lines: label → cells, each with size, accuracy, low and high, in the order of sizes.
        trained_sizes: least and largest of the training problems.
        axis: what a size is.
        others: label → size → accuracy that somebody else wanted or measured; drawn in grey.

    Where cells hold `bits`, of sets that are scored by loss, these are drawn, without intervals.
    """
    by_loss = all("bits" in cell for cells in lines.values() for cell in cells)
    with mpl.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes: Axes = figure.add_subplot()
        axes.axvspan(trained_sizes[0], trained_sizes[1], color="0.9", lw=0)
        middle = (trained_sizes[0] * trained_sizes[1]) ** 0.5
        axes.text(middle, 4.0 if by_loss else 0.5, "trained on\nthese sizes", ha="center", va="center", color="0.35")
        for (label, cells), (colour, marker, size, dashes) in zip(lines.items(), LINE_STYLES, strict=False):
            sizes = [cell["size"] for cell in cells]
            scores = [cell["bits" if by_loss else "accuracy"] for cell in cells]
            look: Any = {"marker": marker, "ms": size, "mfc": "white" if size > 8 else colour, "ls": dashes, "lw": 1.5}
            axes.plot(sizes, scores, color=colour, label=label, clip_on=False, zorder=3, **look)
            if not by_loss:
                axes.fill_between(sizes, [c["low"] for c in cells], [c["high"] for c in cells], color=colour, alpha=0.2, lw=0)
        for (label, shares), marker in zip(others.items(), ("*", "x"), strict=False):
            axes.plot(list(shares), list(shares.values()), marker, color="0.4", ms=9, label=label, clip_on=False, zorder=2)
        ticks = sorted({cell["size"] for cells in lines.values() for cell in cells} | set(trained_sizes))
        axes.set_xscale("log")
        axes.set_xticks([tick for tick in ticks if tick not in (5, 10)])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.set(xlim=(min(ticks[0], trained_sizes[0]), ticks[-1] * 1.05), ylim=(0, 8 if by_loss else 1), xlabel=axis)
        if by_loss:
            axes.set_ylabel(f"bits per {axis.removesuffix('s')}")
        else:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_ylabel("problems solved exactly")
        axes.legend(loc="center right", fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")
        return figure


def trace_figure(trace: Mapping[str, Any]) -> Figure:
    """A trace as a heat map: columns are tokens, rows are loops, colour is confidence, text is the guess.

    A model that never settles may loop a thousand times; the first loops are drawn, and the title says of how many.
    """
    tokens, loops = trace["tokens"], min(trace["max_loops"], _LOOPS_DRAWN)
    with mpl.rc_context(FIGURE_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.6 + 0.55 * len(tokens), 1.5 + 0.42 * loops), layout="constrained")
        axes: Axes = figure.add_subplot()
        colours = mpl.colormaps["cividis"]
        for x, token in enumerate(tokens):
            thoughts = zip(token["guesses"][:loops], token["confidences"][:loops], strict=True)
            for y, (guess, confidence) in enumerate(thoughts):
                alpha = 1.0 if token["role"] == "answer" else _FADED
                axes.add_patch(
                    mpl.patches.Rectangle((x - 0.5, y + 0.5), 1, 1, facecolor=(*colours(confidence)[:3], alpha), ec="white")
                )
                ink = "0.45" if alpha < 1 else "white" if confidence < 0.55 else "black"
                axes.text(x, y + 1, _short(guess), ha="center", va="center", color=ink, fontsize=9)
            for y in range(token["loops_taken"], loops):
                axes.add_patch(mpl.patches.Rectangle((x - 0.5, y + 0.5), 1, 1, facecolor="0.96", ec="white"))
        first_answer = next(x for x, token in enumerate(tokens) if token["role"] == "answer")
        axes.axvline(first_answer - 0.5, color="black", lw=1.2, ls=":")
        axes.set_xticks(range(len(tokens)), [_short(token["text"]) for token in tokens], fontfamily="monospace")
        axes.set_yticks(range(1, loops + 1))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(loops + 0.5, 0.5), ylabel="loop")
        what = "slots (_) of the answer" if trace["mode"] == "parallel" else "answer"
        axes.set_xlabel(f"token read (^ begin, $ end), as the model reads them; the {what} right of the line")
        guess = "guess" if trace["mode"] == "parallel" else "most likely next token"
        asked = "".join(sign if sign.isprintable() else " " for sign in f"{trace['problem']} = {trace['answer']}")
        after = "each loop" if loops == trace["max_loops"] else f"each of the first {loops} of {trace['max_loops']:,} loops"
        axes.set_title(f"{asked}: {guess} after {after}", fontsize=10, parse_math=False)
        figure.colorbar(mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), colours), ax=axes, label="its probability")
        return figure


def curve_figure(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], x: Sequence[float], labels: tuple[str, str], percent: bool
) -> Figure:
    """Curves over loops, or over anything else: one panel for each group, one line for each kind of model.

    Args:
        panels: title → label of a line → one curve for each seed; the seeds are drawn thinly, their mean boldly.
        x: of all curves; a shorter curve ends earlier.
        labels: of x and y.
        percent: whether y is a share.
    """
    with mpl.rc_context(FIGURE_STYLE):
        width = 3.7 * len(panels) if len(panels) > 1 else 6.4
        figure = Figure(figsize=(width, 3.6), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            for (label, curves), (colour, marker, size, dashes) in zip(lines.items(), LINE_STYLES, strict=False):
                places = x[: len(curves[0])]
                for curve in curves:
                    axes.plot(places, curve, color=colour, lw=0.6, alpha=0.45)
                mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
                every = max(1, len(places) // 8)
                look: Any = {"marker": marker, "ms": min(size, 6), "markevery": every, "ls": dashes, "lw": 1.8}
                axes.plot(places, mean, color=colour, label=label, **look)
            axes.set(xlabel=labels[0], xlim=(places[0], places[-1]))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if title:
                axes.set_title(title, fontsize=10)
            if percent:
                axes.set_ylim(-0.03, 1.03)
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            if len(lines) > 1:
                axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
        grid[0].set_ylabel(labels[1])
        return figure


def frontier_figure(panels: Mapping[str, Mapping[str, Sequence[tuple[str, float, float]]]]) -> Figure:
    """Accuracy against work, one panel for each test set; the upper left is best.

    Args:
        panels: title → family of rules → (what to write beside the point, block evaluations a sum, share solved).
    """
    with mpl.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(3.6 * len(panels) + 2.2, 4.0), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        names = list(dict.fromkeys(family for families in panels.values() for family in families))
        for axes, (title, families) in zip(grid, panels.items(), strict=True):
            for family, points in families.items():
                again, style = divmod(names.index(family), len(LINE_STYLES))
                colour, marker, size, _ = LINE_STYLES[style]
                ordered = sorted(points, key=lambda point: point[1])
                look: Any = {"marker": marker, "ms": min(size, 7), "ls": "--" if again else "-", "lw": 1.0}
                look["mfc"] = "white" if again else colour
                work, right = [point[1] for point in ordered], [point[2] for point in ordered]
                axes.plot(work, right, color=colour, label=family, clip_on=False, zorder=3, **look)
                for text, x, y in ordered if len(ordered) > 1 else ():
                    axes.annotate(text, (x, y), (4, -9), textcoords="offset points", fontsize=7, color=colour)
            axes.set(xlabel="block evaluations a sum", xlim=(0, None), ylim=(-0.03, 1.03))
            axes.set_title(title, fontsize=10)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        grid[0].set_ylabel("sums solved")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
        return figure


def _short(symbol: str) -> str:
    return {"<bos>": "^", "<eos>": "$", "<pad>": "·", "<slot>": "_"}.get(symbol, symbol)
