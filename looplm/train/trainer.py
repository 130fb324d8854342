"""One training loop for every body and recipe."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from looplm.config import Preset, TrainingConfig
from looplm.tasks.addition.problems import SLOT, Questions, ask
from looplm.tasks.addition.sets import draw_training
from looplm.train.execution import Execution
from looplm.models.looped import LoopLM, State
from looplm.models.static import build_model
from looplm.train.loss import answer_loss, targets_by_loop
from looplm.train.parts import backward_in_parts
from looplm.train.schedule import LoopPlan, draw_plan, learning_rate


@dataclass(frozen=True)
class Step:
    """What one training step did; a line of the run's log."""

    step: int
    """From 1."""
    loss: float
    """Nats per answer token."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    loops: int
    tokens: int
    """Trained on so far, padding included."""
    elapsed_s: float


def train(preset: Preset, seed: int, device: torch.device, execution: Execution | None = None) -> tuple[LoopLM, Iterator[Step]]:
    """A fresh model, and its training, one step each time the iterator is asked.

    Weights, problems and loop counts all follow from the seed, so two runs on one machine with the same number of
    threads and the same execution give the same weights, bit for bit.

    Spec: [training.deterministic][].
    """
    execution = execution or Execution()
    torch.manual_seed(seed)
    model = execution.prepare(build_model(preset.model).to(device))
    model.preset = preset
    return model, _steps(model, preset, torch.Generator().manual_seed(seed), execution)


def _steps(model: LoopLM, preset: Preset, generator: torch.Generator, execution: Execution) -> Iterator[Step]:
    config = preset.training
    optimizer = make_optimizer(model, config)
    device = model.embedding.weight.device
    seen, began = 0, time.perf_counter()
    for step in range(config.steps):
        rate = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        asked = ask(draw_training(config.batch_size, preset.data, generator), preset.data.format, preset.data.mode).to(device)
        plan = draw_plan(config, generator)
        with execution.products(device):
            start = made_state(model, asked.tokens, plan, generator, config.state_noise)
        optimizer.zero_grad()
        loss_of = partial(_loss_of, model, asked, plan, start, config, execution)
        loss = backward_in_parts(asked.asked, execution.parts, loss_of)
        grad_norm = clip_grad_norm_(model.parameters(), config.max_grad_norm)
        if not bool(torch.isfinite(grad_norm)):
            raise FloatingPointError(f"step {step + 1}: the gradient is {grad_norm.item()}; the step was not taken.")
        optimizer.step()
        seen += asked.tokens.numel()
        yield Step(step + 1, loss, rate, grad_norm.item(), plan.num_loops, seen, time.perf_counter() - began)


def _loss_of(
    model: LoopLM,
    asked: Questions,
    plan: LoopPlan,
    start: State | None,
    config: TrainingConfig,
    execution: Execution,
    rows: slice,
) -> Tensor:
    """The loss of some rows of the batch."""
    with execution.products(asked.tokens.device):
        before = start and State(start.h[rows], start.loops)
        logits = model(asked.tokens[rows], plan.num_loops, plan.first_scored, before, config.state_noise)
        targets = asked.targets[rows]
        if config.not_known_yet:
            assert asked.distance is not None, "a preset that says so asks in parallel"
            if plan.stale:
                targets = targets_by_loop(targets, asked.distance[rows], 1, plan.num_loops)
            else:
                targets = targets_by_loop(targets, asked.distance[rows], plan.before + 1, plan.before + plan.num_loops, SLOT)
            targets = targets[plan.first_scored - 1 :]
        return answer_loss(logits, targets, asked.asked[rows])


@torch.no_grad()
def made_state(model: LoopLM, tokens: Tensor, plan: LoopPlan, generator: torch.Generator, noise: float = 0.0) -> State | None:
    """The state that a restart starts from, without gradient; None for the state 0.

    Spec: [training.restarts][].
    """
    if plan.before == 0:
        return None
    rows = torch.randperm(len(tokens), generator=generator).to(tokens.device) if plan.stale else slice(None)
    return model.settle(tokens[rows], plan.before, noise)


def make_optimizer(model: LoopLM, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on the token embedding and the linear weights only, not on norms, signals or positions.

    Spec: [training.weight-decay][].
    """
    matrices = {id(model.embedding.weight)} | {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[id(parameter) in matrices].append(parameter)
    return torch.optim.AdamW(
        [{"params": groups[True], "weight_decay": config.weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr=config.peak_learning_rate,
        betas=(config.beta1, config.beta2),
        foreach=True,
    )
