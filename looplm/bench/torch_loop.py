"""What the kernels are measured against: decoding one token of every text in torch, as well as torch does it.

Shapes and buffers never change, so the same code runs eagerly, compiled, and captured in a CUDA graph. Only blocks of one
layer without places; keys and values that a token offers to later loops are written to all of them when it halts,
so that a loop reads one slice.
"""

import torch
from looplm_kernels.state import Rule, State
from looplm_kernels.weights import Weights
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, rms_norm, scaled_dot_product_attention, silu


class TorchLoop:
    """The token at `position` of every text of a state in which all earlier tokens have been read."""

    def __init__(self, weights: Weights, state: State, position: int, rule: Rule) -> None:
        if weights.places is not None:
            raise ValueError("TorchLoop has no places; measure the adder through `generate`.")
        self.weights, self.position, self.rule = weights, position, rule
        self.x0 = weights.embedding[state.tokens[:, position]]
        if weights.learned is not None:
            self.x0 = self.x0 + weights.learned[position]
        loops = torch.arange(rule.max_loops, device=self.x0.device)
        entry = torch.minimum(loops[:, None, None], state.loops_taken[:, :position].clamp(max=rule.max_loops - 1))  # [L, B, S]
        self.keys, self.values = (self._by_loop(cache, entry.long()) for cache in (state.keys, state.values))
        self.cos, self.sin = (t[position].to(weights.dtype) if weights.rope else None for t in (state.cos, state.sin))
        self.limit, self.threshold = state.limit[:, position], state.threshold[:, position]
        self.h = torch.zeros_like(self.x0)
        self.active = torch.ones(state.batch, dtype=torch.bool, device=self.h.device)
        self.taken = torch.zeros(state.batch, dtype=torch.int32, device=self.h.device)
        self.guess, self.confidence = self.taken - 1, self.threshold * 0

    def _by_loop(self, cache: Tensor, entry: Tensor) -> Tensor:
        """[L, B, H, position + 1, K]: what a reader at each loop sees, and room for the new token."""
        batch, heads, _, _, head_dim = cache.shape
        at = entry.transpose(0, 1)[:, None, :, :, None].expand(batch, heads, -1, -1, head_dim)  # [B, H, L, S, K]
        seen = cache[:, :, :, : self.position].gather(2, at).permute(2, 0, 1, 3, 4)
        return torch.cat((seen, seen.new_zeros(len(seen), batch, heads, 1, head_dim)), 3).contiguous()

    def _reset(self) -> None:
        """Forget what a run has found."""
        self.h.zero_()
        self.active.fill_(True)
        self.taken.zero_()
        self.guess.fill_(-1)

    def loops(self, first: int, last: int) -> None:
        """Loops first..last - 1 of every text, from 0; halted texts are computed along and left as they are."""
        if first == 0:
            self._reset()
        for l in range(first, last):
            self._loop(l)

    def _norm(self, which: int, x: Tensor) -> Tensor:
        w, size = self.weights, (self.weights.width,)
        if w.shifts is None:
            return rms_norm(x, size, w.gains[which], 1e-6)
        return layer_norm(x, size, w.gains[which], w.shifts[which], 1e-6)

    def _loop(self, l: int) -> None:
        w, batch = self.weights, len(self.h)
        u = self.h + self.x0 if w.every_loop or l == 0 else self.h
        u = u + w.signals[min(l, len(w.signals) - 1)]
        three = linear(self._norm(0, u), w.qkv).view(batch, 3, w.heads, 1, w.head_dim).unbind(1)
        queries, keys, values = three
        if self.cos is not None and self.sin is not None:
            queries, keys = (x * self.cos + torch.cat(x.chunk(2, -1)[::-1], -1) * self.sin for x in (queries, keys))
        fresh = (self.taken == l)[:, None, None, None]  # halting.kv-publish: also of a token that has just halted
        for cache, offered in ((self.keys, keys), (self.values, values)):
            before = cache[max(l - 1, 0), :, :, self.position :]
            cache[l, :, :, self.position :] = torch.where(fresh, offered, before)
        read = scaled_dot_product_attention(queries, self.keys[l], self.values[l]).flatten(1)
        y = u + linear(read, w.out)
        x = self._norm(1, y)
        hidden = gelu(linear(x, w.up)) if w.gate is None else silu(linear(x, w.gate)) * linear(x, w.up)
        y = y + linear(hidden, w.down)
        y = self._norm(2, y) if w.state_norm else y
        self.h.copy_(torch.where(self.active[:, None], y, self.h))
        best = linear(self._norm(3, self.h), w.embedding).to(self.confidence.dtype).softmax(-1).max(-1)
        self.confidence.copy_(torch.where(self.active, best.values, self.confidence))
        ready = (self.confidence >= self.threshold) & (l + 1 >= self.rule.min_loops)
        if self.rule.agree:
            ready &= best.indices == self.guess
        self.guess.copy_(torch.where(self.active, best.indices, self.guess))
        self.taken += self.active
        self.active &= ~(ready | (self.limit <= l + 1))
