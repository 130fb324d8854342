"""A trained model, tested anew."""

from collections.abc import Callable

import torch

from looplm.evaluate.scores import evaluate
from looplm.loop.halting import ByRole
from looplm.runs.checkpoint import load
from looplm.runs.results import Result, make_result


def evaluate_checkpoint(
    model_name: str,
    *,
    problems_per_cell: int | Callable[[int], int],
    sizes: tuple[int, ...] = (),
    seed: int = 1,
    halting: Callable[[ByRole], ByRole] = lambda recipe: recipe,
    device: torch.device | None = None,
    on_message: Callable[[str], None] = lambda message: None,
) -> Result:
    """Test a run, a checkpoint or a shipped model; what is not given is as its recipe says.

    Args:
        model_name: what `looplm.load` takes.
        problems_per_cell: a number, or a function of the size.
        sizes: of the problems, in the task's own measure.
        seed: of the test sets.
        halting: makes what is wanted of what the recipe says.
        device: where to run.
        on_message: told what is being tested.
    """
    trained = load(model_name, device or "cpu")
    rule, sizes = halting(trained.recipe.halting), sizes or trained.recipe.evaluation.sizes

    def tell(message: str) -> None:
        on_message(f"{model_name}: {message}")

    cells = list(evaluate(trained.model, trained.recipe.task, sizes, problems_per_cell, rule, seed, tell))
    return make_result(trained, cells, rule, seed)
