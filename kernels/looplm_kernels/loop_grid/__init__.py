"""Kernel B: all loops of a token of up to 16 texts in one launch, shared by programs that keep the weights in registers."""

import math

from torch import Tensor

from looplm_kernels.loop import reference
from looplm_kernels.state import TILE, Rule, State, check_call
from looplm_kernels.weights import Weights

SPEC = ("kernels.same-as-reference", "kernels.one-launch", "kernels.weights-stay-in-registers", "halting.kv-publish")


def loop_grid(
    weights: Weights,
    state: State,
    start: Tensor,
    end: Tensor,
    rule: Rule,
    *,
    backend: str = "reference",
    programs: int = 0,
    by_phases: bool = False,
) -> None:
    """Think about at most one new token of each text, at start = end - 1: what `loop` does, for the shortest wait.

    Args:
        weights: of the model.
        state: of at most 16 texts.
        start: int32[B].
        end: int32[B]; only the token at `start` is read, if there is one.
        rule: when the token halts.
        backend: "reference" (that of `loop`) or "triton".
        programs: triton only; how many share the work, a power of two; 0: as many as the GPU runs at once.
        by_phases: triton only; launch each phase by itself, without a barrier. For tests.


    Raises:
        ValueError: before anything runs, if the call cannot be done.

    Spec: [kernels.same-as-reference][], [kernels.refuses][].
    """
    check_call(weights, state, start, end, rule)
    if problem := _problem(state, rule):
        raise ValueError(problem)
    if programs and (programs & (programs - 1) or programs < weights.heads):
        raise ValueError(f"`programs` must be a power of two and at least the {weights.heads} heads: got {programs}.")
    if backend == "reference":
        reference.think(weights, state, start, end, rule)
    elif backend == "triton":
        from looplm_kernels.loop_grid import fused

        fused.think(weights, state, start, end, rule, programs=programs, by_phases=by_phases)
    else:
        raise ValueError(f"`backend` must be 'reference' or 'triton': got {backend!r}.")


def serves(state: State, rule: Rule) -> bool:
    """Whether kernel B can read such texts by such a rule."""
    return not _problem(state, rule)


def _problem(state: State, rule: Rule) -> str:
    """Why kernel B cannot; empty if it can."""
    if state.batch > TILE:
        return f"kernel B reads at most {TILE} texts: got a state of {state.batch}; use looplm_kernels.loop."
    if state.keys.numel() > 2**31:
        return (
            f"the keys that kernel B counts in 32 bits: got {state.keys.numel():,} of at most {2**31:,}; "
            "use looplm_kernels.loop."
        )
    if rule.prefix or rule.epsilon < math.inf:
        return "kernel B knows thresholds and equal guesses; use looplm_kernels.loop for `prefix` and `epsilon`."
    return ""


__all__ = ["SPEC", "loop_grid", "serves"]
