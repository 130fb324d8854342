"""Sums as a user writes them: decimal in, decimal out."""

from collections.abc import Sequence
from dataclasses import dataclass

from looplm.errors import InputError
from looplm.loop.halting import HaltingRule
from looplm.runs.checkpoint import Trained
from looplm.tasks.addition import Addition
from looplm.tasks.addition.problems import parse_problem
from looplm.think.answer import respond
from looplm.think.backends import Backend


@dataclass(frozen=True)
class Solution:
    """What the model made of one sum."""

    problem: str
    """`a+b` in decimal, without leading zeros."""
    answer: str
    """In decimal; what the model wrote, right or wrong."""
    tokens: list[int]
    """The answer as the model wrote it, up to and including the end mark."""
    loops_taken: list[int]
    """Per answer token, lowest place first as it was written, the end mark included; in parallel, per slot."""
    block_evaluations: float
    """Work for the whole text, the prompt included."""
    ran_out: bool = False
    """Whether a token of the answer was stopped by the bound on loops: then the model was not done."""

    @property
    def correct(self) -> bool:
        """Whether the answer is the sum; computed digit by digit, for any length."""
        return self.answer == Addition().right(self.problem)


def solve(
    adder: Trained,
    problems: Sequence[str],
    halting: HaltingRule | None = None,
    backend: Backend = "auto",
    *,
    bound_follows_slots: bool | None = None,
) -> list[Solution]:
    """Solve sums such as `978+457`, in batches of like length, answers in the order of the problems.

    Args:
        adder: as `looplm.load` gives it; it answers left to right or in parallel, as it was trained.
        problems: sums in decimal, operands of at most 1,000 digits.
        halting: when a token stops; by default as its recipe says.
        backend: what runs the loop, as for generate.
        bound_follows_slots: whether long sums in parallel may take more loops than `halting` says; by default if none is given.

    Raises:
        InputError: if a problem is not a sum, or the model is not an adder.

    Spec: [halting.slots][], [halting.ran-out][].
    """
    task = task_of(adder)
    sums = ["+".join(parse_problem(problem)) for problem in problems]
    follows = halting is None if bound_follows_slots is None else bound_follows_slots
    rules = halting or adder.recipe.halting
    made = respond(adder.model, task, sums, rules, backend, bound_follows_slots=follows)
    return [Solution(r.question, r.answer, r.tokens, r.loops_taken, r.block_evaluations, r.ran_out) for r in made]


def task_of(adder: Trained) -> Addition:
    """The task of a model that completes `a+b=`.

    Raises:
        InputError: if it is another.
    """
    task = adder.recipe.task if isinstance(adder, Trained) else None
    if not isinstance(task, Addition) or task.format == "equals-first":
        raise InputError("this model was not trained to complete `a+b=`; load an adder, such as looplm.load('adder').")
    return task
