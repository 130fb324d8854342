"""A result, a summary of results, and the tables that are rendered from it.

A summary is the only file that a report, figure or page may take a number from:

    {"schema": 1, "results": [{"preset", "title", "seed", "parameters", "trained_digits", "training", "evaluation",
                               "provenance", "cells": [{"set", "digits", "n", "correct", "mean_loops", ...}]}]}
"""

import json
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from looplm.config import HaltingConfig, as_table
from looplm.errors import InputError
from looplm.evaluate.accuracy import TEST_KINDS, Cell, wilson_interval
from looplm.experiments.provenance import circumstances
from looplm.models.looped import LoopLM
from looplm.resources import resource

SCHEMA = 1
Result = dict[str, Any]
Summary = dict[str, Any]


def make_result(
    model: LoopLM, provenance: Mapping[str, Any], cells: Sequence[Cell], halting: HaltingConfig, seed: int
) -> Result:
    """All that may be quoted of one model: its cells, and how they came about."""
    preset, device = model.preset, model.embedding.weight.device
    assert preset is not None
    return {
        "preset": preset.name,
        "title": preset.title,
        "seed": provenance["seed"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_digits": [preset.data.min_digits, preset.data.max_digits],
        "training": provenance["training"],
        "evaluation": {
            "seed": seed,
            "halting": halting.rule,
            "max_loops": halting.max_loops,
            "settings": as_table(halting),
            **circumstances(device),
        },
        "cells": [cell.as_json() for cell in cells],
        "provenance": {key: value for key, value in provenance.items() if key != "training"},
    }


def make_summary(results: Sequence[Result]) -> Summary:
    """Results, in the layout that reports are rendered from."""
    return {"schema": SCHEMA, "results": list(results)}


def read_summary(path: Path) -> Summary:
    """A summary from its file, or from the run folder that holds it.

    Raises:
        InputError: if it is missing, damaged, or of another schema.
    """
    path = path / "summary.json" if path.is_dir() else path
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a run folder or the summary.json of one.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path} is no readable summary; give a run folder or the summary.json of one.") from None
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        raise InputError(f"{path} is not a summary of schema {SCHEMA}; this version of looplm reads no other.")
    return summary


def pooled_cells(results: Iterable[Result], kind: str) -> list[dict[str, Any]]:
    """Cells of one test set, seeds pooled: counts added, the interval of the sum, and the worst seed's accuracy."""
    by_digits: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        for cell in result["cells"]:
            if cell["set"] == kind:
                by_digits[cell["digits"]].append(cell)
    pooled = []
    for digits, cells in sorted(by_digits.items()):
        n, correct = sum(c["n"] for c in cells), sum(c["correct"] for c in cells)
        low, high = wilson_interval(correct, n)
        worst = min(c["accuracy"] for c in cells)
        measures = [name for name in ("mean_loops", "block_evaluations") if all(name in c for c in cells)]
        means = {name: sum(c[name] * c["n"] for c in cells) / n for name in measures}
        pooled.append(
            {"digits": digits, "n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high}
            | {"worst": worst, "seeds": len(cells)}
            | means
        )
    return pooled


def by_preset(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results of each preset, in the order in which the presets first stand."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result["preset"]].append(result)
    return dict(groups)


def committed_results(name: str) -> list[Result]:
    """Results that the repository holds, from docs/data; empty if this installation has none."""
    try:
        results = read_summary(resource("docs/data") / f"{name}.json")["results"]
    except (FileNotFoundError, InputError):
        return []
    assert isinstance(results, list)
    return results


def control_results(preset: str) -> list[Result]:
    """The committed results that stand beside a model of this preset: its controls."""
    results = committed_results("first-light")
    if preset not in {result["preset"] for result in results}:
        return []
    return [result for result in results if result["preset"] not in (preset, "first-light")]


def parameters_by_preset(results: Iterable[Result]) -> dict[str, str]:
    """What each preset is, with its size and number of seeds: a legend."""
    return {
        name: f"{group[0]['title']}, {group[0]['parameters']:,} parameters, {len(group)} seed{'s' * (len(group) > 1)}"
        for name, group in by_preset(results).items()
    }


def trained_range(result: Result) -> tuple[int, int]:
    """Fewest and most digits that the model was trained on."""
    least, most = result["trained_digits"]
    return least, most


def figure_lines(results: Sequence[Result], controls: Sequence[Result] = ()) -> dict[str, list[dict[str, Any]]]:
    """Lines of the accuracy figure: both test sets of these results, uniform sums of each control; seeds pooled."""
    lines = {f"{results[0]['preset']}, {kind} sums": pooled_cells(results, kind) for kind in TEST_KINDS}
    for name, group in by_preset(controls).items():
        lines[f"{_short_name(name)}, uniform sums"] = pooled_cells(group, "uniform")
    return lines


def others_by_digits() -> dict[str, dict[int, float]]:
    """Label → digits → share, for the figure."""
    labels = {"target": "target of the plan", "origin": "origin of the plan, measured there"}
    return {
        label: {int(digits): share for digits, share in others()[name].items() if digits != "source"}
        for name, label in labels.items()
    }


def others() -> dict[str, dict[str, Any]]:
    """What others wanted and measured, with sources: docs/data/others-addition.toml."""
    return tomllib.loads((resource("docs/data") / "others-addition.toml").read_text(encoding="utf-8"))


def comparison_table(results: Sequence[Result], controls: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: digits, the plan's target, the origin, each control, then these results.

    One result is shown with its intervals; several, pooled, with the worst seed. `loops` is the mean over answer tokens
    of uniform sums; `work` the block evaluations of a sum, uniform / carry-heavy, where they were counted.
    """
    groups = {name: pooled_cells(group, "uniform") for name, group in by_preset(controls).items()}
    shares = others()
    own = {kind: {c["digits"]: c for c in pooled_cells(results, kind)} for kind in TEST_KINDS}
    seeds = max(c["seeds"] for c in own["uniform"].values())
    label = f"{len(results)} seeds" if seeds > 1 else "this model"
    header = ["digits", "target", "origin", *(_short_name(n) for n in groups)]
    header += [*(f"{label}, {kind}" for kind in TEST_KINDS), "loops"]
    counted = all("block_evaluations" in cell for cells in own.values() for cell in cells.values())
    header += ["work"] if counted else []
    rows = []
    for digits, cell in own["uniform"].items():
        row = [str(digits), *(_share(shares[name].get(str(digits))) for name in ("target", "origin"))]
        row += [_share(next((c["accuracy"] for c in cells if c["digits"] == digits), None)) for cells in groups.values()]
        row += [_cell(own[kind][digits]) for kind in TEST_KINDS]
        row.append(f"{cell['mean_loops']:.2f}")
        if counted:
            row.append(" / ".join(f"{own[kind][digits]['block_evaluations']:.0f}" for kind in TEST_KINDS))
        rows.append(row)
    return header, rows


def work_not_counted(results: Iterable[Result]) -> list[str]:
    """Presets with results that hold no work: a table has to say so, for work belongs beside accuracy."""
    groups = by_preset(results).items()
    return [name for name, group in groups if not all("block_evaluations" in c for result in group for c in result["cells"])]


def work_note(results: Iterable[Result]) -> str:
    """What stands below a table of these results if the work of some was not counted; else empty."""
    names = work_not_counted(results)
    return f"Work was not counted when these were measured: {', '.join(names)}. `looplm eval` counts it." if names else ""


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---:"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _short_name(preset: str) -> str:
    return preset.removeprefix("first-light-") + " control" if preset != "first-light" else preset


def _share(value: float | None) -> str:
    return "" if value is None else _percent(value)


def _cell(cell: Mapping[str, Any]) -> str:
    if cell["seeds"] > 1:
        return f"{_percent(cell['accuracy'])} (worst {_percent(cell['worst'])})"
    return f"{_percent(cell['accuracy'])} [{_percent(cell['low'])}, {_percent(cell['high'])}]"


def _percent(value: float) -> str:
    """100 only for all: 99.96 % is not rounded up to 100 %."""
    percent = 100 * value
    return f"{min(percent, 99.9) if percent < 100 else 100:.1f}".replace("100.0", "100")
