"""One training loop for every task, body and recipe."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, Dataset

from looplm.draws import Draw, seeded
from looplm.layers.dropout import dropping
from looplm.models import build_model
from looplm.models.body import Body
from looplm.task import Batch, Task
from looplm.train.config import TrainingConfig
from looplm.train.execution import Execution
from looplm.train.fits import VALIDATION_ROWS, VALIDATION_SEED
from looplm.train.loops import LoopPlan, draw_plan, starting_state, state_noise
from looplm.train.objective import Objective, make_objective
from looplm.train.optimizer import load_moments, make_optimizer, moments
from looplm.train.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """What one training step did; a line of the run's log."""

    step: int
    """From 1."""
    loss: float
    """Nats per scored token."""
    learning_rate: float
    grad_norm: float | None
    """Before clipping. In float16 a gradient may overflow: it is infinite then, null in the log, and the step is not taken."""
    loops: int
    tokens: int
    """Trained on so far, padding included."""
    elapsed_s: float
    """Of training, in all sessions."""
    validation_loss: float | None = None
    """Nats per answer token of held-out problems, at steps that look at them."""


class Trainer:
    """A model in training; each step follows from the seed and the step's number alone.

    Spec: [training.deterministic][], [training.keyed-randomness][].
    """

    def __init__(
        self, recipe: Recipe, seed: int, device: torch.device | None = None, execution: Execution | None = None
    ) -> None:
        self.recipe, self.seed = recipe, seed
        self.config, self.task = recipe.training, recipe.task
        self.execution = execution or Execution()
        with seeded(Draw(seed, "weights")):
            model = build_model(recipe.model)
        self.model: Body = self.execution.prepare(model.to(device or torch.device("cpu")).train())
        self.optimizer = make_optimizer(self.model, self.config)
        self.scaler = torch.amp.GradScaler(self.model.device.type, enabled=self.execution.dtype == "float16")
        self.steps_done = self.tokens = 0
        self.elapsed_s = 0.0
        self._batches: Iterator[Batch] | None = None

    def draw(self, stream: str) -> Draw:
        """The key of what the coming step draws for some use."""
        return Draw(self.seed, stream, self.steps_done)

    def step(self) -> Step:
        """Take one step of the optimizer.

        Raises:
            FloatingPointError: if the gradient is not finite; the step is not taken.
        """
        began = time.perf_counter()
        rate = self.config.schedule(self.steps_done, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = self._next_batch().to(self.model.device)
        plan = draw_plan(self.config, self.draw("loops"))
        self.optimizer.zero_grad()
        loss = self.backward(batch, plan)
        self.scaler.unscale_(self.optimizer)
        grad_norm = clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm).item()
        if not self.scaler.is_enabled() and not torch.isfinite(torch.tensor(grad_norm)):
            raise FloatingPointError(f"step {self.steps_done + 1}: the gradient is {grad_norm}; the step was not taken.")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps_done += 1
        self.tokens += batch.tokens.numel()
        validation = None
        if self.config.validate_every and self.steps_done % self.config.validate_every == 0:
            validation = self.validation_loss()
        self.elapsed_s += time.perf_counter() - began
        return Step(self.steps_done, loss, rate, grad_norm, plan.num_loops, self.tokens, self.elapsed_s, validation)

    def backward(self, batch: Batch, plan: LoopPlan, rows: range | None = None) -> float:
        """Add the gradient of the batch's mean loss, or of the share that some of its rows have in it; gives that loss.

        The batch is cut into the execution's parts; parts, or the slices of several ranks, add up to the same gradient.

        Spec: [hardware.parts][], [training.keyed-randomness][].
        """
        objective = make_objective(batch, plan, self.config, self.model.reach, self.task.vocabulary.unknown)
        passed = (self.model, batch, objective, plan, self.config, self.execution)
        return add_gradient(*passed, draw=self.draw, rows=rows or range(len(batch)), scale=self.scaler.scale)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Nats per answer token of held-out problems of the smallest size, after the most loops of training."""
        name, size = next(iter(self.task.suites)), min(self.recipe.evaluation.sizes)
        held_out = self.task.suite(name, size, VALIDATION_ROWS, VALIDATION_SEED).to(self.model.device)
        loops = self.config.max_loops
        plain = replace(self.config, before_due="scored", label_smoothing=0.0)
        objective = make_objective(held_out, LoopPlan(loops, loops), plain, self.model.reach)
        *_, h = self.model.states(held_out.tokens, loops)
        return objective.loss(0, h, slice(None), self.model.logits).item()

    def _next_batch(self) -> Batch:
        if self.execution.workers == 0:
            return _Steps(self.task, self.config.batch_size, self.seed)[self.steps_done]
        if self._batches is None:
            self._batches = iter(
                DataLoader(
                    _Steps(self.task, self.config.batch_size, self.seed),
                    batch_size=None,
                    sampler=range(self.steps_done, self.config.steps),
                    num_workers=self.execution.workers,
                    prefetch_factor=self.execution.prefetch,
                )
            )
        return next(self._batches)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """All that a step depends on beside recipe, seed and execution: tensors by name, and plain numbers."""
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": moments(self.model, self.optimizer),
            "progress": {
                "steps": self.steps_done,
                "tokens": self.tokens,
                "elapsed_s": self.elapsed_s,
                "scaler": self.scaler.state_dict(),
            },
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        load_moments(self.model, self.optimizer, state["optimizer"])
        progress = state["progress"]
        self.steps_done, self.tokens, self.elapsed_s = progress["steps"], progress["tokens"], progress["elapsed_s"]
        if progress["scaler"]:
            self.scaler.load_state_dict(progress["scaler"])
        self._batches = None


def add_gradient(
    model: Body,
    batch: Batch,
    objective: Objective,
    plan: LoopPlan,
    config: TrainingConfig,
    execution: Execution,
    *,
    draw: Callable[[str], Draw],
    rows: range,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> float:
    """Add the gradient of the share that some rows have in a batch's mean loss, part by part; gives that share.

    Args:
        model: in training.
        batch: the whole one, from which restarts take other problems' states.
        objective: of the batch.
        plan: of the batch.
        config: of the training.
        execution: into how many parts the rows are cut, and how products are computed.
        draw: gives the key of each use of randomness.
        rows: of the batch.
        scale: of a loss, before its gradient is taken.
    """
    size, loss = -(-len(rows) // execution.parts), 0.0
    for start in range(rows.start, rows.stop, size):
        part = slice(start, min(start + size, rows.stop))
        numbers = list(range(part.start, part.stop))
        with execution.products(model.device):
            before = starting_state(model, batch.tokens, plan, config, draw("restart"), part)
            noise = state_noise(config.state_noise, draw("noise"), numbers)
            with dropping(config.dropout, draw("dropout"), numbers):
                states = model.states(batch.tokens[part], plan.num_loops, before, noise)
                losses = [
                    objective.loss(l - plan.first_scored, h, part, model.logits)
                    for l, h in enumerate(states, 1)
                    if l >= plan.first_scored
                ]
        whole = torch.stack(losses).sum()
        del losses, states, before
        scale(whole).backward()
        loss += whole.item()
        del whole
    return loss


class _Steps(Dataset[Batch]):
    """The batch of each step, from 0."""

    def __init__(self, task: Task, batch_size: int, seed: int) -> None:
        self.task, self.batch_size, self.seed = task, batch_size, seed

    def __getitem__(self, step: int) -> Batch:
        return self.task.batch(range(self.batch_size), Draw(self.seed, "problems", step))


def run_steps(trainer: Trainer) -> Iterator[Step]:
    """The steps that are left, one each time the iterator is asked."""
    while trainer.steps_done < trainer.config.steps:
        yield trainer.step()
