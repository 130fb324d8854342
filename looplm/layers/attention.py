"""Causal self-attention, and what a query may see."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from looplm.config import ModelConfig
from looplm.layers.positions import Positions, Rotation
from looplm.shapes import Bool, Float, Int

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes the new tokens' keys and values [B, H, T, K], gives those of all tokens that may be read [B, H, S, K]."""


def remember_nothing(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """No tokens before the new ones, none after them: what training does."""
    return keys, values


@dataclass(frozen=True)
class View:
    """What the new tokens see of all tokens; the same at every loop, so computed once a pass."""

    scores: Annotated[Tensor, Float("B A T S")]
    """Added to the attention scores; -inf where nothing is seen. A is 1 or the number of heads."""
    rotation: Rotation | None
    """Turns queries and keys, where the positions are rotary."""

    def first(self, count: int) -> "View":
        """What the first `count` of the new tokens see."""
        return View(self.scores[:, :, :count], self.rotation.first(count) if self.rotation else None)

    def pick(self, rows: Annotated[Tensor, Int("R")], at: Annotated[Tensor, Int("R A")]) -> "View":
        """What the tokens `at` of some rows see."""
        scores = self.scores[rows[:, None], :, at].transpose(1, 2)  # [R, A, H, S] as indexed
        return View(scores, self.rotation.pick(rows, at) if self.rotation else None)


def look(
    positions: Positions,
    tokens: Annotated[Tensor, Int("B S")],
    real: Annotated[Tensor, Bool("B S")],
    at: Annotated[Tensor, Int("B T")],
    dtype: torch.dtype,
) -> tuple[Annotated[Tensor, Int("B T")], View]:
    """Index of the tokens in the columns `at` among the real ones of their row, and what they see.

    A token sees itself and the real tokens before it; padding is never seen by another token.

    Spec: [architecture.seen][], [architecture.positions][], [architecture.causal][], [architecture.padding][].
    """
    index = (real.long().cumsum(1) - 1).clamp(min=0).gather(1, at)
    column = torch.arange(tokens.shape[1], device=tokens.device)
    visible = ((column < at[..., None]) & real[:, None, :]) | (column == at[..., None])  # [B, T, S]
    hidden = torch.zeros(visible.shape, dtype=dtype, device=tokens.device).masked_fill(~visible, -math.inf)[:, None]
    bias = positions.bias(tokens, real, at)
    scores = hidden if bias is None else hidden + bias.to(dtype)
    return index, View(scores=scores, rotation=positions.rotation(index))


class Attention(nn.Module):
    r"""$\mathrm{softmax}(QK^\top / \sqrt{K} + \mathrm{scores})\,V$ per head, then a projection.

    With fewer heads of keys and values than of queries, neighbouring queries share one.

    Source: Vaswani et al. 2017, section 3.2, arXiv:1706.03762; Ainslie et al. 2023 for shared heads, arXiv:2305.13245. We
    add the view's scores.
    Spec: [architecture.attention][], [architecture.projections][], [architecture.grouped-queries][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        head_dim = config.width // config.heads
        self.qkv = nn.Linear(config.width, (self.heads + 2 * self.kv_heads) * head_dim, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(
        self, x: Annotated[Tensor, Float("B T D")], view: View, remember: Remember, readers: int | None = None
    ) -> Annotated[Tensor, Float("B Q D")]:
        """Read what the view shows; `remember` supplies the keys and values of earlier tokens.

        Only the first `readers` tokens read, by default all: the others only offer their keys and values.
        """
        if readers is None:
            queries, keys, values = self.project(x, view)
        else:
            queries, keys, values = self._project_apart(x, view, readers)
            view = view.first(readers)
        keys, values = remember(keys, values)
        shared = self.kv_heads < self.heads
        read = scaled_dot_product_attention(queries, keys, values, attn_mask=view.scores, enable_gqa=shared)
        mixed: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return mixed

    def project(self, x: Annotated[Tensor, Float("B T D")], view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the new tokens, each Float[B H T K] with heads of its own, positions applied."""
        counts = [self.heads, self.kv_heads, self.kv_heads]
        queries, keys, values = self.qkv(x).unflatten(-1, (sum(counts), -1)).transpose(1, 2).split(counts, dim=1)
        if view.rotation is not None:
            queries, keys = view.rotation.turn(queries), view.rotation.turn(keys)
        return queries, keys, values

    def _project_apart(self, x: Tensor, view: View, readers: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the first `readers` tokens, keys and values of all."""
        width = x.shape[-1]
        queries = linear(x[:, :readers], self.qkv.weight[:width]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        both = linear(x, self.qkv.weight[width:]).unflatten(-1, (2 * self.kv_heads, -1)).transpose(1, 2)
        keys, values = both.chunk(2, dim=1)
        if view.rotation is not None:
            queries, keys = view.rotation.first(readers).turn(queries), view.rotation.turn(keys)
        return queries, keys, values
