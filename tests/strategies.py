"""What property tests draw from."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from looplm.config import ModelConfig
from looplm.loop.halting import Bounded, ByRole, Evidence, HaltingRule
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.gate import Gate
from looplm.loop.halting.prefix_stability import PrefixStability
from looplm.loop.halting.state_change import StateChange
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.models import build_model
from looplm.models.looped import LoopLM

VOCABULARY = 15
LONGEST = 12


@st.composite
def model_configs(draw: st.DrawFn, /, **fixed: Any) -> ModelConfig:
    """Small models of every kind; keyword arguments fix settings."""
    heads = draw(st.integers(1, 4))
    kv_heads = draw(st.sampled_from([None, *(n for n in range(1, heads + 1) if heads % n == 0)]))
    positions = fixed.get("positions") or draw(st.sampled_from(["none", "rope", "learned", "place"]))
    body = fixed.get("body") or draw(st.sampled_from(["looped", "looped", "static"]))
    drawn: dict[str, Any] = {
        "body": body,
        "vocab_size": VOCABULARY,
        "width": heads * draw(st.sampled_from([2, 4, 6])),
        "heads": heads,
        "kv_heads": kv_heads,
        "layers": draw(st.integers(1, 3)),
        "mlp": draw(st.sampled_from(["gelu", "swiglu"])),
        "mlp_width": draw(st.integers(1, 9)),
        "norm": draw(st.sampled_from(["rms", "layer"])),
        "positions": positions,
        "max_positions": LONGEST if positions == "learned" else 0,
        "place_ids": tuple(range(10)) if positions == "place" else (),
        "place_reach": draw(st.integers(1, 3)),
        "place_window": draw(st.sampled_from([None, 0, 1, 2])),
        "place_strict": positions == "place" and draw(st.booleans()),
        "injection": draw(st.sampled_from(["every", "first"])),
        "loop_signal": "none" if body == "static" else draw(st.sampled_from(["none", "sinusoidal", "learned"])),
        "loop_signal_loops": draw(st.integers(1, 4)),
        "state_norm": body == "looped" and draw(st.booleans()),
        "gate": False,
    }
    return ModelConfig(**drawn | fixed)


@st.composite
def models(draw: st.DrawFn, /, **fixed: Any) -> LoopLM:
    """A model in float64 with lively weights, and a gate: states keep moving, and argmaxes change from loop to loop."""
    config = draw(model_configs(**{"gate": True} | fixed))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    model = build_model(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6, generator=generator)
    return model


@st.composite
def texts(draw: st.DrawFn, /, min_rows: int = 1, max_rows: int = 3, min_length: int = 1) -> Tensor:
    """Token ids [B, T], digits more often than not, so that digit runs arise."""
    rows, length = draw(st.integers(min_rows, max_rows)), draw(st.integers(min_length, LONGEST))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    tokens = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    digits = torch.randint(0, 10, (rows, length), generator=generator)
    return torch.where(torch.rand((rows, length), generator=generator) < 0.6, digits, tokens)


@dataclass(frozen=True)
class Scattered(Bounded):
    """A rule of the tests' own, under which tokens halt after loops of all kinds, the first included.

    It also holds those who ask it to what `Evidence` promises of a first loop.
    """

    def ready(self, seen: Evidence) -> Tensor:
        first = seen.active & (seen.l == 1)
        assert (seen.previous_guess[first] == -1).all() and (seen.previous_confidence[first] == 0).all()
        return (seen.guess + seen.l) % 3 == 0


def scattered(guesses: list[int]) -> list[bool]:
    """The same in the words of the spec: whether a token is ready after each loop."""
    return [(guess + l) % 3 == 0 for l, guess in enumerate(guesses, 1)]


def simple_rules(max_loops: int = 5) -> st.SearchStrategy[HaltingRule]:
    """Every rule, with few loops and many, and settings under which drawn models halt at all depths."""

    def bounded(bounds: tuple[int, int]) -> st.SearchStrategy[HaltingRule]:
        most, least = max(bounds), min(bounds)
        threshold, epsilon, order = st.floats(0.1, 1), st.floats(0.05, 2), st.booleans()
        unknown = st.sampled_from([None, 0, 7])
        return st.one_of(
            st.just(Fixed(most)),
            st.builds(TwoEqualArgmaxes, st.just(most), st.just(least), in_order=order),
            st.builds(Scattered, st.just(most), st.just(least), in_order=order),
            st.builds(Confidence, st.just(most), st.just(least), threshold=threshold, unknown_id=unknown, in_order=order),
            st.builds(StateChange, st.just(most), st.just(least), epsilon=epsilon, in_order=order),
            st.builds(Gate, st.just(most), st.just(least), threshold=threshold, in_order=order),
            st.builds(PrefixStability, st.just(most), st.just(least), threshold=threshold, epsilon=epsilon),
        )

    return st.tuples(st.integers(1, max_loops), st.integers(1, max_loops)).flatmap(bounded)


def halting_rules(max_loops: int = 5) -> st.SearchStrategy[HaltingRule]:
    """Every rule, for all tokens or with another one for the prompt."""
    return st.one_of(simple_rules(max_loops), st.builds(ByRole, simple_rules(max_loops), simple_rules(max_loops)))


@st.composite
def masks(draw: st.DrawFn, /, tokens: Tensor, some: bool = False) -> Tensor:
    """Bool[B T]; with `some`, true somewhere in each row."""
    row = st.lists(st.booleans(), min_size=tokens.shape[1], max_size=tokens.shape[1])
    return torch.tensor([draw(row.filter(any) if some else row) for _ in tokens])


def in_form(model: LoopLM, sparse: bool) -> LoopLM:
    """The same model, always or never with sparse views."""
    model.positions.sparse_from = 0.0 if sparse else float("inf")
    return model
