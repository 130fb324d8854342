"""Thinking about many texts at once, computing only what still has to be computed.

`LoopLM.think` computes every token at every loop and throws away what halted tokens do not need: plain, and slow. This
module gives the same states, and leaves the work out:

- Halted tokens drop out of the batch, and so do rows in which all have halted. A token that halted after loop s comes
  back once, for the K/V-only pass that publishes it, when a later token of its row reaches loop s + 1.
- Texts that go on, one token a row, are handed to `looplm.think.decoding`.
"""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from looplm.layers.attention import View
from looplm.loop.halting import ByRole, Evidence, HaltingRule, best, observe, what_it_looks_at
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
        roles = ByRole.of(halting)
        reads = [bool(what_it_looks_at(rule) & {"guess", "confidence"}) for rule in (roles.answer, roles.prompt)]
        self._reads_some, self._reads_all = any(reads), all(reads)
        """Whether the head is needed after a loop: for tokens of the role whose rule looks at guesses."""
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
        self.loops_taken, self._guess = wide(torch.zeros_like(tokens)), wide(torch.full_like(tokens, -1))
        self.calls = 0
        """Of the block, each for all rows that still think."""
        self._loop, self._all_run = 0, True
        with torch.no_grad():
            x0, self._view = model.embed(tokens, real)
        self._x0, self.states, self._confidence = x0, wide(torch.zeros_like(x0)), wide(x0.new_zeros(tokens.shape))
        self._published = wide(torch.zeros_like(tokens))  # up to which loop a token's keys and values are in the store
        config = model.config
        loops = halting.max_loops if room else 1  # with no token to come, nobody reads an earlier loop again
        kv_heads = config.kv_heads or config.heads
        self.cache = x0.new_zeros(loops, config.layers, rows, width + 1, 2 * kv_heads, config.width // config.heads)
        """Float[L N B S E K]: of each loop, layer, row and column, keys, then values."""
        self._asks = self.answer if reads[0] else ~self.answer
        self._room, self._offered = room, 1
        self._decoding: Decoding | None = None

    @property
    def nbytes(self) -> int:
        """Allocated for keys and values: of all tokens, those that may be appended, and the column that is nowhere.

        Spec: [hardware.cache-bytes][].
        """
        return self.cache.nbytes

    @property
    def running(self) -> Annotated[Tensor, Bool("B")]:
        """Rows with a token that still thinks."""
        if self._decoding:
            running = torch.zeros_like(self.active[:, 0])
            running[self._decoding.running] = True
            return running
        return self.active.any(1)

    @property
    @torch.no_grad()
    def guess(self) -> Annotated[Tensor, Int("B S")]:
        """The most likely next token of each token that has halted; -1 elsewhere, if its rule does not look at guesses."""
        unread = (self.loops_taken > 0) & ~self.active & (self._guess < 0) & (columns(self.real) < self._length)
        if bool(unread.any()):
            self._guess[unread] = self.model.logits(self.states[unread]).argmax(-1)
        return self._guess

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
        self._loop += 1
        self.calls += 1
        l = self._loop
        index, before, after, active = self._run_all(l) if self._all_run else self._run_active(l)
        seen = observe(
            l,
            after,
            before,
            self.model.logits(after) if self._reads_all else None,
            self._guess[index],
            self._confidence[index],
            self.answer[index] & active,
            active,
            None,
            self.model.halt_prob(after, l) if "halt_prob" in self._looks_at else None,
            self._looks_at,
        )
        if self._reads_some and not self._reads_all:
            seen = self._read(seen, self._asks[index] & active)
        halts = self.halting(seen) & active
        self.states[index], self._guess[index], self._confidence[index] = after, seen.guess, seen.confidence
        self.loops_taken[index] += active
        self._published[index] = torch.where(active, l, 0)
        self.active[index] = active & ~halts
        self._all_run = self._all_run and not bool(halts.any())

    def _run_all(self, l: int) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Loop l of every token, while none has halted: their index, states before and after it, and which are real."""
        everywhere = (slice(None), slice(self._length))
        h = self.states[everywhere]
        remember = [partial(self._remember_all, l, layer) for layer in range(self.model.config.layers)]
        return everywhere, h, self.model.step(h, self._x0, l, self._view, remember), self.active[everywhere]

    def _run_active(self, l: int) -> tuple[Any, Tensor, Tensor, Tensor]:
        """The same of the active tokens, after those that have just halted have published."""
        rows = self.running.nonzero()[:, 0]
        active = self.active[rows]
        asking = self._publishing(rows, l, _before(active))
        readers, publishers = _gather_left(active, self._nowhere), _gather_left(asking, self._nowhere)
        items, count = torch.cat((readers, publishers), 1), readers.shape[1]
        layers = self.model.config.layers
        x0, view = self._look(rows, items, count if layers == 1 else None)  # in a deeper block, publishers read too
        view, read = view.narrow(self._length)
        h = self.states[rows[:, None], items]
        remember = [partial(self._remember, rows, l, items, read, layer) for layer in range(layers)]
        after = self.model.step(h, x0, l, view, remember, count)
        return (rows[:, None], readers), h[:, :count], after, readers != self._nowhere

    def _read(self, seen: Evidence, asks: Annotated[Tensor, Bool("R A")]) -> Evidence:
        """The same with the guesses of the tokens whose rule looks at them."""
        guess, confidence = best(self.model.logits(seen.h[asks]), self._looks_at)
        return replace(
            seen,
            guess=seen.guess.masked_scatter(asks, guess),
            confidence=seen.confidence if confidence is None else seen.confidence.masked_scatter(asks, confidence),
        )

    @torch.no_grad()
    def append(self, rows: list[int], tokens: Annotated[Tensor, Int("R")]) -> None:
        """Give rows in which all tokens have halted one more token, of the answer, to think about."""
        if not self._decoding:
            taken = torch.where(self.answer, self.loops_taken, 0).amax(1)
            self._decoding = Decoding(self, self._length, self._room, taken.tolist())
        self._decoding.append(rows, tokens)

    @torch.no_grad()
    def reorder(self, rows: Annotated[Tensor, Int("R")]) -> None:
        """Become copies of these rows, as many as are given: each with all that is remembered of its text.

        Spec: [generation.beam-memory][].
        """
        self.tokens, self.real, self.answer, self.active, self.loops_taken = (
            of[rows] for of in (self.tokens, self.real, self.answer, self.active, self.loops_taken)
        )
        self._guess, self._confidence, self._published, self._asks, self._x0, self.states = (
            of[rows] for of in (self._guess, self._confidence, self._published, self._asks, self._x0, self.states)
        )
        self._view = self._view.pick(rows, torch.arange(self._length, device=rows.device).expand(len(rows), -1))
        self.cache = self.cache.index_select(2, rows)
        self._rows = torch.arange(len(rows), device=rows.device)
        if self._decoding:
            self._decoding.reorder(rows)

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
        return list(zip(self.logits(rows).argmax(-1).tolist(), self.loops_taken[rows, self._length - 1].tolist(), strict=True))

    @torch.no_grad()
    def logits(self, rows: list[int]) -> Annotated[Tensor, Float("R V")]:
        """What the newest tokens of rows, all halted, give each next token."""
        return self._decoding.logits(rows) if self._decoding else self.model.logits(self.states[rows, self._length - 1])

    def _publishing(self, rows: Tensor, l: int, read_later: Tensor) -> Tensor:
        """Tokens that need a K/V-only pass at loop l, because a later token of their row is about to read it: [R, S]."""
        behind = self.real[rows] & ~self.active[rows] & read_later & (self._published[rows] < l)
        asking = behind & (self.loops_taken[rows] == l - 1)
        if len(self.cache) > 1:  # further back, what was published stands for this loop too
            row, column = (behind & ~asking).nonzero(as_tuple=True)
            self.cache[l - 1, :, rows[row], column] = self.cache[l - 2, :, rows[row], column]
        self._published[rows] = torch.where(behind, l, self._published[rows])
        return asking

    def _look(self, rows: Tensor, items: Tensor, readers: int | None) -> tuple[Tensor, View]:
        """x0 of the items [R, A], and what the first `readers` see; what an item that is nowhere sees, nobody reads."""
        at = items.clamp(max=self._length - 1)
        if len(rows) == len(self._rows) and torch.equal(at, columns(at)) and at.shape[1] == self._length:
            return self._x0, self._view
        return self._x0[rows[:, None], at], self._view.pick(rows, at, readers)

    def _remember_all(self, l: int, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of every token, of loop l."""
        entry, groups = self.cache[l - 1 if len(self.cache) > 1 else 0, layer, :, : self._length], keys.shape[1]
        entry[:, :, :groups], entry[:, :, groups:] = keys.transpose(1, 2), values.transpose(1, 2)
        return keys, values

    def _remember(
        self, rows: Tensor, l: int, items: Tensor, columns: Tensor | None, layer: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write the items' keys and values of loop l, and give those of some columns or of the whole rows."""
        entry = self.cache[l - 1 if len(self.cache) > 1 else 0, layer]
        entry[rows[:, None], items] = torch.cat((keys, values), 1).transpose(1, 2)
        if columns is not None:
            read = entry[rows[:, None], columns]
        else:
            read = entry[:, : self._length] if len(rows) == len(self._rows) else entry[rows, : self._length]
        read_keys, read_values = read.transpose(1, 2).chunk(2, 1)
        return read_keys, read_values


def _before(active: Annotated[Tensor, Bool("R S")]) -> Annotated[Tensor, Bool("R S")]:
    """Tokens up to the last active one of their row."""
    return active.flip(1).cummax(1).values.flip(1)


def _gather_left(wanted: Annotated[Tensor, Bool("R S")], nowhere: int) -> Annotated[Tensor, Int("R A")]:
    """The columns of the wanted entries of each row, as many as in the fullest row; `nowhere` fills the others."""
    column = columns(wanted)
    most = int(wanted.sum(1).max())
    return torch.where(wanted, column, nowhere).sort(1).values[:, :most]
