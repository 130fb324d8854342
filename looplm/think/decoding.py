"""Texts that go on, one token a row: what generating is made of, and so the path that has to be short.

Rows do not wait for each other. Each has a loop count of its own, so a row whose newest token has halted starts its next
token in the next call of the block, while others still think: depth-wise batching, which only a model with the same weights
at every loop can do (Bae et al. 2025, Mixture-of-Recursions, section 2.2, arXiv:2507.10524).

What a token sees, its angles and its embedding are found once, when it comes; its keys and values of the loops that it did
not run are published once, when its text goes on. Keys and values are read where they lie if all rows are at one loop and
one column; else those of each row are copied together.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from looplm.layers.attention import attention_view
from looplm.layers.block import Layer
from looplm.layers.positions import Positions
from looplm.loop.halting import ByRole, HaltingRule, observe, what_it_looks_at
from looplm.loop.injection import inject
from looplm.models.looped import LoopLM
from looplm.shapes import Float, Int
from looplm.think.lean import LeanLayer, norm_of


class Texts(Protocol):
    """What is known of the texts so far; `looplm.think.batched.Thinking` keeps it."""

    model: LoopLM
    halting: HaltingRule
    tokens: Tensor
    real: Tensor
    loops_taken: Tensor
    cache: Tensor
    """Float[L N B S E K]: of each loop, layer, row and column, G keys, then G values."""

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


@dataclass
class Group:
    """The newest tokens of some rows, and what stays the same while they run together."""

    rows: list[int]
    now: list[Newest]
    at: Annotated[Tensor, Int("R")]
    """The rows."""
    x0: Annotated[Tensor, Float("R 1 D")]
    h: Annotated[Tensor, Float("R 1 D")]
    guess: Annotated[Tensor, Int("R 1")]
    confidence: Annotated[Tensor, Float("R 1")]
    waited_for: Annotated[Tensor, Int("R 1")]
    turn: tuple[Tensor, Tensor] | None
    """Cosines and signed sines, each Float[R 1 K]."""
    scores: Annotated[Tensor, Float("R A 1 n")] | None
    """Added to the attention scores; None for zeros."""
    memory: "Memory"


class Memory:
    """Where the keys and values of a group's rows lie: written at one column of each, read at some."""

    def __init__(self, cache: Tensor, rows: list[int], last: list[int], columns: Tensor | None) -> None:
        """`last` is each row's newest column, `columns` [R, n] are those that it sees; None for all up to the newest."""
        self._cache, self._rows, self._last, self._columns = cache, rows, last, columns
        self._whole = columns is None and min(last) == max(last) and len(rows) in (1, cache.shape[2])

    def swap(self, loops: list[int], layer: int, new: Annotated[Tensor, Float("R E K")]) -> tuple[Tensor, Tensor]:
        """Write the new tokens' keys and values, and give those that they see, at each row's loop: [R, G, n, K]."""
        same = min(loops) == max(loops)
        if same and self._whole:
            written, keys, values = self._near
            written[loops[0] - 1, layer].copy_(new)
            return keys[loops[0] - 1, layer], values[loops[0] - 1, layer]
        _, layers, rows, columns, *_ = self._cache.shape
        starts = [((l - 1) * layers + layer) * rows * columns for l in (loops[:1] if same else loops)]
        start = torch.tensor(starts, device=new.device)
        written_at, seen_at = self._far
        table = self._cache.view(-1, new[0].numel())
        table.index_copy_(0, written_at + start, new.flatten(1))
        wanted = seen_at + start[:, None]
        read = table.index_select(0, wanted.flatten()).view(*wanted.shape, *new.shape[1:]).transpose(1, 2)
        return read[:, : new.shape[1] // 2], read[:, new.shape[1] // 2 :]

    @cached_property
    def _near(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where to write, keys and values to read, at every loop and layer: where they lie."""
        lanes, size = self._cache[:, :, self._rows[0] : self._rows[-1] + 1], self._last[0] + 1
        keys, values = lanes[:, :, :, :size].transpose(3, 4).chunk(2, 3)
        return lanes[:, :, :, size - 1], keys, values

    @cached_property
    def _far(self) -> tuple[Annotated[Tensor, Int("R")], Annotated[Tensor, Int("R n")]]:
        """Where to write and to read at the first loop and layer, in the cache's flat table."""
        first, last = torch.tensor([self._rows, self._last], device=self._cache.device)
        first = first * self._cache.shape[3]
        seen = torch.arange(max(self._last) + 1, device=last.device) if self._columns is None else self._columns
        return first + last, first[:, None] + seen


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
        self._weight = weight = self._model.embedding.weight
        self._injection, self._signal = self._model.config.injection, self._model.loop_signal.forward
        indexes = texts.real.sum(1).tolist()
        self._newest = [Newest(length - 1, index - 1, 0, most) for index, most in zip(indexes, waited_for, strict=True)]
        self.running: list[int] = []
        """Rows whose newest token thinks, in order."""
        self.halted: list[int] = []
        """Rows whose newest token has halted in the last advance."""
        self._x0 = weight.new_zeros(len(indexes), 1, weight.shape[1])
        self._h, self._yes = self._x0, torch.ones(len(indexes), 1, dtype=torch.bool, device=weight.device)
        self._guess, self._confidence = torch.full_like(self._yes, -1, dtype=torch.int64), weight.new_zeros(len(indexes), 1)
        self._padded = bool((~texts.real[:, :length]).any())
        self._scores = weight.new_zeros(texts.real.shape).masked_fill(~texts.real, -torch.inf)[:, None]  # [B, A, S or W]
        self._columns: Tensor | None = None
        self._angles = self._all_angles(max(indexes) + room)
        self._last: Group | None = None

    def newest(self, rows: list[int]) -> list[tuple[int, int]]:
        """What the newest tokens of rows, all halted, say comes next, and the loops that each took."""
        loops = [self._newest[row].loop for row in rows]
        return list(zip(self._guess[rows, 0].tolist(), loops, strict=True))

    def logits(self, rows: list[int]) -> Annotated[Tensor, Float("R V")]:
        """What the newest tokens of rows, all halted, give each next token."""
        return self._read(self._h[rows, 0])

    def append(self, rows: list[int], tokens: Annotated[Tensor, Int("R")]) -> None:
        """Give rows, whose newest tokens have halted, one more token each."""
        if not rows:
            return
        self._publish([row for row in rows if 0 < self._newest[row].loop < len(self._texts.cache)])
        for row in rows:
            before = self._newest[row]
            self._newest[row] = Newest(before.column + 1, before.index + 1, 0, max(before.waited_for, before.loop))
        at = torch.tensor(rows, device=tokens.device)
        index = torch.tensor([[self._newest[row].index] for row in rows], device=tokens.device)
        x0 = self._model.embedding(tokens)[:, None] + self._model.positions.embed(index)
        self._x0 = _placed(self._x0, at, x0)
        self._h = _placed(self._h, at, torch.zeros_like(x0))
        self._guess = _placed(self._guess, at, torch.full_like(index, -1))
        self._confidence = _placed(self._confidence, at, x0.new_zeros(index.shape))
        self._see(rows, at, tokens)
        self.running = sorted([*self.running, *rows])

    def advance(self) -> int:
        """The next loops of all running rows, until the newest token of at least one has halted; gives their number."""
        self._last = group = self._group(self.running)
        calls, halts = 0, [False]
        while not any(halts):
            calls += 1
            halts = self._step(group)
        self._h, self._guess, self._confidence = (
            _placed(old, group.at, new)
            for old, new in (
                (self._h, group.h),
                (self._guess, group.guess),
                (self._confidence, group.confidence),
            )
        )
        self.running = [row for row, halted in zip(group.rows, halts, strict=True) if not halted]
        self.halted = [row for row, halted in zip(group.rows, halts, strict=True) if halted]
        for row in self.halted:
            self._texts.loops_taken[row, self._newest[row].column] = self._newest[row].loop
        if not self._guesses:
            self._guess[self.halted, 0] = self.logits(self.halted).argmax(-1)
        return calls

    def reorder(self, rows: Annotated[Tensor, Int("R")]) -> None:
        """Become copies of these rows, as `texts` does."""
        old = rows.tolist()
        self._newest = [replace(self._newest[row]) for row in old]
        self.running, self.halted = (
            [i for i, row in enumerate(old) if row in those] for those in ({*self.running}, {*self.halted})
        )
        self._x0, self._h, self._yes, self._guess, self._confidence, self._scores = (
            of[rows] for of in (self._x0, self._h, self._yes, self._guess, self._confidence, self._scores)
        )
        self._columns = None if self._columns is None else self._columns[rows]
        self._last = None

    def _group(self, rows: list[int]) -> Group:
        """The newest tokens of these rows."""
        now, everyone = [self._newest[row] for row in rows], len(rows) == len(self._h)
        at = torch.tensor(rows, device=self._h.device)
        last = [newest.column for newest in now]
        columns = None
        scores: Tensor | None = self._scores if everyone else self._scores[at]
        assert scores is not None
        if self._columns is not None:
            columns, scores = self._columns[at], scores[:, :, None]
        elif not self._padded and min(last) == max(last):
            scores = None
        else:
            scores = scores[:, :, None, : max(last) + 1]
        waited_for = torch.tensor([[newest.waited_for] for newest in now], device=at.device)
        turn = None
        if self._angles:
            index = torch.tensor([newest.index for newest in now], device=at.device)
            turn = (self._angles[0][index], self._angles[1][index])
        memory = Memory(self._texts.cache, rows, last, columns)
        x0, h, guess, confidence = (of if everyone else of[at] for of in (self._x0, self._h, self._guess, self._confidence))
        return Group(rows, now, at, x0, h, guess, confidence, waited_for, turn, scores, memory)

    def _step(self, group: Group) -> list[bool]:
        """One call of the block; which rows have halted."""
        for newest in group.now:
            newest.loop += 1
        loops = [newest.loop for newest in group.now]
        self._texts.offer_up_to(max(loops))
        l = self._one_or_each(loops)
        u = self._enter(group, l)
        for layer, block in enumerate(self._blocks):
            query, new = block.project(u, group.turn)
            u = block.mix(u, query, *group.memory.swap(loops, layer, new), group.scores)
        h, before = self._state_norm(u), group.h
        logits = self._read(h)[:, None] if self._guesses else None
        group.h = h[:, None]
        yes = self._yes[: len(loops)]
        seen = observe(
            l if isinstance(l, int) else l[:, None],
            group.h,
            before,
            logits,
            group.guess,
            group.confidence,
            yes,
            yes,
            group.waited_for,
            self._model.halt_prob(group.h, l) if "halt_prob" in self._looks_at else None,
            self._looks_at,
        )
        halts: list[bool] = self._rule(seen)[:, 0].tolist()
        group.guess, group.confidence = seen.guess, seen.confidence
        return halts

    def _one_or_each(self, loops: list[int]) -> int | Annotated[Tensor, Int("R")]:
        """The loop, if all rows are at one; else each row's."""
        return loops[0] if min(loops) == max(loops) else torch.tensor(loops, device=self._weight.device)

    def _enter(self, group: Group, l: int | Tensor) -> Annotated[Tensor, Float("R D")]:
        """What goes into the block at loop l."""
        u = inject(group.h, group.x0, l, self._injection) + self._signal(l)
        return u[:, 0]

    def _read(self, h: Annotated[Tensor, Float("R D")]) -> Annotated[Tensor, Float("R V")]:
        return linear(self._head_norm(h), self._weight)

    def _see(self, rows: list[int], at: Tensor, tokens: Tensor) -> None:
        """Note what new tokens see; where positions hide or score other tokens, that has to be found for each."""
        columns = torch.tensor([self._newest[row].column for row in rows], device=at.device)
        if type(self._model.positions).bias is Positions.bias:
            self._scores[at, :, columns] = 0
            return
        texts, size = self._texts, int(columns.max()) + 1
        texts.tokens[at, columns], texts.real[at, columns] = tokens, True
        seen_tokens, seen_real = texts.tokens[at, :size], texts.real[at, :size]
        _, view = attention_view(self._model.positions, seen_tokens, seen_real, columns[:, None], self._h.dtype)
        seen = torch.arange(size, device=at.device).expand(len(rows), 1, size) if view.columns is None else view.columns
        width = seen.shape[-1]
        if self._columns is None:
            self._columns = at.new_zeros(len(self._h), 0)
            self._scores = view.scores.new_zeros(len(self._h), view.scores.shape[1], 0)
        if (missing := width - self._columns.shape[1]) > 0:
            self._columns = pad(self._columns, (0, missing))
            self._scores = pad(self._scores, (0, missing), value=-torch.inf)
        self._columns[at, :width], self._scores[at, :, :width] = seen[:, 0], view.scores[:, :, 0]
        self._scores[at, :, width:] = -torch.inf

    def _publish(self, rows: list[int]) -> None:
        """Offer, at all loops that the newest tokens of some rows have not run, what comes from their final states."""
        if not rows:
            return
        group = (
            self._last if self._last and rows == self._last.rows else self._group(rows)
        )  # what ran last may have halted together
        loops = [newest.loop + 1 for newest in group.now]
        self._texts.offer_up_to(max(loops))
        u, last = self._enter(group, self._one_or_each(loops)), len(self._blocks) - 1
        for layer, block in enumerate(self._blocks):
            if layer < last:
                query, new = block.project(u, group.turn)
                u = block.mix(u, query, *group.memory.swap(loops, layer, new), group.scores)
            else:
                new = block.offer(u, group.turn)
            for newest, row, keys_and_values in zip(group.now, rows, new, strict=True):
                self._texts.cache[newest.loop :, layer, row, newest.column] = keys_and_values

    def _all_angles(self, longest: int) -> tuple[Tensor, Tensor] | None:
        """Cosines and signed sines at every index, so that turning is x * cos + (x, halves swapped) * sin: [S, 1, K]."""
        weight = self._model.embedding.weight
        rotation = self._model.positions.rotation(torch.arange(longest, device=weight.device)[None])
        if rotation is None:
            return None
        cos, sin = (angle[0, 0, :, None].to(weight.dtype) for angle in (rotation.cos, rotation.sin))
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def _placed(old: Tensor, rows: Annotated[Tensor, Int("R")], new: Tensor) -> Tensor:
    """`old` with some rows replaced: the new ones themselves, where all are."""
    return new if len(new) == len(old) else old.index_copy(0, rows, new)
