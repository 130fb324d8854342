"""How attention learns where tokens stand: four schemes with one small face.

A scheme may act in three places, and most act in one: add a vector to the embedding, rotate queries and keys, or add
a bias to the attention scores. Each method below is one of these places; a scheme overrides what it needs.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from looplm.config import ModelConfig
from looplm.shapes import Bool, Float, Int


class Positions(nn.Module):
    """No positions: the order of tokens is known through the causal mask alone."""

    def embed(self, index: Annotated[Tensor, Int("B T")]) -> Tensor | float:
        """What is added to the embedding of the token at each index: Float[B T D], or 0."""
        return 0.0

    def rotation(self, index: Annotated[Tensor, Int("B T")]) -> "Rotation | None":
        """How queries and keys are turned at each index, or None."""
        return None

    def bias(
        self,
        tokens: Annotated[Tensor, Int("B S")],
        real: Annotated[Tensor, Bool("B S")],
        at: Annotated[Tensor, Int("B T")],
    ) -> Tensor | None:
        """What is added to the scores of the tokens in the columns `at` over all: Float[B H T S], or None."""
        return None


class LearnedPositions(Positions):
    """One trained vector per position, added to the embedding.

    Spec: [architecture.learned-positions][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.max_positions, config.width)
        nn.init.normal_(self.table.weight, std=config.embedding_std)

    def embed(self, index: Annotated[Tensor, Int("B T")]) -> Annotated[Tensor, Float("B T D")]:
        """One trained vector per position; ValueError beyond the table."""
        longest = self.table.num_embeddings
        if int(index.max()) >= longest:
            raise ValueError(
                f"this model has learned positions for {longest} tokens: got a text of {int(index.max()) + 1}. "
                "Give a shorter text, or train with a larger `max_positions`."
            )
        vectors: Tensor = self.table(index)
        return vectors


@dataclass(frozen=True)
class Rotation:
    """Turns each pair of coordinates (i, i + K/2) by its angle."""

    cos: Annotated[Tensor, Float("B 1 T R")]
    sin: Annotated[Tensor, Float("B 1 T R")]

    def first(self, count: int) -> "Rotation":
        """The rotation of the first `count` tokens."""
        return Rotation(self.cos[:, :, :count], self.sin[:, :, :count])

    def pick(self, rows: Annotated[Tensor, Int("R")], at: Annotated[Tensor, Int("R A")]) -> "Rotation":
        """The rotation of the tokens `at` of some rows."""
        cos, sin = (angle[rows[:, None], 0, at][:, None] for angle in (self.cos, self.sin))
        return Rotation(cos, sin)

    def turn(self, x: Annotated[Tensor, Float("B H T K")]) -> Annotated[Tensor, Float("B H T K")]:
        """Queries or keys, turned; the angles are rounded to the dtype of x only here."""
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class RotaryPositions(Positions):
    r"""RoPE: pair i of query and key is turned by $p\,\theta^{-2i/K}$, so scores depend on differences of positions.

    Source: Su et al. 2021, RoFormer, section 3.2, arXiv:2104.09864. We pair coordinate i with i + K/2.
    Spec: [architecture.rope][].
    """

    base = 10_000.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.width // config.heads

    def rotation(self, index: Annotated[Tensor, Int("B T")]) -> Rotation:
        """One angle per position and pair of coordinates."""
        exact = torch.float32 if index.device.type == "mps" else torch.float64  # MPS has no float64
        pair = torch.arange(0, self.head_dim, 2, device=index.device, dtype=exact)
        angle = index[:, None, :, None] * self.base ** (-pair / self.head_dim)  # [B, 1, T, K/2]
        return Rotation(cos=angle.cos(), sin=angle.sin())


class PlacePositions(Positions):
    """Attention by decimal place: a learned score for how many places apart two digits stand, and a window.

    The place of a digit is its index in its run of digits, from 1; other tokens have place 0. The score also knows
    whether both stand in the same run, that is, in the same number. Nothing else tells the model where a token stands,
    so a carry learned at place 2 is the same carry at place 90. This is a strong, addition-shaped prior, of the family
    of Abacus embeddings (McLeish et al. 2024, arXiv:2405.17399) and position coupling (Cho et al. 2024,
    arXiv:2405.20671); unlike both it is a bias on scores and knows differences only.

    Spec: [architecture.place][], [architecture.place-bias][], [architecture.place-window][],
    [architecture.place-strict][].
    """

    scale = 10.0
    """The table is multiplied by this, so that the optimizer's small steps move the scores enough."""
    init_std = 0.2

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reach, self.window, self.strict = config.place_reach, config.place_window, config.place_strict
        self.table = nn.Parameter(torch.randn(2 * (2 * self.reach + 1) + 1, config.heads) * self.init_std)
        has_place = torch.zeros(config.vocab_size, dtype=torch.bool)
        has_place[list(config.place_ids)] = True
        self.register_buffer("has_place", has_place, persistent=False)
        self.has_place: Tensor

    def bias(
        self,
        tokens: Annotated[Tensor, Int("B S")],
        real: Annotated[Tensor, Bool("B S")],
        at: Annotated[Tensor, Int("B T")],
    ) -> Annotated[Tensor, Float("B H T S")]:
        """Ten times the table's entry of each pair's bucket; -inf for what is not seen."""
        digit = self.has_place[tokens] & real
        place, run = places_in_runs(digit, real), (real & ~digit).cumsum(1)
        apart = place[:, None, :] - place.gather(1, at)[..., None]  # [B, T, S]: the key's place less the query's
        same_run = run[:, None, :] == run.gather(1, at)[..., None]
        key_is_digit = digit[:, None, :].expand_as(apart)
        differences = 2 * self.reach + 1
        bucket = apart.clamp(-self.reach, self.reach) + self.reach + differences * same_run
        bucket = torch.where(key_is_digit, bucket, 2 * differences)
        bias = nn.functional.embedding(bucket, self.table * self.scale)  # [B, T, S, H]
        if self.window is not None:
            too_far = key_is_digit & (apart.abs() > self.window)
            bias = bias.masked_fill(too_far[..., None], -math.inf)
        if self.strict:
            outside = key_is_digit & ~digit.gather(1, at)[..., None]
            bias = bias.masked_fill(outside[..., None], -math.inf)
        return bias.permute(0, 3, 1, 2)


def places_in_runs(
    has_place: Annotated[Tensor, Bool("B S")], real: Annotated[Tensor, Bool("B S")]
) -> Annotated[Tensor, Int("B S")]:
    """Place of each digit in its run of digits, from 1; 0 for other tokens. Padding is no digit and ends no run.

    Spec: [architecture.place][], [architecture.padding][].
    """
    index = real.cumsum(dim=1)  # among the real tokens
    run_start = torch.where(real & ~has_place, index, 0).cummax(dim=1).values
    return torch.where(has_place, index - run_start, 0)


def make_positions(config: ModelConfig) -> Positions:
    """The scheme that the config names."""
    if config.positions == "learned":
        return LearnedPositions(config)
    if config.positions == "rope":
        return RotaryPositions(config)
    if config.positions == "place":
        return PlacePositions(config)
    return Positions()
