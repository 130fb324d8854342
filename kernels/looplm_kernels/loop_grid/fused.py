"""Kernel B, the grid: one token's loops, shared by programs that each keep a slice of the weights in registers.

A loop is five phases with a barrier of all programs after each:

    0 heads    a program a head: keys and values, and what the head reads       writes o, u
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

from looplm_kernels.state import Rule, State
from looplm_kernels.tiles import INTERPRETED, bias, gelu, join, next_place, normed, rescale, silu, turned
from looplm_kernels.weights import MLP_CHUNK, Weights, padded

PHASES = 6
"""Five, and the verdict, which is a launch of its own only where phases are launched one by one."""
KEYS_AT_A_TIME = 16


@triton.jit
def meet(barrier_ptr, round, G: tl.constexpr):
    """Wait until all G programs have come here for the round-th time; they must all be running (a cooperative launch)."""
    tl.debug_barrier()  # this program's writes happen before its arrival
    tl.atomic_add(barrier_ptr, 1, sem="acq_rel", scope="gpu")
    while tl.atomic_add(barrier_ptr, 0, sem="acquire", scope="gpu") < round * G:
        pass
    tl.debug_barrier()


@triton.jit
def times(x, w):
    """X [1, N] @ w [N, M], products and sums in float32."""
    return tl.sum(tl.trans(x) * w.to(tl.float32), 0)[None, :]


@triton.jit
def fresh(ptr, at, inside):
    """A row [1, N] that other programs may have written."""
    return tl.load(ptr + at, mask=inside, other=0.0, cache_modifier=".cg")[None, :]


@triton.jit
def loop_grid_fwd_kernel(
    embedding_ptr, signal_ptr, gain_ptr, shift_ptr, qkv_ptr, out_ptr, gate_ptr, up_ptr, down_ptr,
    cos_ptr, sin_ptr, learned_ptr, table_ptr, has_place_ptr,
    token_ptr, threshold_ptr, limit_ptr, h_ptr, taken_ptr, confidence_ptr, next_ptr, key_ptr, value_ptr, place_ptr, run_ptr,
    start_ptr, end_ptr, scratch_ptr, barrier_ptr,
    max_loops, min_loops, num_signals, room, cache_loops, first_loop,
    D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, HK: tl.constexpr,
    F: tl.constexpr, FP: tl.constexpr, V: tl.constexpr, BF: tl.constexpr, BS: tl.constexpr,
    G: tl.constexpr, BO: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr,
    EVERY_LOOP: tl.constexpr, STATE_NORM: tl.constexpr, LAYER_NORM: tl.constexpr, SWIGLU: tl.constexpr, ROPE: tl.constexpr,
    LEARNED: tl.constexpr, PLACES: tl.constexpr, REACH: tl.constexpr, WINDOW: tl.constexpr, AGREE: tl.constexpr,
    PHASE: tl.constexpr,
):  # fmt: skip
    """All loops of the token at `start` of one text, or one phase of one loop; see the README for the derivation."""
    position = tl.load(start_ptr)
    if position >= tl.minimum(tl.load(end_ptr), room):
        return  # no new token, for every program alike
    g = tl.program_id(0)
    c = tl.arange(0, DP)
    k = tl.arange(0, KP)
    own = g * BO + tl.arange(0, BO)  # columns of the width
    mine = own < DP
    n = g * BN + tl.arange(0, BN)  # columns of the MLP
    f = tl.arange(0, FP)
    r = tl.arange(0, HK)
    w = g * BV + tl.arange(0, BV)  # tokens of the vocabulary
    i = tl.minimum(g, H - 1)  # the head, for the first H programs

    # Every weight that this program needs in any loop, loaded once.
    w_at = i * DP * KP + c[:, None] * KP + k[None, :]
    head = (g * DP + c)[:, None] < H * DP  # all or none of the tile
    w_q = tl.load(qkv_ptr + w_at, mask=head, other=0.0)
    w_k = tl.load(qkv_ptr + H * DP * KP + w_at, mask=head, other=0.0)
    w_v = tl.load(qkv_ptr + 2 * H * DP * KP + w_at, mask=head, other=0.0)
    w_out = tl.load(out_ptr + r[:, None] * DP + own[None, :], mask=(r < H * KP)[:, None] & mine[None, :], other=0.0)
    n_at = (n // BF)[None, :] * (DP * BF) + c[:, None] * BF + (n % BF)[None, :]
    w_up = tl.load(up_ptr + n_at, mask=(n < F)[None, :], other=0.0)
    if SWIGLU:
        w_gate = tl.load(gate_ptr + n_at, mask=(n < F)[None, :], other=0.0)
    w_down = tl.load(down_ptr + f[:, None] * DP + own[None, :], mask=(f < F)[:, None] & mine[None, :], other=0.0)
    w_head = tl.load(embedding_ptr + w[None, :] * DP + c[:, None], mask=(w < V)[None, :], other=0.0)
    gain0, gain1 = tl.load(gain_ptr + c), tl.load(gain_ptr + DP + c)
    gain2, gain3 = tl.load(gain_ptr + 2 * DP + c), tl.load(gain_ptr + 3 * DP + c)
    if LAYER_NORM:
        shift0, shift1 = tl.load(shift_ptr + c), tl.load(shift_ptr + DP + c)
        shift2, shift3 = tl.load(shift_ptr + 2 * DP + c), tl.load(shift_ptr + 3 * DP + c)
    else:
        shift0, shift1, shift2, shift3 = gain0, gain1, gain2, gain3

    token = tl.load(token_ptr + position)
    threshold = tl.load(threshold_ptr + position)
    limit = tl.load(limit_ptr + position)
    x0 = tl.load(embedding_ptr + token * DP + c).to(tl.float32)[None, :]
    if LEARNED:
        x0 += tl.load(learned_ptr + position * DP + c)[None, :]
    if ROPE:
        cos = tl.load(cos_ptr + position * K + k, mask=k < K, other=0.0)[None, :]
        sin = tl.load(sin_ptr + position * K + k, mask=k < K, other=0.0)[None, :]
    place, run = 0, 0
    if PLACES:
        placed = tl.load(has_place_ptr + token) > 0
        place, run = next_place(placed, position, position >= 0, position, place_ptr, run_ptr)
        tl.store(place_ptr + position, place)  # every program stores the same
        tl.store(run_ptr + position, run)

    u_ptr = scratch_ptr
    y_ptr = u_ptr + DP
    z_ptr = y_ptr + DP
    o_ptr = z_ptr + DP
    hidden_ptr = o_ptr + HK
    partial_ptr = hidden_ptr + FP  # [3, G]: maximum, sum, argmax
    status_ptr = partial_ptr + 3 * G  # taken, guess, running, confidence: what one-phase launches keep
    all_g = tl.arange(0, G)

    taken, guess, running, confidence = 0, -1, 1, 0.0
    if PHASE > 0 or (PHASE == 0 and first_loop > 0):
        taken = tl.load(status_ptr).to(tl.int32)
        guess = tl.load(status_ptr + 1).to(tl.int32)
        running = tl.load(status_ptr + 2).to(tl.int32)
        confidence = tl.load(status_ptr + 3)
    rounds = 0
    l = first_loop
    last = first_loop + 1 if PHASE >= 0 else max_loops
    # a token that halted after loop l still offers entry l: halting.kv-publish
    while (l < last) & (taken == l):
        if PHASE <= 0:
            u = tl.zeros([1, DP], tl.float32)
            if l > 0:
                u += fresh(z_ptr, c, c < DP)
                if STATE_NORM:
                    u = normed(u, gain2, shift2, D, DP, LAYER_NORM)
            if EVERY_LOOP or l == 0:
                u += x0
            u += fresh(signal_ptr, tl.minimum(l, num_signals - 1) * DP + c, c < DP)
            if g == 0:
                tl.store(u_ptr + c[None, :], u)
            if g < H:
                x = normed(u, gain0, shift0, D, DP, LAYER_NORM)
                key, value = times(x, w_k), times(x, w_v)
                if ROPE:
                    key = turned(key, cos, sin, K, KP)
                to = ((i * cache_loops + l) * room + position) * K + k[None, :]
                tl.store(key_ptr + to, key.to(key_ptr.dtype.element_ty), mask=(k < K)[None, :])
                tl.store(value_ptr + to, value.to(value_ptr.dtype.element_ty), mask=(k < K)[None, :])
                tl.debug_barrier()
                if running > 0:
                    q = times(x, w_q)
                    if ROPE:
                        q = turned(q, cos, sin, K, KP)
                    q *= K**-0.5
                    m = tl.full([1], float("-inf"), tl.float32)
                    z = tl.zeros([1], tl.float32)
                    o = tl.zeros([1, KP], tl.float32)
                    j = 0
                    while j <= position:
                        s = j + tl.arange(0, BS)
                        loops = tl.load(taken_ptr + s, mask=s < position, other=0, cache_modifier=".cg")
                        loops = tl.where(s == position, taken, loops)
                        kv_at = ((i * cache_loops + tl.minimum(loops, l)) * room + s)[:, None] * K + k[None, :]
                        mask = (s <= position)[:, None] & (k < K)[None, :]
                        keys = tl.load(key_ptr + kv_at, mask=mask, other=0.0, cache_modifier=".cg").to(tl.float32)
                        score = tl.sum(q * keys, 1)[None, :]
                        if PLACES:
                            key_place = tl.load(place_ptr + s, mask=s <= position, other=0, cache_modifier=".cg")
                            key_run = tl.load(run_ptr + s, mask=s <= position, other=0, cache_modifier=".cg")
                            score += bias(place, run, key_place, key_run, i, table_ptr, H, REACH, WINDOW)[None, :]
                        score = tl.where((s <= position)[None, :], score, float("-inf"))
                        m, factor, base = rescale(m, tl.max(score, 1))
                        p = tl.exp(score - base[:, None])
                        z = z * factor + tl.sum(p, 1)
                        values = tl.load(value_ptr + kv_at, mask=mask, other=0.0, cache_modifier=".cg")
                        o = o * factor[:, None] + times(p, values)
                        j += BS
                    tl.store(o_ptr + i * KP + k[None, :], o / z[:, None])
        if running > 0:
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 1:
                y = fresh(u_ptr, own, mine) + times(fresh(o_ptr, r, r < H * KP), w_out)
                tl.store(y_ptr + own[None, :], y, mask=mine[None, :])
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 2:
                x = normed(fresh(y_ptr, c, c < DP), gain1, shift1, D, DP, LAYER_NORM)
                hidden = times(x, w_up)
                if SWIGLU:
                    hidden *= silu(times(x, w_gate))
                else:
                    hidden = gelu(hidden)
                tl.store(hidden_ptr + n[None, :], hidden, mask=(n < F)[None, :])
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 3:
                y = fresh(y_ptr, own, mine) + times(fresh(hidden_ptr, f, f < F), w_down)
                tl.store(z_ptr + own[None, :], y, mask=mine[None, :])
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 4:
                h = fresh(z_ptr, c, c < DP)
                if STATE_NORM:
                    h = normed(h, gain2, shift2, D, DP, LAYER_NORM)
                logit = times(normed(h, gain3, shift3, D, DP, LAYER_NORM), w_head)
                logit = tl.where((w < V)[None, :], logit, float("-inf"))
                m, z = tl.full([1], float("-inf"), tl.float32), tl.zeros([1], tl.float32)
                m, z, best = join(m, z, tl.zeros([1], tl.int32), logit, g * BV)
                tl.store(partial_ptr + g + tl.arange(0, 1), m)
                tl.store(partial_ptr + G + g + tl.arange(0, 1), z)
                tl.store(partial_ptr + 2 * G + g + tl.arange(0, 1), best.to(tl.float32))
            if PHASE < 0:
                rounds += 1
                meet(barrier_ptr, rounds, G)
            if PHASE < 0 or PHASE == 5:
                m = tl.load(partial_ptr + all_g, cache_modifier=".cg")
                z = tl.load(partial_ptr + G + all_g, cache_modifier=".cg")
                top = tl.max(m, 0)
                confidence = 1.0 / tl.sum(z * tl.exp(m - top), 0)
                winner = tl.argmax(m, 0)
                best = tl.load(partial_ptr + 2 * G + winner, cache_modifier=".cg").to(tl.int32)
                ready = (confidence >= threshold) & (l + 1 >= min_loops)
                if AGREE:
                    ready = ready & (best == guess)
                guess = best
                taken += 1
                running = tl.where(ready | (l + 1 >= limit), 0, 1)
        l += 1

    if (PHASE == 0 or PHASE == 5) and g == 0:
        tl.store(status_ptr, taken)
        tl.store(status_ptr + 1, guess)
        tl.store(status_ptr + 2, running)
        tl.store(status_ptr + 3, confidence)
    if (PHASE < 0 or PHASE == 5) and g == 0:
        h = fresh(z_ptr, c, c < DP)
        if STATE_NORM:
            h = normed(h, gain2, shift2, D, DP, LAYER_NORM)
        tl.store(h_ptr + position * D + c[None, :], h, mask=(c < D)[None, :])
        tl.store(taken_ptr + position, taken)
        tl.store(confidence_ptr + position, confidence)
        tl.store(next_ptr + position, guess)
    if PHASE < 0:  # the last program to leave sets both counters back for the next launch
        tl.debug_barrier()
        if tl.atomic_add(barrier_ptr + 1, 1, sem="acq_rel", scope="gpu") == G - 1:
            tl.atomic_xchg(barrier_ptr + 1, 0, sem="relaxed", scope="gpu")
            tl.atomic_xchg(barrier_ptr, 0, sem="release", scope="gpu")


def think(
    weights: Weights, state: State, start: Tensor, end: Tensor, rule: Rule, *, programs: int = 0, by_phases: bool = False
) -> None:
    """Launch kernel B for one new token of one text; `by_phases` launches every phase of every loop by itself."""
    if weights.compute_dtype.itemsize != 4:
        raise ValueError(f"the fused kernels compute in float32: got weights of {weights.dtype}; use backend='reference'.")
    device = weights.embedding.device
    if not programs:
        programs = default_programs(weights, torch.cuda.get_device_properties(device).multi_processor_count)
    packed, fixed = weights.packed, constants(weights, rule, programs)
    size = 3 * fixed["DP"] + fixed["HK"] + fixed["FP"] + 3 * programs + 4
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
            rule.max_loops, rule.min_loops, len(weights.signals), state.room, state.num_loops, l,
            **fixed | {"PHASE": phase}, **options(),
        )  # fmt: skip

    if not by_phases:
        launch(-1, 0)
        return
    for l in range(rule.max_loops):
        for phase in range(PHASES):
            launch(phase, l)


def constants(weights: Weights, rule: Rule, programs: int) -> dict[str, int | bool]:
    """What the kernel is compiled for."""
    places, hidden, vocabulary = weights.places, weights.packed.down.shape[0], len(weights.embedding)
    d, k = padded(weights.width), padded(weights.head_dim)

    def share(size: int) -> int:
        return power_of_two(-(-size // programs))

    return {
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
    }


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << max(0, size - 1).bit_length()


def default_programs(weights: Weights, multiprocessors: int) -> int:
    """A power of two, at most one program a multiprocessor (all must run at once), and two columns of the width each."""
    return min(1 << (multiprocessors.bit_length() - 1), padded(weights.width) // 2)


def options() -> dict[str, int | bool]:
    """How the kernel is compiled; cooperative, so that the driver refuses a grid whose programs cannot all run at once."""
    return {"num_warps": 8, "num_stages": 1, "launch_cooperative_grid": not INTERPRETED, "enable_fp_fusion": True}
