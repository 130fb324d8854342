"""All loops of the tokens of a call, in plain torch: the truth that `fused.py` and the `torch` backend are tested against.

One text at a time, one loop at a time, so that no text can see another. In float64 it equals LoopLM.think.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from looplm_kernels.state import Rule, State
from looplm_kernels.weights import Places, Weights

EPS = 1e-6


def think(weights: Weights, state: State, start: Tensor, end: Tensor, rule: Rule) -> None:
    """Run tokens start[b]..end[b] - 1 of each text until they halt; those before have been run by earlier calls."""
    for b, (first, stop) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        if first < stop:
            think_about_one_text(weights, state, b, first, stop, rule)


def think_about_one_text(weights: Weights, state: State, b: int, first: int, stop: int, rule: Rule) -> None:
    """The same for text b."""
    w = {name: value.to(weights.compute_dtype) for name, value in vars(weights).items() if isinstance(value, Tensor)}
    new = slice(first, stop)
    x0 = w["embedding"][state.tokens[b, new]]
    if weights.learned is not None:
        x0 = x0 + w["learned"][new]
    bias = scores(weights.places, state, b, first, stop).to(x0)  # [H, T, S]
    h = torch.zeros_like(x0)
    taken = torch.zeros(stop - first, dtype=torch.int32, device=h.device)
    active = torch.ones_like(taken, dtype=torch.bool)
    guess, confidence = torch.full_like(taken, -1), torch.zeros_like(h[:, 0])
    threshold = state.threshold[b, new]
    answered = state.loops_taken[b, :first][state.threshold[b, :first] < math.inf]
    waited_for = int(answered.max()) if len(answered) else 0
    for l in range(rule.max_loops):  # l is the loop from 0: its entry in the cache
        u = h + x0 if weights.every_loop or l == 0 else h
        u = u + w["signals"][min(l, len(w["signals"]) - 1)]
        queries, keys, values = project(weights, w, norm(weights, w, 0, u), state, new)
        # halting.kv-publish: a token that halted after loop s still writes entry s, from its final state
        writes = taken == l
        for cache, offered in ((state.keys, keys), (state.values, values)):
            entry = cache[b, :, l, new]
            entry[:, writes] = offered[:, writes].to(cache.dtype)
        if not active.any():
            break
        loops_of = torch.cat((state.loops_taken[b, :first], taken))
        seen = loops_of.clamp(max=l).long()  # min(l, s) from 0 is min(l, s + 1) from 1
        at = torch.arange(stop, device=h.device)
        read_keys, read_values = (cache[b, :, seen, at].to(h.dtype) for cache in (state.keys, state.values))  # [H, S, K]
        weight = torch.softmax(queries @ read_keys.transpose(1, 2) / math.sqrt(weights.head_dim) + bias, dim=-1)
        y = u + (weight @ read_values).transpose(0, 1).flatten(1) @ w["out"].T
        y = y + mlp(weights, w, norm(weights, w, 1, y))
        y = norm(weights, w, 2, y) if weights.state_norm else y
        stopped = l + 1 >= state.limit[b, new]
        change = torch.linalg.vector_norm(y - h, dim=1) / torch.linalg.vector_norm(y, dim=1)
        h = torch.where(active[:, None], y, h)
        logits = norm(weights, w, 3, h) @ w["embedding"].T
        best = logits.argmax(1).int()
        before, confidence = confidence, torch.where(active, logits.softmax(1).amax(1), confidence)
        if rule.prefix:
            sure = (torch.minimum(before, confidence) >= threshold) | (change < rule.epsilon)
            ready = (best == guess) & sure & (threshold < math.inf) & (l + 1 >= rule.min_loops)
            waiting = active & ~(ready | stopped) & (threshold < math.inf)
            ready &= (waiting.cumsum(0) == 0) & (l + 1 >= waited_for)
        else:
            ready = confidence >= threshold
            if rule.agree:
                ready &= best == guess
            if rule.epsilon < math.inf:
                ready &= change < rule.epsilon
        taken = taken + active
        guess = torch.where(active, best, guess)
        active = active & ~(ready & (l + 1 >= rule.min_loops) | stopped)
    state.h[b, new], state.loops_taken[b, new] = h, taken
    state.confidence[b, new], state.next_token[b, new] = confidence, guess


def norm(weights: Weights, w: dict[str, Tensor], which: int, x: Tensor) -> Tensor:
    """RMSNorm, or LayerNorm where there are shifts."""
    if weights.shifts is not None:
        x = x - x.mean(-1, keepdim=True)
    y = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * w["gains"][which]
    return y if weights.shifts is None else y + w["shifts"][which]


def project(weights: Weights, w: dict[str, Tensor], x: Tensor, state: State, new: slice) -> list[Tensor]:
    """Queries, keys and values of the new tokens, Float[H, T, K] each, positions applied."""
    three = [part.view(len(x), weights.heads, weights.head_dim).transpose(0, 1) for part in (x @ w["qkv"].T).chunk(3, 1)]
    if weights.rope:
        cos, sin = state.cos[new], state.sin[new]
        three[:2] = [part * cos + torch.cat(part.chunk(2, -1)[::-1], -1) * sin for part in three[:2]]
    return three


def mlp(weights: Weights, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """SwiGLU, or GELU where there is no gate."""
    hidden = gelu(x @ w["up"].T) if weights.gate is None else silu(x @ w["gate"].T) * (x @ w["up"].T)
    return hidden @ w["down"].T


def scores(places: Places | None, state: State, b: int, first: int, stop: int) -> Tensor:
    """What is added to the attention scores of text b: Float[H or 1, T, S]; -inf for what is not seen."""
    query, key = torch.arange(first, stop)[:, None], torch.arange(stop)[None, :]
    hidden = torch.zeros(stop - first, stop).masked_fill(key > query, -math.inf)[None].to(state.h.device)
    if places is None:
        return hidden
    placed = places.has_place[state.tokens[b, :stop]]
    for t in range(first, stop):  # as the text is read: known from the tokens up to t
        before = (0, 0) if t == 0 else (int(state.place[b, t - 1]), int(state.run[b, t - 1]))
        state.place[b, t] = before[0] + 1 if placed[t] else 0
        state.run[b, t] = before[1] + (0 if placed[t] else 1)
    place, run = state.place[b, :stop], state.run[b, :stop]
    apart = place[None, :] - place[first:, None]
    differences = 2 * places.reach + 1
    bucket = apart.clamp(-places.reach, places.reach) + places.reach + differences * (run[None, :] == run[first:, None])
    bucket = torch.where(placed[None, :], bucket, 2 * differences)
    bias = places.table[bucket].permute(2, 0, 1)
    if places.window is not None:
        bias = bias.masked_fill(placed & (apart.abs() > places.window), -math.inf)
    return hidden + bias
