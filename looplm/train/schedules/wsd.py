"""Warm-up, stable, decay: the peak for most of the way, then straight down to a floor."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.settings import STRICT
from looplm.train.schedules._warmup import Warmup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WarmupStableDecay(Warmup):
    """Falls linearly over the last share of the steps.

    Source: Hu et al. 2024, MiniCPM, section 4, arXiv:2404.06395. We decay linearly.
    Spec: [training.warmup-stable-decay][], [training.warm-up][].
    """

    decay_share: float = Field(default=0.2, gt=0, le=1)
    """Of all steps."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak towards which it falls."""

    def __call__(self, step: int, steps: int) -> float:
        """The rate of a step, from 0, of so many."""
        left = min(1.0, (steps - step) / (self.decay_share * steps))
        return self.peak * self.share(step) * (self.floor + (1 - self.floor) * left)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that it follows."""
        return ("training.warmup-stable-decay", "training.warm-up")


CHOICE = WarmupStableDecay
