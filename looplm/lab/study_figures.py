"""The figures of a study, from its summary alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from looplm.evaluate.figures import curve_figure, frontier_figure
from looplm.lab.study import Curve, Study
from looplm.lab.verdicts import pooled_rules, size_label

_SETTING = re.compile(r"^(?P<family>.*?)(?: (?P<setting>[\d./ ]+))?(?P<order> in order)?$")


def study_figures(study: Study, summary: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each curve that the study draws, then, if it asks for it, the frontier of each first level."""
    for curve in study.figures:
        yield curve.curve.replace("_", "-"), _curve(curve, summary)
    if study.frontier:
        factor = next(iter(study.factors))
        for level in study.factors[factor]:
            yield f"frontier-{level.lower()}", _frontier(study, study.frontier, summary, factor, level)


def _curve(curve: Curve, summary: Mapping[str, Any]) -> Figure:
    panels: dict[str, dict[str, list[list[float]]]] = {}
    x: list[float] = []
    for cell in summary["cells"]:
        levels = dict(cell["levels"])
        facet = levels.pop(curve.facet) if curve.facet else ""
        title = f"{curve.facet} {facet}" if facet else ""
        label = ", ".join(level if factor == "recipe" else f"{factor} {level}" for factor, level in levels.items())
        points = cell["curves"][curve.curve]
        panels.setdefault(title, {}).setdefault(label, []).append(points)
        own = cell["curves"].get(curve.curve.partition("_by_")[2])
        x = max(x, own or [float(l) for l in range(1, len(points) + 1)], key=len)
    return curve_figure(panels, x, (curve.x, curve.y), curve.percent)


def _frontier(study: Study, name: str, summary: Mapping[str, Any], factor: str, level: str) -> Figure:
    """One panel for each size of a held-out set; gates of different objectives are different families."""
    panels: dict[str, dict[str, list[tuple[str, float, float]]]] = {}
    cells = [cell for cell in summary["cells"] if cell["levels"][factor] == level]
    others = list(dict.fromkeys(tuple(item for item in cell["levels"].items() if item[0] != factor) for cell in cells))
    for number, other in enumerate(others):
        for (rule, set_, size), (right, n, work) in pooled_rules(summary, {factor: level, **dict(other)}).items():
            if set_ != name:
                continue
            found = _SETTING.match(rule)
            assert found is not None
            family = found["family"] + (found["order"] or "")
            if family.startswith("gate"):
                family += " (" + ", ".join(value for _, value in other) + ")"
            elif number > 0:
                continue  # the same models: their other rules are the same
            title = f"{factor} {level}, {size_label(study, size)}, {name}"
            panels.setdefault(title, {}).setdefault(family, []).append((found["setting"] or "", work, right / n))
    return frontier_figure(panels)
