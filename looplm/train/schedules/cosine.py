"""A half cosine from the peak towards a floor, after a warm-up."""

import math

from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.settings import STRICT
from looplm.train.schedules._warmup import Warmup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cosine(Warmup):
    """Falls over all steps; the warm-up multiplies it.

    Source: Loshchilov and Hutter 2017, SGDR, equation 5, arXiv:1608.03983. We never restart.
    Spec: [training.cosine][], [training.warm-up][].
    """

    floor: float = Field(default=0.02, ge=0, le=1)
    """Share of the peak towards which it falls."""

    def __call__(self, step: int, steps: int) -> float:
        """The rate of a step, from 0, of so many."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.peak * self.share(step) * (self.floor + (1 - self.floor) * cosine)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that it follows."""
        return ("training.cosine", "training.warm-up")


CHOICE = Cosine
