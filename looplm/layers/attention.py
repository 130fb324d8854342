"""Causal self-attention, and what a query may see."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, scaled_dot_product_attention

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
    """What the new tokens see of all tokens; the same at every loop, so computed once a pass.

    Dense, it has a score for each of the S columns. Sparse, it lists for each token the W columns that it may see, W
    being the most that a token sees, and has scores for these alone.
    """

    scores: Annotated[Tensor, Float("B A T S")]
    """Added to the attention scores; -inf where nothing is seen. A is 1 or the number of heads; S is W if sparse."""
    rotation: Rotation | None
    """Turns queries and keys, where the positions are rotary."""
    columns: Annotated[Tensor, Int("B T W")] | None = None
    """What each token sees; where it sees fewer than W, its own column again, with score -inf. None: dense."""

    def first(self, count: int) -> "View":
        """What the first `count` of the new tokens see."""
        columns = None if self.columns is None else self.columns[:, :count]
        return View(self.scores[:, :, :count], self.rotation.first(count) if self.rotation else None, columns)

    def pick(self, rows: Annotated[Tensor, Int("R")], at: Annotated[Tensor, Int("R A")], readers: int | None = None) -> "View":
        """What the tokens `at` of some rows see; only of the first `readers` of them, if given."""
        queries = (rows[:, None], at[:, :readers])
        scores = self.scores[queries[0], :, queries[1]].transpose(1, 2)  # [R, A, H, S] as indexed
        columns = None if self.columns is None else self.columns[queries]
        return View(scores, self.rotation.pick(rows, at) if self.rotation else None, columns)

    def narrow(self, size: int) -> tuple["View", Annotated[Tensor, Int("B N")] | None]:
        """A view of keys and values that are fetched for it, and the columns to fetch.

        If its queries see fewer columns than the `size` that there are, keys and values need only be fetched at these:
        one query's after another's, and the new view counts in what was fetched. Else all are needed: None.
        """
        if self.columns is None or self.columns[0].numel() >= size:
            return self, None
        fetched = torch.arange(self.columns[0].numel(), device=self.columns.device).view_as(self.columns[0])
        return View(self.scores, self.rotation, fetched.expand_as(self.columns)), self.columns.flatten(1)


def attention_view(
    positions: Positions,
    tokens: Annotated[Tensor, Int("B S")],
    real: Annotated[Tensor, Bool("B S")],
    at: Annotated[Tensor, Int("B T")],
    dtype: torch.dtype,
    readers: int | None = None,
) -> tuple[Annotated[Tensor, Int("B T")], View]:
    """Index of the tokens in the columns `at` among the real ones of their row, and what the first `readers` of them see.

    A token sees itself and the real tokens before it, unless the positions hide them; padding is never seen by another
    token. The view is sparse where `positions.sparse_from` says so.

    Memory: 3 * B * T * S bytes for a moment; of scores, only those of the view.
    Spec: [architecture.seen][], [architecture.positions][], [architecture.causal][], [architecture.padding][],
    [architecture.sparse-view][].
    """
    index = (real.long().cumsum(1) - 1).clamp(min=0).gather(1, at)
    rotation = positions.rotation(index)
    seeing = at[:, :readers]
    column = torch.arange(tokens.shape[1], device=tokens.device)
    visible = ((column < seeing[..., None]) & real[:, None, :]) | (column == seeing[..., None])  # [B, T, S]
    bias = positions.bias(tokens, real, seeing)
    if bias is not None:
        visible &= bias.visible()
    columns, hidden = None, ~visible
    if positions.sparse_from < math.inf:
        count = visible.sum(-1)
        most = int(count.max())
        if most * positions.sparse_from <= tokens.shape[1]:
            columns = _list(visible, count, most, seeing)
            hidden = torch.arange(most, device=tokens.device) >= count[..., None]
    scores = torch.zeros(hidden.shape, dtype=dtype, device=tokens.device)[:, None] if bias is None else bias.scores(columns)
    return index, View(scores.to(dtype).masked_fill(hidden[:, None], -math.inf), rotation, columns)


def _list(
    visible: Annotated[Tensor, Bool("B T S")],
    count: Annotated[Tensor, Int("B T")],
    most: int,
    at: Annotated[Tensor, Int("B T")],
) -> Annotated[Tensor, Int("B T W")]:
    """The visible columns of each query, in order, then its own column until there are `most`."""
    row, query, column = visible.nonzero(as_tuple=True)
    per_query = count.flatten()
    before = (per_query.cumsum(0) - per_query).repeat_interleave(per_query)
    rank = torch.arange(len(column), device=column.device) - before
    columns = at[..., None].repeat(1, 1, most)
    columns[row, query, rank] = column
    return columns


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
        if view.columns is None:
            shared = self.kv_heads < self.heads
            read = scaled_dot_product_attention(queries, keys, values, attn_mask=view.scores, enable_gqa=shared)
        else:
            read = attend_to_columns(queries, keys, values, view.columns, view.scores)
        mixed: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return mixed

    @torch.no_grad()
    def start_copying(self) -> None:
        """Give orthonormal rows to the value projection, and half of their transpose to the output projection.

        A head that reads one token then adds its part of that token to the stream, and every second head takes it away.

        Source: compare Trockman and Kolter 2023, section 3, arXiv:2305.09828, who start the product of both near a multiple of
        the identity. We differ: it is exact, and signs take turns.
        Spec: [architecture.copying-start][].
        """
        width, head_dim = self.out.in_features, self.out.in_features // self.heads
        values = nn.init.orthogonal_(torch.empty(self.kv_heads * head_dim, width))
        self.qkv.weight[-len(values) :] = values
        read = values.unflatten(0, (self.kv_heads, head_dim)).repeat_interleave(self.heads // self.kv_heads, 0)
        read[1::2] *= -1
        self.out.weight.copy_(read.flatten(0, 1).T * (0.5 * self.kv_heads / self.heads))

    def offer(self, x: Annotated[Tensor, Float("B T D")], view: View, remember: Remember) -> None:
        """A K/V-only pass: the tokens' keys and values, for others to read."""
        _, keys, values = self._project_apart(x, view, readers=0)
        remember(keys, values)

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


_ELEMENTS_AT_A_TIME = 2**18
"""Of gathered keys: about as many as a core's cache holds."""


def attend_to_columns(
    queries: Annotated[Tensor, Float("B H T K")],
    keys: Annotated[Tensor, Float("B G S K")],
    values: Annotated[Tensor, Float("B G S K")],
    columns: Annotated[Tensor, Int("B T W")],
    scores: Annotated[Tensor, Float("B A T W")],
) -> Annotated[Tensor, Float("B H T K")]:
    """Scaled dot-product attention of each query to its own columns; G heads of keys and values, H a multiple of it.

    Cost: B * T * W * H * K products twice, whatever S is. The columns come first in memory, so that the softmax and both
    sums go along whole vectors.

    Spec: [architecture.sparse-view][], [architecture.attention][], [architecture.grouped-queries][].
    """
    batch, heads, _, head_dim = queries.shape
    groups, size = keys.shape[1:3]
    row = torch.arange(batch, device=columns.device)[:, None, None]
    entries = (columns + size * row).permute(2, 0, 1).flatten(1)  # [W, N], where N is B * T
    key_table, value_table = (of.transpose(1, 2).reshape(batch * size, -1) for of in (keys, values))
    asked = (queries.transpose(1, 2) * head_dim**-0.5).reshape(entries.shape[1], groups, heads // groups, head_dim)
    ones = queries.new_ones(head_dim)
    chunk = max(1, _ELEMENTS_AT_A_TIME // (len(entries) * heads * head_dim))
    read = []
    for q, at, added in zip(
        asked.split(chunk), entries.split(chunk, 1), scores.permute(3, 0, 2, 1).flatten(1, 2).split(chunk, 1), strict=True
    ):
        k, v = (embedding(at, table).unflatten(-1, (groups, 1, head_dim)) for table in (key_table, value_table))
        logits = ((q * k) @ ones).flatten(2) + added  # [W, n, H]
        weights = logits.softmax(0).unflatten(2, (groups, heads // groups))
        read.append((weights[..., None] * v).sum(0))
    return torch.cat(read).reshape(batch, -1, heads, head_dim).transpose(1, 2)
