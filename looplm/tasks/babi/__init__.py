"""bAbI: questions about short stories, twenty tasks by number; the answer is read at the end of the question."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.stories.format import TASKS, Question, Story, questions_of, read
from looplm.stories.rows import (
    FACT_END,
    MARKS,
    PAD,
    QUESTION_END,
    Part,
    StoryRows,
    collate,
    parse_question,
    spread,
    text_of,
)
from looplm.task import Batch, Suite, Vocabulary, check_count

MOST_EMPTY = 8
"""Empty facts that training puts into a story."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Babi(StoryRows):
    """One task of bAbI, from the official training file, of which whole stories are held out.

    Source: Weston et al. 2015, Towards AI-complete question answering, arXiv:1502.05698; the files v1.2.
    Spec: [reasoning.format][], [reasoning.text][], [reasoning.answer][], [reasoning.split][].
    """

    path: str = ""
    """A folder, tar archive or file, from the current directory on if relative. A trained model goes on without it."""
    number: int = Field(default=16)
    """Of the task."""
    edition: str = "en-10k"
    """The folder of the file, where there are several."""
    part: Part = "test"
    """The held-out stories that a model is tested on: settings are chosen on those for validation."""
    empty: float = Field(default=0.0, ge=0, lt=1)
    """Share of the facts of training before which an empty one is put, so that ages vary."""
    words: tuple[str, ...] = ()
    """Of the stories, sorted; filled in from the file."""
    answers: tuple[str, ...] = ()
    """Of the training stories that are no words, sorted; filled in from the file."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.number not in TASKS:
            raise ValueError(f"`number` must be that of a task of bAbI, {TASKS.start} to {TASKS.stop - 1}: got {self.number}")
        if self.path and not self.words:
            try:
                words, answers = _vocabulary(self._stories)
            except InputError:
                return self  # drawing a batch says what is wrong
            object.__setattr__(self, "words", words)
            object.__setattr__(self, "answers", answers)
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        """Marks, words, and answers that are no words; without a file, the marks alone."""
        return Vocabulary((*MARKS, *self.words, *self.answers), pad=PAD, ends=(FACT_END, QUESTION_END))

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Questions of held-out stories."""
        return {self.part: Suite(self.part, "task")}

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """The number of the task."""
        return self.number, self.number

    @property
    def example(self) -> str:
        """The shortest held-out question with its story, of equals the first."""
        return text_of(min(questions_of(self._stories, self.part), key=lambda question: len(self.tokens(question))))

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Questions of training stories, one a row, drawn evenly.

        Raises:
            InputError: if the file cannot be read or is wrong.

        Spec: [tasks.rows][], [reasoning.split][].
        """
        questions = self._questions["training"]
        which = (draw.of("which").uniform(rows, 1)[:, 0] * len(questions)).long()
        drawn = [questions[i] for i in which.tolist()]
        if self.empty:
            put = draw.of("empty").uniform(rows, self._most_facts) < self.empty
            put &= put.cumsum(1) <= MOST_EMPTY
            drawn = [spread(question, before) for question, before in zip(drawn, put.tolist(), strict=True)]
        return self.collate(drawn)

    def longest(self) -> Batch:
        """The stories with most tokens, most facts and the longest sentence that training draws; without a file, two marks."""
        if not self.path:
            return collate([[FACT_END, QUESTION_END]], [PAD])
        measures: tuple[Callable[[Question], int], ...] = (
            lambda question: len(self.tokens(question)),
            lambda question: len(question.facts),
            lambda question: max(map(len, (*question.facts, question.words))),
        )
        found = [max(self._questions["training"], key=measure) for measure in measures]
        return self.collate([spread(each, [True] * MOST_EMPTY) for each in found] if self.empty else found)

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Questions of held-out stories of task `size`, each at most once.

        Raises:
            InputError: if there is no such set, or there are fewer questions.

        Spec: [tasks.held-out][], [reasoning.split][].
        """
        if size != self.number:
            raise InputError(f"the size of a test set is the number of the task, {self.number}: got {size}.")
        return self.collate(self.questions(name, count, seed))

    def questions(self, name: str, count: int, seed: int) -> list[Question]:
        """Those of a test set, with their answers and supporting facts.

        Raises:
            InputError: as for the test set.

        Spec: [reasoning.supporting][].
        """
        if name not in self.suites:
            raise InputError(f"there is no test set {name!r} of bAbI; there is: {self.part}.")
        check_count(count)
        questions = self._questions[name]
        if count > len(questions):
            raise InputError(f"the stories for {name} have {len(questions):,} questions: got {count:,}; ask for fewer.")
        order = torch.randperm(len(questions), generator=Draw(seed, "test", self.number).generator())
        return [questions[i] for i in order[:count].tolist()]

    def training_questions(self) -> Sequence[Question]:
        """Those of the stories for training.

        Raises:
            InputError: as for a batch.
        """
        return self._questions["training"]

    def right(self, text: str) -> str | None:
        """The answer of the file, if it has this story and question."""
        asked = parse_question(text)
        return next((q.answer for q in self._each() if (q.facts, q.words) == (asked.facts, asked.words)), None)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that this task exercises."""
        names = ["format", "words", "supporting", "text", "answer", "split", "refused"]
        names += ["empty"] if self.empty else []
        return ("tasks.exact-match", *(f"reasoning.{name}" for name in names))

    @cached_property
    def _version(self) -> tuple[int, int]:
        """When the path was last changed before this task first read it, and its size: later changes are not seen."""
        try:
            found = Path(self.path).stat()
        except OSError:
            return (0, 0)  # reading says what is wrong
        return found.st_mtime_ns, found.st_size

    @property
    def _stories(self) -> tuple[Story, ...]:
        if not self.path:
            raise InputError("the task babi reads the files of bAbI: give them with --data DIR, or as `task.path`.")
        return read(Path(self.path).absolute(), self.number, self.edition, self._version)

    def _each(self) -> Iterator[Question]:
        return (question for story in self._stories for question in story.questions)

    @cached_property
    def _questions(self) -> dict[str, list[Question]]:
        """The questions of each part of the split, all of whose words and answers have ids."""
        stories, known = self._stories, set(self.words) | set(self.answers)
        for question in self._each():
            said = [word for sentence in (*question.facts, question.words) for word in sentence]
            _refuse_unknown([*said, question.answer], known, question, self.path)
        parts = {part: list(questions_of(stories, part)) for part in ("training", "test", "validation")}
        for part in ("training", self.part):
            if not parts[part]:
                raise InputError(f"{self.path} has too few stories: of its {len(stories)} none is for {part}; give more.")
        return parts

    @cached_property
    def _most_facts(self) -> int:
        return max(len(question.facts) for question in self._questions["training"])


def _vocabulary(stories: Sequence[Story]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of all stories, and those answers of training stories that are no words; both sorted."""
    words = {word for story in stories for q in story.questions for sentence in (*q.facts, q.words) for word in sentence}
    return tuple(sorted(words)), tuple(sorted({q.answer for q in questions_of(stories, "training")} - words))


def _refuse_unknown(said: Sequence[str], known: set[str], question: Question, path: str) -> None:
    for what in said:
        if what not in known:
            raise InputError(
                f"{path}, line {question.line}: {what!r} is not in the vocabulary; expected: a word of the stories, or one "
                "of the answers of the stories for training. Give the file that the model was trained on, or more stories."
            )


CHOICE = Babi
