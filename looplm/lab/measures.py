"""What a study measures of a trained adder: named values, and curves over loops.

A measure takes a model, the folder of its run and settings from the study's file, and gives a `Measured`. Values are
plain numbers, accuracies as shares; a curve is a list over loops 1, 2, ...
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from looplm.evaluate.scores import TEST_KINDS, exact_match
from looplm.loop.halting import HaltingRule, parse_halting
from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM, State
from looplm.shapes import Bool, Float
from looplm.tasks.addition.problems import PAD, Problems, Questions, ask
from looplm.tasks.addition.sets import chain_set, test_set

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
            made = exact_match(model, test_set(kind, count, n, seed), model.preset.halting)
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


def chains(model: LoopLM, run: Path, *, digits: int, chains: Sequence[int], n: int, seed: int) -> Measured:
    """Sums solved, and the most loops of an answer token, by the longest carry chain of the sum; own halting rule."""
    assert model.preset is not None
    found = [exact_match(model, chain_set(chain, digits, n, seed), model.preset.halting) for chain in chains]
    x = torch.tensor(chains).repeat_interleave(n)
    correlation = rank_correlation(x.double(), torch.cat([made.most_loops for made in found]).double())
    curves = {
        "chain": [float(chain) for chain in chains],
        "right_by_chain": [share(made.solved) for made in found],
        "loops_by_chain": [round(float(made.most_loops.double().mean()), 3) for made in found],
    }
    return Measured({"spearman": 0.0 if correlation != correlation else round(correlation, 4)}, curves)


@torch.no_grad()
def rules(
    model: LoopLM, run: Path, *, rules: Mapping[str, dict[str, Any]], digits: Sequence[int], n: int, seed: int
) -> Measured:
    """Accuracy and work under each of some halting rules, by digits, both kinds of sum: the frontier."""
    rows: list[dict[str, Any]] = []
    for kind in TEST_KINDS:
        for count in digits:
            problems = test_set(kind, count, n, seed)
            for name, table in rules.items():
                rule = parse_halting(table, where=f"the rule {name!r}")
                if rule.gate_readers and model.gate is None:
                    continue
                made = exact_match(model, problems, rule)
                row = {"set": kind, "digits": count, "n": n, "rule": name, "correct": int(made.solved.sum())}
                rows.append(row | {"work": round(float(made.block_evaluations.mean()), 2)})
    values = {f"right.{row['rule']}.{row['set']}.{row['digits']}": row["correct"] / n for row in rows}
    values |= {f"rule_work.{row['rule']}.{row['set']}.{row['digits']}": row["work"] for row in rows}
    return Measured(values, notes={"rows": rows})


@torch.no_grad()
def calibration(model: LoopLM, run: Path, *, digits: Sequence[int], loops: int, n: int, seed: int) -> Measured:
    """How often a guess is right, by the confidence in it and by the gate: ten bins, answer tokens, loops 1 to `loops`.

    The expected calibration error is the mean distance of a bin's share of right guesses from its mean prediction,
    weighted by the bin's tokens.

    Source: Guo et al. 2017, On calibration of modern neural networks, equation 3, arXiv:1706.04599.
    """
    assert model.preset is not None
    values, tables = {}, {}
    for count in digits:
        said: dict[str, list[Tensor]] = {"confidence": [], "gate": []}
        right = []
        for kind in TEST_KINDS:
            for questions in questions_of(model, test_set(kind, count, n, seed)):
                for l, h in enumerate(model.states(questions.tokens, loops), 1):
                    best = model.read(h).softmax(-1).max(-1)
                    gate = model.halt_prob(h, l)
                    said["confidence"].append(best.values[questions.asked])
                    said["gate"].append(
                        torch.full_like(best.values, torch.nan)[questions.asked] if gate is None else gate[questions.asked]
                    )
                    right.append((best.indices == questions.targets)[questions.asked])
        truth = torch.cat(right).double()
        for name, parts in said.items():
            predicted = torch.cat(parts).double()
            if bool(predicted.isnan().any()):
                continue
            bins = [(predicted >= low / 10) & (predicted < (low + 1) / 10 + (low == 9)) for low in range(10)]
            tables[f"{name}.{count}"] = [
                {
                    "n": int(of.sum()),
                    "predicted": round(float(predicted[of].mean()), 4),
                    "right": round(float(truth[of].mean()), 4),
                }
                for of in bins
                if bool(of.any())
            ]
            error = sum(row["n"] * abs(row["predicted"] - row["right"]) for row in tables[f"{name}.{count}"]) / len(truth)
            values[f"calibration_error.{name}.{count}"] = round(error, 4)
    return Measured(values, notes=tables)


def rank_correlation(x: Annotated[Tensor, Float("N")], y: Annotated[Tensor, Float("N")]) -> float:
    """Spearman's: Pearson's correlation of the ranks, ties sharing their mean rank; nan if one of both is constant."""
    ranks = torch.stack([(values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2 for values in (x, y)])
    return float(torch.corrcoef(ranks.double())[0, 1])


Measure = Callable[..., Measured]
MEASURES: dict[str, Measure] = {
    "convergence": convergence,
    "accuracy": accuracy,
    "loops": loops,
    "dynamics": dynamics,
    "chains": chains,
    "rules": rules,
    "calibration": calibration,
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
