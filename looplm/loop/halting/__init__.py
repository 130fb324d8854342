"""When a token stops thinking.

A rule is asked after each loop, for every token at once, and answers from what the loops up to it gave at the token
and at those before it, so a decision never looks at a later token. The model freezes the tokens for which it says yes.

A rule is one file of this folder: a class that is the rule and its checked settings at once, named `CHOICE` at the end of
the file; recipes and the command line know it by the file's name. A rule of your own may stand anywhere, and is named
`package.module:Class`. The least that it needs is what `HaltingRule` asks for; `Bounded` brings the bounds and the order.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Protocol, Self

import torch
from pydantic import ConfigDict, Field, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked
from pydantic_core import CoreSchema, core_schema
from torch import Tensor

from looplm.choices import Choices
from looplm.chosen import as_validation_error, read_choice, under, write_choice
from looplm.settings import parse
from looplm.shapes import Bool, Float, Int

EVIDENCE = frozenset({"guess", "confidence", "change", "halt_prob"})
"""What costs something to know, and is computed for the rules that look at it alone."""


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at after a loop. Entries of tokens that are not active stand still, or mean nothing.

    So do guess, confidence, change and halt_prob where the rule does not look at them (`looks_at`).
    """

    l: Annotated[Tensor, Int("B 1")]
    """The loop that has just run in each row, from 1."""
    h: Annotated[Tensor, Float("B T D")]
    """State after loop l."""
    change: Annotated[Tensor, Float("B T")]
    r"""$\lVert h_l - h_{l-1} \rVert / \lVert h_l \rVert$."""
    guess: Annotated[Tensor, Int("B T")]
    """The most likely next token after loop l."""
    confidence: Annotated[Tensor, Float("B T")]
    """Its probability."""
    previous_guess: Annotated[Tensor, Int("B T")]
    """The guess after loop l - 1; -1 at loop 1."""
    previous_confidence: Annotated[Tensor, Float("B T")]
    """The confidence after loop l - 1; 0 at loop 1."""
    answer: Annotated[Tensor, Bool("B T")]
    """Tokens from which an answer token is read; the others are the prompt's."""
    active: Annotated[Tensor, Bool("B T")]
    """Tokens that ran loop l; the others have halted, or are padding."""
    waited_for: Annotated[Tensor, Int("B 1")]
    """Most loops that an answer token of an earlier chunk took; 0 if there was none."""
    halt_prob: Annotated[Tensor, Float("B T")] | None = None
    """What the model's gate gives, if it has one."""


def observe(
    l: int | Annotated[Tensor, Int("B 1")],
    h: Annotated[Tensor, Float("B T D")],
    before: Annotated[Tensor, Float("B T D")],
    logits: Annotated[Tensor, Float("B T V")] | None,
    previous_guess: Annotated[Tensor, Int("B T")],
    previous_confidence: Annotated[Tensor, Float("B T")],
    answer: Annotated[Tensor, Bool("B T")],
    active: Annotated[Tensor, Bool("B T")],
    waited_for: Annotated[Tensor, Int("B 1")] | None = None,
    halt_prob: Annotated[Tensor, Float("B T")] | None = None,
    looks_at: Collection[str] = EVIDENCE,
) -> Evidence:
    """What loop l gave, for a rule to look at; `before` is the state that it started from.

    Only what the rule looks at is computed; without guess and confidence there need be no logits.

    Spec: [architecture.guess][].
    """
    guess, confidence, change = previous_guess, previous_confidence, previous_confidence
    if logits is not None:
        guess, read = best(logits, looks_at)
        confidence = confidence if read is None else read
    if "change" in looks_at:
        change = torch.linalg.vector_norm(h - before, dim=-1) / torch.linalg.vector_norm(h, dim=-1)
    return Evidence(
        l=torch.full_like(guess[:, :1], l) if isinstance(l, int) else l,
        h=h,
        change=change,
        guess=guess,
        confidence=confidence,
        previous_guess=previous_guess,
        previous_confidence=previous_confidence,
        answer=answer,
        active=active,
        waited_for=torch.zeros_like(guess[:, :1]) if waited_for is None else waited_for,
        halt_prob=halt_prob,
    )


def best(logits: Annotated[Tensor, Float("... V")], looks_at: Collection[str] = EVIDENCE) -> tuple[Tensor, Tensor | None]:
    """The most likely tokens, and their probabilities, if looked at.

    Spec: [architecture.guess][].
    """
    guess = logits.argmax(-1)  # of equals, torch gives the first
    if "confidence" not in looks_at:
        return guess, None
    return guess, logits.softmax(-1).amax(-1)


class HaltingRule(Protocol):
    """Decides, after each loop, which tokens halt."""

    @property
    def max_loops(self) -> int:
        """The loop after which every token halts."""
        ...

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """True for the tokens that halt now."""
        ...


RULES: Choices[HaltingRule] = Choices("looplm.loop.halting", "halting rule")
"""Every rule, by the name of its file."""
DEFAULT_RULE = "two-equal-argmaxes"
"""The rule of a table that names none."""


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Bounded:
    """What all rules of this folder share: a token that is ready halts, but not before `min_loops` or after `max_loops`.

    Spec: [halting.bounds][], [halting.in-order][].
    """

    max_loops: Annotated[int, Field(ge=1)] = 6
    min_loops: Annotated[int, Field(ge=1)] = 1
    in_order: bool = field(default=False, kw_only=True)
    """Whether an answer token waits until all answer tokens before it have halted."""

    reads_gate: ClassVar[bool] = False
    """Whether the rule needs a model that has a gate."""
    looks_at: ClassVar[frozenset[str]] = EVIDENCE
    """Of `EVIDENCE`, what `ready` reads, of this loop or the one before; a `ready` whose class does not say gets all."""
    clauses_of_both: ClassVar[tuple[str, ...]] = ()
    """Ids of the clauses that the rule exercises when it decides for the prompt as well as for the answer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_loops > self.max_loops:
            raise ValueError(f"`min_loops` ({self.min_loops}) must not exceed `max_loops` ({self.max_loops})")
        return self

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens that are ready after `min_loops` loops; all, at the last loop."""
        ready = (seen.l >= self.min_loops) & self.ready(seen)
        if self.in_order:
            waiting = (seen.answer & seen.active & ~ready).cummax(1).values
            ready = ready & (~seen.answer | (~waiting & (seen.l >= seen.waited_for)))
        return ready | (seen.l >= self.max_loops)

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens that the rule would halt, were there no bounds."""
        raise NotImplementedError(f"{type(self).__name__} must say which tokens are ready.")

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the rule exercises."""
        return ("halting.bounds", *(("halting.in-order",) if self.in_order else ()))


@dataclass(frozen=True)
class ByRole:
    """One rule for the answer, another for the prompt: what a recipe's table `[halting]` says.

    The table names the answer's `rule` and its settings; its own table `prompt` does so for the prompt, which without one
    runs all of the answer's `max_loops` loops. As the type of a setting, it is read from such a table and written as one.

    Spec: [halting.roles][].
    """

    answer: HaltingRule
    prompt: HaltingRule

    @classmethod
    def of(cls, rule: HaltingRule) -> "ByRole":
        """The rule itself, if it is one by role; else the same rule for both roles."""
        return rule if isinstance(rule, ByRole) else cls(rule, rule)

    @classmethod
    def read(cls, table: Any) -> "ByRole":
        """The rules of a table; what is already made of one stays as it is.

        Raises:
            ValidationError: with every mistake, each at its path.
        """
        if isinstance(table, ByRole):
            return table
        if not isinstance(table, Mapping):
            raise as_validation_error([((), "must be a table that names a `rule`", table)])
        answer_table = {name: value for name, value in table.items() if name != "prompt"}
        prompt_table = table.get("prompt")
        made: list[HaltingRule] = []
        mistakes = []
        for where, part in (((), answer_table), (("prompt",), prompt_table)):
            if part is not None:
                try:
                    made.append(read_choice(RULES, part, default=DEFAULT_RULE, face=("max_loops", "__call__")))
                except ValidationError as error:
                    mistakes += under(where, error)
        if mistakes:
            raise as_validation_error(mistakes)
        return cls(made[0], made[1] if prompt_table is not None else _unless_named(made[0]))

    @property
    def max_loops(self) -> int:
        """The larger of both."""
        return max(self.answer.max_loops, self.prompt.max_loops)

    @property
    def gate_readers(self) -> list[str]:
        """Names of the rules that look at what a gate gives, and so need a model that has one."""
        return [name_of(rule) for rule in (self.answer, self.prompt) if getattr(rule, "reads_gate", False)]

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Each token as its role's rule says."""
        return torch.where(seen.answer, self.answer(seen), self.prompt(seen))

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that these rules exercise."""
        named = [f"halting.{name}" for name in ("at-least-one-loop", "roles", "freeze", "kv-publish")]
        for rule in (self.answer, self.prompt):
            named += rule.clauses() if hasattr(rule, "clauses") else ()
        if type(self.answer) is type(self.prompt):
            named += getattr(self.answer, "clauses_of_both", ())
        return tuple(dict.fromkeys(named))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(as_table)
        return core_schema.no_info_plain_validator_function(cls.read, serialization=written)


def what_it_looks_at(rule: HaltingRule) -> frozenset[str]:
    """Of `EVIDENCE`, what a rule reads; all, if the class that decides does not say."""
    if isinstance(rule, ByRole):
        return what_it_looks_at(rule.answer) | what_it_looks_at(rule.prompt)
    for kind in type(rule).__mro__:  # what a class says holds for its own decision, not for that of a subclass
        if "looks_at" in vars(kind):
            return frozenset(kind.looks_at)  # type: ignore[attr-defined]
        if {"ready", "__call__"} & vars(kind).keys():
            break
    return EVIDENCE


def parse_halting(table: Mapping[str, Any], where: str) -> ByRole:
    """The rules of a recipe's table; `where` names the table in the error.

    Raises:
        InputError: with every mistake at once, each with its field and what was given.
    """
    return parse(ByRole, dict(table), where=where)


def as_table(rule: HaltingRule) -> dict[str, Any]:
    """The table that gives the rule again: its name, and its settings without what is off by default."""
    if not isinstance(rule, ByRole):
        return write_choice(RULES, rule)
    answer = write_choice(RULES, rule.answer)
    return answer if rule.prompt == _unless_named(rule.answer) else answer | {"prompt": write_choice(RULES, rule.prompt)}


def loops_that_run_out(rule: HaltingRule) -> float:
    """The loops after which an answer token is stopped by the bound, done or not; infinite where the rule is a number of loops.

    Spec: [halting.ran-out][].
    """
    from looplm.loop.halting.fixed import Fixed

    answer = ByRole.of(rule).answer
    return math.inf if isinstance(answer, Fixed) else answer.max_loops


def bound_for_slots(halting: HaltingRule, slots: int) -> ByRole:
    """These rules, with more loops where an answer has many slots, since what one slot tells the next walks one slot a loop.

    The number of loops of a rule `fixed`, and the bound of a rule that does not share `Bounded`, stay as they are.

    Spec: [halting.slots][].
    """
    from looplm.loop.halting.fixed import Fixed

    def longer(rule: HaltingRule) -> HaltingRule:
        if isinstance(rule, Fixed) or not isinstance(rule, Bounded):
            return rule
        most = rule.max_loops
        while 4 * most < 5 * slots:
            most *= 2
        return replace(rule, max_loops=most)

    rules = ByRole.of(halting)
    return ByRole(longer(rules.answer), longer(rules.prompt))


def name_of(rule: HaltingRule) -> str:
    """The name by which a recipe finds the rule's class."""
    return RULES.name_of(type(rule))


def _unless_named(answer: HaltingRule) -> HaltingRule:
    """The prompt's rule where the table names none."""
    from looplm.loop.halting.fixed import Fixed

    return Fixed(answer.max_loops)
