"""The peak, after a warm-up."""

from pydantic.dataclasses import dataclass

from looplm.settings import STRICT
from looplm.train.schedules._warmup import Warmup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Constant(Warmup):
    """Stays at the peak.

    Spec: [training.constant][], [training.warm-up][].
    """

    def __call__(self, step: int, steps: int) -> float:
        """The rate of a step, from 0, of so many."""
        return self.peak * self.share(step)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that it follows."""
        return ("training.constant", "training.warm-up")


CHOICE = Constant
