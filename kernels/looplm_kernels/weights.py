"""A looped model whose block is one layer, as tensors and numbers: what the kernels take instead of a module."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

MLP_CHUNK = 32
"""Columns of the MLP that a kernel computes at a time."""


@dataclass(frozen=True)
class Places:
    """Positions by place: a score for each pair of a query and a key, by their places in their runs."""

    table: Tensor
    """Float[2 * (2 * reach + 1) + 1, H], ready to be added to scores."""
    has_place: Tensor
    """Bool[V]."""
    reach: int
    window: int | None


@dataclass(frozen=True)
class Weights:
    """Everything that one loop computes with. Matrices are [out, in], as torch's Linear keeps them.

    Raises:
        ValueError: if shapes, dtypes or devices disagree, with all of what disagrees.
    """

    embedding: Tensor
    """Float[V, D]; also the head."""
    gains: Tensor
    """Float[4, D] of the norms before attention, before the MLP, after the block, before the head."""
    qkv: Tensor
    """Float[3 * D, D]: queries, keys, values, each head by head."""
    out: Tensor
    """Float[D, D]."""
    up: Tensor
    """Float[F, D]."""
    down: Tensor
    """Float[D, F]."""
    signals: Tensor
    """Float[N, D], added at loops 1..N; later loops repeat the last."""
    heads: int
    gate: Tensor | None = None
    """Float[F, D]: SwiGLU; without it, GELU."""
    shifts: Tensor | None = None
    """Float[4, D]: LayerNorm; without it, RMSNorm."""
    every_loop: bool = True
    """x0 enters each loop, not only the first."""
    state_norm: bool = True
    rope: bool = False
    learned: Tensor | None = None
    """Float[P, D], added to the embedding by position."""
    places: Places | None = None

    def __post_init__(self) -> None:
        vocabulary, width = self.embedding.shape if self.embedding.dim() == 2 else (0, 0)
        hidden = self.up.shape[0]
        expected = {
            "embedding": (vocabulary, width),
            "gains": (4, width),
            "qkv": (3 * width, width),
            "out": (width, width),
            "up": (hidden, width),
            "down": (width, hidden),
            "signals": (self.signals.shape[0], width),
            "gate": (hidden, width),
            "shifts": (4, width),
            "learned": (self.learned.shape[0] if self.learned is not None else 0, width),
        }
        tensors = {name: value for name in expected if (value := getattr(self, name)) is not None}
        wrong = [
            f"`{name}` must be {list(expected[name])}, got {list(value.shape)}"
            for name, value in tensors.items()
            if tuple(value.shape) != expected[name] or 0 in value.shape
        ]
        if self.places is not None:
            buckets = (2 * (2 * self.places.reach + 1) + 1, self.heads)
            if tuple(self.places.table.shape) != buckets or tuple(self.places.has_place.shape) != (vocabulary,):
                wrong.append(f"`places` must have a table {list(buckets)} and `has_place` [{vocabulary}]")
            tensors |= {"places": self.places.table}
        if self.heads < 1 or width % self.heads:
            wrong.append(f"the width must be a multiple of `heads`: got {width} and {self.heads}")
        elif self.rope and (width // self.heads) % 2:
            wrong.append(f"RoPE rotates pairs: width / heads must be even, got {width // self.heads}")
        for what in ("dtype", "device"):
            kinds = sorted({str(getattr(value, what)) for value in tensors.values()})
            if len(kinds) > 1:
                wrong.append(f"all weights must have one {what}: got {', '.join(kinds)}")
        if not self.embedding.is_floating_point():
            wrong.append(f"weights must be floating point: got {self.embedding.dtype}")
        if wrong:
            raise ValueError("; ".join(wrong) + ".")

    @property
    def width(self) -> int:
        """D."""
        return self.embedding.shape[1]

    @property
    def head_dim(self) -> int:
        """K."""
        return self.width // self.heads

    @property
    def dtype(self) -> torch.dtype:
        """Of every weight, and of keys and values."""
        return self.embedding.dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of states and sums: float64 for float64 weights, else float32."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @cached_property
    def packed(self) -> "Packed":
        """The same in the kernels' layout, made once."""
        return pack(self)

    def rotation(self, positions: int) -> tuple[Tensor, Tensor]:
        """RoPE's cos and sin, Float[positions, K] each, the sines of the first half negated.

        So a turned vector is `x * cos + swap_halves(x) * sin`. Computed in float64. Empty without RoPE.
        """
        half = self.head_dim // 2
        pair = torch.arange(half, dtype=torch.float64)
        angle = torch.arange(positions if self.rope else 0, dtype=torch.float64)[:, None] * 10_000.0 ** (
            -2 * pair / self.head_dim
        )
        cos, sin = angle.cos(), angle.sin()
        both = torch.cat((cos, cos), 1), torch.cat((-sin, sin), 1)
        cos, sin = (table.to(self.embedding.device, self.compute_dtype) for table in both)
        return cos, sin


@dataclass(frozen=True)
class Packed:
    """Weights padded with zeros to sizes that a kernel can tile, each tile in one piece of memory.

    Padding changes nothing: a padded column holds zeros from the embedding to the last product.
    """

    embedding: Tensor
    """[V padded to 16, D padded to a power of two]."""
    signals: Tensor
    """float32, as are gains, shifts and the tables of positions: they are added or multiplied, never in a product."""
    gains: Tensor
    shifts: Tensor
    qkv: Tensor
    """[3, H, D, K]: a head's tile is one piece."""
    out: Tensor
    """[H, K, D]."""
    gate: Tensor
    """[F / MLP_CHUNK, D, MLP_CHUNK]."""
    up: Tensor
    down: Tensor
    """[F, D]."""
    learned: Tensor
    place_table: Tensor
    has_place: Tensor
    """int32[V]."""


def pack(weights: Weights) -> Packed:
    """The weights in the kernels' layout, without a gradient."""
    width, heads, head_dim = weights.width, weights.heads, weights.head_dim
    d, k = padded(width), padded(head_dim)
    f = -(-weights.up.shape[0] // MLP_CHUNK) * MLP_CHUNK
    nothing = torch.zeros(1, d, device=weights.embedding.device)

    def wide(x: Tensor, rows: int) -> Tensor:
        return pad(x.detach(), (0, d - x.shape[1], 0, rows - x.shape[0]))

    def chunked(x: Tensor) -> Tensor:
        return wide(x, f).view(-1, MLP_CHUNK, d).transpose(1, 2).contiguous()

    qkv = weights.qkv.detach().view(3, heads, head_dim, width).transpose(2, 3)
    out = weights.out.detach().t().view(heads, head_dim, width)
    up = chunked(weights.up)
    places = weights.places
    return Packed(
        embedding=wide(weights.embedding, -(-len(weights.embedding) // 16) * 16).contiguous(),
        signals=wide(weights.signals, len(weights.signals)).float().contiguous(),
        gains=wide(weights.gains, 4).float().contiguous(),
        shifts=nothing if weights.shifts is None else wide(weights.shifts, 4).float().contiguous(),
        qkv=pad(qkv, (0, k - head_dim, 0, d - width)).contiguous(),
        out=pad(out, (0, d - width, 0, k - head_dim)).contiguous(),
        gate=up if weights.gate is None else chunked(weights.gate),
        up=up,
        down=wide(weights.down.detach().t(), f).contiguous(),
        learned=nothing if weights.learned is None else wide(weights.learned, len(weights.learned)).float().contiguous(),
        place_table=nothing if places is None else places.table.detach().float().contiguous(),
        has_place=nothing.int() if places is None else places.has_place.int().contiguous(),
    )


def padded(size: int) -> int:
    """The next power of two that a matrix instruction can take: at least 16."""
    return max(16, 1 << (size - 1).bit_length())
