"""Sums as a user writes them: decimal in, decimal out."""

from collections.abc import Sequence
from dataclasses import dataclass

from looplm.think.backends import Backend, begin, choose
from looplm.tasks.addition.problems import EOS, PAD, SLOT, parse_problem, problems_of, read_answer, write
from looplm.errors import InputError
from looplm.think.generate import Generated, generate, pad_left
from looplm.loop.halting import HaltingRule
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
    """The answer as the model wrote it, up to and including the end mark."""
    loops_taken: list[int]
    """Per answer token, lowest place first as it was written, the end mark included; in parallel, per slot."""
    block_evaluations: float
    """Work for the whole text, the prompt included."""

    @property
    def correct(self) -> bool:
        """Whether the answer is the sum; computed digit by digit, for any length."""
        problem = problems_of([parse_problem(self.problem)])
        texts = write(problem, "plain")
        return self.answer == read_answer(texts.tokens[0, int(texts.prompt_length) :].tolist(), "plain")


def solve(
    model: LoopLM, problems: Sequence[str], halting: HaltingRule | None = None, backend: Backend = "auto"
) -> list[Solution]:
    """Solve sums such as `978+457`, in batches of like length, answers in the order of the problems.

    Args:
        model: an adder; it answers left to right or in parallel, as it was trained.
        problems: sums in decimal, operands of at most 1,000 digits.
        halting: when a token stops; by default as its preset says.
        backend: what runs the loop, as for generate.

    Raises:
        InputError: if a problem is not a sum, or the model is not an adder.
    """
    preset = model.preset
    if preset is None or preset.data.format == "equals-first":
        raise InputError("this model was not trained to complete `a+b=`; load an adder, such as looplm.load('adder').")
    rule = halting or preset.halting
    operands = [parse_problem(problem) for problem in problems]
    order = sorted(range(len(operands)), key=lambda i: sum(map(len, operands[i])))
    solutions: list[Solution | None] = [None] * len(operands)
    while order:
        longest = sum(map(len, operands[order[-1]])) + 3
        batch, order = _last(order, max(1, _SCORES_PER_BATCH // longest**2))
        texts = [operands[i] for i in batch]
        answer_with = _fill_slots if preset.data.mode == "parallel" else _go_on
        made = answer_with(model, texts, rule, backend)
        for i, tokens, loops, work in zip(batch, made.tokens, made.loops_taken, made.block_evaluations, strict=True):
            answer = read_answer(tokens, preset.data.format)
            solutions[i] = Solution("+".join(operands[i]), answer, tokens, loops, work)
    return [solution for solution in solutions if solution is not None]


def prompts(model: LoopLM, operands: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The texts up to and including `=`, in the model's format."""
    assert model.preset is not None
    texts = write(problems_of(operands), model.preset.data.format)
    return [row[:n] for row, n in zip(texts.tokens.tolist(), texts.prompt_length.tolist(), strict=True)]


def _go_on(model: LoopLM, operands: Sequence[tuple[str, str]], halting: HaltingRule, backend: Backend) -> Generated:
    device = model.embedding.weight.device
    tokens, real = pad_left(prompts(model, operands), PAD)
    longest = max(max(map(len, pair)) for pair in operands) + 2
    tokens, real = tokens.to(device), real.to(device)
    return generate(model, tokens, halting=halting, max_new_tokens=longest, stop_token=EOS, real=real, backend=backend)


def _fill_slots(model: LoopLM, operands: Sequence[tuple[str, str]], halting: HaltingRule, backend: Backend) -> Generated:
    """All slots at once; an answer ends with the first end mark, and the slots beyond it are not part of it."""
    device = model.embedding.weight.device
    slots = [max(map(len, pair)) + 2 for pair in operands]
    texts = [prompt + [SLOT] * count for prompt, count in zip(prompts(model, operands), slots, strict=True)]
    tokens, real = pad_left(texts, PAD)
    tokens = tokens.to(device)
    chosen = choose(backend, model, halting)
    thinking = begin(model, tokens, halting, real=real.to(device), answer=tokens == SLOT, backend=chosen.name)
    while bool(thinking.running.any()):
        thinking.advance()
    width, filled, loops = tokens.shape[1], [], []
    for row, count in enumerate(slots):
        guesses = thinking.guess[row, width - count : width].tolist()
        filled.append(guesses[: guesses.index(EOS) + 1] if EOS in guesses else guesses)
        loops.append(thinking.loops_taken[row, width - count : width].tolist())
    return Generated(filled, loops, thinking.block_evaluations.tolist(), thinking.calls, chosen.name, chosen.why)


def _last(order: list[int], count: int) -> tuple[list[int], list[int]]:
    return order[-count:], order[:-count]
