"""Thinking about many texts at once, computing only what still has to be computed.

`LoopLM.think` computes every token at every loop and throws away what halted tokens do not need: plain, and slow. This
module gives the same states, and leaves the work out:

- Halted tokens drop out of the batch, and so do rows in which all have halted. A token that halted after loop s comes
  back once, for the K/V-only pass that publishes it, when a later token of its row reaches loop s + 1.
- Texts that go on, one token a row, are handed to `looplm.think.decoding`.
"""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from looplm.layers.attention import View
from looplm.loop.halting import HaltingRule, observe, what_it_looks_at
from looplm.loop.work import block_evaluations
from looplm.models.looped import LoopLM, columns
from looplm.shapes import Bool, Float, Int
from looplm.think.decoding import Decoding


class Thinking:
    """Rows of tokens; `advance` runs the block once for all rows that still think, or, in texts that go on, until one is done.

    Args:
        model: looped or static.
        tokens: ids.
        halting: when a token stops.
        real: False for padding; by default there is none.
        answer: True for tokens from which an answer token is read; by default all.
        room: how many tokens will be appended to a row, at most.

    Memory: with room, keys and values of all loops, 2 * max_loops * layers * B * D elements a column; without, of one.
    Spec: [halting.freeze][], [halting.kv-publish][], [halting.kv-pass][], [halting.block-evaluations][].
    """

    def __init__(
        self,
        model: LoopLM,
        tokens: Annotated[Tensor, Int("B T")],
        halting: HaltingRule,
        *,
        real: Annotated[Tensor, Bool("B T")] | None = None,
        answer: Annotated[Tensor, Bool("B T")] | None = None,
        room: int = 0,
    ) -> None:
        self.model, self.halting, self._looks_at = model, halting, what_it_looks_at(halting)
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        answer = torch.ones_like(real) if answer is None else answer
        rows, self._length = tokens.shape
        width = self._length + room
        self._nowhere = width  # a last column, never real: where the short rows of a ragged batch read and write
        self._rows = torch.arange(rows, device=tokens.device)

        def wide(start: Tensor) -> Tensor:
            grown = start.new_zeros(rows, width + 1, *start.shape[2:])
            grown[:, : self._length] = start
            return grown

        self.tokens, self.real, self.answer, self.active = map(wide, (tokens, real, answer, real))
        self.loops_taken, self.guess = wide(torch.zeros_like(tokens)), wide(torch.full_like(tokens, -1))
        self.calls = 0
        """Of the block, each for all rows that still think."""
        self._loop = 0
        with torch.no_grad():
            x0, self._view = model.embed(tokens, real)
        self._x0, self.states, self._confidence = x0, wide(torch.zeros_like(x0)), wide(x0.new_zeros(tokens.shape))
        self._published = wide(torch.zeros_like(tokens))  # up to which loop a token's keys and values are in the store
        config = model.config
        loops = halting.max_loops if room else 1  # with no token to come, nobody reads an earlier loop again
        kv_heads = config.kv_heads or config.heads
        shape = (loops, config.layers, rows, width + 1, kv_heads, config.width // config.heads)
        self.keys, self.values = x0.new_zeros(shape), x0.new_zeros(shape)
        self._room, self._offered = room, 1
        self._decoding: Decoding | None = None

    @property
    def nbytes(self) -> int:
        """Allocated for keys and values: of all tokens, those that may be appended, and the column that is nowhere.

        Spec: [hardware.cache-bytes][].
        """
        return self.keys.nbytes + self.values.nbytes

    @property
    def running(self) -> Annotated[Tensor, Bool("B")]:
        """Rows with a token that still thinks."""
        if self._decoding:
            running = torch.zeros_like(self.active[:, 0])
            running[self._decoding.running] = True
            return running
        return self.active.any(1)

    @property
    def block_evaluations(self) -> Annotated[Tensor, Float("B")]:
        """Work of each row so far: one for each token and loop, and the share of each K/V-only pass."""
        return block_evaluations(self.loops_taken, self.model.block.kv_share).cpu()

    @torch.no_grad()
    def advance(self) -> None:
        """The next loop of every row that still thinks; of texts that go on, loops until a newest token has halted."""
        if self._decoding:
            self.calls += self._decoding.advance()
            return
        rows = self.running.nonzero()[:, 0]
        self._loop += 1
        l, active = self._loop, self.active[rows]
        asking = self._publishing(rows, l, _before(active))
        readers, publishers = _gather_left(active, self._nowhere), _gather_left(asking, self._nowhere)
        items, count = torch.cat((readers, publishers), 1), readers.shape[1]
        layers = self.model.config.layers
        x0, view = self._look(rows, items, count if layers == 1 else None)  # in a deeper block, publishers read too
        view, read = view.narrow(self._length)
        h = self.states[rows[:, None], items]
        remember = [partial(self._remember, rows, l, items, read, layer) for layer in range(layers)]
        after = self.model.step(h, x0, l, view, remember, count)
        self.calls += 1

        index = (rows[:, None], readers)
        active = readers != self._nowhere
        seen = observe(
            l,
            after,
            h[:, :count],
            self.model.logits(after) if self._looks_at & {"guess", "confidence"} else None,
            self.guess[index],
            self._confidence[index],
            self.answer[index] & active,
            active,
            None,
            self.model.halt_prob(after, l) if "halt_prob" in self._looks_at else None,
            self._looks_at,
        )
        halts = self.halting(seen)
        guess = seen.guess
        if not self._looks_at & {"guess", "confidence"} and bool((halts & active).any()):
            guess = guess.masked_scatter(halts & active, self.model.logits(after[halts & active]).argmax(-1))
        self.states[index], self.guess[index], self._confidence[index] = after, guess, seen.confidence
        self.loops_taken[index] += active
        self._published[index] = torch.where(active, l, 0)
        self.active[index] = active & ~halts

    @torch.no_grad()
    def append(self, rows: list[int], tokens: Annotated[Tensor, Int("R")]) -> None:
        """Give rows in which all tokens have halted one more token, of the answer, to think about."""
        if not self._decoding:
            taken = torch.where(self.answer, self.loops_taken, 0).amax(1)
            self._decoding = Decoding(self, self._length, self._room, taken.tolist())
        self._decoding.append(rows, tokens)

    def offer_up_to(self, l: int) -> None:
        """Publish what tokens that will come see of the texts at loops up to l."""
        while self._offered < l:
            self._offered += 1
            rows, loop = self._rows, self._offered
            asking = self._publishing(rows, loop, columns(self.real) < self._length)
            if bool(asking.any()):
                items = _gather_left(asking, self._nowhere)
                x0, view = self._look(rows, items, None)
                view, read = view.narrow(self._length)
                remember = [
                    partial(self._remember, rows, loop, items, read, layer) for layer in range(self.model.config.layers)
                ]
                self.model.step(self.states[rows[:, None], items], x0, loop, view, remember, 0)

    @property
    def halted(self) -> list[int]:
        """Rows whose newest token halted in the last advance."""
        return self._decoding.halted if self._decoding else (~self.running).nonzero()[:, 0].tolist()

    def newest(self, rows: list[int]) -> list[tuple[int, int]]:
        """What the newest tokens of rows, all halted, say comes next, and the loops that each took."""
        if self._decoding:
            return self._decoding.newest(rows)
        last = self._length - 1
        return list(zip(self.guess[rows, last].tolist(), self.loops_taken[rows, last].tolist(), strict=True))

    @torch.no_grad()
    def logits(self, rows: list[int]) -> Annotated[Tensor, Float("R V")]:
        """What the newest tokens of rows, all halted, give each next token."""
        return self._decoding.logits(rows) if self._decoding else self.model.logits(self.states[rows, self._length - 1])

    def _publishing(self, rows: Tensor, l: int, read_later: Tensor) -> Tensor:
        """Tokens that need a K/V-only pass at loop l, because a later token of their row is about to read it: [R, S]."""
        behind = self.real[rows] & ~self.active[rows] & read_later & (self._published[rows] < l)
        asking = behind & (self.loops_taken[rows] == l - 1)
        if len(self.keys) > 1:  # further back, what was published stands for this loop too
            row, column = (behind & ~asking).nonzero(as_tuple=True)
            for store in (self.keys, self.values):
                store[l - 1, :, rows[row], column] = store[l - 2, :, rows[row], column]
        self._published[rows] = torch.where(behind, l, self._published[rows])
        return asking

    def _look(self, rows: Tensor, items: Tensor, readers: int | None) -> tuple[Tensor, View]:
        """x0 of the items [R, A], and what the first `readers` see; what an item that is nowhere sees, nobody reads."""
        at = items.clamp(max=self._length - 1)
        if len(rows) == len(self._rows) and torch.equal(at, columns(at)) and at.shape[1] == self._length:
            return self._x0, self._view
        return self._x0[rows[:, None], at], self._view.pick(rows, at, readers)

    def _remember(
        self, rows: Tensor, l: int, items: Tensor, columns: Tensor | None, layer: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write the items' keys and values of loop l, and give those of some columns or of the whole rows."""
        read = []
        for store, new in ((self.keys, keys), (self.values, values)):
            entry = store[l - 1 if len(store) > 1 else 0, layer]
            entry[rows[:, None], items] = new.transpose(1, 2)
            if columns is not None:
                read.append(entry[rows[:, None], columns])
            elif len(rows) == len(self._rows):
                read.append(entry[:, : self._length])
            else:
                read.append(entry[rows, : self._length])
        return read[0].transpose(1, 2), read[1].transpose(1, 2)


def _before(active: Annotated[Tensor, Bool("R S")]) -> Annotated[Tensor, Bool("R S")]:
    """Tokens up to the last active one of their row."""
    return active.flip(1).cummax(1).values.flip(1)


def _gather_left(wanted: Annotated[Tensor, Bool("R S")], nowhere: int) -> Annotated[Tensor, Int("R A")]:
    """The columns of the wanted entries of each row, as many as in the fullest row; `nowhere` fills the others."""
    column = columns(wanted)
    most = int(wanted.sum(1).max())
    return torch.where(wanted, column, nowhere).sort(1).values[:, :most]
