"""Exact match on test sets, with intervals."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from looplm.tasks.addition.problems import PAD, Problems, ask
from looplm.tasks.addition.sets import TestKind, test_set
from looplm.loop.halting import HaltingRule
from looplm.models.looped import LoopLM
from looplm.shapes import Bool, Float, Int
from looplm.think.batched import Thinking

TEST_KINDS: tuple[TestKind, ...] = ("uniform", "carry-heavy")
_SCORES_PER_BATCH = 1_000_000
"""Attention scores of one head and loop that are held at once; keeps memory flat over lengths."""


@dataclass(frozen=True)
class Cell:
    """One model on one test set."""

    set: TestKind
    digits: int
    n: int
    correct: int
    mean_loops: float
    """Loops taken, over all answer tokens."""
    block_evaluations: float
    """Per problem, its prompt included (halting.block-evaluations)."""
    elapsed_s: float
    """Wall time of the whole cell."""

    def as_json(self) -> dict[str, Any]:
        """The counts, with accuracy and its 95 % Wilson interval."""
        low, high = wilson_interval(self.correct, self.n)
        return asdict(self) | {"accuracy": self.correct / self.n, "low": round(low, 6), "high": round(high, 6)}


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval for a proportion that stays within [0, 1] and is sound near its ends; 95 % by default.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference, JASA 22, 209-212.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"`successes` must be 0..`trials` and `trials` above 0: got {successes} of {trials}.")
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = (centre - spread) / scale if successes > 0 else 0.0
    high = (centre + spread) / scale if successes < trials else 1.0
    return low, high


@dataclass(frozen=True)
class Attempts:
    """What a model made of some problems, and what it cost."""

    solved: Annotated[Tensor, Bool("N")]
    mean_loops: Annotated[Tensor, Float("N")]
    """Loops taken, over the tokens from which the answer is read."""
    most_loops: Annotated[Tensor, Int("N")]
    """The same, the most of any token."""
    block_evaluations: Annotated[Tensor, Float("N")]
    """Of the whole text, the prompt included."""
    elapsed_s: float
    """Wall time, in batches, on a machine that may have been busy."""


@torch.no_grad()
def exact_match(model: LoopLM, problems: Problems, halting: HaltingRule) -> Attempts:
    """Which problems an adder solves, asked as its preset says.

    Left to right, the right answer is given as the text (teacher forcing) and every answer token predicted from what
    stands before it. Greedy decoding gives the same verdict: up to the first wrong token both read the same text.

    Spec: [addition.exact-match][], [halting.block-evaluations][].
    """
    assert model.preset is not None
    data, device = model.preset.data, model.embedding.weight.device
    made: list[tuple[Tensor, ...]] = []
    longest = ask(problems[:1], data.format, data.mode).tokens.shape[1] + 2
    began = time.perf_counter()
    for batch in problems.batches(max(1, _SCORES_PER_BATCH // longest**2)):
        questions = ask(batch, data.format, data.mode)
        tokens, asked = questions.tokens.to(device), questions.asked.to(device)
        thinking = Thinking(model, tokens, halting, real=tokens != PAD, answer=asked)
        while bool(thinking.running.any()):
            thinking.advance()
        guess, taken = thinking.guess[:, : tokens.shape[1]], thinking.loops_taken[:, : tokens.shape[1]] * asked
        right = ((guess == questions.targets.to(device)) | ~asked).all(1)
        made.append((right, taken.sum(1) / asked.sum(1), taken.amax(1), thinking.block_evaluations))
    solved, mean, most, work = (torch.cat(parts).cpu() for parts in zip(*made, strict=True))
    return Attempts(solved, mean, most, work, time.perf_counter() - began)


def make_cell(kind: TestKind, digits: int, attempts: Attempts) -> Cell:
    """The counts and means of one test set."""
    return Cell(
        kind,
        digits,
        n=len(attempts.solved),
        correct=int(attempts.solved.sum()),
        mean_loops=round(float(attempts.mean_loops.mean()), 3),
        block_evaluations=round(float(attempts.block_evaluations.mean()), 1),
        elapsed_s=round(attempts.elapsed_s, 2),
    )


def evaluate_adder(
    model: LoopLM,
    digits: Sequence[int],
    problems_per_cell: int | Callable[[int], int],
    halting: HaltingRule,
    seed: int,
    progress: Callable[[str], None] = lambda message: None,
) -> list[Cell]:
    """One cell per test set and digit count.

    Args:
        model: an adder, with its preset.
        digits: digit counts, of both operands.
        problems_per_cell: a number, or a function of the digit count.
        halting: when a token stops.
        seed: of the test sets.
        progress: told what is being tested.
    """
    cells = []
    for kind in TEST_KINDS:
        for count in digits:
            n = problems_per_cell if isinstance(problems_per_cell, int) else problems_per_cell(count)
            progress(f"testing {kind} sums of {count} digits")
            cells.append(make_cell(kind, count, exact_match(model, test_set(kind, count, n, seed), halting)))
    return cells
