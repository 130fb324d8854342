"""What more loops, or fewer, than a model was trained for make of its answers."""

from pathlib import Path

import torch
from pydantic.dataclasses import dataclass

from looplm.evaluate.scores import solved_after_each_loop
from looplm.lab.measures import Count, Measured, share
from looplm.loop.halting.fixed import Fixed
from looplm.runs.checkpoint import Trained
from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loops:
    """Problems solved by every fixed number of loops up to `most`, all held-out sets pooled, on the same problems."""

    size: Count
    n: Count
    """Problems of each set."""
    seed: int
    times: tuple[Count, ...]
    """Multiples of the largest trained number of loops that get values of their own."""
    most: Count

    def __call__(self, trained: Trained, run: Path) -> Measured:
        """The curve, its best, and `at.2x`, `lost.2x` and so on: at twice the trained loops, and how far below the best."""
        task, once = trained.recipe.task, trained.recipe.training.max_loops
        sets = [task.suite(name, self.size, self.n, self.seed) for name in task.suites]
        solved = torch.cat([solved_after_each_loop(trained.model, problems, Fixed(self.most)) for problems in sets], dim=1)
        curve = [share(row) for row in solved]
        at = {factor: curve[factor * once - 1] for factor in dict.fromkeys((1, *self.times)) if factor * once <= self.most}
        values = {"best": max(curve), **{f"at.{factor}x": right for factor, right in at.items()}}
        values |= {f"lost.{factor}x": round(max(curve) - right, 6) for factor, right in at.items()}
        return Measured(values, {"accuracy_by_loops": curve}, {"trained_loops": once, "n": solved.shape[1]})


CHOICE = Loops
