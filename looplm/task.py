"""Task: what is asked and how an answer is judged. The package knows tasks by this face alone.

A task is a folder in looplm/tasks, or a class of one's own that a recipe names as `package.module:Class`. It is a frozen
dataclass of its settings, made from the recipe's table `[task]`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor

from looplm.choices import Choices
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.shapes import Bool, Int


@dataclass(frozen=True)
class Vocabulary:
    """What the token ids stand for."""

    symbols: tuple[str, ...]
    """Of each id, for people."""
    pad: int
    """Fills rows up; no model ever sees it."""
    stop: int | None = None
    """Ends an answer."""
    unknown: int | None = None
    """Says "not known yet", where answers are given in place."""
    ends: tuple[int, ...] = ()
    """Ids of tokens that end a sentence."""
    places: tuple[int, ...] = ()
    """Ids of tokens that stand in runs, in which each has a place: its index, from 1."""
    characters: tuple[int, ...] = ()
    """Characters of a text that begin in each id, so that losses of different vocabularies compare; empty: none are counted."""

    def __len__(self) -> int:
        return len(self.symbols)

    def text(self, ids: Sequence[int]) -> str:
        """The ids as people read them."""
        return "".join(self.symbols[id] for id in ids)


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, and what is to be predicted at each; shorter rows are padded on the right."""

    tokens: Annotated[Tensor, Int("N T")]
    targets: Annotated[Tensor, Int("N T")]
    """The right prediction at each token; it counts only where `scored`."""
    scored: Annotated[Tensor, Bool("N T")]
    """Tokens from which an answer token is read."""
    real: Annotated[Tensor, Bool("N T")]
    """False for padding."""
    distance: Annotated[Tensor, Int("N T")] | None = None
    """How many places away the farthest news stands that an answer needs; None: nothing is known of it.

    Spec: [tasks.distance][].
    """

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        return self._each(lambda value: value[rows])

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return self._each(lambda value: value.to(device))

    def parts(self, rows: int) -> Iterator["Batch"]:
        """The rows in order, at most so many at a time, each part cut to its longest row."""
        for start in range(0, len(self), rows):
            part = self[start : start + rows]
            yield part.cut(int(part.real.sum(1).max()))

    def cut(self, width: int) -> "Batch":
        """The first so many columns."""
        return self._each(lambda value: value[:, :width])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        distance = None if self.distance is None else change(self.distance)
        return Batch(change(self.tokens), change(self.targets), change(self.scored), change(self.real), distance)


@dataclass(frozen=True)
class Prompt:
    """A question in tokens."""

    tokens: list[int]
    max_new_tokens: int = 0
    """Of the answer, where it is written after the prompt."""
    slots: int = 0
    """Where it is given in place: the answer is read at so many last tokens of the prompt."""


@dataclass(frozen=True)
class Suite:
    """Held-out problems of one kind, made for any size."""

    name: str
    axis: str
    """What a size is: bits, tokens, steps of reasoning."""
    scored_by: Literal["exact-match", "loss"] = "exact-match"
    """Whether solved problems are counted, or the loss of the scored tokens is measured (tasks.nats-per-token)."""


MOST_PROBLEMS = 1_000_000
"""Of a test set."""


def check_count(count: int) -> None:
    """Raise InputError if no test set holds so many problems; to be asked before they are drawn."""
    if not 1 <= count <= MOST_PROBLEMS:
        raise InputError(f"a test set holds 1 to {MOST_PROBLEMS:,} problems: got {count:,}.")


class Task(Protocol):
    """What is asked and how an answer is judged; nothing of models.

    A task whose settings name files that a trained model needs, such as a tokenizer, says so in `carried`: a mapping from the
    setting to the file. A checkpoint takes them along.

    Spec: [tasks.face][], [tasks.rows][], [tasks.held-out][], [tasks.carried][].
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """What the token ids stand for."""
        ...

    @property
    def suites(self) -> Mapping[str, Suite]:
        """The kinds of held-out problems, by name."""
        ...

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """Least and largest size of the training problems."""
        ...

    @property
    def example(self) -> str:
        """A question for a run's trace: harder than what was trained, and short enough to be shown."""
        ...

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Rows of a training batch; each row follows from the draw and its number alone, but for padding."""
        ...

    def longest(self) -> Batch:
        """One row as long as training ever draws."""
        ...

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Held-out problems; the same for the same arguments."""
        ...

    def prompt(self, text: str) -> Prompt:
        """A user's question in tokens; InputError if it is none."""
        ...

    def answer(self, ids: Sequence[int]) -> str:
        """What a model wrote, for the user."""
        ...

    def right(self, text: str) -> str | None:
        """The right answer to a question; None where there is no single one."""
        ...

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that training on this task exercises."""
        ...


def carried_files(task: Task) -> dict[str, Path]:
    """Files that a trained model needs beside its weights, by the setting of the task that names each.

    Spec: [tasks.carried][].
    """
    return dict(getattr(task, "carried", {}))


TASKS: Choices[Task] = Choices("looplm.tasks", "task")
"""The folders of looplm/tasks."""

FACE = ("vocabulary", "suites", "trained_sizes", "example", "batch", "longest", "suite", "prompt", "answer", "right", "clauses")
"""What a class has to have to be a task."""
