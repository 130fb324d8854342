"""Texts that go on, one token a row: what generating is made of, and so the path that has to be short.

Rows do not wait for each other. Each has a loop count of its own, so a row whose newest token has halted starts its next
token in the next call of the block, while others still think: depth-wise batching, which only a model with the same weights
at every loop can do (Bae et al. 2025, Mixture-of-Recursions, section 2.2, arXiv:2507.10524).

What a token sees, its angles and its embedding are found once, when it comes; its keys and values of the loops that it did
not run are published once, when its text goes on. Keys and values are read where they lie if all rows are at one loop and
one column; else those of each row are copied together. The block is computed by functions on its weights, without the calls
of modules, which weigh where a call has one token a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Protocol

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, rms_norm, scaled_dot_product_attention, silu

from looplm.layers.attention import attention_view
from looplm.layers.block import GeluMLP, Layer
from looplm.layers.positions import Positions
from looplm.loop.halting import ByRole, HaltingRule, observe, what_it_looks_at
from looplm.loop.injection import inject
from looplm.models.looped import LoopLM
from looplm.shapes import Float, Int

Norm = Callable[[Tensor], Tensor]


class Texts(Protocol):
    """What is known of the texts so far; `looplm.think.batched.Thinking` keeps it."""

    model: LoopLM
    halting: HaltingRule
    tokens: Tensor
    real: Tensor
    loops_taken: Tensor
    keys: Tensor
    """Float[L N B S G K]: of each loop, layer, row and column."""
    values: Tensor

    def offer_up_to(self, l: int) -> None:
        """Have the keys and values of the texts' first part at loops up to l."""
        ...


@dataclass
class Newest:
    """The newest token of a row."""

    column: int
    index: int
    """Among the real tokens of its row, from 0."""
    loop: int
    """That it has run."""
    waited_for: int
    """Most loops that an answer token before it took."""


class Decoding:
    """The newest token of each row, which sees all before it; rows may stand at different loops and columns.

    Args:
        texts: whose tokens have all halted.
        length: columns of the texts so far.
        room: how many tokens a row may get.
        waited_for: of each row, the most loops that an answer token took.

    Spec: [halting.freeze][], [halting.kv-publish][], [halting.kv-pass][], [halting.skipped-work][].
    """

    def __init__(self, texts: Texts, length: int, room: int, waited_for: list[int]) -> None:
        self._texts, self._model = texts, texts.model
        self._rule = ByRole.of(texts.halting).answer
        self._looks_at = what_it_looks_at(self._rule)
        self._guesses = bool(self._looks_at & {"guess", "confidence"})
        self._blocks = [LeanLayer(layer) for layer in self._model.block.layers if isinstance(layer, Layer)]
        self._state_norm, self._head_norm = map(norm_of, (self._model.state_norm, self._model.head_norm))
        weight = self._model.embedding.weight
        indexes = texts.real.sum(1).tolist()
        self._newest = [Newest(length - 1, index - 1, 0, most) for index, most in zip(indexes, waited_for, strict=True)]
        self.running: list[int] = []
        """Rows whose newest token thinks, in order."""
        self.halted: list[int] = []
        """Rows whose newest token has halted in the last advance."""
        rows, width = len(indexes), weight.shape[1]
        self._x0, self._h = weight.new_zeros(rows, width), weight.new_zeros(rows, width)
        self._guess = torch.full((rows, 1), -1, device=weight.device)
        self._confidence, self._yes = weight.new_zeros(rows, 1), torch.ones_like(self._guess, dtype=torch.bool)
        self._padded = bool((~texts.real[:, :length]).any())
        self._scores = weight.new_zeros(texts.real.shape).masked_fill(~texts.real, -torch.inf)[:, None]  # [B, A, S or W]
        self._columns: Tensor | None = None
        self._angles = self._all_angles(max(indexes) + room)
        self._turned = None if self._angles is None else self._angles[:, :1].repeat(1, rows, 1)  # cos and sin of each row

    def newest(self, rows: list[int]) -> list[tuple[int, int]]:
        """What the newest tokens of rows, all halted, say comes next, and the loops that each took."""
        loops = [self._newest[row].loop for row in rows]
        return list(zip(self._guess[rows, 0].tolist(), loops, strict=True))

    def logits(self, rows: list[int]) -> Annotated[Tensor, Float("R V")]:
        """What the newest tokens of rows, all halted, give each next token."""
        return self._read(self._h[rows])

    def append(self, rows: list[int], tokens: Annotated[Tensor, Int("R")]) -> None:
        """Give rows, whose newest tokens have halted, one more token each."""
        if not rows:
            return
        self._publish(rows)
        for row in rows:
            before = self._newest[row]
            self._newest[row] = Newest(before.column + 1, before.index + 1, 0, max(before.waited_for, before.loop))
        columns = [self._newest[row].column for row in rows]
        self._texts.tokens[rows, columns] = tokens
        self._texts.real[rows, columns] = True
        index = torch.tensor([[self._newest[row].index] for row in rows], device=tokens.device)
        x0 = self._model.embedding(tokens)
        added = self._model.positions.embed(index)
        self._x0[rows] = x0 + added[:, 0] if isinstance(added, Tensor) else x0
        self._h[rows] = 0
        if self._guesses:
            self._guess[rows], self._confidence[rows] = -1, 0
        if self._angles is not None and self._turned is not None:
            self._turned[:, rows] = self._angles[:, index[:, 0]]
        self._see(rows, columns)
        self.running = sorted([*self.running, *rows])

    def advance(self) -> int:
        """The next loops of all running rows, until the newest token of at least one has halted; gives their number."""
        calls = 1
        while not self._step():
            calls += 1
        return calls

    def _step(self) -> bool:
        """One call of the block; whether a row has halted."""
        rows, everyone = self.running, len(self.running) == len(self._h)
        now = [self._newest[row] for row in rows]
        for newest in now:
            newest.loop += 1
        loops = [newest.loop for newest in now]
        self._texts.offer_up_to(max(loops))
        l: int | Tensor = loops[0] if min(loops) == max(loops) else torch.tensor(loops, device=self._h.device)
        pick = slice(None) if everyone else rows
        before = self._h[pick]
        after = self._loop(rows, pick, now, l)
        if everyone:
            self._h = after
        else:
            self._h[pick] = after
        halted = [row for row, (halts,) in zip(rows, self._decide(pick, now, l, before, after), strict=True) if halts]
        if halted:
            self.halted = halted
            self._texts.loops_taken[halted, [self._newest[row].column for row in halted]] = torch.tensor(
                [self._newest[row].loop for row in halted], device=after.device
            )
            self.running = sorted({*rows} - {*halted})
            if not self._guesses:
                self._guess[halted, 0] = self._read(self._h[halted]).argmax(-1)
        return bool(halted)

    def _loop(self, rows: list[int], pick: slice | list[int], now: list[Newest], l: int | Tensor) -> Tensor:
        """States after loop l."""
        u, turned, (columns, scores) = self._enter(pick, l), self._turn(pick), self._seen(pick, now)
        for layer, block in enumerate(self._blocks):
            query, key, value = block.project(u, turned)
            keys, values = self._remember(rows, now, [newest.loop for newest in now], columns, layer, key, value)
            u = block.mix(u, query, keys, values, scores)
        return self._state_norm(u)

    def _enter(self, pick: slice | list[int], l: int | Tensor) -> Tensor:
        """What goes into the block at loop l."""
        config, signal = self._model.config, self._model.loop_signal.forward(l)
        u = inject(self._h[pick][:, None], self._x0[pick][:, None], l, config.injection)
        return (u if isinstance(signal, float) else u + signal)[:, 0]

    def _turn(self, pick: slice | list[int]) -> Tensor | None:
        return None if self._turned is None else self._turned[:, pick, None]

    def _decide(
        self, pick: slice | list[int], now: list[Newest], l: int | Tensor, before: Tensor, after: Tensor
    ) -> list[list[bool]]:
        """Which rows halt, and what they guess."""
        yes, h = self._yes[pick], after[:, None]
        logits = self._read(after)[:, None] if self._guesses else None
        waited_for = torch.tensor([[newest.waited_for] for newest in now], device=h.device)
        seen = observe(
            l if isinstance(l, int) else l[:, None],
            h,
            before[:, None],
            logits,
            self._guess[pick],
            self._confidence[pick],
            yes,
            yes,
            waited_for,
            self._model.halt_prob(h, l) if "halt_prob" in self._looks_at else None,
            self._looks_at,
        )
        halts: list[list[bool]] = self._rule(seen).tolist()
        if self._guesses:  # not before the rule has read the old ones
            self._guess[pick], self._confidence[pick] = seen.guess, seen.confidence
        return halts

    def _read(self, h: Annotated[Tensor, Float("R D")]) -> Annotated[Tensor, Float("R V")]:
        return linear(self._head_norm(h), self._model.embedding.weight)

    def _seen(self, pick: slice | list[int], now: list[Newest]) -> tuple[Tensor | None, Tensor | None]:
        """The columns that each token sees, None for all up to the newest; and their scores [R, A, 1, n], None for zeros."""
        if self._columns is not None:
            return self._columns[pick], self._scores[pick][:, :, None]
        last = [newest.column for newest in now]
        if not self._padded and min(last) == max(last):
            return None, None
        return None, self._scores[pick, :, None, : max(last) + 1]

    def _see(self, rows: list[int], columns: list[int]) -> None:
        """Note what new tokens see; where positions hide or score other tokens, that has to be found for each."""
        if type(self._model.positions).bias is not Positions.bias:
            self._look_around(rows, columns)
        else:
            self._scores[rows, :, columns] = 0

    def _look_around(self, rows: list[int], columns: list[int]) -> None:
        texts, size = self._texts, max(columns) + 1
        at = torch.tensor(columns, device=self._h.device)[:, None]
        dtype = self._h.dtype
        _, view = attention_view(self._model.positions, texts.tokens[rows, :size], texts.real[rows, :size], at, dtype)
        seen = torch.arange(size, device=at.device).expand(len(rows), 1, size) if view.columns is None else view.columns
        width = seen.shape[-1]
        if self._columns is None:
            self._columns = at.new_zeros(len(self._h), 0)
            self._scores = view.scores.new_zeros(len(self._h), view.scores.shape[1], 0)
        if (missing := width - self._columns.shape[1]) > 0:
            self._columns = torch.nn.functional.pad(self._columns, (0, missing))
            self._scores = torch.nn.functional.pad(self._scores, (0, missing), value=-torch.inf)
        self._columns[rows, :width], self._scores[rows, :, :width] = seen[:, 0], view.scores[:, :, 0]
        self._scores[rows, :, width:] = -torch.inf

    def _remember(
        self,
        rows: list[int],
        now: list[Newest],
        loops: list[int],
        columns: Tensor | None,
        layer: int,
        key: Annotated[Tensor, Float("R G K")],
        value: Annotated[Tensor, Float("R G K")],
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens' keys and values, and give those that they see, at each row's loop: [R, G, n, K]."""
        at, stores = [newest.column for newest in now], (self._texts.keys, self._texts.values)
        size, read = max(at) + 1, []
        one_place = columns is None and min(loops) == max(loops) and min(at) + 1 == size
        if one_place and len(rows) in (1, len(self._h)):
            some = slice(rows[0], rows[-1] + 1)
            for store, new in zip(stores, (key, value), strict=True):
                entry = store[loops[0] - 1, layer, some]
                entry[:, size - 1] = new
                read.append(entry[:, :size])
        else:
            start = self._start(rows, loops, layer)
            wanted = start + (torch.arange(size, device=start.device) if columns is None else columns)
            written = start[:, 0] + torch.tensor(at, device=start.device)
            for store, new in zip(stores, (key, value), strict=True):
                table = store.view(-1, new[0].numel())
                table.index_copy_(0, written, new.flatten(1))
                read.append(table.index_select(0, wanted.flatten()).view(*wanted.shape, *new.shape[1:]))
        return read[0].transpose(1, 2), read[1].transpose(1, 2)

    def _start(self, rows: list[int], loops: list[int], layer: int) -> Annotated[Tensor, Int("R 1")]:
        """Where each row's first column lies in the stores, at its loop."""
        _, layers, batch, width, *_ = self._texts.keys.shape
        start = [[(((l - 1) * layers + layer) * batch + row) * width] for row, l in zip(rows, loops, strict=True)]
        return torch.tensor(start, device=self._h.device)

    def _publish(self, rows: list[int]) -> None:
        """Offer, at all loops that the newest tokens of some rows have not run, what comes from their final states."""
        most = len(self._texts.keys)
        rows = [row for row in rows if 0 < self._newest[row].loop < most]
        if not rows:
            return
        now = [self._newest[row] for row in rows]
        loops = [newest.loop + 1 for newest in now]
        self._texts.offer_up_to(max(loops))
        u, turned = self._enter(rows, torch.tensor(loops, device=self._h.device)), self._turn(rows)
        for layer, block in enumerate(self._blocks):
            query, key, value = block.project(u, turned)
            self._offer(rows, now, loops, layer, key, value)
            if layer + 1 < len(self._blocks):
                columns, scores = self._seen(rows, now)
                u = block.mix(u, query, *self._remember(rows, now, loops, columns, layer, key, value), scores)

    def _offer(self, rows: list[int], now: list[Newest], loops: list[int], layer: int, key: Tensor, value: Tensor) -> None:
        """Write keys and values of each row's loop, and of all loops after it."""
        most = len(self._texts.keys)
        owner = [i for i, loop in enumerate(loops) for _ in range(loop, most + 1)]
        start = self._start([rows[i] for i in owner], [l for loop in loops for l in range(loop, most + 1)], layer)
        written = start[:, 0] + torch.tensor([now[i].column for i in owner], device=start.device)
        for store, new in ((self._texts.keys, key), (self._texts.values, value)):
            store.view(-1, new[0].numel()).index_copy_(0, written, new.flatten(1)[owner])

    def _all_angles(self, longest: int) -> Annotated[Tensor, Float("2 S K")] | None:
        """Cosines and signed sines at every index, so that turning is x * cos + (x, halves swapped) * sin."""
        weight = self._model.embedding.weight
        rotation = self._model.positions.rotation(torch.arange(longest, device=weight.device)[None])
        if rotation is None:
            return None
        cos, sin = (angle[0, 0].to(weight.dtype) for angle in (rotation.cos, rotation.sin))
        return torch.stack((torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)))


class LeanLayer:
    """A layer's functions for one token a row.

    Spec: [architecture.layer][], [architecture.attention][], [architecture.grouped-queries][].
    """

    def __init__(self, layer: Layer) -> None:
        attention, mlp = layer.attention, layer.mlp
        self._heads, self._groups = attention.heads, attention.kv_heads
        self._qkv, self._out = attention.qkv.weight, attention.out.weight
        self._attention_norm, self._mlp_norm = norm_of(layer.attention_norm), norm_of(layer.mlp_norm)
        self._gated = not isinstance(mlp, GeluMLP)
        self._up = mlp.get_parameter("gate_and_up.weight" if self._gated else "up.weight")
        self._down = mlp.get_parameter("down.weight")

    def project(
        self, u: Annotated[Tensor, Float("R D")], turned: Annotated[Tensor, Float("2 R 1 K")] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries Float[R H K], keys and values Float[R G K], positions applied."""
        both = self._heads + self._groups
        qkv = linear(self._attention_norm(u), self._qkv).unflatten(-1, (both + self._groups, -1))
        turning = qkv[:, :both]
        if turned is not None:
            turning = torch.addcmul(turning * turned[0], turning.roll(turning.shape[-1] // 2, -1), turned[1])
        return turning[:, : self._heads], turning[:, self._heads :], qkv[:, both:]

    def mix(self, u: Tensor, query: Tensor, keys: Tensor, values: Tensor, scores: Tensor | None) -> Tensor:
        """The stream after attention and MLP: Float[R D]."""
        shared = self._groups < self._heads
        read = scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=scores, enable_gqa=shared)
        u = u + linear(read.flatten(1), self._out)
        hidden = linear(self._mlp_norm(u), self._up)
        if self._gated:
            gate, up = hidden.chunk(2, -1)
            hidden = silu(gate) * up
        else:
            hidden = gelu(hidden)
        return u + linear(hidden, self._down)


def norm_of(module: torch.nn.Module) -> Norm:
    """What a norm computes, without the call of a module."""
    if isinstance(module, torch.nn.Identity):
        return lambda x: x
    weight = module.get_parameter("weight")
    if isinstance(module, torch.nn.LayerNorm):
        return partial(layer_norm, normalized_shape=weight.shape, weight=weight, bias=module.bias, eps=module.eps)
    assert isinstance(module, torch.nn.RMSNorm)
    return partial(rms_norm, normalized_shape=weight.shape, weight=weight, eps=module.eps)
