"""How often a guess is right, by the confidence in it and by the gate."""

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.lab.measures import Count, Measured
from looplm.models.body import Body
from looplm.models.looped import looped
from looplm.runs.checkpoint import Trained
from looplm.settings import STRICT
from looplm.shapes import Bool, Float
from looplm.task import Batch

_ROWS, _BINS = 50, 10


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Calibration:
    """Ten bins of predictions, over the answer tokens of all held-out sets and loops 1 to `loops`.

    The expected calibration error, `calibration_error.WHAT.SIZE`, is the mean distance of a bin's share of right guesses from
    its mean prediction, weighted by the bin's tokens.

    Source: Guo et al. 2017, On calibration of modern neural networks, equation 3, arXiv:1706.04599.
    """

    sizes: tuple[Count, ...] = Field(min_length=1)
    loops: Count
    n: Count
    """Problems of each set and size."""
    seed: int

    @torch.no_grad()
    def __call__(self, trained: Trained, run: Path) -> Measured:
        """Confidence, and the gate of a model that has one; the bins are the notes."""
        task, values, tables = trained.recipe.task, {}, {}
        for size in self.sizes:
            sets = [task.suite(name, size, self.n, self.seed) for name in task.suites]
            right, predictions = _predictions(trained.model, sets, self.loops)
            for name, predicted in predictions.items():
                rows = tables[f"{name}.{size}"] = _bins(predicted, right)
                error = sum(row["n"] * abs(row["predicted"] - row["right"]) for row in rows) / len(right)
                values[f"calibration_error.{name}.{size}"] = round(error, 4)
        return Measured(values, notes=tables)


def _predictions(model: Body, sets: list[Batch], loops: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Whether each guess is right, Bool[N], and what was predicted of that, Float[N] each."""
    right: list[Tensor] = []
    model = looped(model, "calibration")
    predictions: dict[str, list[Tensor]] = {name: [] for name in ("confidence", *(("gate",) if model.gate else ()))}
    for part in (part.to(model.device) for problems in sets for part in problems.parts(_ROWS)):
        for l, h in enumerate(model.states(part.tokens, loops), 1):
            best = model.logits(h).softmax(-1).max(-1)
            predictions["confidence"].append(best.values[part.scored])
            if (halt_prob := model.halt_prob(h, l)) is not None:
                predictions["gate"].append(halt_prob[part.scored])
            right.append((best.indices == part.targets)[part.scored])
    return torch.cat(right).cpu(), {name: torch.cat(parts).cpu().double() for name, parts in predictions.items()}


def _bins(predicted: Annotated[Tensor, Float("N")], right: Annotated[Tensor, Bool("N")]) -> list[dict[str, Any]]:
    """A row for each bin that holds any prediction; the last one holds 1 too."""
    index = (predicted * _BINS).long().clamp(max=_BINS - 1)
    rows = []
    for inside in (index == number for number in range(_BINS)):
        if bool(inside.any()):
            means = {"predicted": predicted[inside].mean(), "right": right[inside].double().mean()}
            rows.append({"n": int(inside.sum())} | {name: round(float(mean), 4) for name, mean in means.items()})
    return rows


CHOICE = Calibration
