"""The block by functions on its weights, for calls of one token a row: there the calls of modules weigh more than the sums."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention, silu

from looplm.layers.block import GeluMLP, Layer
from looplm.layers.norm import RMSNorm
from looplm.shapes import Float

Norm = Callable[[Tensor], Tensor]


class LeanLayer:
    """A layer's functions for one token a row.

    Spec: [architecture.layer][], [architecture.attention][], [architecture.grouped-queries][].
    """

    def __init__(self, layer: Layer) -> None:
        attention, mlp = layer.attention, layer.mlp
        self.heads, self.groups = attention.heads, attention.kv_heads
        self._qkv, self._out = attention.qkv.weight, attention.out.weight
        width = self._out.shape[0]
        self._kv, self._head_dim = self._qkv[width:], width // self.heads
        self._attention_norm, self._mlp_norm = norm_of(layer.attention_norm), norm_of(layer.mlp_norm)
        self._gated = not isinstance(mlp, GeluMLP)
        self._up = mlp.get_parameter("gate_and_up.weight" if self._gated else "up.weight")
        self._down = mlp.get_parameter("down.weight")

    def project(
        self, u: Annotated[Tensor, Float("R D")], turn: tuple[Tensor, Tensor] | None
    ) -> tuple[Annotated[Tensor, Float("R H 1 K")], Annotated[Tensor, Float("R E K")]]:
        """Queries, and what others may read: G keys, then G values. `turn` has the angles' cosines and signed sines."""
        made = linear(self._attention_norm(u), self._qkv).view(u.shape[0], -1, self._head_dim)
        _turn(made[:, : self.heads + self.groups], turn)
        return made[:, : self.heads, None], made[:, self.heads :]

    def offer(
        self, u: Annotated[Tensor, Float("R D")], turn: tuple[Tensor, Tensor] | None
    ) -> Annotated[Tensor, Float("R E K")]:
        """The same without the queries: a K/V-only pass."""
        made = linear(self._attention_norm(u), self._kv).view(u.shape[0], -1, self._head_dim)
        _turn(made[:, : self.groups], turn)
        return made

    def mix(
        self,
        u: Annotated[Tensor, Float("R D")],
        query: Annotated[Tensor, Float("R H 1 K")],
        keys: Annotated[Tensor, Float("R G n K")],
        values: Annotated[Tensor, Float("R G n K")],
        scores: Tensor | None,
    ) -> Annotated[Tensor, Float("R D")]:
        """The stream after attention and MLP."""
        shared = self.groups < self.heads
        read = scaled_dot_product_attention(query, keys, values, attn_mask=scores, enable_gqa=shared)
        u = u + linear(read.view(u.shape), self._out)
        hidden = linear(self._mlp_norm(u), self._up)
        if self._gated:
            gate, up = hidden.chunk(2, -1)
            hidden = silu(gate) * up
        else:
            hidden = gelu(hidden)
        return u + linear(hidden, self._down)


def _turn(x: Annotated[Tensor, Float("R N K")], turn: tuple[Tensor, Tensor] | None) -> None:
    """X * cos + (x, halves swapped) * sin, in place."""
    if turn is not None:
        cos, sin = turn
        torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin, out=x)


def norm_of(module: torch.nn.Module) -> Norm:
    """What a norm computes, without the call of a module."""
    if isinstance(module, torch.nn.Identity):
        return lambda x: x
    weight = module.get_parameter("weight")
    if isinstance(module, torch.nn.LayerNorm):
        return partial(layer_norm, normalized_shape=weight.shape, weight=weight, bias=module.bias, eps=module.eps)
    assert isinstance(module, RMSNorm)
    size = weight.shape[0]
    root = weight.new_tensor(size * (module.eps or 0.0)).sqrt()
    return partial(rms_norm, root=root, gain=weight * size**0.5)


def rms_norm(
    x: Annotated[Tensor, Float("R D")], root: Tensor, gain: Annotated[Tensor, Float("D")]
) -> Annotated[Tensor, Float("R D")]:
    r"""RMSNorm as $x / \sqrt{\lVert x \rVert^2 + D\epsilon}$ times $\sqrt D$ gains: four kernels, where torch has six."""
    return (x / torch.linalg.vector_norm(x, 2, -1, True).hypot_(root)).mul_(gain)
