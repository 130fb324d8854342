"""What a recipe's training needs at most, for the planner: its longest texts and its most loops."""

import tomllib
from pathlib import Path

from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.hardware.workload import Workload, find_size, size_names
from looplm.train.recipe import Recipe, read_recipe, recipe_names


def find_workload(name_or_path: str) -> Workload:
    """A size or a recipe by its name, or that in a file that ends in .toml.

    Raises:
        InputError: if there is none, or with every mistake in it.
    """
    if name_or_path.endswith(".toml"):
        return workload_of(read_recipe(name_or_path)) if _is_recipe(Path(name_or_path)) else find_size(name_or_path)
    if name_or_path in size_names():
        return find_size(name_or_path)
    if name_or_path in recipe_names():
        return workload_of(read_recipe(name_or_path))
    known = ", ".join([*size_names(), *recipe_names()])
    raise InputError(f"There is no size or recipe {name_or_path!r}; there are: {known}, or a .toml file.")


def workload_of(recipe: Recipe) -> Workload:
    """A training step of the longest texts and the most loops."""
    if not isinstance(recipe.model, ModelConfig):
        raise InputError(f"the planner knows the bodies 'looped' and 'static': got {recipe.model.body!r}.")
    longest, training = recipe.task.longest(), recipe.training
    tokens, loops = longest.tokens.shape[1], training.max_loops
    return Workload(
        name=recipe.name,
        title=recipe.title,
        model=recipe.model,
        context_tokens=tokens,
        num_loops=loops,
        batch_size=training.batch_size,
        first_read=loops // 2 + 1,
        scored_share=float(longest.scored.float().mean()),
        train_tokens=training.steps * training.batch_size * tokens,
    )


def _is_recipe(path: Path) -> bool:
    """A size names the tokens of its context, which a recipe's task decides; what cannot be read is left to its reader."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    return "task" in table or "extends" in table
