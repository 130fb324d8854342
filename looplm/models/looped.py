"""LoopLM: one shared block, applied again and again to each token's state.

x0   = embed(tokens)                                          [B, T, D]
h_0  = 0
h_l  = norm(block(inject(h_{l-1}, x0, l) + loop_signal(l)))    l = 1..num_loops
logits = head(h_l), tied to the embedding
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from looplm.config import ModelConfig, Preset
from looplm.layers.attention import Remember, View, look, remember_nothing
from looplm.layers.block import Block, make_norm
from looplm.layers.positions import make_positions
from looplm.loop.cache import KVCache
from looplm.loop.halting import Evidence, HaltingRule
from looplm.loop.injection import LoopSignal, inject
from looplm.shapes import Bool, Float, Int


@dataclass(frozen=True)
class Thoughts:
    """What thinking about a chunk of tokens gave."""

    h: Annotated[Tensor, Float("B T D")]
    """Each token's state when it halted."""
    logits: Annotated[Tensor, Float("B T V")]
    """Read from that state: the scores of each next token."""
    loops_taken: Annotated[Tensor, Int("B T")]
    """Loops that changed the token's state; 0 for padding."""
    logits_per_loop: Annotated[Tensor, Float("L B T V")] | None = None
    """For a trace: the logits after each loop; a halted token's no longer change."""
    h_per_loop: Annotated[Tensor, Float("L B T D")] | None = None
    """The same for the states."""


class LoopLM(nn.Module):
    """A looped language model: one block of weights, any number of loops.

    Spec: [architecture.loop][], [architecture.shared-block][], [architecture.any-loops][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.preset: Preset | None = None
        """What it was trained as; set by training and loading."""
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.embedding_std)
        self.positions = make_positions(config)
        self.block = Block(config)
        self.loop_signal = LoopSignal(config)
        self.state_norm = make_norm(config) if config.state_norm else nn.Identity()
        self.head_norm = make_norm(config)

    def forward(
        self, tokens: Annotated[Tensor, Int("B T")], num_loops: int, first_read: int = 1
    ) -> Annotated[Tensor, Float("L B T V")]:
        """Run every token for `num_loops` loops and read the logits after loops `first_read`..`num_loops`.

        The plain, differentiable pass that training uses: no halting, no cache. Padding may only stand on the right.
        """
        x0, view = self.embed(tokens, torch.ones_like(tokens, dtype=torch.bool), tokens.shape[1])
        h, read = torch.zeros_like(x0), []
        for l in range(1, num_loops + 1):
            h = self.step(h, x0, l, view)
            if l >= first_read:
                read.append(self.read(h))
        return torch.stack(read)

    def embed(
        self, tokens: Annotated[Tensor, Int("B S")], real: Annotated[Tensor, Bool("B S")], new: int
    ) -> tuple[Annotated[Tensor, Float("B T D")], View]:
        """x0 of the last `new` tokens, and what they see of all tokens; both are the same at every loop."""
        index, view = look(self.positions, tokens, real, new, self.embedding.weight.dtype)
        x0 = self.embedding(tokens[:, -new:]) + self.positions.embed(index)
        return x0, view

    def step(
        self,
        h: Annotated[Tensor, Float("B T D")],
        x0: Annotated[Tensor, Float("B T D")],
        l: int,
        view: View,
        remember: Sequence[Remember] | None = None,
    ) -> Annotated[Tensor, Float("B T D")]:
        """One loop: the state after loop l from the state after loop l - 1.

        Spec: [architecture.loop][].
        """
        u = inject(h, x0, l, self.config.injection) + self.loop_signal(l)
        state: Tensor = self.state_norm(self.block(u, view, remember or [remember_nothing] * self.config.layers))
        return state

    def read(self, h: Annotated[Tensor, Float("B T D")]) -> Annotated[Tensor, Float("B T V")]:
        """Logits of each next token, through the embedding's own weights.

        Spec: [architecture.tied-head][].
        """
        return linear(self.head_norm(h), self.embedding.weight)

    @torch.no_grad()
    def think(
        self,
        tokens: Annotated[Tensor, Int("B T")],
        halting: HaltingRule,
        *,
        real: Annotated[Tensor, Bool("B T")] | None = None,
        may_halt: Annotated[Tensor, Bool("B T")] | None = None,
        cache: KVCache | None = None,
        keep_every_loop: bool = False,
    ) -> Thoughts:
        """Let each token think until its halting rule says stop.

        With a cache, `tokens` continue the tokens that it holds, and are added to it. All tokens at once, or one at a
        time through a cache, give the same states (halting.kv-publish).

        Args:
            tokens: ids.
            halting: when a token stops.
            real: False for padding; by default there is none.
            may_halt: False for tokens that run all `halting.max_loops` loops, whatever the rule says; by default all may.
            cache: of at least `halting.max_loops` loops.
            keep_every_loop: also give the logits and states after each loop.

        Spec: [halting.at-least-one-loop][], [halting.loops-taken][], [halting.freeze][], [halting.kv-publish][].
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        may_halt = torch.ones_like(real) if may_halt is None else may_halt
        if cache is None:
            cache = KVCache(halting.max_loops, self.config.layers)
        elif cache.num_loops < halting.max_loops:
            raise ValueError(f"the cache keeps {cache.num_loops} loops, but the halting rule may ask for {halting.max_loops}.")
        x0, view = self.embed(*cache.join(tokens, real), new=tokens.shape[1])
        h, active, loops_taken = torch.zeros_like(x0), real, torch.zeros_like(tokens)
        logits: Tensor | None = None
        per_loop: list[tuple[Tensor, Tensor]] = []
        l = 0
        while bool(active.any()) and l < halting.max_loops:
            l += 1
            published = loops_taken < l - 1  # halted before loop l - 1, so the entry of loop l - 1 is the final one
            h = torch.where(active[..., None], self.step(h, x0, l, view, cache.at(l, published)), h)
            loops_taken = loops_taken + active
            previous, logits = logits, self.read(h)
            active = active & ~(halting(Evidence(l, logits, previous)) & may_halt)
            if keep_every_loop:
                per_loop.append((logits, h))
        assert logits is not None, "a chunk has at least one real token"
        if l < cache.num_loops:
            self._publish(h, x0, l + 1, view, cache, loops_taken)
            l += 1
        cache.commit(tokens, real, last_loop=l)
        if not keep_every_loop:
            return Thoughts(h, logits, loops_taken)
        kept_logits, kept_h = (torch.stack(kept) for kept in zip(*per_loop, strict=True))
        return Thoughts(h, logits, loops_taken, kept_logits, kept_h)

    def _publish(self, h: Tensor, x0: Tensor, l: int, view: View, cache: KVCache, loops_taken: Tensor) -> None:
        """The K/V-only pass of loop l, for the tokens that halted after loop l - 1."""
        u = inject(h, x0, l, self.config.injection) + self.loop_signal(l)
        self.block.offer(u, view, cache.at(l, loops_taken < l - 1))
