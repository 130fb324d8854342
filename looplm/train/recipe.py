"""Recipe: a task, a body, an objective, a schedule, halting and suites, and whether they fit.

A recipe is a TOML file in spec/presets, or one of a user's own. Whatever can be refused is refused here, before step 1.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    SerializationInfo,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.dataclasses import dataclass

from looplm.chosen import read_choice, write_choice
from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.loop.halting import ByRole
from looplm.models import body_of, read_settings
from looplm.models.body import BodySettings
from looplm.resources import resource
from looplm.settings import STRICT, Table, merge, parse, read_extended
from looplm.task import FACE, TASKS, Task
from looplm.train.config import GateConfig, TrainingConfig
from looplm.train.fits import contradictions, unusable

TRAINED = "trained"
"""Told to the checks of a recipe that belongs to a trained model."""


def _read_task(table: Any) -> Task:
    """The task that a table names.

    Spec: [tasks.refused][].
    """
    return read_choice(TASKS, table, key="name", face=FACE)


TaskField = Annotated[
    Task, PlainValidator(_read_task), PlainSerializer(lambda task: write_choice(TASKS, task, key="name"), return_type=Table)
]


def _write_settings(settings: BodySettings, info: SerializationInfo) -> Table:
    left_out = {"exclude_none": bool(info.exclude_none), "exclude_defaults": bool(info.exclude_defaults)}
    table: Table = TypeAdapter(type(settings)).dump_python(settings, mode="json", **left_out)  # type: ignore[arg-type]
    return table


BodyField = Annotated[Any, PlainValidator(read_settings), PlainSerializer(_write_settings)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """What a trained model is tested on."""

    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Of the held-out problems, in the task's own measure, such as bits or tokens."""
    problems_per_cell: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if twice := sorted({size for size in self.sizes if self.sizes.count(size) > 1}):
            raise ValueError(f"`sizes` must differ: got {twice[0]} more than once")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """One experiment, complete: a file in spec/presets, resolved.

    Spec: [training.refused-before-step-one][].
    """

    name: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    """Of its runs' folder, and in tables: that of the file, unless it gives another."""
    title: str
    task: TaskField
    model: BodyField
    """Settings of the body that it names."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    halting: ByRole = Field(default_factory=lambda: ByRole.read({}))
    evaluation: EvaluationConfig
    gate: GateConfig | None = None
    """How the gate is trained, if the model has one."""

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        found = list(contradictions(self))
        if info.context != TRAINED:
            found += unusable(self)
        if found:
            raise ValueError("; ".join(dict.fromkeys(found)))
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of all clauses that a run of this recipe exercises, sorted."""
        parts = (self.model, self.task, self.training, *((self.gate,) if self.gate else ()))
        halting = self.halting.clauses() if isinstance(self.model, ModelConfig) else ("halting.fixed", "architecture.body")
        return tuple(sorted({*halting, *(clause for part in parts for clause in part.clauses())}))


def recipe_names() -> list[str]:
    """Names of the recipes in spec/presets, sorted."""
    return sorted(path.stem for path in resource("spec/presets").glob("*.toml"))


def load_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a name, or of a file that ends in .toml, with the settings of a table in place of its own.

    Raises:
        InputError: if there is none, or with every mistake in it, its task's data and test sets included.
    """
    return _read(name_or_path, changes, trained=False)


def read_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The same without a look at problems: what a task reads, such as a text file, need not be there.

    Raises:
        InputError: if there is none, or with every mistake in it.
    """
    return _read(name_or_path, changes, trained=True)


def _read(name_or_path: str, changes: Mapping[str, Any] | None, trained: bool) -> Recipe:
    table = merge(read_extended(name_or_path, _shipped), changes or {})
    name = Path(name_or_path).stem
    return parse_recipe({"name": name, "title": name} | table, where=f"recipe {name_or_path!r}", trained=trained)


def parse_recipe(table: Mapping[str, Any], where: str, *, trained: bool = False) -> Recipe:
    """A recipe from its tables; what the task alone decides about the model is filled in.

    Args:
        table: of its tables.
        where: names it in the error.
        trained: it is that of a trained model, whose batches and test sets need not be drawn once more.

    Raises:
        InputError: with every mistake in it.
    """
    return parse(Recipe, _filled(table), where, context=TRAINED if trained else None)


def _filled(table: Mapping[str, Any]) -> Table:
    """The table with the model's vocabulary and places as the task has them, where it says nothing of them."""
    whole, model = dict(table), table.get("model")
    try:
        vocabulary = _read_task(table.get("task")).vocabulary
        size, places, pad, ends = len(vocabulary), vocabulary.places, vocabulary.pad, vocabulary.ends
    except ValidationError:  # parsing says what is wrong, and needs no mistake of the model beside it
        size, places, pad, ends = 2, (0,), 0, (1,)
    except InputError:  # a file that holds the vocabulary is not here; a recipe may say how large it is
        if not isinstance(model, Mapping) or "vocab_size" not in model:
            raise
        return whole
    if isinstance(model, Mapping):
        told: Table = {"vocab_size": size, "pad_id": pad, "end_ids": ends}
        told |= {"place_ids": places} if model.get("positions") == "place" else {}
        whole["model"] = {name: value for name, value in told.items() if name in _settings_of(model)} | dict(model)
    return whole


def _settings_of(model: Mapping[str, Any]) -> set[str]:
    """Names of the settings of the body that a table names; none, if there is no such body."""
    try:
        return {each.name for each in fields(body_of(model).settings)}
    except ValidationError:
        return set()


def _shipped(name: str) -> Path:
    if name not in recipe_names():
        near = ", ".join(recipe_names())
        raise InputError(f"There is no recipe {name!r}; there are: {near}; or give a file that ends in .toml.")
    return resource("spec/presets") / f"{name}.toml"
