"""A batch in parts: the same step, with less of it in memory at a time."""

from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from looplm.shapes import Bool


def backward_in_parts(scored: Annotated[Tensor, Bool("B T")], parts: int, loss_of: Callable[[slice], Tensor]) -> float:
    """Add the gradient of the batch's mean loss, part by part, and give that loss.

    Args:
        scored: which tokens the loss counts; a part weighs as its share of them.
        parts: into how many parts of rows the batch is cut; the last may be smaller.
        loss_of: the mean loss of some rows' scored tokens. What it made must be garbage once it has returned.

    Spec: [hardware.parts][].
    """
    total, rows, mean = int(scored.sum()), -(-len(scored) // parts), 0.0
    for start in range(0, len(scored), rows):
        part = slice(start, start + rows)
        counted = int(scored[part].sum())
        if counted == 0:
            continue
        loss = loss_of(part)
        (loss if counted == total else loss * (counted / total)).backward()
        mean += loss.item() * (counted / total)
    return mean
