"""What counting predicts: n-grams with modified Kneser-Ney smoothing, the floor that a trained model has to beat.

An event is a token and the history before it. `_Order` k knows histories of k tokens: each has a number, which is looked up
from the number of its last k - 1 tokens and the token before these; so all orders are a few sorted arrays.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from looplm.errors import InputError
from looplm.shapes import Int
from looplm.tasks.language import Language

Tokens = NDArray[np.integer[Any]]
Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]
_FALLBACK = (0.0, 0.5, 1.0, 1.5)
"""Discounts where too few counts are seen to estimate them."""
MOST = 8
"""Of the order."""


@dataclass(frozen=True)
class _Order:
    """Histories of one length, and the tokens that follow them."""

    histories: Numbers
    """Sorted: number of the history without its first token, times the vocabulary, plus that token. A place is a number."""
    grams: Numbers
    """Sorted: number of the history, times the vocabulary, plus the token after it."""
    counts: Numbers
    """Of each gram: how often it stands, or how many different tokens stand before it."""
    discounts: Reals
    """Of a count of 0, 1, 2, and 3 or more."""
    totals: Reals
    """Of each history: the sum of its grams' counts."""
    left: Reals
    """Of each history: the share of probability that discounting leaves to the shorter history."""


@dataclass(frozen=True)
class NGrams:
    """An n-gram model; `order` tokens, of which the last is predicted."""

    vocabulary: int
    begin: int
    """Stands before a text, as often as it is asked for."""
    orders: tuple[_Order, ...]

    @classmethod
    def count(cls, text: Tokens, order: int, vocabulary: int, begin: int) -> "NGrams":
        """The model of a text.

        Args:
            text: Int[T], each from 0 to `vocabulary - 1`.
            order: tokens of the longest n-grams.
            vocabulary: how many ids there are; each of them has a probability.
            begin: id of the mark that stands before the text.

        Raises:
            InputError: if there is no text, or the order is out of range.

        Source: Chen and Goodman 1998, An empirical study of smoothing techniques, TR-10-98, section 3, with interpolation;
        fallback discounts as in Heafield et al. 2013, KenLM.
        Spec: [korean.ngram-counts][], [korean.ngram-discounts][].
        """
        if not 1 <= order <= MOST:
            raise InputError(f"`order` must be from 1 to {MOST}: got {order}.")
        if len(text) == 0:
            raise InputError("there is no text to count.")
        padded = np.concatenate((np.full(order - 1, begin), text)).astype(np.int64)
        words, numbers = padded[order - 1 :], np.zeros(len(text), dtype=np.int64)
        histories, grams, raw = [np.zeros(1, dtype=np.int64)], [], []
        for k in range(order):
            if k:  # the token k places before each event joins its history
                keys, numbers = np.unique(numbers * vocabulary + padded[order - 1 - k : len(padded) - k], return_inverse=True)
                histories.append(keys)
            found, often = np.unique(numbers * vocabulary + words, return_counts=True)
            grams.append(found)
            raw.append(often)
        counts = [raw[-1]]
        for k in reversed(range(order - 1)):  # how many tokens stand before each gram: those that are one longer
            history, word = np.divmod(grams[k + 1], vocabulary)
            shorter = histories[k + 1][history] // vocabulary * vocabulary + word
            counts.insert(0, np.bincount(np.searchsorted(grams[k], shorter), minlength=len(grams[k])))
        return cls(vocabulary, begin, tuple(_order(*parts, vocabulary) for parts in zip(histories, grams, counts, strict=True)))

    def probabilities(self, rows: Annotated[Tensor, Int("N T")]) -> Iterator[Reals]:
        """Of each order from 1 on, the probability of every token of some texts, Float[N T], each from what stands before it.

        Spec: [korean.kneser-ney][].
        """
        words = rows.numpy().astype(np.int64)
        width, before = words.shape[1], len(self.orders) - 1
        padded = np.concatenate((np.full((len(words), before), self.begin), words), 1)
        numbers, seen = np.zeros(words.shape, dtype=np.int64), np.ones(words.shape, dtype=bool)
        probability = np.full(words.shape, 1 / self.vocabulary)
        for k, order in enumerate(self.orders):
            if k:
                keys = numbers * self.vocabulary + padded[:, before - k : before - k + width]
                numbers, known = _find(order.histories, keys)
                seen &= known
            place, known = _find(order.grams, numbers * self.vocabulary + words)
            count = np.where(known & seen, order.counts[place], 0)
            kept = count - order.discounts[np.minimum(count, 3)]
            interpolated = kept / order.totals[numbers] + order.left[numbers] * probability
            probability = np.where(seen, interpolated, probability)
            yield probability


def discounts(counts: Numbers) -> Reals:
    """What is taken from a count of 0, 1, 2, and 3 or more.

    Source: Chen and Goodman 1998, equation 17.
    Spec: [korean.ngram-discounts][].
    """
    n = [int((counts == k).sum()) for k in range(5)]
    if 0 in n[1:]:
        return np.array(_FALLBACK)
    share = n[1] / (n[1] + 2 * n[2])
    found = [0.0, *(k - (k + 1) * share * n[k + 1] / n[k] for k in (1, 2, 3))]
    return np.array(found if all(0 <= taken <= k for k, taken in enumerate(found)) else _FALLBACK)


def _order(histories: Numbers, grams: Numbers, counts: Numbers, vocabulary: int) -> _Order:
    taken, history = discounts(counts), grams // vocabulary
    totals = np.bincount(history, counts, minlength=len(histories)).astype(np.float64)
    left = np.bincount(history, taken[np.minimum(counts, 3)], minlength=len(histories)) / totals
    return _Order(histories, grams, counts, taken, totals, left)


def _find(keys: Numbers, wanted: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
    """Where each stands in a sorted array, and whether it does; what is not there has any place."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted


def floor(task: Language, cells: Sequence[tuple[int, int]], seed: int, order: int) -> list[list[float]]:
    """Bits per character of each order from 1 on, for windows on which a model was tested: their size, their number.

    Args:
        task: whose training part is counted.
        cells: size and number of the held-out windows.
        seed: of the windows.
        order: tokens of the longest n-grams.

    Spec: [korean.kneser-ney][], [korean.bits-per-character][].
    """
    trained, _ = task.parts()
    vocabulary = task.vocabulary
    model = NGrams.count(trained, order, len(vocabulary), vocabulary.pad)
    begun, found = torch.tensor(vocabulary.characters), []
    for size, count in cells:
        problems = task.suite("held-out", size, count, seed)
        scored = problems.scored.numpy()
        characters = int(begun[problems.targets[problems.scored]].sum())
        found.append([bits_per_character(each[scored], characters) for each in model.probabilities(problems.targets)])
    return found


def bits_per_character(probability: Reals, characters: int) -> float:
    """Of a text of so many characters, whose tokens have these probabilities.

    Spec: [korean.bits-per-character][].
    """
    return float(-np.log(probability).sum() / math.log(2) / characters)
