"""The end of a loop: confidence, freeze, count, halt. For loops that run kernel by kernel; `loop` has it built in."""

import math

import torch
from torch import Tensor

from looplm_kernels.halt_update import reference
from looplm_kernels.state import Rule

SPEC = ("halting.freeze", "halting.loops-taken", "kernels.same-as-reference", "kernels.confidence")


def halt_update(
    logits: Tensor,
    new_h: Tensor,
    h: Tensor,
    active: Tensor,
    loops_taken: Tensor,
    threshold: Tensor,
    confidence: Tensor,
    next_token: Tensor,
    rule: Rule,
    *,
    backend: str = "reference",
) -> None:
    """Write what a loop gave into the buffers of N tokens, and clear `active` where a token halts.

    Args:
        logits: Float[N, V], read from `new_h`.
        new_h: Float[N, D], the state after this loop.
        h: Float[N, D], where each token's state is kept; written only where active.
        active: int32[N], 1 for tokens that still think (the plans' `active_mask`); what is 0 stays 0.
        loops_taken: int32[N] (the plans' `steps_taken`).
        threshold: float32[N]; infinity for tokens that run all loops.
        confidence: float32[N].
        next_token: int32[N]; -1 before the first loop.
        rule: when a token halts.
        backend: "reference" or "triton".


    Raises:
        ValueError: before anything runs, with every buffer that does not fit.

    Spec: [kernels.same-as-reference][], [kernels.refuses][].
    """
    n, width = (*new_h.shape, 0)[:2]
    expected = {
        "logits": (logits, (n, logits.shape[-1]), logits.dtype),
        "new_h": (new_h, (n, width), new_h.dtype),
        "h": (h, (n, width), new_h.dtype),
        "active": (active, (n,), torch.int32),
        "loops_taken": (loops_taken, (n,), torch.int32),
        "threshold": (threshold, (n,), torch.float32),
        "confidence": (confidence, (n,), torch.float32),
        "next_token": (next_token, (n,), torch.int32),
    }
    wrong = [
        f"`{name}` must be a contiguous {dtype} {list(shape)} on {h.device}: got {value.dtype} {list(value.shape)} on "
        f"{value.device}{'' if value.is_contiguous() else ', not contiguous'}"
        for name, (value, shape, dtype) in expected.items()
        if tuple(value.shape) != shape or value.dtype != dtype or value.device != h.device or not value.is_contiguous()
    ]
    if rule.prefix or rule.epsilon < math.inf:
        wrong.append("halt_update knows thresholds and equal guesses, not `prefix` and `epsilon`")
    if wrong:
        raise ValueError("; ".join(wrong) + ".")
    if backend == "reference":
        reference.update(logits, new_h, h, active, loops_taken, threshold, confidence, next_token, rule)
    elif backend == "triton":
        from looplm_kernels.halt_update import fused

        fused.update(logits, new_h, h, active, loops_taken, threshold, confidence, next_token, rule)
    else:
        raise ValueError(f"`backend` must be 'reference' or 'triton': got {backend!r}.")


__all__ = ["SPEC", "halt_update"]
