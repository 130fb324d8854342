"""How a new token is chosen from logits: greedily, or drawn from what some filters leave."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.shapes import Float, Int

_COLDEST = 1e-6
"""Scores divided by less may be larger than float64 holds."""
_Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sampling:
    """Settings of the choice; without any, the most likely token is taken.

    Spec: [generation.filters][], [generation.temperature][].
    """

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Divides the scores; 0: the highest score is taken."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Keep so many tokens of the highest scores."""
    top_p: _Share | None = None
    """Keep the most likely tokens, until their probabilities sum to this."""
    min_p: _Share | None = None
    """Keep tokens at least this share as likely as the most likely one."""
    typical_p: _Share | None = None
    """Keep tokens about as surprising as the mean, until their probabilities sum to this."""
    repetition_penalty: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    """Makes tokens that stand in the text less likely if above 1."""
    no_repeated_ngram: Annotated[int, Field(ge=1)] | None = None
    """No run of so many tokens stands in a text twice."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the random numbers."""

    @model_validator(mode="after")
    def _representable(self) -> Self:
        if 0 < self.temperature < _COLDEST:
            raise ValueError(f"`temperature` must be 0 or at least {_COLDEST}: got {self.temperature}")
        return self

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken, so that nobody need look at logits."""
        return self.temperature == 0 and self.repetition_penalty == 1 and self.no_repeated_ngram is None

    @property
    def nothing_left(self) -> str:
        """What is said when the filters leave no token."""
        rule = f"no_repeated_ngram = {self.no_repeated_ngram}"
        return f"`{rule}` leaves no token to choose; give a larger one, or ask for fewer tokens."

    def scores(self, logits: Annotated[Tensor, Float("R V")], texts: Sequence[list[int]]) -> Annotated[Tensor, Float("R V")]:
        """Scores of each next token of the texts, in float64.

        Spec: [generation.filters][].
        """
        scores = logits.double()
        if self.repetition_penalty != 1:
            scores = repetition_penalty(scores, texts, self.repetition_penalty)
        if self.no_repeated_ngram is not None:
            scores = no_repeated_ngram(scores, texts, self.no_repeated_ngram)
        if self.temperature == 0:
            return scores
        scores = scores / self.temperature
        filters: list[tuple[Callable[..., Tensor], float | None]] = [
            (top_k, self.top_k),
            (top_p, self.top_p),
            (min_p, self.min_p),
            (typical_p, self.typical_p),
        ]
        for keep, setting in filters:
            if setting is not None:
                scores = keep(scores, setting)
        return scores

    def choose(
        self,
        logits: Annotated[Tensor, Float("R V")],
        texts: Sequence[list[int]],
        draws: Sequence[Draw],
    ) -> Annotated[Tensor, Int("R")]:
        """A token for each text, and its draw.

        Raises:
            InputError: if no token is left.

        Spec: [generation.drawn][], [generation.temperature][].
        """
        scores = self.scores(logits, texts)
        if bool((scores.amax(-1) == -math.inf).any()):
            raise InputError(self.nothing_left)
        if self.temperature == 0:
            return scores.argmax(-1)
        sums = scores.softmax(-1).cumsum(-1)
        numbers = torch.tensor([[draw.one()] for draw in draws], dtype=sums.dtype, device=sums.device)
        last = (scores > -math.inf).long().mul(torch.arange(1, scores.shape[1] + 1, device=scores.device)).argmax(-1)
        return torch.minimum((sums <= numbers).sum(-1), last)  # rounding may leave the sum below 1


def repetition_penalty(scores: Tensor, texts: Sequence[list[int]], penalty: float) -> Tensor:
    """Scores of tokens that stand in their text, divided by the penalty if positive, else multiplied.

    Spec: [generation.repetition-penalty][].
    """
    stands = torch.zeros_like(scores, dtype=torch.bool)
    for row, text in enumerate(texts):
        stands[row, text] = True
    return torch.where(stands, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def no_repeated_ngram(scores: Tensor, texts: Sequence[list[int]], n: int) -> Tensor:
    """-inf for tokens with which the last n tokens would stand in their text twice.

    Spec: [generation.no-repeated-ngram][].
    """
    scores = scores.clone()
    for row, text in enumerate(texts):
        last = text[len(text) - n + 1 :]
        starts = range(len(text) - n + 1)
        scores[row, [text[i + n - 1] for i in starts if text[i : i + n - 1] == last]] = -math.inf
    return scores


def top_k(scores: Annotated[Tensor, Float("R V")], k: int) -> Annotated[Tensor, Float("R V")]:
    """The k highest scores, and equals of the k-th.

    Spec: [generation.top-k][].
    """
    least = scores.topk(min(k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores < least, -math.inf)


def top_p(scores: Annotated[Tensor, Float("R V")], share: float) -> Annotated[Tensor, Float("R V")]:
    """The most likely tokens, until their probabilities reach the share.

    Source: Holtzman et al. 2020, section 3.1, arXiv:1904.09751.
    Spec: [generation.top-p][].
    """
    p = scores.softmax(-1)
    return _reaching(scores, p, -p, share)


def min_p(scores: Annotated[Tensor, Float("R V")], share: float) -> Annotated[Tensor, Float("R V")]:
    """Tokens at least this share as likely as the most likely one.

    Source: Nguyen et al. 2024, section 3, arXiv:2407.01082.
    Spec: [generation.min-p][].
    """
    p = scores.softmax(-1)
    return scores.masked_fill(p < share * p.amax(-1, keepdim=True), -math.inf)


def typical_p(scores: Annotated[Tensor, Float("R V")], share: float) -> Annotated[Tensor, Float("R V")]:
    """Tokens about as surprising as the mean, until their probabilities reach the share.

    Source: Meister et al. 2023, section 4, arXiv:2202.00666.
    Spec: [generation.typical-p][].
    """
    surprise = -scores.log_softmax(-1)
    p = scores.softmax(-1)
    entropy = torch.where(p > 0, p * surprise, 0).sum(-1, keepdim=True)
    return _reaching(scores, p, (surprise - entropy).abs(), share)


def _reaching(scores: Tensor, p: Tensor, order: Tensor, share: float) -> Tensor:
    """The first tokens by `order`, up to the one with which their probabilities reach the share."""
    at = order.argsort(dim=-1, stable=True)
    ordered = p.gather(-1, at)
    before = torch.nn.functional.pad(ordered.cumsum(-1)[:, :-1], (1, 0))
    hidden = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, at, before >= share)
    return scores.masked_fill(hidden, -math.inf)
