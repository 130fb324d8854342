"""Where the sentences of a row of tokens stand: a story is facts and a question, each closed by an end mark."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from looplm.errors import InputError
from looplm.shapes import Int


@dataclass(frozen=True)
class Sentences:
    """Where the words of some rows stand."""

    number: Annotated[Tensor, Int("B T")]
    """Of each token's sentence, from 0."""
    place: Annotated[Tensor, Int("B T")]
    """Of each word in its sentence, from 0; -1 for what is no word."""
    count: Annotated[Tensor, Int("B")]
    """Sentences of each row, the question included."""


def sentences_of(tokens: Annotated[Tensor, Int("B T")], pad: int, ends: Sequence[int]) -> Sentences:
    """Where sentences begin and end; padding may stand anywhere.

    Spec: [connection.sentences][].
    """
    end = torch.isin(tokens, torch.tensor(ends, device=tokens.device))
    word = (tokens != pad) & ~end
    counted = word.cumsum(1)
    before = torch.where(end, counted, 0).cummax(1).values
    place = torch.where(word, counted - 1 - before, -1)
    return Sentences(end.cumsum(1) - end.long(), place, end.sum(1))


def refuse_long(found: Sentences, max_facts: int, max_words: int) -> None:
    """Refuse what is no story, or has more facts or longer sentences than a body has room for.

    Raises:
        InputError: with what is too long, and the setting that allows it.
    """
    facts, words = found.count - 1, int(found.place.max()) + 1
    if int(facts.min()) < 1:
        raise InputError("a story needs at least one fact and a question, each closed by an end mark.")
    for name, most, room in (("facts", int(facts.max()), max_facts), ("words", words, max_words)):
        if most > room:
            what = "story" if name == "facts" else "sentence"
            raise InputError(f"`model.max_{name}` is {room}, but a {what} has {most} {name}; set it to {most} or more.")
