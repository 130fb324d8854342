"""The encoder-decoder of 2017: one stack reads a source whole, another writes a target and reads the source at every layer.

A row of tokens is both: the source up to its end mark, and the target from that mark on, which is the decoder's first token.

m   = encoder(embed(source))                               [B, S, D], the memory
h_l = decoder(h_{l-1}; m),  h_0 = embed(target)            [B, U, D], l = 1..num_loops
logits = h_l · E, tied to the embedding

With `layers = 6` and one loop it is the paper's; with `layers = 1` and six loops of each stack, the same body looped.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from looplm.errors import InputError
from looplm.layers.cross_attention import CrossAttention
from looplm.models.body import Noise, State, WholeBody
from looplm.settings import STRICT
from looplm.shapes import Bool, Float, Int


@checked(frozen=True, kw_only=True, config=STRICT)
class Seq2SeqConfig:
    """Sizes and choices of an encoder-decoder."""

    body: Literal["seq2seq"] = "seq2seq"
    vocab_size: int = Field(ge=2)
    """Pieces that source and target share."""
    pad_id: int = Field(ge=0)
    end_ids: tuple[int, ...] = Field(min_length=1)
    """Ids of tokens that end a source; the first of them in a row does."""
    width: int = Field(default=512, ge=2)
    heads: int = Field(default=8, ge=1)
    layers: int = Field(default=6, ge=1)
    """Of each of the two stacks, none shared."""
    mlp_width: int = Field(default=2048, ge=1)
    norm_place: Literal["post", "pre"] = "post"
    """After each residual sum, as in the paper; or in front of each sublayer, with one more norm behind each stack."""
    norm_epsilon: float = Field(default=1e-5, gt=0, le=1e-2)
    encoder_loops: int = Field(default=1, ge=1)
    """Passes of the encoder's stack; those of the decoder's are the loops of training and halting."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`width` must be a multiple of `heads`: got {self.width} and {self.heads}")
        if self.width % 2:
            raise ValueError(f"`width` must be even, for positions are pairs of sine and cosine: got {self.width}")
        return self

    def check(self, tokens: Annotated[Tensor, Int("B T")]) -> None:
        """Refuse rows without a source that ends.

        Raises:
            InputError: with the row.
        """
        sides_of(tokens, self)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that a body of these settings exercises."""
        names = ["row", "embedding", "positions", "attention", "source-mask", "target-mask", "layer", self.norm_place + "-norm"]
        return tuple(f"seq2seq.{name}" for name in [*names, "loops", "tied-head", "independent"])


@dataclass(frozen=True)
class Sides:
    """Which tokens of some rows are source and which are target; the end mark is both."""

    source: Annotated[Tensor, Bool("B T")]
    target: Annotated[Tensor, Bool("B T")]


def sides_of(tokens: Annotated[Tensor, Int("B T")], config: Seq2SeqConfig) -> Sides:
    """Where sources end; padding may stand anywhere.

    Raises:
        InputError: if a row has no end mark.

    Spec: [seq2seq.row][].
    """
    real = tokens != config.pad_id
    mark = torch.isin(tokens, torch.tensor(config.end_ids, device=tokens.device)) & real
    marks = mark.long().cumsum(1)
    if not bool((marks[:, -1] > 0).all()):
        row = int((marks[:, -1] == 0).nonzero()[0, 0])
        raise InputError(f"a source must be closed by an end mark, one of the ids {list(config.end_ids)}: row {row} has none.")
    return Sides(real & (marks - mark.long() == 0), real & (marks > 0))


@dataclass(frozen=True)
class Side:
    """One side of some rows, moved to the left."""

    columns: Annotated[Tensor, Int("B S")]
    """Where each token stands in its row."""
    real: Annotated[Tensor, Bool("B S")]
    """False where a row has fewer tokens than others."""
    place: Annotated[Tensor, Int("B T")]
    """Of each column of the row, on this side; 0 where it is not on it."""

    @classmethod
    def of(cls, there: Annotated[Tensor, Bool("B T")]) -> "Side":
        """The side with these tokens, of which each row has one or more."""
        count = there.sum(1)
        longest = int(count.max())
        columns = (~there).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        real = torch.arange(longest, device=there.device) < count[:, None]
        return cls(columns, real, (there.long().cumsum(1) - 1).clamp(min=0))

    def back(self, x: Annotated[Tensor, Float("B S D")]) -> Annotated[Tensor, Float("B T D")]:
        """What each column of the row has here; those that are not on this side have another's."""
        return x.gather(1, self.place[..., None].expand(-1, -1, x.shape[-1]))


def sinusoidal(length: int, width: int, like: Tensor) -> Annotated[Tensor, Float("T D")]:
    r"""$PE(p, 2i) = \sin(p / 10000^{2i/D})$ and $PE(p, 2i + 1) = \cos(p / 10000^{2i/D})$, for places from 0.

    Source: Vaswani et al. 2017, section 3.5.
    Spec: [seq2seq.positions][].
    """
    exact = torch.float32 if like.device.type == "mps" else torch.float64  # MPS has no float64
    place = torch.arange(length, device=like.device, dtype=exact)[:, None]
    rate = 10_000.0 ** (-torch.arange(0, width, 2, device=like.device, dtype=exact) / width)
    angle = place * rate
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1).to(like.dtype)


class FeedForward(nn.Module):
    """Two projections with biases and a ReLU between them.

    Spec: [seq2seq.layer][].
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        for each in (self.up, self.down):
            nn.init.xavier_uniform_(each.weight)
            nn.init.zeros_(each.bias)

    def forward(self, x: Annotated[Tensor, Float("B T D")]) -> Annotated[Tensor, Float("B T D")]:
        """Each token by itself."""
        y: Tensor = self.down(relu(self.up(x)))
        return y


class Layer(nn.Module):
    """Self-attention, in a decoder attention to the memory, and a feed-forward network; each with a residual sum and a norm.

    Source: Vaswani et al. 2017, section 3.1; for `pre`, Xiong et al. 2020, arXiv:2002.04745.
    Spec: [seq2seq.layer][], [seq2seq.post-norm][], [seq2seq.pre-norm][].
    """

    def __init__(self, config: Seq2SeqConfig, *, decoder: bool) -> None:
        super().__init__()
        self.post = config.norm_place == "post"
        self.attention = CrossAttention(config.width, config.heads)
        self.cross = CrossAttention(config.width, config.heads) if decoder else None
        self.mlp = FeedForward(config.width, config.mlp_width)
        names = ("attention", "cross", "mlp") if decoder else ("attention", "mlp")
        self.norms = nn.ModuleDict({name: nn.LayerNorm(config.width, eps=config.norm_epsilon) for name in names})

    def forward(
        self,
        x: Annotated[Tensor, Float("B T D")],
        visible: Annotated[Tensor, Bool("M Q T")],
        memory: Annotated[Tensor, Float("B S D")] | None = None,
        there: Annotated[Tensor, Bool("B 1 S")] | None = None,
    ) -> Annotated[Tensor, Float("B T D")]:
        """One pass.

        Args:
            x: the stream.
            visible: what each of its tokens sees of the others.
            memory: what the encoder made of the source; a decoder's layer needs it.
            there: False for padding of the source.
        """
        x = self._around("attention", x, lambda y: self.attention(y, y, visible))
        if self.cross is not None:
            cross = self.cross
            x = self._around("cross", x, lambda y: cross(y, memory, there))
        return self._around("mlp", x, self.mlp)

    def _around(self, name: str, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Spec: [seq2seq.post-norm][], [seq2seq.pre-norm][]."""
        norm = self.norms[name]
        added: Tensor = norm(x + sublayer(x)) if self.post else x + sublayer(norm(x))
        return added


class Seq2Seq(WholeBody):
    """An encoder-decoder.

    Source: Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762. We differ: either stack may be passed several
    times; norms may stand in front.
    Spec: [seq2seq.row][], [seq2seq.loops][], [seq2seq.independent][], [seq2seq.parameters][].
    """

    settings = Seq2SeqConfig
    config: Seq2SeqConfig
    writes = True

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.encoder = nn.ModuleList(Layer(config, decoder=False) for _ in range(config.layers))
        self.decoder = nn.ModuleList(Layer(config, decoder=True) for _ in range(config.layers))
        pre = config.norm_place == "pre"
        self.memory_norm, self.head_norm = (
            nn.LayerNorm(config.width, eps=config.norm_epsilon) if pre else nn.Identity() for _ in range(2)
        )

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embedding.weight.device

    def decayed(self) -> list[nn.Parameter]:
        """The embedding and the matrices; not biases or norms.

        Spec: [training.weight-decay][].
        """
        linear_layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        return [layer.get_parameter("weight") for layer in (self.embedding, *linear_layers)]

    def blocks(self) -> list[nn.Module]:
        """The layers of both stacks."""
        return [*self.encoder, *self.decoder]

    def embed(self, tokens: Annotated[Tensor, Int("B T")]) -> Annotated[Tensor, Float("B T D")]:
        """Scaled vectors of tokens, with their places from 0.

        Spec: [seq2seq.embedding][], [seq2seq.positions][].
        """
        vectors = self.embedding(tokens) * math.sqrt(self.config.width)
        placed: Tensor = vectors + sinusoidal(tokens.shape[1], self.config.width, vectors)
        return placed

    def encode(
        self, x: Annotated[Tensor, Float("B S D")], real: Annotated[Tensor, Bool("B S")]
    ) -> Annotated[Tensor, Float("B S D")]:
        """The memory: every token sees the whole source.

        Spec: [seq2seq.source-mask][], [seq2seq.loops][].
        """
        for _ in range(self.config.encoder_loops):
            for layer in self.encoder:
                x = layer(x, real[:, None])
        memory: Tensor = self.memory_norm(x)
        return memory

    def decode(
        self,
        x: Annotated[Tensor, Float("B U D")],
        memory: Annotated[Tensor, Float("B S D")],
        real: Annotated[Tensor, Bool("B S")],
        num_loops: int,
    ) -> Iterator[Annotated[Tensor, Float("B U D")]]:
        """The target's states after each loop: a token sees itself, those before it, and the whole memory.

        Spec: [seq2seq.target-mask][], [seq2seq.source-mask][], [seq2seq.loops][].
        """
        before = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()[None]
        for _ in range(num_loops):
            for layer in self.decoder:
                x = layer(x, before, memory, real[:, None])
            yield x

    def states(
        self, tokens: Annotated[Tensor, Int("B T")], num_loops: int, start: State | None = None, noise: Noise | None = None
    ) -> Iterator[Tensor]:
        """The decoder's state after each loop, and at tokens of the source the memory; no start and no noise are known.

        Raises:
            InputError: if a row has no end mark.

        Spec: [seq2seq.row][], [seq2seq.loops][].
        """
        assert start is None and noise is None, "the recipe has asked"
        sides = sides_of(tokens, self.config)
        source, target = Side.of(sides.source), Side.of(sides.target)
        memory = self.encode(self.embed(tokens.gather(1, source.columns)), source.real)
        read = source.back(memory)
        for h in self.decode(self.embed(tokens.gather(1, target.columns)), memory, source.real, num_loops):
            yield torch.where(sides.target[..., None], target.back(h), read)

    def logits(self, h: Annotated[Tensor, Float("... D")]) -> Annotated[Tensor, Float("... V")]:
        """Logits of each next token, through the embedding's own weights.

        Spec: [seq2seq.tied-head][].
        """
        return linear(self.head_norm(h), self.embedding.weight)


CHOICE = Seq2Seq
