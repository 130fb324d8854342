"""How a batch is looped: how often, from which state, and from which loop on it is scored."""

from dataclasses import dataclass

import torch
from torch import Tensor

from looplm.draws import Draw
from looplm.models.body import Body, Noise, State
from looplm.train.config import TrainingConfig


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


def draw_plan(config: TrainingConfig, draw: Draw) -> LoopPlan:
    """How a batch is looped: from the state 0, or, in a share of the batches, from a state that the loop has made.

    Starting from the state of another problem teaches the loop to find its way from anywhere to the answer, and
    starting from the problem's own teaches it to stay there. Without restarts the loop may learn a shortcut that works
    only at the loop counts of training.

    Spec: [training.loop-count][], [training.restarts][], [training.second-half][], [training.all-loops][].
    """
    loops = draw.of("count").integer(config.min_loops, config.max_loops)
    if draw.of("restart").one() >= config.restart_share:
        return LoopPlan(loops, first_scored_loop(loops, config.score))
    before = draw.of("before").integer(1, config.restart_loops)
    if draw.of("stale").one() < config.stale_share:
        return LoopPlan(loops, first_scored_loop(loops, config.score), before, stale=True)
    return LoopPlan(min(loops, config.resumed_loops), 1, before)


def first_scored_loop(num_loops: int, score: str = "second-half") -> int:
    """The loop from which on the loss is taken: the first, or that of the second half, the middle one included.

    Spec: [training.second-half][], [training.all-loops][].
    """
    return 1 if score == "all" else num_loops // 2 + 1


def state_noise(std: float, draw: Draw, rows: list[int]) -> Noise | None:
    """Gaussian noise on the states of rows of the global batch, its own for each row and loop.

    Spec: [training.state-noise][].
    """
    if std == 0:
        return None

    def add(l: int, h: Tensor) -> Tensor:
        return h + std * draw.of(f"loop {l}").normal(rows, h.shape[1:], h)

    return add


@torch.no_grad()
def starting_state(
    model: Body, tokens: Tensor, plan: LoopPlan, config: TrainingConfig, draw: Draw, rows: slice = slice(None)
) -> State | None:
    """The state from which some rows of a batch start, made without gradient; None for the state 0.

    Args:
        model: its present weights make the state.
        tokens: of the whole batch, Int[B T].
        plan: of the batch.
        config: of the training.
        draw: of the step.
        rows: the rows whose state is wanted.

    Spec: [training.restarts][].
    """
    if plan.before == 0:
        return None
    others = draw.of("others").order(len(tokens)) if plan.stale else torch.arange(len(tokens))
    made_of = others[rows]
    noise = state_noise(config.state_noise, draw.of("noise before"), made_of.tolist())
    return model.settle(tokens[made_of.to(tokens.device)], plan.before, noise)
