"""The numbers that change from step to step: learning rate, and loops run and scored."""

import math

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


def first_scored_loop(num_loops: int) -> int:
    """The loop from which on the loss is taken: the second half of the loops, the middle one included.

    Spec: [training.second-half][].
    """
    return num_loops // 2 + 1
