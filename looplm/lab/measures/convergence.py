"""How fast training went, from the run's log."""

from pathlib import Path

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.lab.measures import Count, Measured
from looplm.runs.checkpoint import Trained
from looplm.runs.record import read_steps
from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Convergence:
    """Steps until the mean loss of `window` steps fell below `loss`, in nats; all steps if it never did."""

    loss: float = Field(gt=0)
    window: Count = 50

    def __call__(self, trained: Trained, run: Path) -> Measured:
        """`steps_to_loss`, whether that loss was `reached`, and the `final_loss`."""
        losses = torch.tensor([step.loss for step in read_steps(run)])
        window = min(self.window, len(losses))
        means = losses.unfold(0, window, 1).mean(1)
        below = (means < self.loss).nonzero()
        steps = int(below[0, 0]) + window if len(below) else len(losses)
        return Measured({"steps_to_loss": steps, "reached": float(len(below) > 0), "final_loss": round(float(means[-1]), 6)})


CHOICE = Convergence
