"""Kernel A, the token tile: 16 rows in one program, all loops, no other program to wait for.

Rows are 16 positions of one text (then a text is walked tile by tile, each through all its loops: causality allows it),
or one new token of 16 texts. Prefill and decoding are the same code. Registers hold h over all loops; every product is
a loop over tiles of the weights, which stay in the L2 cache by themselves.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from looplm_kernels.state import TILE, Rule, State
from looplm_kernels.tiles import INTERPRETED, best_token, bias, gelu, next_place, normed, product, rescale, silu, turned
from looplm_kernels.weights import MLP_CHUNK, Weights, padded


@triton.jit
def _norm(x, which: tl.constexpr, gain_ptr, shift_ptr, D: tl.constexpr, DP: tl.constexpr, LAYER_NORM: tl.constexpr):
    """The norm with the weights of this row of `gains` and `shifts`."""
    c = tl.arange(0, DP)
    gain = tl.load(gain_ptr + which * DP + c)
    return normed(x, gain, tl.load(shift_ptr + which * DP + c) if LAYER_NORM else gain, D, DP, LAYER_NORM)


@triton.jit
def loop_fwd_kernel(
    embedding_ptr, signal_ptr, gain_ptr, shift_ptr, qkv_ptr, out_ptr, gate_ptr, up_ptr, down_ptr,
    cos_ptr, sin_ptr, learned_ptr, table_ptr, has_place_ptr,
    token_ptr, threshold_ptr, limit_ptr, h_ptr, taken_ptr, confidence_ptr, next_ptr, key_ptr, value_ptr, place_ptr, run_ptr,
    start_ptr, end_ptr,
    max_loops, min_loops, epsilon, num_signals, texts, room, cache_loops,
    D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, F: tl.constexpr, V: tl.constexpr,
    BF: tl.constexpr, BV: tl.constexpr, BS: tl.constexpr, R: tl.constexpr,
    ACROSS: tl.constexpr, EVERY_LOOP: tl.constexpr, STATE_NORM: tl.constexpr, LAYER_NORM: tl.constexpr, SWIGLU: tl.constexpr,
    ROPE: tl.constexpr, LEARNED: tl.constexpr, PLACES: tl.constexpr, REACH: tl.constexpr, WINDOW: tl.constexpr,
    AGREE: tl.constexpr, CHANGE: tl.constexpr, PREFIX: tl.constexpr, STAGES: tl.constexpr, INTERP: tl.constexpr,
):  # fmt: skip
    """One tile of rows, or one text tile by tile; see the README for the derivation."""
    room = room.to(tl.int64)  # offsets are products of it, of positions and of ids: they may pass 2**31
    c = tl.arange(0, DP)
    k = tl.arange(0, KP)
    f = tl.arange(0, BF)
    rows = tl.arange(0, R)
    keys_at = tl.arange(0, BS)
    if ACROSS:
        text = tl.program_id(0) * R + rows
        there = text < texts
        first = tl.load(start_ptr + text, mask=there, other=0).to(tl.int64)
        stop = tl.minimum(tl.load(end_ptr + text, mask=there, other=0), room)
        position = first
        tile, last = 0, 1
    else:
        text = tl.program_id(0)
        first = tl.load(start_ptr + text).to(tl.int64)
        stop = tl.minimum(tl.load(end_ptr + text), room)
        tile, last = (first // R) * R, stop
    cache = text * room * (H * cache_loops * K)
    while tile < last:
        if not ACROSS:
            position = tile + rows
        known = position < stop
        new = known & (position >= first)
        at = text * room + position
        token = tl.load(token_ptr + at, mask=known, other=0).to(tl.int64)
        x0_at = embedding_ptr + token[:, None] * DP + c[None, :]
        threshold = tl.load(threshold_ptr + at, mask=new, other=0.0)
        limit = tl.load(limit_ptr + at, mask=new, other=0)
        if ROPE:
            inner = (position < room)[:, None] & (k < K)[None, :]
            cos = tl.load(cos_ptr + position[:, None] * K + k[None, :], mask=inner, other=0.0)
            sin = tl.load(sin_ptr + position[:, None] * K + k[None, :], mask=inner, other=0.0)
        if PLACES:
            placed = (tl.load(has_place_ptr + token) > 0) & known
            if ACROSS:
                place, run = next_place(placed, at, known, position, place_ptr, run_ptr)
            else:  # counted from the last token of the tile before
                earlier = rows[None, :] <= rows[:, None]
                other = tl.where(placed, 0, 1)[None, :]
                broken = tl.max(tl.where(earlier & (other > 0), rows[None, :], -1), 1)
                place_before = tl.load(place_ptr + text * room + tile - 1, mask=tile > 0, other=0)
                run_before = tl.load(run_ptr + text * room + tile - 1, mask=tile > 0, other=0)
                place = tl.where(placed, tl.where(broken >= 0, rows - broken, place_before + rows + 1), 0)
                run = run_before + tl.sum(tl.where(earlier, other, 0), 1)
            tl.store(place_ptr + at, place, mask=new)
            tl.store(run_ptr + at, run, mask=new)

        if PREFIX:  # most loops of an earlier token whose threshold is finite
            waited_for = tl.zeros([R], tl.int32)
            j = 0
            while j <= tl.max(tl.where(known, position, 0), 0):
                s = j + keys_at
                if ACROSS:
                    old = new[:, None] & (s[None, :] < position[:, None])
                    old_at = text[:, None] * room + s[None, :]
                else:
                    old = (s < tl.maximum(tile, first))[None, :] & (rows >= 0)[:, None]
                    old_at = text * room + s[None, :] + rows[:, None] * 0
                asked = tl.load(threshold_ptr + old_at, mask=old, other=float("inf")) < float("inf")
                loops = tl.load(taken_ptr + old_at, mask=old, other=0)
                waited_for = tl.maximum(waited_for, tl.max(tl.where(asked, loops, 0), 1))
                j += BS

        h = tl.zeros([R, DP], tl.float32)
        taken = tl.load(taken_ptr + at, mask=known & (position < first), other=0)
        on = new.to(tl.int32)
        confidence = tl.zeros([R], tl.float32)
        guess = tl.full([R], -1, tl.int32)
        l = 0  # the loop from 0: its entry in the cache
        # A row that has taken l loops offers entry l, also if it has just halted: halting.kv-publish.
        while (l < max_loops) & (tl.max((new & (taken == l)).to(tl.int32), 0) > 0):
            writes = new & (taken == l)
            u = h
            if EVERY_LOOP or l == 0:
                u += tl.load(x0_at).to(tl.float32)
                if LEARNED:
                    u += tl.load(learned_ptr + position[:, None] * DP + c[None, :], mask=known[:, None], other=0.0)
            u += tl.load(signal_ptr + tl.minimum(l, num_signals - 1) * DP + c)[None, :]
            x = _norm(u, 0, gain_ptr, shift_ptr, D, DP, LAYER_NORM)
            for i in tl.range(0, H, num_stages=STAGES):
                w_at = i * DP * KP + c[:, None] * KP + k[None, :]
                key = product(x, tl.load(qkv_ptr + H * DP * KP + w_at), INTERP)
                if ROPE:
                    key = turned(key, cos, sin, K, KP)
                value = product(x, tl.load(qkv_ptr + 2 * H * DP * KP + w_at), INTERP)
                to = (cache + ((i * cache_loops + l) * room + position) * K)[:, None] + k[None, :]
                mask = writes[:, None] & (k < K)[None, :]
                tl.store(key_ptr + to, key.to(key_ptr.dtype.element_ty), mask=mask)
                tl.store(value_ptr + to, value.to(value_ptr.dtype.element_ty), mask=mask)
            tl.debug_barrier()  # the rows of this tile read each other's keys; the interpreter would not miss it
            if tl.max(on, 0) > 0:
                y = u
                for i in tl.range(0, H, num_stages=STAGES):
                    q = product(x, tl.load(qkv_ptr + i * DP * KP + c[:, None] * KP + k[None, :]), INTERP)
                    if ROPE:
                        q = turned(q, cos, sin, K, KP)
                    q *= K**-0.5
                    m = tl.full([R], float("-inf"), tl.float32)
                    z = tl.zeros([R], tl.float32)
                    o = tl.zeros([R, KP], tl.float32)
                    j = 0
                    while j <= tl.max(tl.where(new, position, 0), 0):
                        s = j + keys_at
                        if ACROSS:
                            see = new[:, None] & (s[None, :] <= position[:, None])
                            key_at = text[:, None] * room + s[None, :]
                            loops = tl.load(taken_ptr + key_at, mask=see & (s[None, :] < position[:, None]), other=0)
                            loops = tl.where(s[None, :] == position[:, None], taken[:, None], loops)
                            entry = i * cache_loops + tl.minimum(loops, l)
                            kv_at = (cache[:, None] + (entry * room + s[None, :]) * K)[:, :, None] + k[None, None, :]
                            mask = see[:, :, None] & (k < K)[None, None, :]
                            keys = tl.load(key_ptr + kv_at, mask=mask, other=0.0).to(tl.float32)
                            score = tl.sum(q[:, None, :] * keys, 2)
                            if PLACES:
                                key_place = tl.load(place_ptr + key_at, mask=see, other=0)
                                key_run = tl.load(run_ptr + key_at, mask=see, other=0)
                                score += bias(place[:, None], run[:, None], key_place, key_run, i, table_ptr, H, REACH, WINDOW)
                        else:
                            see = s[None, :] <= position[:, None]
                            loops = tl.load(taken_ptr + text * room + s, mask=s < tile, other=0)
                            loops = tl.where(s < tile, loops, taken)  # the last tile of keys is the tile of rows
                            entry = i * cache_loops + tl.minimum(loops, l)
                            kv_at = (cache + (entry * room + s) * K)[:, None] + k[None, :]
                            mask = (s < stop)[:, None] & (k < K)[None, :]
                            keys = tl.load(key_ptr + kv_at, mask=mask, other=0.0)
                            score = product(q, tl.trans(keys), INTERP)
                            if PLACES:
                                key_place = tl.load(place_ptr + text * room + s, mask=s < stop, other=0)
                                key_run = tl.load(run_ptr + text * room + s, mask=s < stop, other=0)
                                score += bias(
                                    place[:, None],
                                    run[:, None],
                                    key_place[None, :],
                                    key_run[None, :],
                                    i,
                                    table_ptr,
                                    H,
                                    REACH,
                                    WINDOW,
                                )
                        score = tl.where(see, score, float("-inf"))
                        m, factor, base = rescale(m, tl.max(score, 1))
                        p = tl.exp(score - base[:, None])
                        z = z * factor + tl.sum(p, 1)
                        if ACROSS:
                            values = tl.load(value_ptr + kv_at, mask=mask, other=0.0).to(tl.float32)
                            o = o * factor[:, None] + tl.sum(p[:, :, None] * values, 1)
                        else:
                            o = o * factor[:, None] + product(p, tl.load(value_ptr + kv_at, mask=mask, other=0.0), INTERP)
                        j += BS
                    o = o / tl.where(z > 0, z, 1.0)[:, None]
                    y += product(o, tl.load(out_ptr + i * KP * DP + k[:, None] * DP + c[None, :]), INTERP)
                x = _norm(y, 1, gain_ptr, shift_ptr, D, DP, LAYER_NORM)
                for j in tl.range(0, F, BF, num_stages=STAGES):
                    w_at = j * DP + c[:, None] * BF + f[None, :]
                    hidden = product(x, tl.load(up_ptr + w_at), INTERP)
                    if SWIGLU:
                        hidden *= silu(product(x, tl.load(gate_ptr + w_at), INTERP))
                    else:
                        hidden = gelu(hidden)
                    y += product(hidden, tl.load(down_ptr + (j + f)[:, None] * DP + c[None, :]), INTERP)
                if STATE_NORM:
                    y = _norm(y, 2, gain_ptr, shift_ptr, D, DP, LAYER_NORM)
                if CHANGE:
                    moved = y - h
                    change = tl.sqrt(tl.sum(moved * moved, 1)) / tl.sqrt(tl.sum(y * y, 1))
                h = tl.where((on > 0)[:, None], y, h)
                x = _norm(h, 3, gain_ptr, shift_ptr, D, DP, LAYER_NORM)
                best, p = best_token(x, embedding_ptr, rows, V, DP, BV, STAGES, INTERP)
                if PREFIX:
                    sure = (tl.minimum(p, confidence) >= threshold) | (change < epsilon)
                    ready = (best == guess) & sure & (threshold < float("inf")) & (l + 1 >= min_loops)
                    if not ACROSS:  # no row halts before the rows above it
                        going_on = (on > 0) & (ready == 0) & (l + 1 < limit)
                        waiting = tl.where(going_on & (threshold < float("inf")), 1, 0)
                        above = rows[None, :] <= rows[:, None]
                        ready = ready & (tl.max(tl.where(above, waiting[None, :], 0), 1) == 0)
                    ready = ready & (l + 1 >= waited_for)
                else:
                    ready = (p >= threshold) & (l + 1 >= min_loops)
                    if AGREE:
                        ready = ready & (best == guess)
                    if CHANGE:
                        ready = ready & (change < epsilon)
                confidence = tl.where(on > 0, p, confidence)
                guess = tl.where(on > 0, best, guess)
                taken += on
                on = tl.where(ready | (l + 1 >= limit), 0, on)
            l += 1
        tl.store(h_ptr + at[:, None] * D + c[None, :], h, mask=new[:, None] & (c < D)[None, :])
        tl.store(taken_ptr + at, taken, mask=new)
        tl.store(confidence_ptr + at, confidence, mask=new)
        tl.store(next_ptr + at, guess, mask=new)
        tl.debug_barrier()  # the next tile reads what this one stored
        tile += R


KEYS_ACROSS = 16
"""Keys of each text that a tile across texts holds at a time: as many as fit the registers of every profile."""


def think(weights: Weights, state: State, start: Tensor, end: Tensor, rule: Rule, *, across: bool = False) -> None:
    """Launch kernel A: a program for each text, or, `across` texts, for each 16 of them."""
    if weights.compute_dtype.itemsize != 4:
        raise ValueError(f"the fused kernels compute in float32: got weights of {weights.dtype}; use backend='reference'.")
    packed = weights.packed
    grid = (-(-state.batch // TILE),) if across else (state.batch,)
    loop_fwd_kernel[grid](
        packed.embedding, packed.signals, packed.gains, packed.shifts, packed.qkv, packed.out, packed.gate, packed.up,
        packed.down, state.cos, state.sin, packed.learned, packed.place_table, packed.has_place,
        state.tokens, state.threshold, state.limit, state.h, state.loops_taken, state.confidence, state.next_token, state.keys,
        state.values, state.place, state.run, start, end,
        rule.max_loops, rule.min_loops, rule.epsilon, len(weights.signals), state.batch, state.room, state.num_loops,
        **constants(weights, rule, across), **options(),
    )  # fmt: skip


def constants(weights: Weights, rule: Rule, across: bool) -> dict[str, int | bool]:
    """What the kernel is compiled for."""
    places = weights.places
    vocabulary = len(weights.embedding)
    return {
        "D": weights.width,
        "DP": padded(weights.width),
        "H": weights.heads,
        "K": weights.head_dim,
        "KP": padded(weights.head_dim),
        "F": weights.packed.down.shape[0],
        "V": vocabulary,
        "BF": MLP_CHUNK,
        "BV": min(64, padded(vocabulary)),
        "BS": KEYS_ACROSS if across else TILE,
        "R": TILE,
        "ACROSS": across,
        "EVERY_LOOP": weights.every_loop,
        "STATE_NORM": weights.state_norm,
        "LAYER_NORM": weights.shifts is not None,
        "SWIGLU": weights.gate is not None,
        "ROPE": weights.rope,
        "LEARNED": weights.learned is not None,
        "PLACES": places is not None,
        "REACH": places.reach if places else 0,
        "WINDOW": places.window if places and places.window is not None else -1,
        "AGREE": rule.agree,
        "CHANGE": rule.epsilon < math.inf or rule.prefix,
        "PREFIX": rule.prefix,
        "STAGES": 2,
        "INTERP": INTERPRETED,
    }


def options() -> dict[str, int | bool]:
    """How the kernel is compiled: fixed, never tuned at run time, so that the same text gives the same bits tomorrow."""
    return {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": True}
