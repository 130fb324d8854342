"""What the kernel tests draw from: small looped models as plain weights, texts, and rules."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from hypothesis import strategies as st
from looplm_kernels.loop import loop
from looplm_kernels.state import Rule, State, empty
from looplm_kernels.weights import Places, Weights
from torch import Tensor

EVERY_KIND = ("confidence", "agree", "change", "prefix")
SIMPLE = ("confidence", "agree")
"""Rules that all kernels know."""


@dataclass(frozen=True)
class Case:
    """Weights, texts of several lengths, a rule, and the threshold of every token."""

    weights: Weights
    tokens: Tensor
    lengths: list[int]
    rule: Rule
    threshold: Tensor
    limit: Tensor | None = None

    @property
    def batch(self) -> int:
        return len(self.lengths)


@st.composite
def cases(
    draw: st.DrawFn,
    /,
    *,
    batch: int = 2,
    longest: int = 20,
    max_loops: int = 4,
    dtype: torch.dtype = torch.float32,
    kinds: tuple[str, ...] = EVERY_KIND,
) -> Case:
    """Widths, heads, MLPs and vocabularies that are mostly no powers of two; every kind of positions and of rule."""
    heads = draw(st.integers(1, 3))
    head_dim = draw(st.sampled_from([4, 6, 8, 16]))
    vocabulary = draw(st.sampled_from([7, 15, 16, 33, 70]))
    positions = draw(st.sampled_from(["none", "rope", "learned", "place"]))
    weights = drawn_weights(
        width=heads * head_dim,
        heads=heads,
        hidden=draw(st.sampled_from([5, 32, 40])),
        vocabulary=vocabulary,
        signals=draw(st.integers(1, 3)),
        positions=positions,
        swiglu=draw(st.booleans()),
        layer_norm=draw(st.booleans()),
        every_loop=draw(st.booleans()),
        state_norm=draw(st.booleans()),
        window=draw(st.sampled_from([None, 0, 1])),
        seed=draw(st.integers(0, 2**16)),
        dtype=dtype,
    )
    lengths = [draw(st.integers(1, longest)) for _ in range(batch)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    tokens = torch.randint(0, vocabulary, (batch, max(lengths)), generator=generator)
    loops = draw(st.integers(1, max_loops))
    kind = draw(st.sampled_from(kinds))
    rule = Rule(
        loops,
        min_loops=draw(st.integers(1, loops)),
        agree=kind == "agree",
        epsilon=draw(st.floats(0.2, 2)) if kind in ("change", "prefix") else math.inf,
        prefix=kind == "prefix",
    )
    # thresholds that some tokens reach and others do not, and tokens that may not halt at all
    threshold = torch.rand(tokens.shape, generator=generator) * (0.0 if kind in ("agree", "change") else 1.0)
    threshold[torch.rand(tokens.shape, generator=generator) < 0.2] = math.inf
    limit = torch.randint(1, loops + 2, tokens.shape, generator=generator, dtype=torch.int32)
    limited = kind == "prefix" or draw(st.booleans())  # where tokens wait for each other, who is stopped matters to others
    return Case(weights, tokens, lengths, rule, threshold, limit if limited else None)


def drawn_weights(
    *,
    width: int = 32,
    heads: int = 2,
    hidden: int = 40,
    vocabulary: int = 15,
    signals: int = 2,
    positions: str = "none",
    swiglu: bool = False,
    layer_norm: bool = False,
    every_loop: bool = True,
    state_norm: bool = True,
    window: int | None = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Weights:
    """Lively weights: states keep moving, and argmaxes change from loop to loop."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * std).to(dtype)

    def matrix(out: int, into: int) -> Tensor:
        return normal(out, into, std=1.2 / math.sqrt(into))

    table = normal(11, heads, std=2.0)
    return Weights(
        embedding=normal(vocabulary, width),
        gains=normal(4, width, std=0.1) + 1,
        qkv=matrix(3 * width, width),
        out=matrix(width, width),
        up=matrix(hidden, width),
        down=matrix(width, hidden),
        signals=normal(signals, width, std=0.3),
        heads=heads,
        gate=matrix(hidden, width) if swiglu else None,
        shifts=normal(4, width, std=0.1) if layer_norm else None,
        every_loop=every_loop,
        state_norm=state_norm,
        rope=positions == "rope",
        learned=normal(64, width) if positions == "learned" else None,
        places=Places(table, torch.arange(vocabulary) < vocabulary * 2 // 3, 2, window) if positions == "place" else None,
    )


def on(case: Case, device: str) -> Case:
    """The same on a device."""
    moved: dict[str, Any] = {name: v.to(device) for name, v in vars(case.weights).items() if isinstance(v, Tensor)}
    if case.weights.places is not None:
        places = case.weights.places
        moved["places"] = replace(places, table=places.table.to(device), has_place=places.has_place.to(device))
    weights = replace(case.weights, **moved)
    limit = None if case.limit is None else case.limit.to(device)
    return replace(case, weights=weights, tokens=case.tokens.to(device), threshold=case.threshold.to(device), limit=limit)


def fresh(case: Case) -> State:
    """Nothing read yet; everything that a call must write, and every cache entry, is NaN or -1."""
    state = empty(case.weights, case.batch, case.tokens.shape[1] + 3, case.rule.max_loops)
    length = case.tokens.shape[1]
    state.tokens[:, :length] = case.tokens
    threshold = torch.full_like(state.threshold, math.inf)
    threshold[:, :length] = case.threshold
    state.ask(threshold)
    if case.limit is not None:
        state.limit[:, :length] = case.limit
    return state


def read(case: Case, cuts: list[int] | None = None, **how: Any) -> State:
    """The state after the texts have been read, cut into calls at these positions."""
    state = fresh(case)
    ends = torch.tensor(case.lengths, dtype=torch.int32, device=case.weights.embedding.device)
    for start, end in pairwise([0, *(cuts or []), max(case.lengths)]):
        loop(case.weights, state, ends.clamp(max=start), ends.clamp(max=end), case.rule, **how)
    return state


def stopped_by_its_limit() -> tuple[Case, list[int]]:
    """A token that never settles and is stopped after loop 2, then one that is settled from loop 2 on; their loops taken."""
    tokens = torch.zeros(1, 2, dtype=torch.int32)
    rule = Rule(5, epsilon=0.0, prefix=True)  # one token in the vocabulary: guesses are equal, and certain
    case = Case(drawn_weights(vocabulary=1), tokens, [2], rule, torch.tensor([[2.0, 0.5]]), torch.tensor([[2, 5]]).int())
    return case, [2, 2]


def alone(case: Case, b: int) -> Case:
    """Text b by itself."""
    return replace(
        case,
        tokens=case.tokens[b : b + 1],
        lengths=[case.lengths[b]],
        threshold=case.threshold[b : b + 1],
        limit=None if case.limit is None else case.limit[b : b + 1],
    )


OUTPUTS = ("h", "loops_taken", "confidence", "next_token")


def written(state: State, name: str, b: int, length: int) -> Tensor:
    """What a buffer holds for the tokens of a text."""
    value: Tensor = getattr(state, name)
    return value[b, :, :, :length] if name in ("keys", "values") else value[b, :length]


def decided_by_rounding(case: Case, state: State, margin: float) -> bool:
    """Whether any token's confidence came so near to its threshold that rounding may decide: then counts may differ."""
    return any(
        bool(((written(state, "confidence", b, n) - case.threshold[b, :n].to(state.h.device)).abs() < margin).any())
        for b, n in enumerate(case.lengths)
    )
