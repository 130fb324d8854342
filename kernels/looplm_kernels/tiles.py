"""What the kernels share, as nested Triton functions: products, norms, positions, online softmax. Imports Triton.

With TRITON_INTERPRET=1 in the environment before the first import, all of it runs in Triton's interpreter, on a CPU.
"""

import os

import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def product(x, w, INTERP: tl.constexpr):
    """X @ w in the dtype of the weights, summed in float32; the interpreter multiplies bf16 as if it were integers."""
    if INTERP:
        return tl.dot(x.to(tl.float32), w.to(tl.float32), input_precision="ieee")
    return tl.dot(x.to(w.dtype), w, input_precision="ieee")


@triton.jit
def normed(x, gain, shift, D: tl.constexpr, DP: tl.constexpr, LAYER_NORM: tl.constexpr):
    """RMSNorm or LayerNorm of each row [R, DP] over its first D columns; the others are and stay 0."""
    if LAYER_NORM:
        x = tl.where((tl.arange(0, DP) < D)[None, :], x - (tl.sum(x, 1) / D)[:, None], 0.0)
    y = x * tl.rsqrt(tl.sum(x * x, 1) / D + 1e-6)[:, None] * gain[None, :]
    if LAYER_NORM:
        y += shift[None, :]
    return y


@triton.jit
def next_place(placed, at, known, position, place_ptr, run_ptr):
    """Place and run of the tokens at `at`, from those of the token before each."""
    before = known & (position > 0)
    place = tl.where(placed, tl.load(place_ptr + at - 1, mask=before, other=0) + 1, 0)
    return place, tl.load(run_ptr + at - 1, mask=before, other=0) + tl.where(placed, 0, 1)


@triton.jit
def turned(x, cos, sin, K: tl.constexpr, KP: tl.constexpr):
    """RoPE of each row [R, KP]: `x * cos + swap_halves(x) * sin`."""
    k = tl.arange(0, KP)
    other = tl.where(k < K, (k + K // 2) % K, k)
    return x * cos + tl.gather(x, tl.broadcast_to(other[None, :], x.shape), 1) * sin


@triton.jit
def gelu(x):
    """The exact GELU."""
    return x * 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def silu(x):
    """X times its sigmoid."""
    return x * tl.sigmoid(x)


@triton.jit
def bias(place, run, key_place, key_run, head, table_ptr, H: tl.constexpr, REACH: tl.constexpr, WINDOW: tl.constexpr):
    """Place scores of queries against keys, shapes that broadcast; -inf beyond the window (-1: no window)."""
    differences: tl.constexpr = 2 * REACH + 1
    apart = key_place - place
    bucket = tl.minimum(tl.maximum(apart, -REACH), REACH) + REACH + tl.where(key_run == run, differences, 0)
    bucket = tl.where(key_place > 0, bucket, 2 * differences)
    score = tl.load(table_ptr + bucket * H + head)
    if WINDOW >= 0:
        score = tl.where((key_place > 0) & (tl.abs(apart) > WINDOW), float("-inf"), score)
    return score


@triton.jit
def rescale(m, new):
    """Online softmax: the new maximum, the factor for old sums, and the number to subtract.

    A maximum of -inf (nothing seen yet) is replaced by 0 where it is subtracted: exp(-inf - -inf) would be NaN.
    """
    m2 = tl.maximum(m, new)
    base = tl.where(m2 > float("-inf"), m2, 0.0)
    return m2, tl.exp(m - base), base


@triton.jit
def best_token(
    x, embedding_ptr, rows, V: tl.constexpr, DP: tl.constexpr, BV: tl.constexpr, STAGES: tl.constexpr, INTERP: tl.constexpr
):
    """Most likely next token of each normed row [R, DP] and its probability: one pass over the vocabulary, no logits kept.

    The probability is 1 / sum(exp(logit - max)). Columns beyond V count as -inf, not as 0: exp(0) would join the sum.
    """
    c = tl.arange(0, DP)
    w = tl.arange(0, BV)
    m = tl.full(rows.shape, float("-inf"), tl.float32)
    z = tl.zeros(rows.shape, tl.float32)
    best = tl.zeros(rows.shape, tl.int32)
    for j in tl.range(0, V, BV, num_stages=STAGES):
        inside = (j + w) < V
        column = tl.load(embedding_ptr + (j + w).to(tl.int64)[None, :] * DP + c[:, None], mask=inside[None, :], other=0.0)
        logit = tl.where(inside[None, :], product(x, column, INTERP), float("-inf"))
        m, z, best = join(m, z, best, logit, j)
    return best, 1.0 / z


@triton.jit
def join(m, z, best, logit, j):
    """Join a chunk of logits [R, BV], the first of which is token j, to the maximum, the sum and the argmax so far."""
    top = tl.max(logit, 1)
    best = tl.where(top > m, j + tl.argmax(logit, 1), best)
    m2, factor, base = rescale(m, top)
    return m2, z * factor + tl.sum(tl.exp(logit - base[:, None]), 1), best
