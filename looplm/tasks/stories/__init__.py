"""Stories of our own, of several tasks of bAbI and in two languages at once; each is drawn anew, and none is in a file."""

from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from itertools import count as upwards
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.stories.draw import SIMULATED, Choices
from looplm.stories.format import Question, part_of
from looplm.stories.grammar import LANGUAGES, QUESTIONS, Language, answer_in, readings, vocabulary_of, words_said
from looplm.stories.rows import (
    FACT_END,
    MARKS,
    PAD,
    QUESTION_END,
    Part,
    StoryRows,
    parse_question,
    spread,
    text_of,
)
from looplm.stories.solve import solve
from looplm.task import Batch, Suite, Vocabulary, check_count

MOST_FACTS = 24
"""Of a story."""
_MOST_QUESTIONS = 3
"""Of a story, of which the last is asked."""
_TRIES = 100
"""For each held-out story that is wanted."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stories(StoryRows):
    """Questions about stories drawn by rule, one story a row; which are held out follows from their text.

    Spec: [reasoning.drawn][], [reasoning.text][], [reasoning.answer][], [reasoning.solved][].
    """

    numbers: Annotated[tuple[int, ...], Field(min_length=1)] = tuple(SIMULATED)
    """Of the tasks."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """How often training draws each task, beside the others; by default evenly."""
    languages: Annotated[tuple[Language, ...], Field(min_length=1)] = LANGUAGES
    """Drawn evenly."""
    part: Part = "test"
    """The held-out stories that a model is tested on: settings are chosen on those for validation."""
    empty: float = Field(default=0.0, ge=0, lt=1)
    """Share of the facts of training before which an empty one is put, so that ages vary."""
    words: tuple[str, ...] = ()
    """Of the stories, and answers that are none; filled in, so that a trained model keeps its own."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unknown := [number for number in self.numbers if number not in SIMULATED]:
            raise ValueError(
                f"`numbers` must be of {', '.join(map(str, SIMULATED))}, whose stories are drawn: got {unknown[0]}"
            )
        for name in ("numbers", "languages"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"`{name}` must differ: got {list(getattr(self, name))}")
        if self.weights and len(self.weights) != len(self.numbers):
            raise ValueError(f"`weights` must be as many as `numbers`, {len(self.numbers)}: got {len(self.weights)}")
        if not self.words:
            object.__setattr__(self, "words", vocabulary_of(self.languages))
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        """Marks, words, and answers that are no words."""
        return Vocabulary((*MARKS, *self.words), pad=PAD, ends=(FACT_END, QUESTION_END))

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Questions of held-out stories, by language."""
        return {language: Suite(language, "task") for language in self.languages}

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """Least and largest number of the tasks."""
        return min(self.numbers), max(self.numbers)

    @property
    def example(self) -> str:
        """A short held-out story of the last task, with its question."""
        few = self.questions(self.languages[0], self.numbers[-1], 9, seed=0)
        return text_of(min(few, key=lambda question: len(self.tokens(question))))

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Questions of stories for training; each row has a task and a language of its own.

        Spec: [tasks.rows][], [reasoning.drawn][], [reasoning.empty][].
        """
        which = draw.of("which").uniform(rows, 2).tolist()
        questions = [self._row(row, draw, *each) for row, each in zip(rows, which, strict=True)]
        if self.empty:
            put = (draw.of("empty").uniform(rows, MOST_FACTS) < self.empty).tolist()
            apart = [spread(question, before) for question, before in zip(questions, put, strict=True)]
            questions = [one if len(one.facts) <= MOST_FACTS else q for q, one in zip(questions, apart, strict=True)]
        return self.collate(questions)

    def longest(self) -> Batch:
        """As many facts as a story may have, each as long as one can be."""
        told = [
            (saying.kind in QUESTIONS, words) for language in self.languages for words, saying in readings(language).items()
        ]
        fact, asked = (max((words for asks, words in told if asks == which), key=len) for which in (False, True))
        return self.collate([Question((fact,) * MOST_FACTS, asked, self.words[0], (), 0)])

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Questions of held-out stories of task `size`, each once.

        Raises:
            InputError: if there is no such set or task.

        Spec: [tasks.held-out][], [reasoning.drawn][].
        """
        return self.collate(self.questions(name, size, count, seed))

    def questions(self, name: str, number: int, count: int, seed: int) -> list[Question]:
        """Those of a test set, with their answers and supporting facts.

        Raises:
            InputError: as for the test set.

        Spec: [reasoning.supporting][].
        """
        language = next((each for each in self.languages if each == name), None)
        if language is None:
            raise InputError(f"there is no test set {name!r} of stories; there are: {', '.join(self.languages)}.")
        if number not in self.numbers:
            raise InputError(f"the size of a test set is the number of a task, one of {list(self.numbers)}: got {number}.")
        check_count(count)
        draw, found = Draw(seed, f"held-out {number} {language}"), {}
        for row in upwards():
            question = drawn(number, language, draw, row)
            if part_of(text_of(question)) == self.part:
                found[text_of(question)] = question
            if len(found) == count:
                break
            if row > _TRIES * (count + 9):
                raise InputError(f"of task {number} too few stories differ for {count:,} held-out ones; ask for fewer.")
        return list(found.values())

    def right(self, text: str) -> str | None:
        """The answer that follows, where the solver reads every sentence and one follows."""
        found = solve(parse_question(text))
        return found[0] if found else None

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that this task exercises."""
        names = ["drawn", "words", "supporting", "text", "answer", "simulated", "korean", "solved"]
        names += ["empty"] if self.empty else []
        return ("tasks.exact-match", *(f"reasoning.{name}" for name in names))

    def _row(self, row: int, draw: Draw, number: float, language: float) -> Question:
        """A story for training: the first of those of its row that is not held out; task and language by a number in [0, 1)."""
        weights = list(accumulate(self.weights or [1.0] * len(self.numbers)))
        of = self.numbers[bisect(weights, number * weights[-1], hi=len(weights) - 1)]
        spoken = self.languages[int(language * len(self.languages))]
        tries = (drawn(of, spoken, draw.of(f"try {again}"), row) for again in upwards())
        return next(question for question in tries if part_of(text_of(question)) == "training")


def drawn(number: int, language: Language, draw: Draw, row: int) -> Question:
    """The last question of a story of a task, of as many questions as may be, with the facts before it.

    Spec: [reasoning.drawn][].
    """
    rule, most = SIMULATED[number]
    choices = Choices(draw, row)
    story = rule(choices, 1 + choices.below(min(most, _MOST_QUESTIONS)))
    told = [words_said(line.saying, language, line.way) for line in story]
    facts = [words for line, words in zip(story, told, strict=True) if not line.answer]
    last = story[-1]
    if len(facts) > MOST_FACTS:
        return drawn(number, language, draw.of("shorter"), row)
    return Question(tuple(facts), told[-1], answer_in(last.answer, language), last.supporting, 0)


CHOICE = Stories
