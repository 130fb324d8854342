"""Kernel B, the grid: the loops of one token of up to 16 texts, shared by programs that keep the weights in registers.

A loop is five phases with a barrier of all programs after each:

    0 heads    a program a head and text: keys and values, what the head reads  writes o, u
    1 mix      columns of the output projection                                 writes y
    2 widen    columns of the MLP's first matrices                              writes hidden
    3 narrow   columns of its last                                              writes z
    4 guess    a part of the vocabulary: maximum, sum, argmax                   writes partials

Then every program computes the same verdict from the partials, so all leave the loop together. What passes between
phases lies in a scratch buffer and is read with .cg, past the L1 cache, which other programs' writes do not reach.

PHASE = -1 is the whole kernel; with PHASE >= 0 a launch is one phase of one loop, so that all but the barrier runs in
the interpreter, whose programs run one after another and would wait for each other for ever.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from looplm_kernels.state import TILE, Rule, State
from looplm_kernels.tiles import INTERPRETED, bias, gelu, join, next_place, normed, product, rescale, silu, turned
from looplm_kernels.weights import MLP_CHUNK, Weights, padded

PHASES = 6
"""Five, and the verdict, which is a launch of its own only where phases are launched one by one."""
KEYS_AT_A_TIME = 16
COLUMNS = 8
"""The fewest columns of a matrix that a program takes, where the matrix units multiply: the narrowest that they know."""


@triton.jit
def meet(barrier_ptr, round, G: tl.constexpr):
    """Wait until all G programs have come here for the round-th time; they must all be running (a cooperative launch)."""
    tl.debug_barrier()  # this program's writes happen before its arrival
    tl.atomic_add(barrier_ptr, 1, sem="acq_rel", scope="gpu")
    while tl.atomic_add(barrier_ptr, 0, sem="acquire", scope="gpu") < round * G:
        pass
    tl.debug_barrier()


@triton.jit
def times(x, w, R: tl.constexpr, INTERP: tl.constexpr):
    """X [R, N] @ w [N, M]: of one row in float32, of more by the matrix units, in the dtype of the weights."""
    if R == 1:
        return tl.sum(tl.trans(x) * w.to(tl.float32), 0)[None, :]
    return product(x, w, INTERP)


@triton.jit
def fresh(ptr, at, inside):
    """A row [1, N] that other programs may have written."""
    return tl.load(ptr + at, mask=inside, other=0.0, cache_modifier=".cg")[None, :]


@triton.jit
def fresh_rows(ptr, size: tl.constexpr, live, at, inside):
    """Rows [R, N] of so many numbers each, that other programs may have written; of those that are not live, 0."""
    where = tl.arange(0, live.shape[0])[:, None] * size + at[None, :]
    return tl.load(ptr + where, mask=inside[None, :] & live[:, None], other=0.0, cache_modifier=".cg")


@triton.jit
def of(x, rows, row):
    """The number of one row."""
    return tl.sum(tl.where(rows == row, x, 0), 0)


@triton.jit
def loop_grid_fwd_kernel(
    embedding_ptr, signal_ptr, gain_ptr, shift_ptr, qkv_ptr, out_ptr, gate_ptr, up_ptr, down_ptr,
    cos_ptr, sin_ptr, learned_ptr, table_ptr, has_place_ptr,
    token_ptr, threshold_ptr, limit_ptr, h_ptr, taken_ptr, confidence_ptr, next_ptr, key_ptr, value_ptr, place_ptr, run_ptr,
    start_ptr, end_ptr, scratch_ptr, barrier_ptr,
    max_loops, min_loops, num_signals, texts, room, cache_loops, first_loop,
    R: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, HK: tl.constexpr,
    F: tl.constexpr, FP: tl.constexpr, V: tl.constexpr, BF: tl.constexpr, BS: tl.constexpr,
    G: tl.constexpr, BO: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr, GV: tl.constexpr,
    EVERY_LOOP: tl.constexpr, STATE_NORM: tl.constexpr, LAYER_NORM: tl.constexpr, SWIGLU: tl.constexpr, ROPE: tl.constexpr,
    LEARNED: tl.constexpr, PLACES: tl.constexpr, REACH: tl.constexpr, WINDOW: tl.constexpr, AGREE: tl.constexpr,
    PHASE: tl.constexpr, INTERP: tl.constexpr,
):  # fmt: skip
    """All loops of the token at `start` of each text, or one phase of one loop; see the README for the derivation."""
    rows = tl.arange(0, R)
    there = rows < texts
    start = tl.load(start_ptr + rows, mask=there, other=0)
    new = there & (start < tl.minimum(tl.load(end_ptr + rows, mask=there, other=0), room))
    if tl.max(new.to(tl.int32), 0) == 0:
        return  # no new token, for every program alike
    g = tl.program_id(0)
    c = tl.arange(0, DP)
    k = tl.arange(0, KP)
    own = g * BO + tl.arange(0, BO)  # columns of the width
    mine = own < DP
    n = g * BN + tl.arange(0, BN)  # columns of the MLP
    f = tl.arange(0, FP // 2)
    r = tl.arange(0, HK)
    w = g * BV + tl.arange(0, BV)  # tokens of the vocabulary
    i = g % H  # the head, of the rows g // H, g // H + SHARERS, ...
    SHARERS: tl.constexpr = G // H

    # Every weight that this program needs in any loop, loaded once.
    w_at = i * DP * KP + c[:, None] * KP + k[None, :]
    head = (c >= 0)[:, None] & (g < H * SHARERS) & (g // H < R)  # all or none of the tile
    w_q = tl.load(qkv_ptr + w_at, mask=head, other=0.0)
    w_k = tl.load(qkv_ptr + H * DP * KP + w_at, mask=head, other=0.0)
    w_v = tl.load(qkv_ptr + 2 * H * DP * KP + w_at, mask=head, other=0.0)
    w_out = tl.load(out_ptr + r[:, None] * DP + own[None, :], mask=(r < H * KP)[:, None] & mine[None, :], other=0.0)
    n_at = (n // BF)[None, :] * (DP * BF) + c[:, None] * BF + (n % BF)[None, :]
    w_up = tl.load(up_ptr + n_at, mask=(n < F)[None, :], other=0.0)
    if SWIGLU:
        w_gate = tl.load(gate_ptr + n_at, mask=(n < F)[None, :], other=0.0)
    f2 = FP // 2 + f  # in two halves: a product's rows pass through shared memory
    w_down = tl.load(down_ptr + f[:, None] * DP + own[None, :], mask=(f < F)[:, None] & mine[None, :], other=0.0)
    w_down2 = tl.load(down_ptr + f2[:, None] * DP + own[None, :], mask=(f2 < F)[:, None] & mine[None, :], other=0.0)
    w_head = tl.load(embedding_ptr + w[None, :] * DP + c[:, None], mask=(w < V)[None, :], other=0.0)
    gain0, gain1 = tl.load(gain_ptr + c), tl.load(gain_ptr + DP + c)
    gain2, gain3 = tl.load(gain_ptr + 2 * DP + c), tl.load(gain_ptr + 3 * DP + c)
    if LAYER_NORM:
        shift0, shift1 = tl.load(shift_ptr + c), tl.load(shift_ptr + DP + c)
        shift2, shift3 = tl.load(shift_ptr + 2 * DP + c), tl.load(shift_ptr + 3 * DP + c)
    else:
        shift0, shift1, shift2, shift3 = gain0, gain1, gain2, gain3

    at = rows * room + start
    token = tl.load(token_ptr + at, mask=new, other=0)
    threshold = tl.load(threshold_ptr + at, mask=new, other=0.0)
    limit = tl.load(limit_ptr + at, mask=new, other=0)
    places, runs = rows * 0, rows * 0
    if PLACES:
        placed = (tl.load(has_place_ptr + token) > 0) & new
        places, runs = next_place(placed, at, new, start, place_ptr, run_ptr)
        tl.store(place_ptr + at, places, mask=new)  # every program stores the same
        tl.store(run_ptr + at, runs, mask=new)

    u_ptr = scratch_ptr
    y_ptr = u_ptr + R * DP
    z_ptr = y_ptr + R * DP
    o_ptr = z_ptr + R * DP
    hidden_ptr = o_ptr + R * HK
    partial_ptr = hidden_ptr + R * FP  # [3, R, GV]: maximum, sum, argmax
    status_ptr = partial_ptr + 3 * R * GV  # [4, R] taken, guess, running, confidence: what one-phase launches keep
    part = tl.arange(0, GV)[None, :]
    parts = rows[:, None] * GV + part

    taken, guess = tl.where(new, 0, -1), rows * 0 - 1
    running, confidence = new.to(tl.int32), tl.zeros([R], tl.float32)
    if PHASE > 0 or (PHASE == 0 and first_loop > 0):
        taken = tl.load(status_ptr + rows).to(tl.int32)
        guess = tl.load(status_ptr + R + rows).to(tl.int32)
        running = tl.load(status_ptr + 2 * R + rows).to(tl.int32)
        confidence = tl.load(status_ptr + 3 * R + rows)
    rounds = 0
    l = first_loop
    last = first_loop + 1 if PHASE >= 0 else max_loops
    # a token that halted after loop l still offers entry l: halting.kv-publish
    while (l < last) & (tl.max((taken == l).to(tl.int32), 0) > 0):
        if PHASE <= 0:
            row = tl.where(g < H * SHARERS, g // H, R)
            while row < R:
                if of(taken, rows, row) == l:
                    position = of(start, rows, row)
                    u = tl.zeros([1, DP], tl.float32)
                    if l > 0:
                        u += fresh(z_ptr + row * DP, c, c < DP)
                        if STATE_NORM:
                            u = normed(u, gain2, shift2, D, DP, LAYER_NORM)
                    if EVERY_LOOP or l == 0:
                        u += fresh(embedding_ptr + of(token, rows, row) * DP, c, c < DP).to(tl.float32)
                        if LEARNED:
                            u += fresh(learned_ptr + position * DP, c, c < DP)
                    u += fresh(signal_ptr, tl.minimum(l, num_signals - 1) * DP + c, c < DP)
                    if i == 0:
                        tl.store(u_ptr + row * DP + c[None, :], u)
                    x = normed(u, gain0, shift0, D, DP, LAYER_NORM)
                    key, value = times(x, w_k, 1, INTERP), times(x, w_v, 1, INTERP)
                    if ROPE:
                        cos, sin = fresh(cos_ptr + position * K, k, k < K), fresh(sin_ptr + position * K, k, k < K)
                        key = turned(key, cos, sin, K, KP)
                    cache = (row * H + i) * cache_loops
                    to = ((cache + l) * room + position) * K + k[None, :]
                    tl.store(key_ptr + to, key.to(key_ptr.dtype.element_ty), mask=(k < K)[None, :])
                    tl.store(value_ptr + to, value.to(value_ptr.dtype.element_ty), mask=(k < K)[None, :])
                    tl.debug_barrier()
                    if of(running, rows, row) > 0:
                        q = times(x, w_q, 1, INTERP)
                        if ROPE:
                            q = turned(q, cos, sin, K, KP)
                        q *= K**-0.5
                        m = tl.full([1], float("-inf"), tl.float32)
                        z = tl.zeros([1], tl.float32)
                        o = tl.zeros([1, KP], tl.float32)
                        j = 0
                        while j <= position:
                            s = j + tl.arange(0, BS)
                            loops = tl.load(taken_ptr + row * room + s, mask=s < position, other=0, cache_modifier=".cg")
                            loops = tl.where(s == position, l, loops)
                            kv_at = ((cache + tl.minimum(loops, l)) * room + s)[:, None] * K + k[None, :]
                            mask = (s <= position)[:, None] & (k < K)[None, :]
                            keys = tl.load(key_ptr + kv_at, mask=mask, other=0.0, cache_modifier=".cg").to(tl.float32)
                            score = tl.sum(q * keys, 1)[None, :]
                            if PLACES:
                                seen_at = row * room + s
                                key_place = tl.load(place_ptr + seen_at, mask=s <= position, other=0, cache_modifier=".cg")
                                key_run = tl.load(run_ptr + seen_at, mask=s <= position, other=0, cache_modifier=".cg")
                                place, run = of(places, rows, row), of(runs, rows, row)
                                score += bias(place, run, key_place, key_run, i, table_ptr, H, REACH, WINDOW)[None, :]
                            score = tl.where((s <= position)[None, :], score, float("-inf"))
                            m, factor, base = rescale(m, tl.max(score, 1))
                            p = tl.exp(score - base[:, None])
                            z = z * factor + tl.sum(p, 1)
                            values = tl.load(value_ptr + kv_at, mask=mask, other=0.0, cache_modifier=".cg")
                            o = o * factor[:, None] + times(p, values, 1, INTERP)
                            j += BS
                        tl.store(o_ptr + row * HK + i * KP + k[None, :], o / z[:, None])
                row += SHARERS
        live = running > 0
        if tl.max(running, 0) > 0:
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 1:  # noqa: SIM102 - decided when it is compiled
                if g * BO < DP:
                    y = fresh_rows(u_ptr, DP, live, own, mine)
                    y += times(fresh_rows(o_ptr, HK, live, r, r < H * KP), w_out, R, INTERP)
                    tl.store(y_ptr + rows[:, None] * DP + own[None, :], y, mask=mine[None, :] & live[:, None])
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 2:  # noqa: SIM102 - decided when it is compiled
                if g * BN < F:
                    x = normed(fresh_rows(y_ptr, DP, live, c, c < DP), gain1, shift1, D, DP, LAYER_NORM)
                    hidden = times(x, w_up, R, INTERP)
                    if SWIGLU:
                        hidden *= silu(times(x, w_gate, R, INTERP))
                    else:
                        hidden = gelu(hidden)
                    tl.store(hidden_ptr + rows[:, None] * FP + n[None, :], hidden, mask=(n < F)[None, :] & live[:, None])
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 3:  # noqa: SIM102 - decided when it is compiled
                if g * BO < DP:
                    y = fresh_rows(y_ptr, DP, live, own, mine)
                    y += times(fresh_rows(hidden_ptr, FP, live, f, f < F), w_down, R, INTERP)
                    y += times(fresh_rows(hidden_ptr, FP, live, f2, f2 < F), w_down2, R, INTERP)
                    # a halted row's state is never written again
                    tl.store(z_ptr + rows[:, None] * DP + own[None, :], y, mask=mine[None, :] & live[:, None])
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 4:  # noqa: SIM102 - decided when it is compiled
                if g * BV < V:
                    h = fresh_rows(z_ptr, DP, live, c, c < DP)
                    if STATE_NORM:
                        h = normed(h, gain2, shift2, D, DP, LAYER_NORM)
                    logit = times(normed(h, gain3, shift3, D, DP, LAYER_NORM), w_head, R, INTERP)
                    logit = tl.where((w < V)[None, :], logit, float("-inf"))
                    m, z = tl.full([R], float("-inf"), tl.float32), tl.zeros([R], tl.float32)
                    m, z, best = join(m, z, rows * 0, logit, g * BV)
                    tl.store(partial_ptr + rows * GV + g, m)
                    tl.store(partial_ptr + R * GV + rows * GV + g, z)
                    tl.store(partial_ptr + 2 * R * GV + rows * GV + g, best.to(tl.float32))
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 5:
                counted = (part * BV < V) & live[:, None]
                m = tl.load(partial_ptr + parts, mask=counted, other=float("-inf"), cache_modifier=".cg")
                z = tl.load(partial_ptr + R * GV + parts, mask=counted, other=0.0, cache_modifier=".cg")
                tokens = tl.load(partial_ptr + 2 * R * GV + parts, mask=counted, other=0.0, cache_modifier=".cg")
                m = tl.where(live[:, None], m, 0.0)
                top = tl.max(m, 1)
                sure = 1.0 / tl.where(live, tl.sum(z * tl.exp(m - top[:, None]), 1), 1.0)
                best = tl.min(tl.where(m == top[:, None], tokens, V - 1), 1).to(tl.int32)  # of equal ones the first
                ready = (sure >= threshold) & (l + 1 >= min_loops)
                if AGREE:
                    ready = ready & (best == guess)
                confidence = tl.where(running > 0, sure, confidence)
                guess = tl.where(running > 0, best, guess)
                taken += running
                running = tl.where(ready | (l + 1 >= limit), 0, running)
        l += 1

    if (PHASE == 0 or PHASE == 5) and g == 0:
        tl.store(status_ptr + rows, taken)
        tl.store(status_ptr + R + rows, guess)
        tl.store(status_ptr + 2 * R + rows, running)
        tl.store(status_ptr + 3 * R + rows, confidence)
    if (PHASE < 0 or PHASE == 5) and g == 0:
        h = fresh_rows(z_ptr, DP, new, c, c < DP)
        if STATE_NORM:
            h = normed(h, gain2, shift2, D, DP, LAYER_NORM)
        tl.store(h_ptr + at[:, None] * D + c[None, :], h, mask=new[:, None] & (c < D)[None, :])
        tl.store(taken_ptr + at, taken, mask=new)
        tl.store(confidence_ptr + at, confidence, mask=new)
        tl.store(next_ptr + at, guess, mask=new)
    if PHASE < 0:  # the last program to leave sets both counters back for the next launch
        tl.debug_barrier()
        if tl.atomic_add(barrier_ptr + 1, 1, sem="acq_rel", scope="gpu") == G - 1:
            tl.atomic_xchg(barrier_ptr + 1, 0, sem="relaxed", scope="gpu")
            tl.atomic_xchg(barrier_ptr, 0, sem="release", scope="gpu")


def think(
    weights: Weights, state: State, start: Tensor, end: Tensor, rule: Rule, *, programs: int = 0, by_phases: bool = False
) -> None:
    """Launch kernel B for one new token of each text; `by_phases` launches every phase of every loop by itself."""
    if weights.compute_dtype.itemsize != 4:
        raise ValueError(f"the fused kernels compute in float32: got weights of {weights.dtype}; use backend='reference'.")
    device = weights.embedding.device
    if not programs:
        programs = default_programs(weights, torch.cuda.get_device_properties(device).multi_processor_count)
    packed, fixed = weights.packed, constants(weights, rule, programs, state.batch)
    size = fixed["R"] * (3 * fixed["DP"] + fixed["HK"] + fixed["FP"] + 3 * fixed["GV"] + 4)
    if "scratch" not in state.workspace or len(state.workspace["scratch"]) != size:
        state.workspace["scratch"] = torch.full((size,), float("nan"), device=device)
        state.workspace["barrier"] = torch.zeros(2, dtype=torch.int32, device=device)
    scratch, barrier = state.workspace["scratch"], state.workspace["barrier"]

    def launch(phase: int, l: int) -> None:
        loop_grid_fwd_kernel[(programs,)](
            packed.embedding, packed.signals, packed.gains, packed.shifts, packed.qkv, packed.out, packed.gate, packed.up,
            packed.down, state.cos, state.sin, packed.learned, packed.place_table, packed.has_place,
            state.tokens, state.threshold, state.limit, state.h, state.loops_taken, state.confidence, state.next_token,
            state.keys, state.values, state.place, state.run, start, end, scratch, barrier,
            rule.max_loops, rule.min_loops, len(weights.signals), state.batch, state.room, state.num_loops, l,
            **fixed | {"PHASE": phase}, **options(weights.width),
        )  # fmt: skip

    if not by_phases:
        launch(-1, 0)
        return
    for l in range(rule.max_loops):
        for phase in range(PHASES):
            launch(phase, l)


def constants(weights: Weights, rule: Rule, programs: int, texts: int = 1) -> dict[str, int | bool]:
    """What the kernel is compiled for."""
    places, hidden, vocabulary = weights.places, weights.packed.down.shape[0], len(weights.embedding)
    d, k = padded(weights.width), padded(weights.head_dim)

    def share(size: int) -> int:
        return max(power_of_two(-(-size // programs)), 1 if texts == 1 else COLUMNS)

    return {
        "R": 1 if texts == 1 else TILE,
        "D": weights.width,
        "DP": d,
        "H": weights.heads,
        "K": weights.head_dim,
        "KP": k,
        "HK": power_of_two(weights.heads * k),
        "F": hidden,
        "FP": power_of_two(hidden),
        "V": vocabulary,
        "BF": MLP_CHUNK,
        "BS": KEYS_AT_A_TIME,
        "G": programs,
        "BO": share(d),
        "BN": share(hidden),
        "BV": share(vocabulary),
        "GV": power_of_two(-(-vocabulary // share(vocabulary))),
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
        "PHASE": -1,
        "INTERP": INTERPRETED,
    }


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << max(0, size - 1).bit_length()


def default_programs(weights: Weights, multiprocessors: int) -> int:
    """A power of two, at most one program a multiprocessor (all must run at once), and two columns of the width each."""
    return min(1 << (multiprocessors.bit_length() - 1), padded(weights.width) // 2)


def options(width: int) -> dict[str, int | bool]:
    """How the kernel is compiled; cooperative, so that the driver refuses a grid whose programs cannot all run at once."""
    warps = 4 if padded(width) <= 64 else 8  # more threads than a row has columns would each hold copies of it
    return {"num_warps": warps, "num_stages": 1, "launch_cooperative_grid": not INTERPRETED, "enable_fp_fusion": True}
