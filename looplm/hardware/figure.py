"""Speed against loops on every device: what one more loop costs, before anything is run."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from looplm.evaluate.figures import FIGURE_STYLE, LINE_STYLES
from looplm.hardware.plan import decode_speed, with_loops
from looplm.hardware.profile import Profile
from looplm.hardware.workload import Workload

_LOOPS = (1, 2, 3, 4, 6, 8, 12, 16, 24)


def loops_figure(workload: Workload, profiles: Sequence[Profile]) -> Figure:
    """Tokens a second that one row can be decoded with at most, by loops; both axes logarithmic."""
    with mpl.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        axes: Axes = figure.add_subplot()
        for profile, (colour, marker, size, dashes) in zip(profiles, LINE_STYLES, strict=False):
            speeds = [decode_speed(with_loops(workload, loops), profile, 1) for loops in _LOOPS]
            look: Any = {"color": colour, "marker": marker, "ms": min(size, 6.0), "ls": dashes, "lw": 1.5}
            walls = " and ".join(dict.fromkeys(speed.wall for speed in speeds))
            axes.plot(_LOOPS, [speed.tokens_per_s for speed in speeds], label=f"{profile.title} ({walls})", **look)
        axes.set(xscale="log", yscale="log", xlabel="loops", ylabel="tokens/s, one row, at most")
        axes.set_xticks(_LOOPS)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_title(f"{workload.title}: the roofline of decoding, and the wall that it meets", fontsize=10)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
        return figure
