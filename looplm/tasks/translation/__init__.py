"""Translation from English to Korean, by a grammar of our own: the verb goes to the end, nouns take particles.

A row is the English words with their level of speech, the end mark, and the Korean syllable by syllable. Some pairs of a verb
and an object are never seen in training: "I love you" has one of them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.task import Batch, Prompt, Suite, Vocabulary, check_count
from looplm.tasks.translation.grammar import NUMBERS, Sentence, draw, forms, held_out, longest, parse

PAD, TO, END = 0, 1, 2
_MARKS = ("<pad>", "<to>", "<end>")
MAX_SYLLABLES = 64
"""Room for a translation; the longest has fewer."""
_TRIES = 1000
_DRAWN_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Translation:
    """Sentences of one clause, or of two: the second says something of the object.

    Spec: [translation.row][], [translation.drawn][], [translation.unseen][].
    """

    min_clauses: int = Field(default=1, ge=1, le=2)
    max_clauses: int = Field(default=2, ge=1, le=2)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_clauses > self.max_clauses:
            raise ValueError(f"`min_clauses` ({self.min_clauses}) must not exceed `max_clauses` ({self.max_clauses})")
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        """Marks, English words, Korean syllables and the space between Korean words."""
        return Vocabulary(_symbols(), pad=PAD, stop=END, ends=(TO,))

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Sentences with a pair that training never sees, and sentences without one."""
        return {name: Suite(name, "clauses") for name in ("unseen", "seen")}

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """Clauses of the sentences."""
        return self.min_clauses, self.max_clauses

    @property
    def example(self) -> str:
        """A sentence with a pair that is never seen."""
        return "I love you"

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Training sentences, one a row; one with a pair that is held out is drawn again.

        Spec: [tasks.rows][], [translation.unseen][].
        """
        found = self._drawn(rows, draw)
        for again in range(1, _TRIES):
            if not (wanted := [i for i, sentence in enumerate(found) if is_unseen(sentence)]):
                break
            others = self._drawn(rows, draw.of(f"again {again}"))
            for i in wanted:
                found[i] = others[i]
        return collate(found)

    def longest(self) -> Batch:
        """The longest sentence of all."""
        return collate([longest(self.max_clauses)])

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Sentences of `size` clauses.

        Raises:
            InputError: if there is no such set or size.

        Spec: [tasks.held-out][], [translation.unseen][].
        """
        return collate(self.sentences(name, size, count, seed))

    def sentences(self, name: str, size: int, count: int, seed: int) -> list[Sentence]:
        """Those of a test set.

        Raises:
            InputError: if there is no such set or size.
        """
        if name not in self.suites:
            raise InputError(f"there is no test set {name!r} of translation; there are: {', '.join(self.suites)}.")
        if size not in (1, 2):
            raise InputError(f"sentences have 1 or 2 clauses: got {size}.")
        check_count(count)
        key, found = Draw(seed, f"test {name}", size), list[Sentence]()
        for start in range(0, 1000 * count + _TRIES, _DRAWN_AT_ONCE):
            drawn = key.uniform(range(start, start + _DRAWN_AT_ONCE), NUMBERS).tolist()
            sentences = (draw(numbers, size) for numbers in drawn)
            found += [sentence for sentence in sentences if is_unseen(sentence) == (name == "unseen")]
            if len(found) >= count:
                break
        return found[:count]

    def prompt(self, text: str) -> Prompt:
        """An English sentence of the grammar, with or without a level of speech in front.

        Raises:
            InputError: if the grammar has no such sentence.

        Spec: [translation.refused][].
        """
        return Prompt([*(_ids()[word] for word in parse(text).english()), TO], max_new_tokens=MAX_SYLLABLES)

    def answer(self, ids: Sequence[int]) -> str:
        """What was written, without its end mark."""
        written = list(ids)
        return self.vocabulary.text(written[: written.index(END)] if END in written else written)

    def right(self, text: str) -> str | None:
        """The reference translation."""
        return parse(text).korean()

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that this task exercises."""
        names = (
            "english",
            "order",
            "final",
            "particles",
            "verb",
            "negation",
            "relative",
            "words",
            "row",
            "drawn",
            "unseen",
            "refused",
        )
        return ("tasks.exact-match", *(f"translation.{name}" for name in names))

    def _drawn(self, rows: range, key: Draw) -> list[Sentence]:
        low, high = self.trained_sizes
        sizes = key.of("clauses").uniform(rows, 1)[:, 0].tolist()
        numbers = key.of("which").uniform(rows, NUMBERS).tolist()
        return [draw(of, low + int(size * (high - low + 1))) for of, size in zip(numbers, sizes, strict=True)]


def is_unseen(sentence: Sentence) -> bool:
    """Whether training never sees one of its pairs.

    Spec: [translation.unseen][].
    """
    return any(held_out(*pair) for pair in sentence.pairs())


@lru_cache(maxsize=1)
def _symbols() -> tuple[str, ...]:
    english, korean = forms()
    return (*_MARKS, *sorted(english), " ", *sorted({syllable for word in korean for syllable in word}))


@lru_cache(maxsize=1)
def _ids() -> dict[str, int]:
    return {symbol: id for id, symbol in enumerate(_symbols())}


def collate(sentences: Sequence[Sentence]) -> Batch:
    """Sentences as a model reads them; the translation is read from the end mark on.

    Spec: [translation.row][].
    """
    ids = _ids()
    sources = [[*(ids[word] for word in sentence.english()), TO] for sentence in sentences]
    rows = [[*source, *(ids[syllable] for syllable in s.korean()), END] for source, s in zip(sources, sentences, strict=True)]
    width = max(map(len, rows))
    whole = torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])
    column, length = torch.arange(width - 1), torch.tensor([len(row) - 1 for row in rows])[:, None]
    real = column < length
    scored = real & (column >= torch.tensor([len(source) - 1 for source in sources])[:, None])
    tokens = whole[:, :-1].where(real, PAD)
    return Batch(tokens, whole[:, 1:].where(scored, PAD), scored, real)


CHOICE = Translation
