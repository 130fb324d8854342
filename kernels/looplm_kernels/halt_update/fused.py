"""The end of a loop in one launch: no logits are copied, no probabilities stored, nothing waits for the host."""

import triton
import triton.language as tl
from torch import Tensor

from looplm_kernels.state import TILE, Rule
from looplm_kernels.tiles import join


@triton.jit
def halt_update_fwd_kernel(
    logit_ptr, new_ptr, h_ptr, active_ptr, taken_ptr, threshold_ptr, confidence_ptr, next_ptr,
    tokens, max_loops, min_loops,
    V: tl.constexpr, D: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr, R: tl.constexpr, AGREE: tl.constexpr,
):  # fmt: skip
    """R tokens a program: one pass over their logits, one over their states."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    there = row < tokens
    on = (tl.load(active_ptr + row, mask=there, other=0) > 0) & there
    at = row.to(tl.int64)[:, None]
    w = tl.arange(0, BV)
    m = tl.full([R], float("-inf"), tl.float32)
    z = tl.zeros([R], tl.float32)
    best = tl.zeros([R], tl.int32)
    for j in tl.range(0, V, BV):
        inside = on[:, None] & ((j + w) < V)[None, :]
        logit = tl.load(logit_ptr + at * V + (j + w)[None, :], mask=inside, other=float("-inf")).to(tl.float32)
        m, z, best = join(m, z, best, logit, j)
    confidence = 1.0 / tl.where(on, z, 1.0)
    taken = tl.load(taken_ptr + row, mask=there, other=0) + on.to(tl.int32)
    ready = (confidence >= tl.load(threshold_ptr + row, mask=there, other=0.0)) & (taken >= min_loops)
    if AGREE:
        ready = ready & (best == tl.load(next_ptr + row, mask=there, other=-1))
    ready = ready | (taken >= max_loops)
    tl.store(confidence_ptr + row, confidence, mask=on)
    tl.store(next_ptr + row, best, mask=on)
    tl.store(taken_ptr + row, taken, mask=on)
    tl.store(active_ptr + row, tl.where(ready, 0, 1), mask=on)
    d = tl.arange(0, BD)
    for j in tl.range(0, D, BD):  # frozen rows are neither read nor written
        inside = on[:, None] & ((j + d) < D)[None, :]
        column = (j + d)[None, :]
        tl.store(h_ptr + at * D + column, tl.load(new_ptr + at * D + column, mask=inside), mask=inside)


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
    """Launch it: a program for each 16 tokens."""
    tokens, vocabulary = logits.shape
    halt_update_fwd_kernel[(-(-tokens // TILE),)](
        logits, new_h, h, active, loops_taken, threshold, confidence, next_token, tokens, rule.max_loops, rule.min_loops,
        **constants(vocabulary, new_h.shape[1], rule.agree), **options(),
    )  # fmt: skip


def constants(vocabulary: int, width: int, agree: bool = False) -> dict[str, int | bool]:
    """What the kernel is compiled for."""

    def block(size: int, most: int) -> int:
        return min(most, 1 << max(4, (size - 1).bit_length()))

    return {"V": vocabulary, "D": width, "BV": block(vocabulary, 128), "BD": block(width, 128), "R": TILE, "AGREE": agree}


def options() -> dict[str, int | bool]:
    """How the kernel is compiled."""
    return {"num_warps": 4, "enable_fp_fusion": True}
