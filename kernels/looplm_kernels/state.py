"""What a batch of texts keeps between calls, and the rule by which its tokens halt."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from looplm_kernels.weights import Weights

TILE = 16
"""Rows of a kernel's tile; the room for tokens is a multiple of it."""


@dataclass(frozen=True)
class Rule:
    """When a token halts: once its confidence reaches its own threshold, but not before `min_loops`; see State.

    Fixed depth is a threshold of infinity; two equal argmaxes a threshold of 0 and `agree`.
    """

    max_loops: int
    min_loops: int = 1
    agree: bool = False
    """Also ask that the most likely next token is that of the loop before."""
    epsilon: float = math.inf
    """Also ask that the loop has changed the state by less than this, relative to its norm."""
    prefix: bool = False
    """Prefix stability: two equal guesses, either confident in both loops or at a change below `epsilon`, and every
    earlier token with a finite threshold has halted, in an earlier loop or in this one."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_loops <= self.max_loops:
            raise ValueError(f"1 <= `min_loops` <= `max_loops` must hold: got {self.min_loops} and {self.max_loops}.")
        if math.isnan(self.epsilon):
            raise ValueError("`epsilon` must be a number: got NaN.")


@dataclass(frozen=True)
class State:
    """Texts of a batch, each from position 0 on, and what is known about their tokens. Calls write into it.

    Made by `empty`. Positions that no call has reached yet hold anything, NaN included; nothing reads them.
    """

    tokens: Tensor
    """int32[B, S], ids; written by the caller before a call."""
    threshold: Tensor
    """Float[B, S]: the confidence at which a token halts; infinity: only at `max_loops`. Set by `ask`."""
    limit: Tensor
    """int32[B, S]: the loops after which a token halts at the latest, if that is sooner than the rule's `max_loops`."""
    h: Tensor
    """Float[B, S, D]: each token's state when it halted."""
    loops_taken: Tensor
    """int32[B, S]."""
    confidence: Tensor
    """Float[B, S]: probability of the most likely next token."""
    next_token: Tensor
    """int32[B, S]: that token."""
    keys: Tensor
    """[B, H, L, S, K], positions applied: entry l is offered at loop l + 1 (from 0)."""
    values: Tensor
    place: Tensor
    """int32[B, S]: a token's index in its run, from 1; 0 outside runs. Only for the positions `place`."""
    run: Tensor
    """int32[B, S]: how many tokens up to here stand outside runs."""
    cos: Tensor
    """Float[S, K] with RoPE; see Weights.rotation."""
    sin: Tensor
    workspace: dict[str, Tensor] = field(default_factory=dict)
    """What kernel B keeps between launches, made by the first."""

    @property
    def batch(self) -> int:
        """B."""
        return self.tokens.shape[0]

    @property
    def room(self) -> int:
        """S: tokens that a text may have."""
        return self.tokens.shape[1]

    @property
    def num_loops(self) -> int:
        """L: loops that a reader may ask for."""
        return self.keys.shape[2]

    def ask(self, threshold: Tensor | float) -> None:
        """Set the thresholds of all tokens: one number, or Float[B, S].

        Raises:
            ValueError: for NaN, which no confidence reaches and none misses.
        """
        given = torch.as_tensor(threshold)
        if bool(given.isnan().any()):
            raise ValueError(
                "`threshold` must be a number for every token: got NaN. Use infinity for tokens that run all loops."
            )
        if given.dim() and given.shape != self.threshold.shape:
            raise ValueError(f"`threshold` must be a number or {list(self.threshold.shape)}: got {list(given.shape)}.")
        self.threshold.copy_(given.expand_as(self.threshold))


def empty(weights: Weights, batch: int, tokens: int, num_loops: int, fill: float = math.nan) -> State:
    """Room for `batch` texts of `tokens` tokens, on the weights' device; nothing is read yet.

    Args:
        weights: of the model that will read.
        batch: number of texts.
        tokens: the longest that a text may become; rounded up to a multiple of TILE.
        num_loops: the most loops that a call may ask for.
        fill: what unwritten floats hold.
    """
    if min(batch, tokens, num_loops) < 1:
        raise ValueError(f"`batch`, `tokens` and `num_loops` must be at least 1: got {batch}, {tokens} and {num_loops}.")
    if weights.learned is not None and tokens > len(weights.learned):
        raise ValueError(f"this model has learned positions for {len(weights.learned)} tokens: got {tokens}.")
    room = -(-tokens // TILE) * TILE
    device, exact = weights.embedding.device, weights.compute_dtype
    cache = (batch, weights.heads, num_loops, room, weights.head_dim)
    cos, sin = weights.rotation(room)

    def numbers() -> Tensor:
        return torch.full((batch, room), -1, dtype=torch.int32, device=device)

    return State(
        tokens=torch.zeros(batch, room, dtype=torch.int32, device=device),
        threshold=torch.full((batch, room), math.inf, dtype=exact, device=device),
        limit=torch.full((batch, room), 2**31 - 1, dtype=torch.int32, device=device),
        h=torch.full((batch, room, weights.width), fill, dtype=exact, device=device),
        loops_taken=numbers(),
        confidence=torch.full((batch, room), fill, dtype=exact, device=device),
        next_token=numbers(),
        keys=torch.full(cache, fill, dtype=weights.dtype, device=device),
        values=torch.full(cache, fill, dtype=weights.dtype, device=device),
        place=numbers(),
        run=numbers(),
        cos=cos,
        sin=sin,
    )


def check_call(weights: Weights, state: State, start: Tensor, end: Tensor, rule: Rule) -> None:
    """Refuse what a call cannot do, before anything runs; looks at shapes and kinds only, so nothing waits for a GPU.

    Raises:
        ValueError: with what was given, what is allowed and what to do.

    Spec: [kernels.refuses][], [kernels.no-gradient][].
    """
    device = weights.embedding.device
    for name, value in (("start", start), ("end", end)):
        if value.dtype != torch.int32 or value.shape != (state.batch,) or value.device != device:
            raise ValueError(
                f"`{name}` must be int32 [{state.batch}] on {device}: got {value.dtype} {list(value.shape)} on {value.device}."
            )
    if rule.max_loops > state.num_loops:
        raise ValueError(
            f"the state keeps keys and values of {state.num_loops} loops, but the rule may ask for {rule.max_loops}. "
            "Make the state with more `num_loops`."
        )
    cache = (state.batch, weights.heads, state.num_loops, state.room, weights.head_dim)
    plane = (state.batch, state.room)
    exact, whole = weights.compute_dtype, torch.int32
    expected = {
        "tokens": (plane, whole),
        "threshold": (plane, exact),
        "limit": (plane, whole),
        "h": ((*plane, weights.width), exact),
        "loops_taken": (plane, whole),
        "confidence": (plane, exact),
        "next_token": (plane, whole),
        "keys": (cache, weights.dtype),
        "values": (cache, weights.dtype),
        "place": (plane, whole),
        "run": (plane, whole),
    }
    for name, (shape, dtype) in expected.items():
        value = getattr(state, name)
        if tuple(value.shape) != shape or value.dtype != dtype or value.device != device:
            raise ValueError(
                f"`state.{name}` must be {dtype} {list(shape)} on {device}: got {value.dtype} {list(value.shape)} on "
                f"{value.device}. Make the state with `empty` from the same weights."
            )
        if not value.is_contiguous():
            raise ValueError(f"`state.{name}` must be contiguous, because kernels write into it: call `.contiguous()` first.")
    if torch.is_grad_enabled() and (weights.embedding.requires_grad or weights.qkv.requires_grad or state.h.requires_grad):
        raise ValueError("the loop kernels give no gradient: call them under torch.no_grad(); train with the model itself.")
