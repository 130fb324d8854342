"""A trained model, tested anew."""

from collections.abc import Callable
from typing import Literal

import torch

from looplm.checkpoint import load, read_card
from looplm.config import HaltingConfig, parse
from looplm.evaluate.accuracy import evaluate_adder
from looplm.experiments.results import Result, make_result
from looplm.loop.halting import make_halting


def evaluate_checkpoint(
    model_name: str,
    *,
    problems_per_cell: int | Callable[[int], int],
    digits: tuple[int, ...] = (),
    seed: int = 1,
    rule: Literal["fixed", "two-equal-argmaxes"] | None = None,
    max_loops: int | None = None,
    device: torch.device | None = None,
    on_message: Callable[[str], None] = lambda message: None,
) -> Result:
    """Test a run, a checkpoint or a shipped model; what is not given is as its preset says."""
    model = load(model_name, device or "cpu")
    assert model.preset is not None
    preset = model.preset.halting
    settings = {"rule": rule or preset.rule, "max_loops": preset.max_loops if max_loops is None else max_loops}
    config = parse(HaltingConfig, settings, where="this evaluation")
    halting = make_halting(config)

    def tell(message: str) -> None:
        on_message(f"{model_name}: {message}")

    cells = evaluate_adder(model, digits or model.preset.evaluation.digits, problems_per_cell, halting, seed, tell)
    return make_result(model, read_card(model_name)["provenance"], cells, halting, config.rule, seed)
