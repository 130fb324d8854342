"""Sizes and choices of one model, as a frozen, self-checking dataclass."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """Sizes and choices of one model; with the weights, all that is needed to run it."""

    body: Literal["looped", "static"] = "looped"
    vocab_size: int = Field(ge=2)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    kv_heads: int | None = Field(default=None, ge=1)
    """Heads of keys and values; each serves `heads / kv_heads` heads of queries. None: as many as `heads`."""
    layers: int = Field(default=1, ge=1)
    """Layers of the shared block (looped), or of the whole stack (static)."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mlp_width: int = Field(ge=1)
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: float = Field(default=1e-6, gt=0, le=1e-2)
    """Added to the mean square under the root."""
    embedding_std: float = Field(default=0.02, gt=0)
    attention_init: Literal["random", "copy"] = "random"
    """How attention starts: at random, or so that each head adds to the stream what it reads, or takes it away."""

    positions: Literal["none", "rope", "learned", "place"] = "rope"
    rope_theta: float = Field(default=10_000.0, gt=1)
    """Base of RoPE's angles; a larger one turns slower, for longer texts."""
    max_positions: int = Field(default=0, ge=0)
    """Longest text in tokens, for learned positions; the other schemes have no limit and take 0."""
    place_ids: tuple[int, ...] = ()
    """Ids of tokens that stand in runs, for the positions `place`: a token's place is its index in its run."""
    place_reach: int = Field(default=2, ge=1)
    """Differences of places are clipped to ± this many."""
    place_window: int | None = Field(default=None, ge=0)
    """Tokens in runs more than this many places away cannot be seen; None: no window."""
    place_strict: bool = False
    """Tokens outside runs see none in runs, so a token in a run is felt at another place only through the places between."""

    injection: Literal["every", "first"] = "every"
    loop_signal: Literal["none", "sinusoidal", "learned"] = "none"
    loop_signal_loops: int = Field(default=1, ge=1)
    """Loops with a signal of their own; later loops repeat the last one."""
    state_norm: bool = True
    gate: bool = False
    """A learned gate: after each loop, a probability that the token should halt."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`width` must be a multiple of `heads`: got {self.width} and {self.heads}")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"`heads` must be a multiple of `kv_heads`: got {self.heads} and {self.kv_heads}")
        if self.positions == "rope" and (self.width // self.heads) % 2:
            raise ValueError(f"RoPE rotates pairs: width / heads must be even, got {self.width // self.heads}")
        if self.rope_theta != 10_000 and self.positions != "rope":
            raise ValueError("`rope_theta` has a meaning for the positions 'rope' only")
        if (self.positions == "learned") != (self.max_positions > 0):
            raise ValueError("`max_positions` must be given for learned positions, and only for them")
        if (self.positions == "place") != bool(self.place_ids):
            raise ValueError("`place_ids` must be given for the positions 'place', and only for them")
        if self.place_strict and self.positions != "place":
            raise ValueError("`place_strict` has a meaning for the positions 'place' only")
        if self.body == "static" and (self.state_norm or self.loop_signal != "none"):
            raise ValueError("a static model has one loop: set `state_norm = false` and `loop_signal = 'none'`")
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that a model of this configuration exercises."""
        chosen = ["embedding", "loop", "seen", "causal", "positions", "layer", "projections", "tied-head", "guess"]
        chosen = [*(f"architecture.{name}" for name in chosen), f"injection.{self.injection}-loop"]
        chosen += [f"architecture.{self.mlp}", f"architecture.{self.norm}-norm"]
        chosen += ["architecture.copying-start"] if self.attention_init == "copy" else []
        chosen += ["architecture.static"] if self.body == "static" else ["architecture.shared-block"]
        chosen += ["architecture.grouped-queries"] if self.kv_heads not in (None, self.heads) else []
        chosen += ["architecture.loop-signal"] if self.loop_signal != "none" else []
        chosen += ["architecture.learned-loop-signal"] if self.loop_signal != "sinusoidal" else []
        chosen += ["halting.kv-pass"] if self.layers > 1 and self.body == "looped" else []
        chosen += {
            "none": [],
            "rope": ["architecture.rope"],
            "learned": ["architecture.learned-positions"],
            "place": ["architecture.place", "architecture.place-bias"],
        }[self.positions]
        if self.place_window is not None and self.positions == "place":
            chosen.append("architecture.place-window")
        if self.place_strict:
            chosen.append("architecture.place-strict")
        if self.gate:
            chosen.append("halting.gate-probability")
        return tuple(chosen)
