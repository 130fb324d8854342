"""The numbers that change from step to step: learning rate, and loops run and scored."""

import math
from dataclasses import dataclass

import torch

from looplm.config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of a step (from 0): linear warm-up times a cosine that falls to a share of the peak.

    Spec: [training.learning-rate][].
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    floor = config.final_learning_rate_share
    return config.peak_learning_rate * warmup * (floor + (1 - floor) * cosine)


def draw_loops(config: TrainingConfig, generator: torch.Generator) -> int:
    """How many loops a batch runs: uniform from `min_loops` to `max_loops`.

    Spec: [training.loop-count][].
    """
    return int(torch.randint(config.min_loops, config.max_loops + 1, (), generator=generator))


def first_scored_loop(num_loops: int, score: str = "second-half") -> int:
    """The loop from which on the loss is taken: the first, or that of the second half, the middle one included.

    Spec: [training.second-half][], [training.all-loops][].
    """
    return 1 if score == "all" else num_loops // 2 + 1


@dataclass(frozen=True)
class LoopPlan:
    """The loops of one batch."""

    num_loops: int
    """With gradient."""
    first_scored: int
    before: int = 0
    """Loops without gradient that make the state to start from; 0: start from the state 0."""
    stale: bool = False
    """Whether that state is another problem's."""


def draw_plan(config: TrainingConfig, generator: torch.Generator) -> LoopPlan:
    """How a batch is looped: from the state 0, or, in a share of the batches, from a state that the loop has made.

    Starting from the state of another problem teaches the loop to find its way from anywhere to the answer, and
    starting from the problem's own teaches it to stay there. Without restarts the parallel adder learns a shortcut
    that works only at the loop counts of training.

    Spec: [training.restarts][], [training.second-half][], [training.all-loops][].
    """
    loops = draw_loops(config, generator)
    if config.restart_share == 0 or float(torch.rand((), generator=generator)) >= config.restart_share:
        return LoopPlan(loops, first_scored_loop(loops, config.score))
    before = int(torch.randint(1, config.restart_loops + 1, (), generator=generator))
    if float(torch.rand((), generator=generator)) < config.stale_share:
        return LoopPlan(loops, first_scored_loop(loops, config.score), before, stale=True)
    return LoopPlan(min(loops, config.resumed_loops), 1, before)
