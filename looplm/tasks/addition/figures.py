"""Loops against the carry chain, drawn from what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from looplm.evaluate.figures import FIGURE_STYLE


def depth_figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """The most loops of an answer token against the longest carry chain: one line a seed, and their mean.

    Args:
        results: of `looplm.tasks.addition.depth`, one per seed.
    """
    with mpl.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes: Axes = figure.add_subplot()
        lines = [result["chain"]["points"] for result in results]
        chains = [point["chain"] for point in lines[0]]
        for number, points in enumerate(lines):
            label = "each seed, mean of its problems" if number == 0 else None
            axes.plot(chains, [point["mean"] for point in points], color="#0072B2", lw=0.8, alpha=0.5, label=label)
        mean = [sum(points[i]["mean"] for points in lines) / len(lines) for i in range(len(chains))]
        axes.plot(chains, mean, "o-", color="#0072B2", ms=5, lw=2, label=f"mean of {len(lines)} seeds")
        least = [min(points[i]["least"] for points in lines) for i in range(len(chains))]
        most = [max(points[i]["most"] for points in lines) for i in range(len(chains))]
        axes.fill_between(chains, least, most, color="#0072B2", alpha=0.12, lw=0, label="fewest to most, any seed")
        axes.set(xlabel="longest carry chain of the sum, places", ylabel="most loops of an answer token")
        axes.set(xlim=(0, chains[-1]), ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper right", fontsize=9, frameon=False)
        return figure
