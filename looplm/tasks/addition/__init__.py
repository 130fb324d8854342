"""Addition: sums of decimal numbers, trained short and tested long."""

from collections.abc import Mapping, Sequence
from typing import Self, get_args

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.task import Batch, Prompt, Suite, Vocabulary
from looplm.tasks.addition.problems import (
    EOS,
    MAX_DIGITS,
    PAD,
    SLOT,
    SYMBOLS,
    Format,
    Mode,
    collate,
    parse_problem,
    problems_of,
    read_answer,
    write,
)
from looplm.tasks.addition.sets import TestKind, draw_training, test_set

_DIGITS = tuple(range(10))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Addition:
    """Sums written in one of four formats, answered token after token or all at once.

    Spec: [addition.vocabulary][], [addition.training-draw][], [addition.places][].
    """

    format: Format = "double-reversed"
    mode: Mode = "left-to-right"
    """How answers are given: token after token, or all at once, each token in a slot of its own."""
    min_digits: int = Field(default=1, ge=1, le=MAX_DIGITS)
    max_digits: int = Field(default=4, ge=1, le=MAX_DIGITS)
    equal_length_share: float = Field(default=0.4, ge=0, le=1)
    carry_heavy_share: float = Field(default=0.3, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_digits > self.max_digits:
            raise ValueError(f"`min_digits` ({self.min_digits}) must not exceed `max_digits` ({self.max_digits})")
        if self.mode == "parallel" and self.format == "equals-first":
            raise ValueError(
                "`mode = 'parallel'` fills the slots of a sum, which stands last: `format` must not be 'equals-first'"
            )
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        """Digits, operators and marks; slots, and their "not known yet", where answers are given in parallel."""
        if self.mode == "parallel":
            return Vocabulary(SYMBOLS, pad=PAD, stop=EOS, unknown=SLOT, places=(*_DIGITS, SLOT))
        return Vocabulary(SYMBOLS[:SLOT], pad=PAD, stop=EOS, places=_DIGITS)

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Drawn evenly, with many carries, and with runs of places that sum to 9."""
        return {name: Suite(name, "digits") for name in get_args(TestKind)}

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """Digits of the operands."""
        return self.min_digits, self.max_digits

    @property
    def example(self) -> str:
        """Longer than what the adders train on, with a carry through every place."""
        return "131713=68915+" if self.format == "equals-first" else "68915+62898"

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Training problems, one a row."""
        return collate(draw_training(rows, self, draw), self.format, self.mode)

    def longest(self) -> Batch:
        """The largest operands."""
        nines = "9" * self.max_digits
        return collate(problems_of([(nines, nines)]), self.format, self.mode)

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Held-out sums of two numbers of `size` digits.

        Raises:
            InputError: if there are no such sums, or not as many.
        """
        if name not in self.suites:
            raise InputError(f"there is no test set {name!r} of addition; there are: {', '.join(self.suites)}.")
        return collate(test_set(name, size, count, seed), self.format, self.mode)

    def prompt(self, text: str) -> Prompt:
        """`a+b`, or `c=a+` where texts are written so.

        Raises:
            InputError: if it is neither.
        """
        operands = self._operands(text)
        texts = write(problems_of([operands]), self.format)
        tokens = texts.tokens[0, : int(texts.prompt_length)].tolist()
        longest = max(map(len, operands)) + 2
        if self.mode == "parallel":
            return Prompt(tokens + [SLOT] * longest, slots=longest)
        return Prompt(tokens, max_new_tokens=longest)

    def answer(self, ids: Sequence[int]) -> str:
        """In decimal, most-significant digit first; tokens that are no digits are shown as they are."""
        return read_answer(ids, self.format)

    def right(self, text: str) -> str | None:
        """The sum, or the second operand; added digit by digit, for any length."""
        a, b = self._operands(text)
        if self.format == "equals-first":
            return b
        texts = write(problems_of([(a, b)]), "plain")
        return read_answer(texts.tokens[0, int(texts.prompt_length) :].tolist(), "plain")

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that this task exercises."""
        names = ["vocabulary", "sequence", self.format, "answer", "held-out", "training-draw", "places"]
        names += ["slots"] if self.mode == "parallel" else []
        names += ["uniform-set", "carry-heavy-set", "nines-set"]
        return ("tasks.exact-match", *(f"addition.{name}" for name in names))

    def _operands(self, text: str) -> tuple[str, str]:
        if self.format != "equals-first":
            return parse_problem(text)
        total, equals, first = text.strip().rstrip("+ ").partition("=")
        if not equals:
            raise InputError(f"{text.strip()!r} is no question of this model; write the sum and its first part: 1435=978+.")
        sum_, part = (digits.strip() for digits in (total, first))
        parse_problem(f"{sum_}+{part}")
        if len(sum_) > MAX_DIGITS or int(sum_) < int(part):
            raise InputError(f"{text.strip()!r}: no second part makes that sum; the first must not exceed it.")
        return part.lstrip("0") or "0", str(int(sum_) - int(part))


CHOICE = Addition
