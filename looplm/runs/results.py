"""A result, a summary of results, and the tables that are rendered from it.

A summary is the only file that a report, figure or page may take a number from:

    {"schema": 2, "results": [{"preset", "task", "title", "seed", "parameters", "axis", "trained_sizes", "training",
                               "evaluation", "provenance", "cells": [{"set", "size", "n", "correct", ...}]}]}

A size is in the task's own measure, which `axis` names. Where a set is scored by loss, its cells hold `nats_per_token` and, of
a text, `bits_per_character`; tables and figures show bits in place of accuracy.
"""

import json
import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from looplm.errors import InputError
from looplm.evaluate.scores import Cell, wilson_interval
from looplm.loop.halting import ByRole, as_table
from looplm.resources import resource
from looplm.runs.checkpoint import Trained
from looplm.runs.provenance import circumstances
from looplm.settings import wrong_in
from looplm.task import TASKS

SCHEMA = 2
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class _CellOfFile(TypedDict):
    """What every cell of a summary holds; a set that is scored by loss has more."""

    set: str
    size: Annotated[int, Field(ge=1)]
    n: Annotated[int, Field(ge=1)]
    correct: _Count
    accuracy: _Number
    low: _Number
    high: _Number
    mean_loops: _Number
    block_evaluations: NotRequired[_Number]
    nats_per_token: NotRequired[_Number]


class _ResultOfFile(TypedDict):
    """What every result of a summary holds, among more."""

    preset: str
    task: str
    title: str
    seed: int
    parameters: _Count
    axis: str
    trained_sizes: Annotated[list[int], Field(min_length=2, max_length=2)]
    cells: Annotated[list[_CellOfFile], Field(min_length=1)]


Result = dict[str, Any]
Summary = dict[str, Any]


def make_result(trained: Trained, cells: Sequence[Cell], halting: ByRole, seed: int) -> Result:
    """All that may be quoted of one model: its cells, and how they came about."""
    model, recipe, source = trained.model, trained.recipe, trained.provenance
    return {
        "preset": recipe.name,
        "task": TASKS.name_of(type(recipe.task)),
        "title": recipe.title,
        "seed": source["seed"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "axis": next(iter(recipe.task.suites.values())).axis,
        "trained_sizes": list(recipe.task.trained_sizes),
        "training": source["training"],
        "evaluation": {"seed": seed, "settings": as_table(halting), **circumstances(model.device)},
        "cells": [cell.as_json() for cell in cells],
        "provenance": {key: value for key, value in source.items() if key != "training"},
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
    if wrong := _wrong_in(summary.get("results")):
        raise InputError(f"{path} is damaged: {wrong}. Measure anew: looplm eval MODEL --out FILE.")
    return summary


def _wrong_in(results: Any) -> str | None:
    """What makes results of a summary unusable, or contradict themselves."""
    if not isinstance(results, list) or not results:
        return "it holds no results"
    if wrong := wrong_in(list[_ResultOfFile], results):
        return wrong
    for result in results:
        for cell in result["cells"]:
            if not 0 <= cell["correct"] <= cell["n"] or abs(cell["correct"] / cell["n"] - cell["accuracy"]) > 1e-6:
                return f"{cell['correct']} of {cell['n']} is not an accuracy of {cell['accuracy']}"
    return None


def pooled_cells(results: Iterable[Result], kind: str) -> list[dict[str, Any]]:
    """Cells of one test set, seeds pooled: counts added, the interval of the sum, and the worst seed's accuracy."""
    by_size: dict[int, list[dict[str, Any]]] = defaultdict(list)
    results = list(results)
    shown = _SHOWN_LOSS.get(results[0]["axis"], "nats_per_token") if results else ""
    for result in results:
        for cell in result["cells"]:
            if cell["set"] == kind:
                by_size[cell["size"]].append(cell)
    pooled = []
    for size, cells in sorted(by_size.items()):
        n, correct = sum(c["n"] for c in cells), sum(c["correct"] for c in cells)
        low, high = wilson_interval(correct, n)
        worst = min(c["accuracy"] for c in cells)
        names = ("mean_loops", "block_evaluations", "nats_per_token", "bits_per_character")
        measures = [name for name in names if all(name in c for c in cells)]
        means = {name: sum(c[name] * c["n"] for c in cells) / n for name in measures}
        pooled.append(
            {"size": size, "n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high}
            | {"worst": worst, "seeds": len(cells)}
            | means
            | ({"bits": _in_bits(means, shown), "worst_bits": max(_in_bits(c, shown) for c in cells)} if shown in means else {})
        )
    return pooled


_SHOWN_LOSS = {"pieces": "bits_per_character"}
"""Of the sizes' unit, the loss that tables show, where it is not that of a token: pieces of two vocabularies do not compare."""
_UNITS = {"bytes": "bits per byte", "pieces": "bits per character"}


def _in_bits(cell: Mapping[str, Any], measure: str) -> float:
    return to_bits(cell[measure]) if measure == "nats_per_token" else float(cell[measure])


def to_bits(nats: float) -> float:
    """Nats in bits."""
    return nats / math.log(2)


def scored_by_loss(results: Sequence[Result]) -> bool:
    """Whether these results say how likely the right tokens were, not how many problems were solved."""
    return all("nats_per_token" in cell for result in results for cell in result["cells"])


def bits_unit(result: Result) -> str:
    """What tables show of a set that is scored by loss: bits per byte, where sizes are counted in bytes.

    Spec: [korean.bits-per-character][].
    """
    return _UNITS.get(result["axis"], "bits per token")


def groups_of(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results that may be pooled: of one recipe, trained and measured alike, each seed once; in the order given.

    The first group of a recipe has the recipe's name; the others have a number behind it.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        for name in _names(result["preset"]):
            group = groups.setdefault(name, [])
            if all(_how(one) == _how(result) and one["seed"] != result["seed"] for one in group):
                group.append(result)
                break
    return groups


def _names(preset: str) -> Iterator[str]:
    yield preset
    yield from (f"{preset} ({number})" for number in count(2))


def _how(result: Result) -> dict[str, Any]:
    """What has to be equal before two seeds are pooled, flat, by name."""
    training, evaluation = result.get("training") or {}, result.get("evaluation") or {}
    rules = evaluation.get("settings", {})
    prompt = {f"prompt {name}": value for name, value in rules.get("prompt", {}).items()}
    return (
        {"parameters": result["parameters"], "steps": training.get("steps"), "problems of seed": evaluation.get("seed")}
        | {name: value for name, value in rules.items() if name != "prompt"}
        | prompt
    )


def refuse_twice(results: Sequence[Result]) -> None:
    """Raises:
    InputError: if the same numbers are given twice; they would count as more evidence than they are.
    """
    for number, result in enumerate(results):
        if result in results[:number]:
            raise InputError(f"the numbers of {result['preset']}, seed {result['seed']}, are given twice; give them once.")


def committed_results(name: str) -> list[Result]:
    """Results that the repository holds, from docs/data; empty if this installation has none."""
    try:
        results = read_summary(resource("docs/data") / f"{name}.json")["results"]
    except (FileNotFoundError, InputError):
        return []
    assert isinstance(results, list)
    return results


def control_results(preset: str) -> list[Result]:
    """The committed results that stand beside a model of this recipe: its controls, whose names begin with its own."""
    return [result for result in committed_results(preset) if result["preset"].startswith(f"{preset}-")]


def legend(results: Iterable[Result]) -> dict[str, str]:
    """What each group of results is: title, parameters, seeds, and how it differs from the recipe's first group."""
    told, groups = {}, groups_of(results)
    for name, group in groups.items():
        first, how = _how(groups[group[0]["preset"]][0]), _how(group[0])
        other = [f"{key} {how.get(key)} (not {first.get(key)})" for key in how | first if how.get(key) != first.get(key)]
        seeds = (
            f"{len(group)} seeds" if len(group) > 1 else "1 seed" if name == group[0]["preset"] else f"seed {group[0]['seed']}"
        )
        told[name] = ", ".join([group[0]["title"], f"{group[0]['parameters']:,} parameters", seeds, *other])
    return told


def sets_of(results: Sequence[Result]) -> list[str]:
    """Names of the test sets, in the task's order."""
    return list(dict.fromkeys(cell["set"] for result in results for cell in result["cells"]))


def figure_lines(results: Sequence[Result], controls: Sequence[Result] = ()) -> dict[str, list[dict[str, Any]]]:
    """Lines of the accuracy figure: all test sets of these results, the first one of each control; seeds pooled."""
    base, kinds = results[0]["preset"], sets_of(results)
    lines = {f"{base}, {kind}": pooled_cells(results, kind) for kind in kinds}
    for name, group in groups_of(controls).items():
        lines[f"{_short_name(name, base)}, {kinds[0]}"] = pooled_cells(group, kinds[0])
    return lines


_OTHERS = {"target": "target of the plan", "origin": "origin of the plan, measured there"}


def others_by_size(result: Result) -> dict[str, dict[int, float]]:
    """Label → size → share, for the figure."""
    named = others(result["task"])
    return {
        label: {int(size): share for size, share in named[name].items() if size != "source"}
        for name, label in _OTHERS.items()
        if name in named
    }


def others(task: str) -> dict[str, dict[str, Any]]:
    """What others wanted and measured of a task, with sources: docs/data/others-TASK.toml; empty where there is none."""
    try:
        path = resource("docs/data") / f"others-{task}.toml"
    except FileNotFoundError:
        return {}
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def comparison_table(results: Sequence[Result], controls: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: size, what others wanted and measured, each control, then these results.

    One result is shown with its intervals; several, pooled, with the worst seed. Sets that are scored by loss are shown in
    bits. `loops` is the mean over answer tokens
    of the first test set; `work` the block evaluations of a problem in each test set, where they were counted.
    """
    kinds, base = sets_of(results), results[0]["preset"]
    groups = {name: pooled_cells(group, kinds[0]) for name, group in groups_of(controls).items()}
    shares = {name: shares for name, shares in others(results[0]["task"]).items() if name in _OTHERS}
    own = {kind: {c["size"]: c for c in pooled_cells(results, kind)} for kind in kinds}
    seeds = max(c["seeds"] for c in own[kinds[0]].values())
    label = f"{len(results)} seeds" if seeds > 1 else "this model"
    header = [results[0]["axis"], *shares, *(_short_name(name, base) for name in groups)]
    unit = f", {bits_unit(results[0])}" if scored_by_loss(results) else ""
    header += [*(f"{label}, {kind}{unit}" for kind in kinds), "loops"]
    counted = all("block_evaluations" in cell for cells in own.values() for cell in cells.values())
    header += ["work"] if counted else []
    rows = []
    for size, cell in own[kinds[0]].items():
        row = [str(size), *(_share(named.get(str(size))) for named in shares.values())]
        row += [next((_score(c) for c in cells if c["size"] == size), "") for cells in groups.values()]
        row += [_cell(own[kind][size]) for kind in kinds]
        row.append(f"{cell['mean_loops']:.2f}")
        if counted:
            row.append(" / ".join(f"{own[kind][size]['block_evaluations']:.0f}" for kind in kinds))
        rows.append(row)
    return header, rows


def work_not_counted(results: Iterable[Result]) -> list[str]:
    """Presets with results that hold no work: a table has to say so, for work belongs beside accuracy."""
    groups = groups_of(results).items()
    return [name for name, group in groups if not all("block_evaluations" in c for result in group for c in result["cells"])]


def work_note(results: Iterable[Result]) -> str:
    """What stands below a table of these results if the work of some was not counted; else empty."""
    names = work_not_counted(results)
    return f"Work was not counted when these were measured: {', '.join(names)}. `looplm eval` counts it." if names else ""


def ran_out_notes(results: Iterable[Result]) -> list[str]:
    """What stands below a table of these results where answers were stopped by the bound on loops, a line a recipe.

    Spec: [halting.ran-out][].
    """
    notes = []
    for name, group in groups_of(results).items():
        cells = [cell for result in group for cell in result["cells"]]
        if out := sum(cell.get("ran_out", 0) for cell in cells):
            notes.append(f"{name}: {out:,} of {sum(cell['n'] for cell in cells):,} answers ran out of loops.")
    return notes


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; columns of numbers on the right, those that hold words on the left."""
    sides = [":---" if any(cell[:1].isalpha() for cell in column) else "---:" for column in zip(*rows, strict=True)]
    lines = [header, sides or ["---:"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _short_name(preset: str, base: str) -> str:
    return preset.removeprefix(f"{base}-") + " control" if preset.startswith(f"{base}-") else preset


def _share(value: float | None) -> str:
    return "" if value is None else _percent(value)


def _score(cell: Mapping[str, Any]) -> str:
    return f"{cell['bits']:.3f}" if "bits" in cell else _percent(cell["accuracy"])


def _cell(cell: Mapping[str, Any]) -> str:
    if "bits" in cell:
        return _score(cell) + (f" (worst {cell['worst_bits']:.3f})" if cell["seeds"] > 1 else "")
    if cell["seeds"] > 1:
        return f"{_percent(cell['accuracy'])} (worst {_percent(cell['worst'])})"
    return f"{_percent(cell['accuracy'])} [{_percent(cell['low'])}, {_percent(cell['high'])}]"


def _percent(value: float) -> str:
    """100 only for all: 99.96 % is not rounded up to 100 %."""
    percent = 100 * value
    return f"{min(percent, 99.9) if percent < 100 else 100:.1f}".replace("100.0", "100")
