"""Recipe: a task, a body, an objective, a schedule, halting and suites, and whether they fit.

A recipe is a TOML file in spec/presets, or one of a user's own. Whatever can be refused is refused here, before step 1.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from looplm.chosen import read_choice, write_choice
from looplm.config import ModelConfig
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.loop.halting import ByRole
from looplm.resources import resource
from looplm.settings import STRICT, Table, merge, parse, read_extended
from looplm.task import FACE, TASKS, Task
from looplm.train.config import GateConfig, TrainingConfig


def _read_task(table: Any) -> Task:
    """The task that a table names.

    Spec: [tasks.refused][].
    """
    return read_choice(TASKS, table, key="name", face=FACE)


TaskField = Annotated[
    Task, PlainValidator(_read_task), PlainSerializer(lambda task: write_choice(TASKS, task, key="name"), return_type=Table)
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """What a trained model is tested on."""

    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Of the held-out problems, in the task's own measure: digits, bits, tokens."""
    problems_per_cell: int = Field(default=200, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """One experiment, complete: a file in spec/presets, resolved.

    Spec: [training.refused-before-step-one][].
    """

    name: str
    title: str
    task: TaskField
    model: ModelConfig
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    halting: ByRole = Field(default_factory=lambda: ByRole.read({}))
    evaluation: EvaluationConfig
    gate: GateConfig | None = None
    """How the gate is trained, if the model has one."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if contradictions := list(_contradictions(self)):
            raise ValueError("; ".join(contradictions))
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of all clauses that a run of this recipe exercises, sorted."""
        parts = (self.model, self.task, self.training, self.halting, *((self.gate,) if self.gate else ()))
        return tuple(sorted({clause for part in parts for clause in part.clauses()}))


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """Everything in which the parts of a recipe contradict each other."""
    yield from _of_task_and_body(recipe)
    yield from _of_training(recipe)
    yield from _of_halting(recipe)


def _of_task_and_body(recipe: Recipe) -> Iterator[str]:
    model, vocabulary = recipe.model, recipe.task.vocabulary
    if model.vocab_size != len(vocabulary):
        yield f"`model.vocab_size` is {model.vocab_size}, but the task has {len(vocabulary)} tokens; leave it out, or set that"
    if model.positions == "place" and model.place_ids != vocabulary.places:
        if vocabulary.places:
            yield f"`model.place_ids` must be the task's, {list(vocabulary.places)}; leave it out"
        else:
            yield "`model.positions = 'place'` needs a task whose tokens have places, and this one's have none"
    longest = recipe.task.longest().tokens.shape[1]
    if model.max_positions and model.max_positions < longest:
        yield f"`model.max_positions` is {model.max_positions}, but training has texts of {longest} tokens"


def _of_training(recipe: Recipe) -> Iterator[str]:
    model, training, task = recipe.model, recipe.training, recipe.task
    if model.body == "static" and (training.min_loops, training.max_loops) != (1, 1):
        yield "a static model is passed once: set `training.min_loops = 1` and `training.max_loops = 1`"
    if model.body == "static" and training.restart_share:
        yield "a static model has no loop to restart: set `training.restart_share = 0`"
    if model.gate != (recipe.gate is not None):
        yield "`model.gate = true` and the table `gate` go together: a gate has to be trained"
    if training.before_due != "scored":
        if task.longest().distance is None:
            yield f"`training.before_due = '{training.before_due}'` needs a task that knows how far its answers' news travel"
        if model.positions != "place" or model.place_window is None:
            yield (
                f"`training.before_due = '{training.before_due}'` needs a body whose reach is limited: set "
                "`model.positions = 'place'` and `model.place_window`"
            )
    if training.before_due == "unknown" and task.vocabulary.unknown is None:
        yield "`training.before_due = 'unknown'` needs a task with a token that says \"not known yet\""
    if training.restart_share > 0 and training.stale_share > 0 and model.injection == "first":
        yield (
            "`training.restart_share` or `training.stale_share` must be 0 with `model.injection = 'first'`: a loop that never "
            "reads the input again cannot recover from another problem's state"
        )
    if training.restart_share > 0 and training.stale_share > 0 and training.batch_size < 2:
        yield "`training.batch_size` must be at least 2 for restarts from another problem's state"


def _of_halting(recipe: Recipe) -> Iterator[str]:
    model, halting = recipe.model, recipe.halting
    if model.body == "static" and halting.max_loops != 1:
        yield f"a static model is passed once: set `halting.max_loops = 1` (got {halting.max_loops})"
    if halting.gate_readers and not model.gate:
        yield f"the halting rule {halting.gate_readers[0]!r} needs a model with a gate: set `model.gate = true`, and train it"
    for role, rule in (("halting", halting.answer), ("halting.prompt", halting.prompt)):
        unknown = getattr(rule, "unknown_id", None)
        if unknown is not None and unknown != recipe.task.vocabulary.unknown:
            yield f"`{role}.unknown_id` is {unknown}, but the task's token is {recipe.task.vocabulary.unknown}"


def recipe_names() -> list[str]:
    """Names of the recipes in spec/presets, sorted."""
    return sorted(path.stem for path in resource("spec/presets").glob("*.toml"))


def load_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a name, or of a file that ends in .toml, with the settings of a table in place of its own.

    Raises:
        InputError: if there is none, or with every mistake in it, its task's data and test sets included.
    """
    recipe = read_recipe(name_or_path, changes)
    check_test_sets(recipe)
    return recipe


def read_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The same without a look at problems: what a task reads, such as a text file, need not be there.

    Raises:
        InputError: if there is none, or with every mistake in it.
    """
    table = merge(read_extended(name_or_path, _shipped), changes or {})
    name = Path(name_or_path).stem
    return parse_recipe({"title": name} | table | {"name": name}, where=f"recipe {name_or_path!r}")


def check_test_sets(recipe: Recipe) -> None:
    """Refuse a recipe whose problems or test sets cannot be made, or whose test sets are longer than the model's positions.

    Raises:
        InputError: as the task says it, if it cannot draw at all; else with every mistake in the test sets.
    """
    recipe.task.batch(range(1), Draw(0, "problems"))
    if mistakes := list(_of_test_sets(recipe)):
        raise InputError(f"recipe {recipe.name!r} is not valid: {'; '.join(mistakes)}.")


def _of_test_sets(recipe: Recipe) -> Iterator[str]:
    model, tested = recipe.model, recipe.evaluation
    for name in recipe.task.suites:
        for size in tested.sizes:
            # of small problems there may be too few; of large ones a single one shows how long they are
            count = tested.problems_per_cell if size == min(tested.sizes) else 1
            try:
                width = recipe.task.suite(name, size, count, seed=0).tokens.shape[1]
            except InputError as error:
                yield f"the test set {name} of size {size} cannot be made: {str(error).rstrip('.')}"
                continue
            if 0 < model.max_positions < width:
                yield (
                    f"`model.max_positions` is {model.max_positions}, but the test set {name} of size {size} has texts of "
                    f"{width} tokens; set `evaluation.sizes` to what fits, or more positions"
                )


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its tables; what the task alone decides about the model is filled in.

    Raises:
        InputError: with every mistake in it.
    """
    return parse(Recipe, _filled(table), where)


def _filled(table: Mapping[str, Any]) -> Table:
    """The table with the model's vocabulary and places as the task has them, where it says nothing of them."""
    whole, model = dict(table), table.get("model")
    try:
        task = _read_task(table.get("task"))
    except ValidationError:
        return whole  # parsing says what is wrong
    if isinstance(model, Mapping):
        filled: Table = {"vocab_size": len(task.vocabulary)}
        if model.get("positions") == "place":
            filled["place_ids"] = task.vocabulary.places
        whole["model"] = filled | dict(model)
    return whole


def _shipped(name: str) -> Path:
    if name not in recipe_names():
        near = ", ".join(recipe_names())
        raise InputError(f"There is no recipe {name!r}; there are: {near}; or give a file that ends in .toml.")
    return resource("spec/presets") / f"{name}.toml"
