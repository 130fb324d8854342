"""A study: factors times seeds, trained and measured once, and a verdict that follows from the numbers alone.

A study is a file in spec/presets/studies, or one of a user's own. Its cells are all combinations of the levels of its
factors; a level changes settings of a recipe. Each cell is trained with each seed. Runs and measurements that are there
already are taken as they are, also those of another study, and a run that was stopped goes on.
"""

import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from looplm.errors import InputError
from looplm.files import to_json, write_file
from looplm.lab.measures import Measure, Measures, write_measure
from looplm.loop.halting import ByRole, as_table
from looplm.loop.halting.fixed import Fixed
from looplm.resources import resource
from looplm.runs.checkpoint import load
from looplm.runs.provenance import circumstances
from looplm.runs.record import read_note
from looplm.runs.results import read_summary
from looplm.runs.run import run_recipe
from looplm.settings import STRICT, merge, parse, read_extended, read_toml, wrong_in
from looplm.train.recipe import Recipe, load_recipe, parse_recipe

SCHEMA = 1
_GLANCE = 50
"""Problems of each set in a run's own test: the study measures, its runs have a look."""
_SECONDS_TO_STOP = 3.0
Text = dict[Literal["en", "ko"], str]
"""The same in both languages of the book."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LeftOut:
    """Combinations of levels that are not trained, and why."""

    levels: dict[str, str]
    why: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Question:
    """What is asked of the numbers: either one level of a factor against another, or a bound.

    Asked apart for each combination of the other factors. Seeds are paired: what counts are the differences between two
    models of the same seed.
    """

    ask: Text
    value: str
    kind: Literal["percent", "number"] = "percent"
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Only for cells with these levels."""
    factor: str | None = None
    level: str | None = None
    against: str | None = None
    margin: float = Field(default=0, ge=0)
    """Differences below this are none."""
    higher_is_better: bool = True
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        compared = (self.factor, self.level, self.against)
        bounds = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if (any(compared) and not all(compared)) or bool(any(compared)) == bool(bounds) or len(bounds) > 1:
            raise ValueError("a question has `factor`, `level` and `against`, or else one of `at_least` and `at_most`")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Column:
    """A column of the study's table: the mean of a value over seeds, and its least and most."""

    value: str
    label: Text
    kind: Literal["percent", "number"] = "percent"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Curve:
    """A figure of the study: one of its curves over loops, a line for each cell."""

    curve: str
    y: str
    x: str = "loop"
    percent: bool = False
    facet: str | None = None
    """A factor: one panel for each of its levels."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model of a study."""

    levels: dict[str, str]
    recipe: Recipe
    seed: int

    @property
    def label(self) -> str:
        """For progress."""
        return ", ".join(f"{factor} {level}" for factor, level in self.levels.items()) + f", seed {self.seed}"

    @property
    def key(self) -> str:
        """A name for its run: the same for all that train the same model in the same way."""
        # without what is as by default, so that a setting that is added to the package changes no name
        trained = TypeAdapter(Recipe).dump_python(
            self.recipe, mode="json", exclude_defaults=True, include={"task", "model", "training", "gate"}
        )
        return f"{self.recipe.name}-{_digest(trained)}-{self.seed}"

    @property
    def without_gate(self) -> "Cell":
        """The model that a gate is trained for; itself, if it has none."""
        recipe = self.recipe
        if recipe.gate is None:
            return self
        halting = ByRole.of(Fixed(recipe.training.max_loops)) if recipe.halting.gate_readers else recipe.halting
        plain = replace(recipe, model=replace(recipe.model, gate=False), gate=None, halting=halting)
        return Cell(levels=self.levels, recipe=plain, seed=self.seed)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Study:
    """A study's file, resolved."""

    name: str
    title: Text
    base: dict[str, Any] = Field(default_factory=dict)
    """Changes of every cell; `extends` names the recipe that is changed."""
    factors: dict[str, dict[str, dict[str, Any]]]
    """Factor → level → the settings that it changes."""
    left_out: tuple[LeftOut, ...] = ()
    seeds: tuple[int, ...]
    measures: Measures
    """What is measured."""
    questions: tuple[Question, ...] = ()
    columns: tuple[Column, ...] = ()
    figures: tuple[Curve, ...] = ()
    frontier: str | None = None
    """The held-out set of the figures that show accuracy against work under the measured `rules`, one for each first level."""
    korean: dict[str, str] = Field(default_factory=dict)
    """Factors, levels, sets and what sizes count, as the Korean book calls them; what is not here keeps its name."""
    fast: dict[str, Any] = Field(default_factory=dict)
    """What `--fast` changes: a look at the whole way, not at the answer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        named = [dict(i.levels) for i in self.left_out]
        named += [{q.factor: level} for q in self.questions if q.factor for level in (q.level, q.against) if level]
        named += [
            {name: level}
            for q in self.questions
            for name, levels in q.where.items()
            for level in ((levels,) if isinstance(levels, str) else levels)
        ]
        for levels in named:
            for factor, level in levels.items():
                if level not in self.factors.get(factor, {}):
                    raise ValueError(f"`{factor} = {level}` is named, but is no level of this study")
        return self

    def cells(self) -> Iterator[Cell]:
        """Every combination of levels that can be, with every seed."""
        for combination in itertools.product(*self.factors.values()):
            levels = dict(zip(self.factors, combination, strict=True))
            if any(item.levels.items() <= levels.items() for item in self.left_out):
                continue
            changes = functools.reduce(merge, (self.factors[factor][level] for factor, level in levels.items()), self.base)
            recipe = _derive(self.name, levels, changes)
            for seed in self.seeds:
                yield Cell(levels=levels, recipe=recipe, seed=seed)

    @property
    def axis(self) -> str:
        """What the size of a problem counts, in its task's own measure."""
        suites = next(self.cells()).recipe.task.suites
        return next(iter(suites.values())).axis


def study_names() -> list[str]:
    """Names of the studies in spec/presets/studies, sorted."""
    return sorted(path.stem for path in (resource("spec/presets") / "studies").glob("*.toml"))


def load_study(name_or_path: str, *, fast: bool = False) -> Study:
    """The study of a name, or of a file that ends in .toml.

    Args:
        name_or_path: which one.
        fast: with the changes that its table `fast` names.

    Raises:
        InputError: if there is none, or with every mistake in its file.
    """
    table = read_extended(name_or_path, _shipped)
    if fast:
        table = merge(table, table.get("fast", {}))
    return parse(Study, table | {"name": Path(name_or_path).stem}, where=f"study {name_or_path!r}")


def run_study(
    study: Study,
    folder: Path,
    jobs: int = 2,
    on_message: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Train and measure the cells that are missing, `jobs` at a time, and give the study's summary.

    Args:
        study: what to do.
        folder: where runs and measurements are kept, and found.
        jobs: processes, of one thread each.
        on_message: told of each cell that is done.
    """
    cells = list(study.cells())
    made: dict[int, dict[str, Any]] = {}
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread)
    try:
        # cells that share a model are one task, so that it is trained once
        tasks: dict[str, list[int]] = {}
        for number, cell in enumerate(cells):
            tasks.setdefault(cell.without_gate.key, []).append(number)
        pending = {
            pool.submit(make_cells, [cells[number] for number in numbers], study.measures, folder): numbers
            for numbers in tasks.values()
        }
        for done in as_completed(pending):
            for number, cell_made in zip(pending[done], done.result(), strict=True):
                made[number] = {"levels": dict(cells[number].levels), **cell_made}
                on_message(f"{len(made)} of {len(cells)}: {cells[number].label}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            on_message("stopping; what is done is kept, and the same command goes on from there")
            _stop(multiprocessing.active_children())
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    return {
        "schema": SCHEMA,
        "study": study.name,
        "settings": {
            "seeds": list(study.seeds),
            "measures": {name: write_measure(measure) for name, measure in study.measures.items()},
        },
        "cells": [made[number] for number in range(len(cells))],
    }


def _stop(workers: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Tell those that a terminal has not told already: after some seconds they would be gone, their runs kept."""
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for worker in workers:
        worker.join(max(0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.terminate()


def make_cells(cells: Sequence[Cell], measures: Mapping[str, Measure], folder: Path) -> list[dict[str, Any]]:
    """Cells that share a model, one after another."""
    return [make_cell(cell, measures, folder) for cell in cells]


def make_cell(cell: Cell, measures: Mapping[str, Measure], folder: Path) -> dict[str, Any]:
    """One cell, as the summary holds it; what is there already is not made again."""
    run, model_of = folder / "runs" / cell.key, None
    if cell.recipe.gate:
        model_of = folder / "runs" / cell.without_gate.key
        _train(cell.without_gate, model_of)
    _train(cell, run, model_of)
    (result,) = read_summary(run)["results"]
    found = {name: _measured(name, measure, cell, run, folder) for name, measure in measures.items()}
    return {
        "seed": cell.seed,
        "run": cell.key,
        "parameters": result["parameters"],
        "training": result["training"],
        "provenance": {key: result["provenance"][key] for key in ("commit", "device", "threads", "torch", "clauses")},
        "measured_at": {name: made["commit"] for name, made in found.items()},
        "values": {key: value for made in found.values() for key, value in made["values"].items()},
        "curves": {key: curve for made in found.values() for key, curve in made["curves"].items()},
        "notes": {name: made["notes"] for name, made in found.items() if made["notes"]},
    }


def read_study_summary(path: Path) -> dict[str, Any]:
    """What `run_study` gave, from its file.

    Raises:
        InputError: if it is missing, or no such file.
    """
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path} is no readable summary of a study; `looplm study NAME --out {path}` writes one.") from None
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA or "study" not in summary:
        raise InputError(f"{path} is not the summary of a study of schema {SCHEMA}; this version of looplm reads no other.")
    if wrong := wrong_in(_SummaryOfFile, summary):
        raise InputError(f"{path} is damaged: {wrong}. `looplm study NAME --out {path}` writes it anew.")
    return summary


class _MeasuredOfFile(TypedDict):
    values: dict[str, float | None]
    curves: dict[str, list[float | None]]
    notes: dict[str, Any]
    commit: str


class _CellOfFile(TypedDict):
    levels: dict[str, str]
    seed: int
    values: dict[str, float | None]
    curves: dict[str, list[float | None]]
    notes: dict[str, dict[str, Any]]


class _SummaryOfFile(TypedDict):
    study: str
    cells: list[_CellOfFile]


def _train(cell: Cell, run: Path, model_of: Path | None = None) -> None:
    """Train a cell, unless its run is complete; a run that was stopped goes on, as the study that began it called it."""
    begun = (run / "run.json").exists()
    if begun and "complete" in read_note(run)["done"]:
        return
    recipe = parse_recipe(read_toml(run / "config.toml"), where=str(run / "config.toml")) if begun else cell.recipe
    run_recipe(recipe, cell.seed, run, torch.device("cpu"), model_of=model_of, resume=begun)


def _measured(name: str, measure: Measure, cell: Cell, run: Path, folder: Path) -> dict[str, Any]:
    """One measure of one run, from its file if the same was measured before."""
    # cells that train alike share a run, and may yet halt differently
    digest = _digest([write_measure(measure), as_table(cell.recipe.halting)])
    path = folder / "measured" / run.name / f"{name}-{digest}.json"
    if not path.exists():
        trained = replace(load(run), recipe=cell.recipe)
        write_file(path, to_json({**asdict(measure(trained, run)), **circumstances(trained.model.device)}))
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        found = {}
    if wrong := wrong_in(_MeasuredOfFile, found):
        raise InputError(f"{path} is damaged: {wrong}. Delete it, and the same command measures it anew.")
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _derive(study: str, levels: Mapping[str, str], changes: Mapping[str, Any]) -> Recipe:
    """The recipe of a combination of levels."""
    if "extends" not in changes:
        raise InputError(f"study {study!r}: neither a level of {dict(levels)} nor `base` says which recipe it `extends`.")
    base, own = changes["extends"], {key: value for key, value in changes.items() if key != "extends"}
    title = ", ".join(f"{factor}: {level}" for factor, level in levels.items())
    glance = {"sizes": [_trained_size(base)], "problems_per_cell": _GLANCE}
    return load_recipe(base, own | {"title": f"study {study}, {title}", "evaluation": glance})


@functools.cache
def _trained_size(recipe: str) -> int:
    """The largest size that a recipe trains on."""
    return load_recipe(recipe).task.trained_sizes[1]


def _shipped(name: str) -> Path:
    if name not in study_names():
        raise InputError(
            f"There is no study {name!r}; there are: {', '.join(study_names())}; or give a file that ends in .toml."
        )
    return resource("spec/presets") / "studies" / f"{name}.toml"


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
