"""Whether loops follow the carry: a measure that only addition has.

A study names it `measure = "looplm.tasks.addition.chains:Chains"`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.evaluate.scores import exact_match
from looplm.lab.measures import Count, Measured
from looplm.runs.checkpoint import Trained
from looplm.settings import STRICT
from looplm.shapes import Float
from looplm.tasks.addition.problems import collate
from looplm.tasks.addition.sets import chain_set
from looplm.tasks.addition.solve import task_of


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Chains:
    """Sums solved, and loops, by the longest carry chain of the sum, with the model's own halting rule."""

    size: Count
    """Digits of the operands."""
    chains: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    """Lengths, in places."""
    n: Count
    """Sums of each length."""
    seed: int

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if max(self.chains) > self.size:
            raise ValueError(f"sums of {self.size} digits have no chain of {max(self.chains)} places: shorten `chains`")
        return self

    def __call__(self, trained: Trained, run: Path) -> Measured:
        """Curves over `chain`, and `spearman`, the rank correlation of chain and most loops of an answer token."""
        found = by_chain(trained, self.chains, self.size, self.n, self.seed)
        curves = {
            "chain": [float(point["chain"]) for point in found["points"]],
            "right_by_chain": [round(point["correct"] / point["n"], 6) for point in found["points"]],
            "loops_by_chain": [point["mean"] for point in found["points"]],
        }
        return Measured({"spearman": found["spearman"]}, curves)


def by_chain(trained: Trained, chains: Sequence[int], digits: int, n: int, seed: int) -> dict[str, Any]:
    """The most loops of an answer token against the longest carry chain of the sum, and sums solved.

    Args:
        trained: an adder; it halts by its own rule.
        chains: the lengths asked for, in places.
        digits: of the operands.
        n: sums of each length.
        seed: of the sums.

    Returns:
        A point for each length; the rank correlation, and that of shuffled loops; the slope of the line that fits best.

    Raises:
        InputError: if it is no adder, or no such sums exist.
    """
    task, most, points = task_of(trained), [], []
    for chain in chains:
        problems = collate(chain_set(chain, digits, n, seed), task.format, task.mode)
        attempts = exact_match(trained.model, problems, trained.recipe.halting)
        loops = attempts.most_loops.double()
        point = {"chain": chain, "n": n, "correct": int(attempts.solved.sum()), "mean": round(float(loops.mean()), 3)}
        points.append(point | {"least": int(loops.min()), "most": int(loops.max())})
        most.append(loops)
    x, y = torch.tensor(chains).repeat_interleave(n).double(), torch.cat(most)
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    distance = x - x.mean()
    slope = float((distance * y).sum() / (distance**2).sum()) if bool(distance.any()) else 0.0
    return {
        "points": points,
        "spearman": round(rank_correlation(x, y), 4),
        "spearman_shuffled": round(rank_correlation(x, shuffled), 4),
        "loops_per_chain_digit": round(slope, 4),
    }


def rank_correlation(x: Annotated[Tensor, Float("N")], y: Annotated[Tensor, Float("N")]) -> float:
    """Spearman's: Pearson's correlation of the ranks, ties sharing their mean rank; 0 if one of both is constant."""
    ranks = torch.stack([(values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2 for values in (x, y)])
    correlation = torch.corrcoef(ranks.double())[0, 1]
    return 0.0 if bool(correlation.isnan()) else float(correlation)
