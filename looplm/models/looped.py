"""LoopLM: one shared block, applied again and again to each token's state.

x0   = embed(tokens)                                          [B, T, D]
h_0  = 0
h_l  = norm(block(inject(h_{l-1}, x0, l) + loop_signal(l)))    l = 1..num_loops
logits = head(h_l), tied to the embedding
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.layers.attention import Remember, View, attention_view, remember_nothing
from looplm.layers.block import Block
from looplm.layers.dropout import in_loop
from looplm.layers.norm import make_norm
from looplm.layers.positions import make_positions
from looplm.loop.cache import KVCache
from looplm.loop.halting import HaltingRule, observe
from looplm.loop.injection import LoopSignal, inject
from looplm.loop.work import Offer
from looplm.models.body import Body, Hook, Noise, State, Thoughts
from looplm.shapes import Bool, Float, Int, Shape


def columns(tokens: Annotated[Tensor, Shape("B T")], after: int = 0) -> Annotated[Tensor, Int("B T")]:
    """The columns in which these tokens stand, if so many stand before them."""
    return torch.arange(after, after + tokens.shape[1], device=tokens.device).expand_as(tokens)


class LoopLM(Body):
    """A looped language model: one block of weights, any number of loops.

    Spec: [architecture.loop][], [architecture.shared-block][], [architecture.any-loops][].
    """

    settings = ModelConfig
    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.embedding_std)
        self.positions = make_positions(config)
        self.block = Block(config)
        self.loop_signal = LoopSignal(config)
        self.state_norm = make_norm(config) if config.state_norm else nn.Identity()
        self.head_norm = make_norm(config)
        signal = config.width if config.loop_signal != "none" else 0
        self.gate = nn.Linear(config.width + signal, 1) if config.gate else None  # drawn last: it changes no other weight

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embedding.weight.device

    @property
    def reach(self) -> int | None:
        """Places that news can travel in one loop, where the positions have a window; None: any distance.

        Spec: [training.due][].
        """
        window = self.config.place_window if self.config.positions == "place" else None
        return None if window is None else window * self.config.layers

    def decayed(self) -> list[nn.Parameter]:
        """Parameters under weight decay: the token embedding and the projections, not norms, signals or positions.

        Spec: [training.weight-decay][].
        """
        linear_layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        return [layer.get_parameter("weight") for layer in (self.embedding, *linear_layers)]

    def blocks(self) -> list[nn.Module]:
        """The units that may be compiled, computed again in the backward pass, or sharded."""
        return list(self.block.layers)

    def forward(
        self,
        tokens: Annotated[Tensor, Int("B T")],
        num_loops: int,
        first_read: int = 1,
        start: State | None = None,
        noise: Noise | None = None,
    ) -> Annotated[Tensor, Float("L B T V")]:
        """Run every token for `num_loops` loops and read the logits after loops `first_read`..`num_loops` of these.

        The plain, differentiable pass that training uses: no halting, no cache. Padding may only stand on the right.

        Args:
            tokens: ids.
            num_loops: at least 1.
            first_read: from 1.
            start: the state to go on from; by default 0, before loop 1.
            noise: adds noise to the state after each loop; by default there is none.

        Spec: [architecture.loop][], [training.state-noise][].
        """
        states = self.states(tokens, num_loops, start, noise)
        return torch.stack([self.logits(h) for l, h in enumerate(states, 1) if l >= first_read])

    def states(
        self, tokens: Annotated[Tensor, Int("B T")], num_loops: int, start: State | None = None, noise: Noise | None = None
    ) -> Iterator[Tensor]:
        """The state after each of `num_loops` loops; arguments as for the forward pass."""
        x0, view = self.embed(tokens, torch.ones_like(tokens, dtype=torch.bool))
        before = start.loops if start else 0
        h = start.h if start else torch.zeros_like(x0)
        for l in range(before + 1, before + num_loops + 1):
            with in_loop(l):
                h = self.step(h, x0, l, view)
            h = noise(l, h) if noise else h
            yield h

    def embed(
        self,
        tokens: Annotated[Tensor, Int("B S")],
        real: Annotated[Tensor, Bool("B S")],
        at: Annotated[Tensor, Int("B T")] | None = None,
        readers: int | None = None,
    ) -> tuple[Annotated[Tensor, Float("B T D")], View]:
        """x0 of the tokens in the columns `at`, by default all, and what they see; both are the same at every loop.

        Only what the first `readers` of them see, if given.

        Spec: [architecture.embedding][].
        """
        at = columns(tokens) if at is None else at
        index, view = attention_view(self.positions, tokens, real, at, self.embedding.weight.dtype, readers)
        x0 = self.embedding(tokens.gather(1, at)) + self.positions.embed(index)
        return x0, view

    def step(
        self,
        h: Annotated[Tensor, Float("B T D")],
        x0: Annotated[Tensor, Float("B T D")],
        l: int | Tensor,
        view: View,
        remember: Sequence[Remember] | None = None,
        readers: int | None = None,
    ) -> Annotated[Tensor, Float("B Q D")]:
        """One loop: the state after loop l from the state after loop l - 1.

        Args:
            h: state after loop l - 1.
            x0: embedding of the tokens.
            l: the loop, from 1; or one for each row, Int[B].
            view: what each token sees.
            remember: where keys and values go, one entry per layer; by default they are not kept.
            readers: only the states of the first so many tokens are wanted; the others offer keys and values only.

        Spec: [architecture.loop][].
        """
        u = inject(h, x0, l, self.config.injection) + self.loop_signal(l)
        remember = remember or [remember_nothing] * self.config.layers
        state: Tensor = self.state_norm(self.block(u, view, remember, readers))
        return state

    def logits(self, h: Annotated[Tensor, Float("... D")]) -> Annotated[Tensor, Float("... V")]:
        """Logits of each next token, through the embedding's own weights.

        Spec: [architecture.tied-head][].
        """
        return linear(self.head_norm(h), self.embedding.weight)

    def halt_prob(
        self, h: Annotated[Tensor, Float("B T D")], l: int | Annotated[Tensor, Int("B")]
    ) -> Annotated[Tensor, Float("B T")] | None:
        """What the gate gives after loop l, a logistic function of the state and the loop signal; None without a gate.

        Source: the LoopLM plan, section 4.3.
        Spec: [halting.gate-probability][].
        """
        if self.gate is None:
            return None
        signal = self.loop_signal(l)
        seen = h if isinstance(signal, float) else torch.cat((h, signal.expand_as(h)), -1)
        return self.gate(seen)[..., 0].sigmoid()

    @torch.no_grad()
    def think(
        self,
        tokens: Annotated[Tensor, Int("B T")],
        halting: HaltingRule,
        *,
        real: Annotated[Tensor, Bool("B T")] | None = None,
        answer: Annotated[Tensor, Bool("B T")] | None = None,
        cache: KVCache | None = None,
        keep_every_loop: bool = False,
        offer: Offer = "publish",
        hook: Hook | None = None,
    ) -> Thoughts:
        """Let each token think until its halting rule says stop: the plain way, which computes every token at every loop.

        With a cache, `tokens` continue the tokens that it holds, and are added to it. All tokens at once, or one at a
        time through a cache, give the same states (halting.kv-publish). `looplm.think.batched` gives them too, faster.

        Args:
            tokens: ids.
            halting: when a token stops.
            real: False for padding; by default there is none.
            answer: True for tokens from which an answer token is read, which rules may treat apart; by default all.
            cache: of at least `halting.max_loops` loops.
            keep_every_loop: also give the logits and states after each loop.
            offer: what a halted token shows to others; all but `publish` are for comparison, and take no cache.
            hook: told the state after each loop, and may change that of active tokens: to probe or to patch.

        Spec: [halting.at-least-one-loop][], [halting.loops-taken][], [halting.freeze][], [halting.kv-publish][],
        [halting.kv-pass][], [halting.kv-alternatives][], [halting.probe][].
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        answer = torch.ones_like(real) if answer is None else answer
        if cache is not None and offer != "publish":
            raise ValueError(f"`offer` must be 'publish' with a cache: got {offer!r}, which only reads whole texts.")
        others_may_follow = cache is not None
        cache = KVCache(halting.max_loops, self.config.layers) if cache is None else cache  # an empty cache is falsy
        if cache.num_loops < halting.max_loops:
            raise ValueError(f"the cache keeps {cache.num_loops} loops, but the halting rule may ask for {halting.max_loops}.")
        x0, view = self.embed(*cache.join(tokens, real), columns(tokens, after=len(cache)))
        h, active, loops_taken = torch.zeros_like(x0), real, torch.zeros_like(tokens)
        goes_on = h  # the states that others see; with `no-freeze`, halted tokens go on in them
        guess, confidence, logits = torch.full_like(tokens, -1), x0.new_zeros(tokens.shape), self.logits(h)
        per_loop: list[tuple[Tensor, Tensor]] = []
        l = 0
        while bool(active.any()) and l < halting.max_loops:
            l += 1
            # under publish, a token that halted after loop l - 1 still has to project; those that halted before have
            copied = loops_taken < l - 1 if offer == "publish" else ~active & (offer == "carry")
            stepped = self.step(goes_on, x0, l, view, cache.at(l, copied))
            if hook and (patched := hook(l, stepped)) is not None:
                stepped = patched
            before, h = h, torch.where(active[..., None], stepped, h)
            goes_on = stepped if offer == "no-freeze" else h
            loops_taken = loops_taken + active
            logits = self.logits(h)
            asked = (guess, confidence, answer, active, cache.waited_for, self.halt_prob(h, l))
            seen = observe(l, h, before, logits, *asked)
            guess, confidence = seen.guess, seen.confidence
            active = active & ~halting(seen)
            if keep_every_loop:
                per_loop.append((logits, h))
        if others_may_follow and l < cache.num_loops:
            l += 1
            self.step(h, x0, l, view, cache.at(l, loops_taken < l - 1), readers=0)
        if others_may_follow:
            cache.commit(tokens, real, torch.where(answer, loops_taken, 0), last_loop=l)
        if not keep_every_loop:
            return Thoughts(h, logits, loops_taken)
        kept_logits, kept_h = (torch.stack(kept) for kept in zip(*per_loop, strict=True))
        return Thoughts(h, logits, loops_taken, kept_logits, kept_h)


def is_looped(model: Body) -> TypeGuard[LoopLM]:
    """Whether a model is looped or static, compiled or not."""
    return isinstance(getattr(model, "_orig_mod", model), LoopLM)


def looped(model: Body, what: str) -> LoopLM:
    """The model, if it is looped or static.

    Args:
        model: of any body.
        what: can be done with these two alone, as the subject of a sentence.

    Raises:
        InputError: if it is another body.
    """
    if not is_looped(model):
        raise InputError(f"{what} needs a body 'looped' or 'static': got {model.config.body!r}.")
    return model


CHOICE = LoopLM
