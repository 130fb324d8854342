"""Choosing a model that the package carries.

The choice is made on small problems; the chosen model is then tested once, on fresh problems, and that number stands
whatever it is. What the run was trained from stays where it is: the shipped model names no file of this machine.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from looplm.files import draft_of, to_json, write_file
from looplm.runs.checkpoint import load, save
from looplm.runs.evaluation import evaluate_checkpoint
from looplm.runs.results import Result, make_summary
from looplm.settings import as_table
from looplm.train.recipe import Recipe, parse_recipe

CHOICE_PROBLEMS, CHOICE_SEED = 1000, 3
REPORT_SEED = 4


def ship(
    runs: Sequence[str],
    folder: Path,
    choice_sizes: tuple[int, ...],
    report_sizes: tuple[int, ...],
    report_problems: int,
    on_message: Callable[[str], None] = lambda message: None,
) -> Result:
    """Put the best run's model into `folder`, with the summary of its one report; gives that result.

    The best has the most right answers or, where losses are measured, the least loss; among equals, the least work.

    Args:
        runs: to choose from; one needs no choice.
        folder: of the package; what is there is replaced when all is done.
        choice_sizes: of the problems that decide; empty: as each run's recipe tests.
        report_sizes: of those of the one report; empty: as the recipe tests.
        report_problems: a cell.
        on_message: told what each run reached.

    Raises:
        InputError: if a run has no checkpoint, or its task no such problems.
    """
    best = runs[0]
    if len(runs) > 1:
        scores = {run: _score(run, choice_sizes, on_message) for run in runs}
        best = max(runs, key=scores.__getitem__)
    report = evaluate_checkpoint(best, sizes=report_sizes, problems_per_cell=report_problems, seed=REPORT_SEED)
    trained, draft = load(best), draft_of(folder)
    try:
        save(replace(trained, recipe=without_data(trained.recipe)), draft)
        write_file(draft / "summary.json", to_json(make_summary([report])))
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def without_data(recipe: Recipe) -> Recipe:
    """The same recipe but for the place of what it was trained from, the task's setting `path` where there is one."""
    table = as_table(recipe)
    if "path" in table["task"]:
        table["task"]["path"] = ""
    return parse_recipe(table, where=f"recipe {recipe.name!r}", trained=True)


def _score(run: str, sizes: tuple[int, ...], on_message: Callable[[str], None]) -> tuple[float, float]:
    cells: list[dict[str, Any]] = evaluate_checkpoint(run, sizes=sizes, problems_per_cell=CHOICE_PROBLEMS, seed=CHOICE_SEED)[
        "cells"
    ]
    work = sum(cell["block_evaluations"] for cell in cells) / len(cells)
    if any(cell.get("nats_per_token") is not None for cell in cells):
        nats = sum(cell["nats_per_token"] for cell in cells) / len(cells)
        on_message(f"{run}: {nats:.4f} nats a token, {work:.1f} block evaluations")
        return -nats, -work
    correct = sum(cell["correct"] for cell in cells)
    on_message(f"{run}: {correct} of {sum(cell['n'] for cell in cells)} right, {work:.1f} block evaluations")
    return correct, -work
