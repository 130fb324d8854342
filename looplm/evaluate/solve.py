"""Sums as a user writes them: decimal in, decimal out."""

from collections.abc import Sequence
from dataclasses import dataclass

from looplm.data.addition import EOS, PAD, parse_problem, problems_of, read_answer, write
from looplm.errors import InputError
from looplm.generate import generate, pad_left
from looplm.loop.halting import HaltingRule, make_halting
from looplm.models.looped import LoopLM

_SCORES_PER_BATCH = 8_000_000


@dataclass(frozen=True)
class Solution:
    """What the model made of one sum."""

    problem: str
    """`a+b` in decimal, without leading zeros."""
    answer: str
    """In decimal; what the model wrote, right or wrong."""
    tokens: list[int]
    """The answer as the model wrote it, the end mark included."""
    loops_taken: list[int]
    """Per answer token in the order of writing, the end mark included."""

    @property
    def correct(self) -> bool:
        """Whether the answer is the sum; computed digit by digit, for any length."""
        problem = problems_of([parse_problem(self.problem)])
        texts = write(problem, "plain")
        return self.answer == read_answer(texts.tokens[0, int(texts.prompt_length) :].tolist(), "plain")


def solve(model: LoopLM, problems: Sequence[str], halting: HaltingRule | None = None) -> list[Solution]:
    """Solve sums such as `978+457`, in batches of like length, answers in the order of the problems.

    Args:
        model: an adder.
        problems: sums in decimal, operands of at most 1,000 digits.
        halting: when a token stops; by default as its preset says.


    Raises:
        InputError: if a problem is not a sum, or the model is not an adder.
    """
    preset = model.preset
    if preset is None or preset.data.format == "equals-first":
        raise InputError("this model was not trained to complete `a+b=`; load an adder, such as looplm.load('adder').")
    rule = halting or make_halting(preset.halting)
    operands = [parse_problem(problem) for problem in problems]
    order = sorted(range(len(operands)), key=lambda i: sum(map(len, operands[i])))
    solutions: list[Solution | None] = [None] * len(operands)
    device = model.embedding.weight.device
    while order:
        longest = sum(map(len, operands[order[-1]])) + 3
        batch, order = _last(order, max(1, _SCORES_PER_BATCH // longest**2))
        texts = write(problems_of([operands[i] for i in batch]), preset.data.format)
        prompts = [row[:n] for row, n in zip(texts.tokens.tolist(), texts.prompt_length.tolist(), strict=True)]
        tokens, real = pad_left(prompts, PAD)
        longest_answer = max(max(map(len, operands[i])) for i in batch) + 2
        made = generate(
            model, tokens.to(device), halting=rule, max_new_tokens=longest_answer, stop_token=EOS, real=real.to(device)
        )
        for i, answer, loops in zip(batch, made.tokens, made.loops_taken, strict=True):
            solutions[i] = Solution("+".join(operands[i]), read_answer(answer, preset.data.format), answer, loops)
    return [solution for solution in solutions if solution is not None]


def _last(order: list[int], count: int) -> tuple[list[int], list[int]]:
    return order[-count:], order[:-count]
