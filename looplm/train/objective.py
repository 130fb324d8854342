"""What is scored after which loop, and how much it costs to be wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from looplm.shapes import Float, Int
from looplm.task import Batch
from looplm.train.config import TrainingConfig
from looplm.train.loops import LoopPlan

NOT_SCORED = -100
"""In place of a target: the token is not scored after this loop."""


def first_due_loop(distance: Annotated[Tensor, Int("...")], reach: int | None) -> Annotated[Tensor, Int("...")]:
    """The first loop after which the news that an answer needs can have come from so many places away.

    Spec: [training.due][].
    """
    return torch.ones_like(distance) if reach is None else 1 + -(-distance // max(1, reach))


@dataclass(frozen=True)
class Objective:
    """The targets of one batch after each scored loop, and the mean cross-entropy of any of its rows."""

    targets: Annotated[Tensor, Int("L N T")]
    """`NOT_SCORED` where nothing is wanted."""
    total: int
    """Scored targets of the whole batch, which the mean is over, whatever rows are asked for."""
    label_smoothing: float = 0.0

    def loss(
        self, scored: int, h: Annotated[Tensor, Float("R T D")], rows: slice, head: Callable[[Tensor], Tensor]
    ) -> Annotated[Tensor, Float("")]:
        """The share of the batch's mean loss that some rows have after one loop, in nats; the head reads scored tokens only.

        Args:
            scored: which of the scored loops, from 0.
            h: the rows' states after it.
            rows: which rows of the batch they are.
            head: gives the logits of states.

        Spec: [training.answer-loss][], [training.label-smoothing][], [training.not-known-yet][].
        """
        targets = self.targets[scored, rows]
        wanted = targets != NOT_SCORED
        logits = head(h[wanted])
        summed = cross_entropy(logits, targets[wanted], reduction="sum", label_smoothing=self.label_smoothing)
        return summed / max(1, self.total)


def make_objective(
    batch: Batch, plan: LoopPlan, config: TrainingConfig, reach: int | None, unknown: int | None = None
) -> Objective:
    """What is wanted of a batch that is looped so.

    Loops count from the state 0; after a restart from another problem's state they count from there.

    Args:
        batch: with the distances of its answers, unless all loops count alike.
        plan: its loops.
        config: of the training.
        reach: places that news can travel in one loop.
        unknown: the id of the token that says "not known yet".

    Spec: [training.due][], [training.not-known-yet][], [training.second-half][], [training.all-loops][].
    """
    right = torch.where(batch.scored, batch.targets, NOT_SCORED)
    loops = torch.arange(plan.first_scored, plan.num_loops + 1, device=right.device)
    if config.before_due == "scored":
        targets = right.expand(len(loops), *right.shape)
    else:
        assert batch.distance is not None, "the recipe has asked"
        since = loops if plan.stale else loops + plan.before
        due = first_due_loop(batch.distance, reach) <= since[:, None, None]
        early = NOT_SCORED if config.before_due == "skipped" or plan.stale else unknown
        assert early is not None, "the recipe has asked"
        targets = torch.where(due, right, torch.where(batch.scored, early, NOT_SCORED))
    return Objective(targets, int((targets != NOT_SCORED).sum()), config.label_smoothing)
