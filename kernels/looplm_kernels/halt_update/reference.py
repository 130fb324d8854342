"""The end of a loop in plain torch."""

import torch
from torch import Tensor

from looplm_kernels.state import Rule


def update(
    logits: Tensor,
    new_h: Tensor,
    h: Tensor,
    active: Tensor,
    loops_taken: Tensor,
    threshold: Tensor,
    confidence: Tensor,
    next_token: Tensor,
    rule: Rule,
) -> None:
    """Freeze what has halted, take over what has not, count, and decide who goes on."""
    on = active > 0
    best = logits.argmax(1).int()
    h.copy_(torch.where(on[:, None], new_h, h))
    confidence.copy_(torch.where(on, torch.softmax(logits.to(confidence.dtype), 1).amax(1), confidence))
    loops_taken += active
    ready = (confidence >= threshold) & (loops_taken >= rule.min_loops)
    if rule.agree:
        ready &= best == next_token  # until now the loop before's
    next_token.copy_(torch.where(on, best, next_token))
    active.copy_(active * ~(ready | (loops_taken >= rule.max_loops)))
