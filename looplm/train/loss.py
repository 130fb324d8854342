"""What is scored."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from looplm.shapes import Bool, Float, Int

NOT_SCORED = -100
"""In place of a target: the token is not scored after this loop."""


def targets_by_loop(
    targets: Annotated[Tensor, Int("B T")],
    distance: Annotated[Tensor, Int("B T")],
    first: int,
    last: int,
    unknown: int = NOT_SCORED,
) -> Annotated[Tensor, Int("L B T")]:
    """The target after each loop from `first` to `last`: `unknown` until the carry can have come.

    Spec: [training.not-known-yet][].
    """
    l = torch.arange(first, last + 1, device=targets.device)[:, None, None]
    return torch.where(distance < l, targets, unknown)


def answer_loss(
    logits: Annotated[Tensor, Float("L B T V")],
    targets: Annotated[Tensor, Int("B T")] | Annotated[Tensor, Int("L B T")],
    scored: Annotated[Tensor, Bool("B T")],
) -> Annotated[Tensor, Float("")]:
    """Mean cross-entropy of the scored targets, over all given loops; nats per token.

    Every loop weighs the same, and so does every scored token of the batch. Targets may differ from loop to loop; one
    that is `NOT_SCORED` adds nothing.

    Spec: [training.answer-loss][], [training.second-half][], [training.not-known-yet][].
    """
    chosen = logits[:, scored]  # [L, scored tokens, V]
    wanted = targets[..., scored].expand(len(logits), -1)
    return cross_entropy(chosen.flatten(0, 1), wanted.flatten(), ignore_index=NOT_SCORED, reduction="sum") / wanted.numel()
