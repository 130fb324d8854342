"""Norms, MLPs, attention against the spec's own lines, in the shapes that the package gives them."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from looplm.config import ModelConfig
from looplm.layers.attention import Attention, View
from looplm.layers.block import Block, GeluMLP, SwigluMLP
from looplm.layers.norm import make_norm
from looplm.spec import oracle

architecture = oracle("architecture")
sizes = st.integers(1, 5)


def config(**more: object) -> ModelConfig:
    return ModelConfig(vocab_size=15, width=6, heads=3, mlp_width=5, **more)  # type: ignore[arg-type]


@pytest.mark.spec("architecture.rms-norm")
@given(sizes, sizes, st.sampled_from([1e-6, 1e-5, 0.01]))
def test_rms_norm_matches_the_spec(rows: int, tokens: int, epsilon: float) -> None:
    norm = make_norm(config(norm="rms", norm_epsilon=epsilon)).double()
    torch.nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    x = torch.randn(rows, tokens, 6).double()
    torch.testing.assert_close(norm(x), architecture.rms_norm(x, norm.weight, epsilon))


@pytest.mark.spec("architecture.layer-norm")
@given(sizes, sizes, st.sampled_from([1e-6, 1e-5, 0.01]))
def test_layer_norm_matches_the_spec(rows: int, tokens: int, epsilon: float) -> None:
    norm = make_norm(config(norm="layer", norm_epsilon=epsilon)).double()
    torch.nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    torch.nn.init.normal_(norm.bias)  # type: ignore[arg-type]
    x = torch.randn(rows, tokens, 6).double()
    torch.testing.assert_close(norm(x), architecture.layer_norm(x, norm.weight, norm.bias, epsilon))


@pytest.mark.spec("architecture.gelu")
def test_gelu_mlp_matches_the_spec() -> None:
    mlp, x = GeluMLP(config()).double(), torch.randn(2, 3, 6).double()
    torch.testing.assert_close(mlp(x), architecture.gelu_mlp(x, mlp.up.weight, mlp.down.weight))


@pytest.mark.spec("architecture.swiglu")
def test_swiglu_mlp_matches_the_spec() -> None:
    mlp, x = SwigluMLP(config()).double(), torch.randn(2, 3, 6).double()
    gate, up = mlp.gate_and_up.weight.chunk(2)
    torch.testing.assert_close(mlp(x), architecture.swiglu_mlp(x, gate, up, mlp.down.weight))


@pytest.mark.spec("architecture.attention", "architecture.grouped-queries")
@given(sizes, sizes, sizes, st.integers(1, 3))
def test_attention_matches_the_spec(rows: int, tokens: int, kv_heads: int, sharing: int) -> None:
    heads = kv_heads * sharing
    config = ModelConfig(vocab_size=15, width=2 * heads, heads=heads, kv_heads=kv_heads, mlp_width=5)
    attention = Attention(config).double()
    x, scores = torch.randn(rows, tokens, 2 * heads).double(), torch.randn(rows, heads, tokens, tokens).double()
    view = View(scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf), rotation=None)

    def remember(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * keys, 3 * values  # whatever it hands over is what is read

    q, k, v = attention.project(x, view)
    k, v = remember(k, v)
    of = [architecture.kv_head(n, heads, kv_heads) for n in range(heads)]
    read = [
        torch.cat([architecture.attend(q[b, n], k[b, of[n]], v[b, of[n]], view.scores[b, n]) for n in range(heads)], 1)
        for b in range(rows)
    ]
    torch.testing.assert_close(attention(x, view, remember), attention.out(torch.stack(read)))


def test_projections_that_add_to_the_stream_start_half_as_large() -> None:
    big = ModelConfig(vocab_size=15, width=256, heads=2, mlp_width=512)
    layer = Block(big).layers[0]
    spread = {name: p.std().item() * p.shape[1] ** 0.5 for name, p in layer.named_parameters() if p.dim() == 2}
    for name, value in spread.items():
        expected = 0.5 if name in ("attention.out.weight", "mlp.down.weight") else 1.0
        assert value == pytest.approx(expected, rel=0.02), name


@pytest.mark.spec("architecture.copying-start")
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_attention_starts_copying(kv_heads: int, sharing: int, layers: int) -> None:
    heads = kv_heads * sharing

    def block(attention_init: Literal["random", "copy"]) -> Block:
        torch.manual_seed(0)
        sizes = {"vocab_size": 15, "width": 2 * heads, "heads": heads, "kv_heads": kv_heads, "mlp_width": 5, "layers": layers}
        return Block(ModelConfig(**sizes, attention_init=attention_init))  # type: ignore[arg-type]

    copying, random = block("copy"), block("random")
    for name, weight in copying.named_parameters():
        if not name.endswith(("qkv.weight", "out.weight")):
            assert weight.equal(random.get_parameter(name))
    for n in range(layers):
        values = copying.get_parameter(f"layers.{n}.attention.qkv.weight")[-2 * kv_heads :]
        out = copying.get_parameter(f"layers.{n}.attention.out.weight")
        torch.testing.assert_close(values @ values.T, torch.eye(2 * kv_heads))
        torch.testing.assert_close(out, architecture.output_start(values, heads, kv_heads))
    if heads == 1:  # then it holds all of a token
        x, attention = torch.randn(1, 1, 2 * heads), copying.get_submodule("layers.0.attention")
        alone = attention(x, View(torch.zeros(1, 1, 1, 1), rotation=None), lambda keys, values: (keys, values))
        torch.testing.assert_close(alone, x / 2)
