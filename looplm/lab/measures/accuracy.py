"""Problems solved, and the work that they take, with the model's own halting rule."""

from pathlib import Path

from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.evaluate.scores import evaluate
from looplm.lab.measures import Count, Measured
from looplm.runs.checkpoint import Trained
from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Accuracy:
    """`accuracy.SET.SIZE` and `work.SET.SIZE`, in block evaluations a problem, of each held-out set and size."""

    sizes: tuple[Count, ...] = Field(min_length=1)
    n: Count
    """Problems of each set and size."""
    seed: int

    def __call__(self, trained: Trained, run: Path) -> Measured:
        """Every set that the task has."""
        values = {}
        for cell in evaluate(trained.model, trained.recipe.task, self.sizes, self.n, trained.recipe.halting, self.seed):
            values[f"accuracy.{cell.set}.{cell.size}"] = round(cell.correct / cell.n, 6)
            values[f"work.{cell.set}.{cell.size}"] = cell.block_evaluations
        return Measured(values)


CHOICE = Accuracy
