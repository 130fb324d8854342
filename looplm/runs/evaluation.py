"""A trained model, tested anew."""

from collections.abc import Callable

import torch

from looplm.runs.checkpoint import load, read_card
from looplm.evaluate.scores import evaluate_adder
from looplm.runs.results import Result, make_result
from looplm.loop.halting import ByRole


def evaluate_checkpoint(
    model_name: str,
    *,
    problems_per_cell: int | Callable[[int], int],
    digits: tuple[int, ...] = (),
    seed: int = 1,
    halting: Callable[[ByRole], ByRole] = lambda preset: preset,
    device: torch.device | None = None,
    on_message: Callable[[str], None] = lambda message: None,
) -> Result:
    """Test a run, a checkpoint or a shipped model; what is not given is as its preset says.

    Args:
        model_name: what `looplm.load` takes.
        problems_per_cell: a number, or a function of the digit count.
        digits: digit counts, of both operands.
        seed: of the test sets.
        halting: makes what is wanted of what the preset says.
        device: where to run.
        on_message: told what is being tested.
    """
    model = load(model_name, device or "cpu")
    assert model.preset is not None
    rule = halting(model.preset.halting)

    def tell(message: str) -> None:
        on_message(f"{model_name}: {message}")

    digits = digits or model.preset.evaluation.digits
    cells = evaluate_adder(model, digits, problems_per_cell, rule, seed, tell)
    return make_result(model, read_card(model_name)["provenance"], cells, rule, seed)
