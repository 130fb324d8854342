"""Exact match on test sets, with intervals, or the loss where a set is scored by it."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from looplm.loop.halting import HaltingRule, loops_that_run_out
from looplm.models.body import Body
from looplm.models.looped import is_looped
from looplm.shapes import Bool, Float, Int
from looplm.task import Batch, Task
from looplm.think.batched import Thinking
from looplm.think.whole import WholeThinking

_SCORES_PER_BATCH = 1_000_000
"""Pairs of tokens of a row that are held at once; keeps memory flat over lengths."""
_TOKENS_PER_BATCH = 4096
"""Tokens that are held at once by a model whose attention costs what it sees."""
_ROWS_THAT_ALL_THINK = 50
"""Rows that are held at once where every loop of every token is computed."""


@dataclass(frozen=True)
class Cell:
    """One model on one test set."""

    set: str
    size: int
    """In the task's own measure."""
    n: int
    correct: int
    mean_loops: float
    """Loops taken, over all answer tokens."""
    block_evaluations: float
    """Per problem, its prompt included (halting.block-evaluations)."""
    elapsed_s: float
    """Wall time of the whole cell."""
    ran_out: int = 0
    """Problems of which an answer token was stopped by the bound on loops (halting.ran-out)."""
    nats_per_token: float | None = None
    """Mean cross-entropy of the scored tokens, for sets that are scored by loss."""
    bits_per_character: float | None = None
    """The same in bits, and of the characters that begin in the scored tokens, where the vocabulary knows them."""

    def as_json(self) -> dict[str, Any]:
        """The counts, with accuracy and its 95 % Wilson interval, and the loss where it was measured."""
        low, high = wilson_interval(self.correct, self.n)
        counts = {name: value for name, value in asdict(self).items() if value is not None}
        return counts | {"accuracy": self.correct / self.n, "low": round(low, 6), "high": round(high, 6)}


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
    ran_out: int = 0
    """Problems of which an answer token was stopped by the bound on loops."""
    nats: Annotated[Tensor, Float("N")] | None = None
    """Cross-entropy of each problem's scored tokens, their mean; where it was asked for."""
    characters: int = 0
    """That begin in the scored tokens of all problems; 0 where the vocabulary does not know."""
    bits: float = 0.0
    """Cross-entropy of the scored tokens of all problems, summed."""


@torch.no_grad()
def exact_match(
    model: Body, problems: Batch, halting: HaltingRule, *, with_loss: bool = False, characters: Sequence[int] = ()
) -> Attempts:
    """Which problems a model solves.

    An answer that is written token after token stands in the text (teacher forcing), and every token of it is predicted
    from what stands before it. Greedy decoding gives the same verdict: up to the first wrong token both read the same.

    Args:
        model: trained on the task.
        problems: with the right answers.
        halting: when a token stops.
        with_loss: also read, from the state at which each token halted, how likely the right one was.
        characters: how many begin in each token of the vocabulary; by default they are not counted.

    Spec: [tasks.exact-match][], [tasks.nats-per-token][], [korean.bits-per-character][],
    [halting.block-evaluations][], [halting.ran-out][].
    """
    made: list[tuple[Tensor, ...]] = []
    began = time.perf_counter()
    width = problems.tokens.shape[1]
    sparse = is_looped(model) and model.positions.sparse_from < math.inf
    tokens = _TOKENS_PER_BATCH if sparse else 0
    for part in problems.parts(max(1, _SCORES_PER_BATCH // width**2, tokens // width)):
        part = part.to(model.device)
        asked: Any = {"real": part.real, "answer": part.scored}
        thinking = (
            Thinking(model, part.tokens, halting, **asked)
            if is_looped(model)
            else WholeThinking(model, part.tokens, halting, **asked)
        )
        while bool(thinking.running.any()):
            thinking.advance()
        width = part.tokens.shape[1]
        guess, taken = thinking.guess[:, :width], thinking.loops_taken[:, :width] * part.scored
        nats = (_nats(model, thinking.states[:, :width], part),) if with_loss else ()
        made.append((solved(guess, part), taken.sum(1) / part.scored.sum(1), taken.amax(1), thinking.block_evaluations, *nats))
    right, mean, most, work, *loss = (torch.cat(parts).cpu() for parts in zip(*made, strict=True))
    out = int((most >= loops_that_run_out(halting)).sum())
    attempts = Attempts(right, mean, most, work, time.perf_counter() - began, out, loss[0] if loss else None)
    if not loss or not characters:
        return attempts
    bits = float((loss[0].double() * problems.scored.sum(1)).sum()) / math.log(2)
    begun = int(torch.tensor(characters)[problems.targets[problems.scored]].sum())
    return replace(attempts, bits=bits, characters=begun)


def _nats(model: Body, states: Annotated[Tensor, Float("N T D")], problems: Batch) -> Annotated[Tensor, Float("N")]:
    """Mean cross-entropy of each problem's scored tokens, read from these states."""
    nats = torch.zeros(problems.scored.shape, device=states.device)
    logits = model.logits(states[problems.scored]).float()
    nats[problems.scored] = cross_entropy(logits, problems.targets[problems.scored], reduction="none")
    return nats.sum(1) / problems.scored.sum(1)


def solved(guess: Annotated[Tensor, Int("N T")], problems: Batch) -> Annotated[Tensor, Bool("N")]:
    """Problems of which every scored token is guessed right.

    Spec: [tasks.exact-match][].
    """
    return ((guess == problems.targets) | ~problems.scored).all(1)


def solved_after_each_loop(model: Body, problems: Batch, halting: HaltingRule) -> Annotated[Tensor, Bool("L N")]:
    """What would be right if the answer were read after loop l; under this rule its tokens all run `max_loops` loops."""
    parts = []
    for part in problems.parts(_ROWS_THAT_ALL_THINK):
        part = part.to(model.device)
        right: list[Tensor] = []

        def look(l: int, h: Tensor, part: Batch = part, right: list[Tensor] = right) -> None:
            right.append(solved(model.logits(h).argmax(-1), part))

        model.think(part.tokens, halting, real=part.real, answer=part.scored, hook=look)
        parts.append(torch.stack(right).cpu())
    return torch.cat(parts, 1)


def make_cell(name: str, size: int, attempts: Attempts) -> Cell:
    """The counts and means of one test set."""
    return Cell(
        name,
        size,
        n=len(attempts.solved),
        correct=int(attempts.solved.sum()),
        mean_loops=round(float(attempts.mean_loops.mean()), 3),
        block_evaluations=round(float(attempts.block_evaluations.mean()), 1),
        elapsed_s=round(attempts.elapsed_s, 2),
        ran_out=attempts.ran_out,
        nats_per_token=None if attempts.nats is None else round(float(attempts.nats.mean()), 6),
        bits_per_character=round(attempts.bits / attempts.characters, 6) if attempts.characters else None,
    )


def evaluate(
    model: Body,
    task: Task,
    sizes: Sequence[int],
    problems_per_cell: int | Callable[[int], int],
    halting: HaltingRule,
    seed: int,
    progress: Callable[[str], None] = lambda message: None,
    done: Collection[tuple[str, int]] = (),
) -> Iterator[Cell]:
    """One cell for each of the task's test sets and each size.

    Args:
        model: trained on the task.
        task: gives the test sets.
        sizes: in the task's own measure.
        problems_per_cell: a number, or a function of the size.
        halting: when a token stops.
        seed: of the test sets.
        progress: told what is being tested.
        done: (set, size) of cells that are not wanted.
    """
    for name, suite in task.suites.items():
        for size in sizes:
            if (name, size) in done:
                continue
            n = problems_per_cell if isinstance(problems_per_cell, int) else problems_per_cell(size)
            progress(f"testing {name}, {size} {suite.axis}")
            with_loss = suite.scored_by == "loss"
            characters = task.vocabulary.characters
            problems = task.suite(name, size, n, seed)
            yield make_cell(name, size, exact_match(model, problems, halting, with_loss=with_loss, characters=characters))
