"""The MLP, the pre-norm layer, and the block that the loop repeats."""

import math
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn
from torch.nn.functional import silu

from looplm.config import ModelConfig
from looplm.layers.attention import Attention, Remember, View
from looplm.layers.dropout import Dropout
from looplm.layers.norm import make_norm
from looplm.shapes import Float


class GeluMLP(nn.Module):
    """Two projections with a GELU between them.

    Spec: [architecture.gelu][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width, bias=False)
        self.gelu = nn.GELU()
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Annotated[Tensor, Float("B T D")]) -> Annotated[Tensor, Float("B T D")]:
        """Each token by itself."""
        y: Tensor = self.down(self.gelu(self.up(x)))
        return y


class SwigluMLP(nn.Module):
    """A projection gated by the SiLU of another, then one back.

    Source: Shazeer 2020, GLU variants, equation 6, arXiv:2002.05202.
    Spec: [architecture.swiglu][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_and_up = nn.Linear(config.width, 2 * config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Annotated[Tensor, Float("B T D")]) -> Annotated[Tensor, Float("B T D")]:
        """Each token by itself."""
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        y: Tensor = self.down(silu(gate) * up)
        return y


class Layer(nn.Module):
    """Pre-norm: attention and MLP, each read from a norm of the stream and added back to it.

    Spec: [architecture.layer][], [architecture.projections][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.mlp_norm = make_norm(config)
        self.mlp = {"gelu": GeluMLP, "swiglu": SwigluMLP}[config.mlp](config)
        self.attention_dropout, self.mlp_dropout = Dropout(), Dropout()

    def forward(
        self, x: Annotated[Tensor, Float("B T D")], view: View, remember: Remember, readers: int | None = None
    ) -> Annotated[Tensor, Float("B Q D")]:
        """The stream after attention and MLP; only of the first `readers` tokens, if given."""
        if readers == 0:
            self.attention.offer(self.attention_norm(x), view, remember)
            return x[:, :0]
        stream = x[:, :readers] + self.attention_dropout(self.attention(self.attention_norm(x), view, remember, readers))
        return stream + self.mlp_dropout(self.mlp(self.mlp_norm(stream)))


class Block(nn.Module):
    r"""One or more layers; the loop applies the same block, with the same weights, again and again.

    Linear weights start with standard deviation $1/\sqrt{\text{fan in}}$, halved where a layer adds to the stream;
    those that attention copies with start otherwise if `attention_init` says so.

    Spec: [architecture.copying-start][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        starts_copying: list[Attention] = []
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                adds_to_stream = name.endswith(("attention.out", "mlp.down"))
                nn.init.normal_(module.weight, std=(0.5 if adds_to_stream else 1.0) / math.sqrt(module.in_features))
            elif isinstance(module, Dropout):
                module.site = name
            elif isinstance(module, Attention) and config.attention_init == "copy":
                starts_copying.append(module)
        for attention in starts_copying:  # after the weights that start at random, which are the same without it
            attention.start_copying()

    def forward(
        self,
        x: Annotated[Tensor, Float("B T D")],
        view: View,
        remember: Sequence[Remember],
        readers: int | None = None,
    ) -> Annotated[Tensor, Float("B Q D")]:
        """One pass.

        Args:
            x: the stream.
            view: what each token sees.
            remember: one entry per layer.
            readers: only the first so many tokens are wanted after the block; the others run a K/V-only pass, which
                leaves out the attention and the MLP of the last layer. By default all are wanted.
        """
        for layer, keep in zip(self.layers[:-1], remember[:-1], strict=True):
            x = layer(x, view, keep)
        wanted: Tensor = self.layers[-1](x, view, remember[-1], readers)
        return wanted

    @property
    def kv_share(self) -> float:
        """What a K/V-only pass counts, in block evaluations.

        Spec: [halting.block-evaluations][].
        """
        if len(self.layers) > 1:
            return 1.0
        matrices = [m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear)]
        layer = self.layers[0]
        assert isinstance(layer, Layer)
        projected, width = layer.attention.qkv.weight.shape
        return (projected - width) * width / sum(matrices)
