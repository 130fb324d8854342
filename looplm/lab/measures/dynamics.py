"""How the state moves, loop by loop."""

from pathlib import Path

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import cosine_similarity

from looplm.evaluate.scores import solved
from looplm.lab.measures import Count, Measured, share
from looplm.models.body import State
from looplm.models.looped import looped
from looplm.runs.checkpoint import Trained
from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Dynamics:
    """The state over all tokens of the first held-out set: its norm, its cosine to the state before, its relative change.

    `stale` is the share of problems that are right after `most` loops that start from the settled state of *another*
    problem, `fresh` the same from the state 0.
    """

    size: Count
    n: Count
    seed: int
    most: Count
    """Loops."""

    @torch.no_grad()
    def __call__(self, trained: Trained, run: Path) -> Measured:
        """Curves over loops, where they end, and the two shares."""
        model, task = looped(trained.model, "the measure of its dynamics"), trained.recipe.task
        problems = task.suite(next(iter(task.suites)), self.size, self.n, self.seed).to(model.device)
        means: dict[str, list[Tensor]] = {"norm": [], "cosine": [], "change": []}
        x0, view = model.embed(problems.tokens, problems.real)
        h = torch.zeros_like(x0)
        for l in range(1, self.most + 1):
            before, h = h, model.step(h, x0, l, view)
            norm = vector_norm(h, dim=-1)
            change = {
                "norm": norm,
                "cosine": cosine_similarity(h, before, dim=-1),
                "change": vector_norm(h - before, dim=-1) / norm,
            }
            for name, of_token in change.items():
                means[name].append(of_token[problems.real].mean())
        curves = {name: [round(float(mean), 6) for mean in curve] for name, curve in means.items()}
        settled = model.settle(problems.tokens, trained.recipe.training.max_loops)
        values = {}
        for name, start in {"fresh": None, "stale": State(settled.h.roll(1, 0), settled.loops)}.items():
            logits = model(problems.tokens, self.most, first_read=self.most, start=start)[-1]
            values[name] = share(solved(logits.argmax(-1), problems))
        return Measured(values | {"last_norm": round(curves["norm"][-1], 4), "last_change": curves["change"][-1]}, curves)


CHOICE = Dynamics
