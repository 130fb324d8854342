"""Exact match on test sets, with intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from looplm.data.addition import PAD, Format, Problems, write
from looplm.data.addition_sets import TestKind, test_set
from looplm.loop.halting import HaltingRule
from looplm.models.looped import LoopLM
from looplm.shapes import Bool, Float

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


@torch.no_grad()
def exact_match(
    model: LoopLM, problems: Problems, format: Format, halting: HaltingRule
) -> tuple[Annotated[Tensor, Bool("N")], Annotated[Tensor, Float("N")]]:
    """Which problems are solved, and the mean loops of each one's answer tokens.

    The right answer is given as the text (teacher forcing) and every answer token predicted from what stands before
    it. Greedy decoding gives the same verdict: up to the first wrong token both read the same text.

    Spec: [addition.exact-match][].
    """
    device = model.embedding.weight.device
    solved, loops = [], []
    longest = write(problems[:1], format).tokens.shape[1] + 2
    for batch in problems.batches(max(1, _SCORES_PER_BATCH // longest**2)):
        texts = write(batch, format)
        inputs, targets = texts.tokens[:, :-1].to(device), texts.tokens[:, 1:].to(device)
        asked = texts.predicts_answer.to(device)
        thoughts = model.think(inputs, halting, real=inputs != PAD, may_halt=asked)
        solved.append(((thoughts.logits.argmax(-1) == targets) | ~asked).all(1).cpu())
        loops.append(((thoughts.loops_taken * asked).sum(1) / asked.sum(1)).cpu())
    return torch.cat(solved), torch.cat(loops)


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
    assert model.preset is not None
    cells = []
    for kind in TEST_KINDS:
        for count in digits:
            n = problems_per_cell if isinstance(problems_per_cell, int) else problems_per_cell(count)
            progress(f"testing {kind} sums of {count} digits")
            solved, loops = exact_match(model, test_set(kind, count, n, seed), model.preset.data.format, halting)
            cells.append(Cell(kind, count, n, int(solved.sum()), round(float(loops.mean()), 3)))
    return cells
