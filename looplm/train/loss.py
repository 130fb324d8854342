"""What is scored."""

from typing import Annotated

from torch import Tensor
from torch.nn.functional import cross_entropy

from looplm.shapes import Bool, Float, Int


def answer_loss(
    logits: Annotated[Tensor, Float("L B T V")],
    targets: Annotated[Tensor, Int("B T")],
    scored: Annotated[Tensor, Bool("B T")],
) -> Annotated[Tensor, Float("")]:
    """Mean cross-entropy of the scored targets, over all given loops; nats per token.

    Every loop weighs the same, and so does every scored token of the batch.

    Spec: [training.answer-loss][], [training.second-half][].
    """
    chosen = logits[:, scored]  # [L, scored tokens, V]
    wanted = targets[scored].expand(len(logits), -1)
    return cross_entropy(chosen.flatten(0, 1), wanted.flatten())
