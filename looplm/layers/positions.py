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

    sparse_from: float = math.inf
    """Attention goes column by column where no token sees more than one in so many of all columns; inf: never."""

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
    ) -> "PlaceBias | None":
        """What the scheme says of the scores of the tokens in the columns `at`, or None."""
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

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim, self.base = config.width // config.heads, config.rope_theta

    def rotation(self, index: Annotated[Tensor, Int("B T")]) -> Rotation:
        """One angle per position and pair of coordinates."""
        exact = torch.float32 if index.device.type == "mps" else torch.float64  # MPS has no float64
        pair = torch.arange(0, self.head_dim, 2, device=index.device, dtype=exact)
        angle = index[:, None, :, None] * self.base ** (-pair / self.head_dim)  # [B, 1, T, K/2]
        return Rotation(cos=angle.cos(), sin=angle.sin())


class PlacePositions(Positions):
    """Attention by place: a learned score for how many places apart two tokens stand in their runs, and a window.

    The task says which tokens stand in runs; the place of one is its index in its run, from 1, and that of others is 0.
    The score also knows whether both stand in the same run. Nothing else tells the model where a token stands, so what is
    learned at place 2 is the same at place 90. This is a strong prior, of the family of Abacus embeddings (McLeish et al.
    2024, arXiv:2405.17399) and position coupling (Cho et al. 2024, arXiv:2405.20671); unlike both it is a bias on scores
    and knows differences only.

    Spec: [architecture.place][], [architecture.place-bias][], [architecture.place-window][],
    [architecture.place-strict][].
    """

    scale = 10.0
    """The table is multiplied by this, so that the optimizer's small steps move the scores enough."""
    init_std = 0.2

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reach, self.window, self.strict = config.place_reach, config.place_window, config.place_strict
        self.sparse_from = math.inf if self.window is None else 4.0
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
    ) -> "PlaceBias":
        """Ten times the table's entry of each pair's bucket, and the window."""
        placed = self.has_place[tokens] & real
        return PlaceBias(self, placed, places_in_runs(placed, real), (real & ~placed).cumsum(1), at)


@dataclass(frozen=True)
class PlaceBias:
    """What places say of the scores of some queries."""

    scheme: PlacePositions
    placed: Annotated[Tensor, Bool("B S")]
    """Tokens that stand in runs."""
    place: Annotated[Tensor, Int("B S")]
    run: Annotated[Tensor, Int("B S")]
    """Which run a token stands in."""
    at: Annotated[Tensor, Int("B T")]
    """The columns of the queries."""

    def visible(self) -> Annotated[Tensor, Bool("B T S")]:
        """What the queries may see; only tokens in runs can be hidden."""
        hidden = torch.zeros_like(self.placed)[:, None, :]
        if self.scheme.window is not None:
            place, key_place = self.place.gather(1, self.at)[..., None], self.place[:, None, :]
            hidden = (key_place > place + self.scheme.window) | (key_place < place - self.scheme.window)
        if self.scheme.strict:
            hidden = hidden | ~self.placed.gather(1, self.at)[..., None]
        return ~(hidden & self.placed[:, None, :])

    def scores(self, columns: Annotated[Tensor, Int("B T W")] | None = None) -> Annotated[Tensor, Float("B H T W")]:
        """What is added to the scores of each query over these columns, by default over all."""
        place, run, placed = (self._of_keys(table, columns) for table in (self.place, self.run, self.placed))
        reach, differences = self.scheme.reach, 2 * self.scheme.reach + 1
        apart = place - self.place.gather(1, self.at)[..., None]  # [B, T, W]: the key's place less the query's
        same_run = run == self.run.gather(1, self.at)[..., None]
        bucket = apart.clamp(-reach, reach) + reach + differences * same_run
        bucket = torch.where(placed, bucket, 2 * differences)
        return nn.functional.embedding(bucket, self.scheme.table * self.scheme.scale).permute(0, 3, 1, 2)

    @staticmethod
    def _of_keys(table: Tensor, columns: Tensor | None) -> Tensor:
        if columns is None:
            return table[:, None, :]
        return table.gather(1, columns.flatten(1)).view(columns.shape)


def places_in_runs(
    has_place: Annotated[Tensor, Bool("B S")], real: Annotated[Tensor, Bool("B S")]
) -> Annotated[Tensor, Int("B S")]:
    """Place of each token in its run, from 1; 0 for those outside runs. Padding is outside and ends no run.

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
