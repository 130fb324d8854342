"""Kernel A: the whole loop of a batch of texts in one launch."""

from torch import Tensor

from looplm_kernels.loop import reference
from looplm_kernels.state import Rule, State, check_call
from looplm_kernels.weights import Weights

SPEC = (
    "kernels.same-as-reference",
    "kernels.one-launch",
    "kernels.confidence",
    "kernels.halts",
    "kernels.prefill-is-decode",
    "kernels.batch-invariant",
    "kernels.only-what-was-written",
    "halting.kv-publish",
    "halting.freeze",
    "halting.at-least-one-loop",
)


def loop(
    weights: Weights, state: State, start: Tensor, end: Tensor, rule: Rule, *, backend: str = "reference", across: bool = False
) -> None:
    """Think about tokens start[b]..end[b] - 1 of each text b until each has halted, and write into `state`.

    Prefill and decoding are this one call: of many new tokens, of one, or of none (start = end). The tokens before
    `start` must have been thought about. What a token gets does not depend on other texts, on how the tokens were cut
    into calls, or on the room that the state has.

    Args:
        weights: of the model.
        state: from `empty`, with `tokens` written up to `end` and thresholds set.
        start: int32[B].
        end: int32[B], at most `state.room`.
        rule: when a token halts.
        backend: "reference" or "triton".
        across: triton only; a tile of 16 texts with at most one new token each, in place of 16 positions of one text.


    Raises:
        ValueError: before anything runs, if the call cannot be done.

    Spec: [kernels.same-as-reference][], [kernels.refuses][].
    """
    check_call(weights, state, start, end, rule)
    if backend == "reference":
        reference.think(weights, state, start, end, rule)
    elif backend == "triton":
        from looplm_kernels.loop import fused

        fused.think(weights, state, start, end, rule, across=across)
    else:
        raise ValueError(f"`backend` must be 'reference' or 'triton': got {backend!r}.")


__all__ = ["SPEC", "loop"]
