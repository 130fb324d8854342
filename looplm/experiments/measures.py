"""What a study measures of a trained adder: named values, and curves over loops.

A measure takes a model, the folder of its run and settings from the study's file, and gives a `Measured`. Values are
plain numbers, accuracies as shares; a curve is a list over loops 1, 2, ...
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from looplm.data.addition import PAD, Problems, Questions, ask
from looplm.data.addition_sets import test_set
from looplm.evaluate.accuracy import TEST_KINDS, exact_match
from looplm.loop.halting import Fixed, HaltingRule, make_halting
from looplm.models.looped import LoopLM, State
from looplm.shapes import Bool

_ROWS = 50


@dataclass(frozen=True)
class Measured:
    """What one measure gave."""

    values: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    """Whatever else a table of its own is rendered from."""


def convergence(model: LoopLM, run: Path, *, loss: float, window: int = 50) -> Measured:
    """How fast training went: steps until the mean loss of `window` steps fell below `loss`; all steps if it never did."""
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    losses = torch.tensor([step["loss"] for step in steps])
    means = losses.unfold(0, min(window, len(losses)), 1).mean(1)
    below = (means < loss).nonzero()
    reached = int(below[0, 0]) + min(window, len(losses)) if len(below) else len(losses)
    return Measured({"steps_to_loss": reached, "reached": float(len(below) > 0), "final_loss": round(float(means[-1]), 6)})


def accuracy(model: LoopLM, run: Path, *, digits: Sequence[int], n: int, seed: int) -> Measured:
    """Sums solved, and work, with the model's own halting rule."""
    assert model.preset is not None
    values = {}
    for kind in TEST_KINDS:
        for count in digits:
            made = exact_match(model, test_set(kind, count, n, seed), make_halting(model.preset.halting))
            values[f"accuracy.{kind}.{count}"] = share(made.solved)
            values[f"work.{kind}.{count}"] = round(float(made.block_evaluations.mean()), 1)
    return Measured(values)


def loops(model: LoopLM, run: Path, *, digits: int, n: int, seed: int, times: Sequence[int], most: int) -> Measured:
    """Sums solved by every fixed number of loops up to `most`, both kinds of sum pooled, on the same problems.

    `lost.2x` is how far the accuracy at twice the largest trained number of loops lies below the best of the curve.
    """
    assert model.preset is not None
    trained = model.preset.training.max_loops
    solved = torch.cat(
        [solved_after_each_loop(model, test_set(kind, digits, n, seed), Fixed(most)) for kind in TEST_KINDS], dim=1
    )
    curve = [share(row) for row in solved]
    values = {"best": max(curve), "at.1x": curve[trained - 1]}
    for factor in (factor for factor in times if factor * trained <= most):
        values[f"at.{factor}x"] = curve[factor * trained - 1]
        values[f"lost.{factor}x"] = round(max(curve) - curve[factor * trained - 1], 6)
    return Measured(values, {"accuracy_by_loops": curve}, {"trained_loops": trained, "n": solved.shape[1]})


@torch.no_grad()
def dynamics(model: LoopLM, run: Path, *, digits: int, n: int, seed: int, most: int) -> Measured:
    """The state loop by loop, over all tokens: its norm, its cosine to the state before, its relative change.

    `stale` is the share of sums that are right after `most` loops that start from the settled state of *another* sum,
    `fresh` the same from the state 0.
    """
    assert model.preset is not None
    data, trained = model.preset.data, model.preset.training.max_loops
    curves: dict[str, list[Tensor]] = {"norm": [], "cosine": [], "change": []}
    asked = ask(test_set("uniform", digits, n, seed), data.format, data.mode)
    real = asked.tokens != PAD
    x0, view = model.embed(asked.tokens, real)
    h = torch.zeros_like(x0)
    for l in range(1, most + 1):
        before, h = h, model.step(h, x0, l, view)
        norm = torch.linalg.vector_norm(h, dim=-1)[real]
        curves["norm"].append(norm.mean())
        curves["cosine"].append(cosine_similarity(h, before, dim=-1)[real].mean())
        curves["change"].append((torch.linalg.vector_norm(h - before, dim=-1)[real] / norm).mean())
    settled = model.settle(asked.tokens, trained)
    other = State(settled.h.roll(1, 0), settled.loops)
    starts: dict[str, State | None] = {"fresh": None, "stale": other}
    values = {}
    for name, start in starts.items():
        logits = model(asked.tokens, most, first_read=most, start=start)[-1]
        values[name] = share(_right(logits, asked))
    values["last_norm"] = round(float(curves["norm"][-1]), 4)
    values["last_change"] = round(float(curves["change"][-1]), 6)
    return Measured(values, {name: [round(float(x), 6) for x in curve] for name, curve in curves.items()})


Measure = Callable[..., Measured]
MEASURES: dict[str, Measure] = {
    "convergence": convergence,
    "accuracy": accuracy,
    "loops": loops,
    "dynamics": dynamics,
}
"""By the names that a study's file gives."""


def solved_after_each_loop(model: LoopLM, problems: Problems, halting: HaltingRule) -> Annotated[Tensor, Bool("L N")]:
    """What would be right if the answer were read after loop l; its tokens all run `max_loops` loops."""
    parts = []
    for questions in questions_of(model, problems):
        solved: list[Tensor] = []

        def look(l: int, h: Tensor, questions: Questions = questions, solved: list[Tensor] = solved) -> None:
            solved.append(_right(model.read(h), questions))

        model.think(questions.tokens, halting, real=questions.tokens != PAD, answer=questions.asked, hook=look)
        parts.append(torch.stack(solved))
    return torch.cat(parts, 1)


def questions_of(model: LoopLM, problems: Problems) -> Sequence[Questions]:
    """The problems as the model's preset asks them, in batches."""
    assert model.preset is not None
    data = model.preset.data
    return [ask(batch, data.format, data.mode) for batch in problems.batches(_ROWS)]


def share(solved: Tensor) -> float:
    """The share that is true."""
    return round(float(solved.double().mean()), 6)


def _right(logits: Tensor, questions: Questions) -> Tensor:
    return ((logits.argmax(-1) == questions.targets) | ~questions.asked).all(1)
