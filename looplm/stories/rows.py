"""Rows of a story and its question: from text, as ids, with empty facts between, as a batch."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import zip_longest
from typing import Literal

import torch

from looplm.errors import InputError
from looplm.stories.format import Question, words_of
from looplm.task import Batch, Prompt, Vocabulary

PAD, FACT_END, QUESTION_END = 0, 1, 2
MARKS = ("<pad>", ".", "?")
Part = Literal["test", "validation"]
"""Which held-out stories."""
_MOST_LISTED = 400


class StoryRows:
    """What two tasks of stories share: questions in tokens, and answers as people read them.

    Spec: [reasoning.text][], [reasoning.answer][].
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """What the token ids stand for."""
        raise NotImplementedError

    def prompt(self, text: str) -> Prompt:
        """A story and its question, sentences closed by `.` and the question by `?`.

        Raises:
            InputError: if it is anything else, or has a word that the stories do not have.

        Spec: [reasoning.text][].
        """
        return Prompt(self.tokens(parse_question(text)), slots=1)

    def answer(self, ids: Sequence[int]) -> str:
        """The answer as the stories have it."""
        return " ".join(self.vocabulary.symbols[id] for id in ids)

    def tokens(self, question: Question) -> list[int]:
        """The ids of a story and its question."""
        return ids_of(question, self._id_of)

    def collate(self, questions: Sequence[Question]) -> Batch:
        """Questions as a model reads them, with their answers."""
        return collate([self.tokens(q) for q in questions], [self._id_of[q.answer] for q in questions])

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {symbol: id for id, symbol in enumerate(self.vocabulary.symbols)}


def ids_of(question: Question, id_of: Mapping[str, int]) -> list[int]:
    """A story and its question as ids.

    Args:
        question: with the facts before it.
        id_of: the id of each word and mark.

    Raises:
        InputError: if a word has none, with all such words, and the words that there are in its script.

    Spec: [reasoning.text][], [reasoning.refused][].
    """
    said = [*((fact, FACT_END) for fact in question.facts), (question.words, QUESTION_END)]
    if unknown := list(dict.fromkeys(word for sentence, _ in said for word in sentence if word not in id_of)):
        alike = sorted(word for word in id_of if word not in MARKS and "," not in word and _hangul(word) == _hangul(unknown[0]))
        which = ", ".join(map(repr, unknown))
        raise InputError(f"the stories have no word {which}; their words are: {', '.join(alike[:_MOST_LISTED])}.")
    return [id for sentence, end in said for id in (*(id_of[word] for word in sentence), end)]


def _hangul(word: str) -> bool:
    return unicodedata.name(word[0], "").startswith("HANGUL")


def collate(rows: Sequence[Sequence[int]], answers: Sequence[int]) -> Batch:
    """Stories as a model reads them; the answer is read at the last token, the end of the question.

    Spec: [reasoning.answer][].
    """
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])
    length = torch.tensor([len(row) for row in rows])[:, None]
    column = torch.arange(width)
    scored = column == length - 1
    return Batch(tokens, torch.where(scored, torch.tensor(answers)[:, None], PAD), scored, column < length)


def spread(question: Question, before: Sequence[bool]) -> Question:
    """The question with an empty fact before each fact for which one is asked; what supports it stays what it was.

    Source: Sukhbaatar et al. 2015, End-to-end memory networks, section 4.2, arXiv:1503.08895.
    Spec: [reasoning.empty][].
    """
    facts: list[tuple[str, ...]] = []
    at = []
    for fact, put in zip_longest(question.facts, before[: len(question.facts)], fillvalue=False):
        assert isinstance(fact, tuple)
        facts += [(), fact] if put else [fact]
        at.append(len(facts) - 1)
    return replace(question, facts=tuple(facts), supporting=tuple(at[i] for i in question.supporting))


def parse_question(text: str) -> Question:
    """Sentences that a user wrote.

    Raises:
        InputError: if they are no facts, each closed by `.`, and one question, closed by `?`.
    """
    told, mark, rest = text.strip().rpartition("?")
    facts, asked = (told.rsplit(".", 1) if "." in told else ("", told)) if mark else ("", "")
    sentences = tuple(words_of(fact) for fact in facts.split("."))
    if rest or not words_of(asked) or not all(sentences):
        short = text if len(text) <= 60 else text[:57] + "..."
        raise InputError(f"{short!r} is no story with a question; write facts, each closed by `.`, then a question with `?`.")
    return Question(sentences, words_of(asked), "", (), 0)


def text_of(question: Question) -> str:
    """The story and its question as `parse_question` reads them."""
    facts = (" ".join(fact) + "." for fact in question.facts)
    return " ".join([*facts, " ".join(question.words) + "?"])
