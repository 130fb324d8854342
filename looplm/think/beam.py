"""Beam search: of many texts that go on from one prompt, the likeliest for their length."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.think.batched import Thinking
from looplm.think.ending import Ending, NewToken
from looplm.think.sampling import Sampling
from looplm.think.whole import WholeThinking


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Beam:
    """Settings of beam search.

    Spec: [generation.beam-search][], [generation.length-penalty][], [generation.beam-end][].
    """

    width: Annotated[int, Field(ge=1)] = 4
    """Continuations of a prompt that are kept at each length."""
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0
    """Above 0, longer texts are preferred; below 0, shorter ones."""

    def score(self, total: float, length: int) -> float:
        """Of a text whose tokens have log-probabilities of this sum.

        Spec: [generation.length-penalty][].
        """
        return float(total / length**self.length_penalty)

    def hope(self, total: float, length: int, most: int) -> float:
        """The highest score that a text of this length may still get.

        Spec: [generation.beam-end][].
        """
        return self.score(total, most if self.length_penalty >= 0 else length + 1)


class _Text(NamedTuple):
    """New tokens after a prompt, in a row of the batch."""

    prompt: int
    new: tuple[NewToken, ...] = ()
    total: float = 0.0
    parent: int = -1
    """Row of the text without its last token."""

    @property
    def tokens(self) -> list[int]:
        return [each.token for each in self.new]


class Search:
    """Beam search over prompts that were given to `batch`, each with its own pace.

    Spec: [generation.beam-search][], [generation.beam-memory][].
    """

    def __init__(
        self, batch: Thinking | WholeThinking, prompts: Sequence[list[int]], beam: Beam, ending: Ending, sampling: Sampling
    ) -> None:
        self._batch, self._prompts, self._beam, self._ending, self._sampling = batch, prompts, beam, ending, sampling
        self._best: list[tuple[float, tuple[NewToken, ...]]] = [(-math.inf, ()) for _ in prompts]
        self.block_evaluations = [0.0 for _ in prompts]
        """Work of each prompt and all its beams."""

    @torch.inference_mode()
    def run(self, runs_out: float) -> list[list[NewToken]]:
        """The best text of each prompt."""
        batch = self._batch
        while bool(batch.running.any()):
            batch.advance()
        texts, before = [_Text(prompt) for prompt in range(len(self._prompts))], [0.0 for _ in self._prompts]
        while texts:
            thinks = batch.running.tolist()
            waiting = {text.prompt for text, yes in zip(texts, thinks, strict=True) if yes}
            ready = [row for row, text in enumerate(texts) if text.prompt not in waiting]
            if ready:
                now = batch.block_evaluations.tolist()
                for text, spent, more in zip(texts, before, now, strict=True):
                    self.block_evaluations[text.prompt] += more - spent
                grown = self._grow(texts, ready, runs_out)
                stay = [text._replace(parent=row) for row, text in enumerate(texts) if text.prompt in waiting]
                rows = torch.tensor([text.parent for text in stay + grown], device=batch.loops_taken.device)
                texts = stay + grown
                if not texts:
                    break
                batch.reorder(rows)
                before = batch.block_evaluations.tolist()
                new = torch.tensor([text.new[-1].token for text in grown], dtype=torch.int64, device=rows.device)
                batch.append(list(range(len(stay), len(texts))), new)
            batch.advance()
        return [list(new) for _, new in self._best]

    def _grow(self, texts: list[_Text], ready: list[int], runs_out: float) -> list[_Text]:
        """The open texts that are one token longer than those of the ready rows; ended ones are noted."""
        logits, taken = self._batch.logits(ready).double(), [loops for _, loops in self._batch.newest(ready)]
        plain = logits.log_softmax(-1)
        scored = plain
        if not self._sampling.greedy:
            whole = [self._prompts[texts[row].prompt] + texts[row].tokens for row in ready]
            scored = self._sampling.scores(logits, whole).log_softmax(-1).nan_to_num(nan=-math.inf)
        grown: list[_Text] = []
        for prompt in dict.fromkeys(texts[row].prompt for row in ready):
            at = [i for i, row in enumerate(ready) if texts[row].prompt == prompt]
            totals = scored[at] + scored.new_tensor([[texts[ready[i]].total] for i in at])
            opened = []
            for total, parent, token in self._likeliest(totals):
                i = at[parent]
                text, loops = texts[ready[i]], taken[i]
                reason, written = self._ending.look([*text.tokens, token])
                new = NewToken(prompt, token, loops, loops >= runs_out, float(plain[i, token]), reason)
                longer = (*text.new, new)
                if reason is None:
                    opened.append(_Text(prompt, longer, total, ready[i]))
                elif (score := self._beam.score(total, len(longer))) > self._best[prompt][0]:
                    self._best[prompt] = (score, (*text.new, replace(new, text=written)))
            score, best = self._best[prompt]
            if not opened and not best:
                raise InputError(self._sampling.nothing_left)
            if opened and score < self._beam.hope(opened[0].total, len(opened[0].new), self._ending.max_new_tokens):
                grown += opened
        return grown

    def _likeliest(self, totals: Tensor) -> list[tuple[float, int, int]]:
        """The highest totals [R, V] that are not -inf, with their rows and tokens; of equals, lower ones first."""
        best, at = totals.flatten().sort(descending=True, stable=True)
        size = totals.shape[1]
        pairs = zip(best[: self._beam.width].tolist(), at[: self._beam.width].tolist(), strict=True)
        return [(total, place // size, place % size) for total, place in pairs if total > -math.inf]
