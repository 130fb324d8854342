"""LoopLM over sentences: one shared block, applied again and again to a vector for each sentence of a story.

x0   = norm(question, facts)                                  [B, M + 1, D]
h_0  = 0
h_l  = norm(block(h_{l-1} + x0 + loop_signal(l)))             l = 1..num_loops
answer = out(norm(h_l of the question))                       [B, V]

Within the block every sentence sees the question and all facts of its story but itself. A row of tokens is a story as the
Connection Transformer reads it: sentences, each closed by an end mark; the last one is the question.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from looplm.config import ModelConfig
from looplm.layers.attention import View, remember_nothing
from looplm.layers.block import Block, Layer
from looplm.layers.sentences import refuse_long, sentences_of
from looplm.loop.injection import LoopSignal, inject
from looplm.models.body import Noise, State, StoryBody
from looplm.settings import STRICT
from looplm.shapes import Float, Int

_ROWS = 16
"""Of a batch that go through the loops together."""
_HIDDEN = -1e4
"""Added to the score of what a sentence does not see."""


@checked(frozen=True, kw_only=True, config=STRICT)
class SentencesConfig:
    """Sizes and choices of a looped model of sentences."""

    body: Literal["sentences"] = "sentences"
    vocab_size: int = Field(ge=2)
    pad_id: int = Field(ge=0)
    end_ids: tuple[int, ...] = Field(min_length=1)
    """Ids of tokens that end a sentence."""
    width: int = Field(default=64, ge=2)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=1, ge=1)
    """Of the shared block."""
    mlp_width: int = Field(default=128, ge=1)
    max_words: int = Field(default=12, ge=1)
    """Longest sentence, its end mark not counted."""
    max_facts: int = Field(default=16, ge=1)
    """Of a story."""
    loop_signal_loops: int = Field(default=4, ge=1)
    """Loops with a learned signal of their own; later loops repeat the last one."""

    centred: bool = True
    """The mean of a story's facts is taken from each, so that what all of them say takes no part in a comparison."""
    orthogonal_words: bool = True
    """Word vectors start orthogonal among `width` ids that follow each other: two words are alike only if they are the same."""
    compare_gain: float = Field(default=2.0, gt=0)
    """Queries and keys start as this times the same orthogonal matrix."""
    compare_rate: float = Field(default=1.0, gt=0)
    """Learning rate of queries, keys and values, as a multiple of the schedule's."""
    written_gain: float = Field(default=1.0, ge=0)
    """What is read starts so many times as strong, written as it was read."""
    place_std: float = Field(default=0.5, ge=0)
    time_std: float = Field(default=0.5, ge=0)
    signal_std: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`width` must be a multiple of `heads`: got {self.width} and {self.heads}")
        return self

    @property
    def block(self) -> ModelConfig:
        """Of the shared block, as LoopLM has it."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            width=self.width,
            heads=self.heads,
            layers=self.layers,
            mlp_width=self.mlp_width,
            norm="layer",
            positions="none",
            loop_signal="learned",
            loop_signal_loops=self.loop_signal_loops,
            embedding_std=self.signal_std,
        )

    def check(self, tokens: Annotated[Tensor, Int("B T")]) -> None:
        """Refuse rows of tokens that are no stories, or too long for this body.

        Raises:
            InputError: with what is too long, and the setting that allows it.
        """
        refuse_long(sentences_of(tokens, self.pad_id, self.end_ids), self.max_facts, self.max_words)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that a body of these settings exercises."""
        names = ("input", "seen", "loop", "start", "answer", "independent")
        return ("connection.sentences", *(f"sentences.{name}" for name in names))


class LoopedSentences(StoryBody):
    """A looped model of sentences.

    Spec: [sentences.loop][], [sentences.start][].
    """

    settings = SentencesConfig
    config: SentencesConfig

    def __init__(self, config: SentencesConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.words = nn.Embedding(config.vocab_size, width)
        if config.orthogonal_words:
            with torch.no_grad():
                for part in self.words.weight.split(width):
                    part.copy_(nn.init.orthogonal_(torch.empty_like(part)) * width**0.5)
        self.places = nn.Parameter(1 + config.place_std * torch.randn(2, config.max_words, width))
        self.times = nn.Parameter(config.time_std * torch.randn(config.max_facts, width))
        self.asking = nn.Parameter(0.5 * torch.randn(width))
        self.block = Block(config.block)
        for layer in self._layers():
            same = config.compare_gain * nn.init.orthogonal_(torch.empty(width, width))
            read = nn.init.orthogonal_(torch.empty(width, width))
            with torch.no_grad():
                layer.attention.qkv.weight[: 2 * width] = same.repeat(2, 1)
                if config.written_gain:
                    layer.attention.qkv.weight[2 * width :] = read
                    layer.attention.out.weight.copy_(config.written_gain * read.T)
        self.loop_signal = LoopSignal(config.block)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in ("input", "state", "out")})
        self.out = nn.Linear(width, config.vocab_size)

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.block.layers if isinstance(layer, Layer)]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.words.weight.device

    def decayed(self) -> list[nn.Parameter]:
        """The projections; not words, places, times, signals or norms.

        Spec: [training.weight-decay][].
        """
        return [module.get_parameter("weight") for module in self.modules() if isinstance(module, nn.Linear)]

    def rates(self) -> dict[nn.Parameter, float]:
        """Queries, keys and values learn at a rate of their own.

        Spec: [training.rates][].
        """
        return {layer.attention.qkv.get_parameter("weight"): self.config.compare_rate for layer in self._layers()}

    def blocks(self) -> list[nn.Module]:
        """The layers of the shared block."""
        return list(self.block.layers)

    def embed(self, tokens: Annotated[Tensor, Int("B T")]) -> tuple[Annotated[Tensor, Float("B S D")], View]:
        """x0 of the question, then of the facts from the oldest on, and what each of them sees.

        Raises:
            InputError: if a row is no story, or too long.

        Spec: [sentences.input][], [sentences.seen][].
        """
        found = sentences_of(tokens, self.config.pad_id, self.config.end_ids)
        refuse_long(found, self.config.max_facts, self.config.max_words)
        last, size = found.count[:, None] - 1, int(found.count.max())
        asks = found.number == last
        masks = self.places[asks.long(), found.place.clamp(min=0)]  # [B, T, D]
        words = self.words(tokens) * masks * (found.place >= 0)[..., None] / 2
        at = torch.where(asks, 0, found.number + 1).clamp(max=size - 1)  # padding adds 0, wherever it stands
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        flat = words.new_zeros(len(tokens) * size, words.shape[-1])
        said = flat.index_add(0, (at + size * rows).flatten(), words.flatten(0, 1)).unflatten(0, (-1, size))
        column = torch.arange(size, device=tokens.device)
        there = column <= last
        asked, facts = said[:, :1] + self.asking, said[:, 1:] + self.times[(last - column[1:]).clamp(min=0)]
        if self.config.centred:
            facts = facts - (facts * there[:, 1:, None]).sum(1, keepdim=True) / last[..., None]
        seen = there[:, None, :] & ~torch.eye(size, dtype=torch.bool, device=tokens.device)
        scores = torch.where(seen, 0.0, _HIDDEN).to(words.dtype)[:, None]
        return self.norms["input"](torch.cat((asked, facts), 1)), View(scores, None)

    def states(
        self, tokens: Annotated[Tensor, Int("B T")], num_loops: int, start: State | None = None, noise: Noise | None = None
    ) -> Iterator[Tensor]:
        """The question's state after each loop, the same at every token of its row; no start and no noise are known.

        Spec: [sentences.answer][].
        """
        assert start is None and noise is None, "the recipe has asked"
        ends = torch.tensor(self.config.end_ids, device=tokens.device)
        order = torch.isin(tokens, ends).sum(1).argsort(stable=True)
        back = order.argsort()
        parts = [self._loops(tokens[rows], num_loops) for rows in order.split(_ROWS)]  # of like length: little padding
        for after in zip(*parts, strict=True):
            yield torch.cat([h[:, 0] for h, _ in after])[back][:, None].expand(-1, tokens.shape[1], -1)

    def _loops(self, tokens: Tensor, num_loops: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The states of all sentences after each loop, and what had gone into the block.

        Spec: [sentences.loop][].
        """
        x0, view = self.embed(tokens)
        h = torch.zeros_like(x0)
        for l in range(1, num_loops + 1):
            u = inject(h, x0, l, "every") + self.loop_signal(l)
            h = self.norms["state"](self.block(u, view, [remember_nothing] * self.config.layers))
            yield h, u

    @torch.no_grad()
    def looks(self, tokens: Annotated[Tensor, Int("B T")], num_loops: int) -> Annotated[Tensor, Float("L B M")]:
        """How much the question reads of each fact in each loop: the mean over the heads of the first layer.

        Spec: [sentences.looks][].
        """
        _, view = self.embed(tokens)
        layer, looks = self._layers()[0], []
        for _, u in self._loops(tokens, num_loops):
            queries, keys, _ = layer.attention.project(layer.attention_norm(u), view)
            logits = queries[:, :, :1] @ keys.transpose(-1, -2) / keys.shape[-1] ** 0.5 + view.scores[:, :, :1]
            looks.append(logits.softmax(-1)[:, :, 0, 1:].mean(1))
        return torch.stack(looks)

    def logits(self, h: Annotated[Tensor, Float("... D")]) -> Annotated[Tensor, Float("... V")]:
        """Logits of each answer.

        Spec: [sentences.answer][].
        """
        scores: Tensor = self.out(self.norms["out"](h))
        return scores


CHOICE = LoopedSentences
