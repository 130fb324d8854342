"""What most schedules have: a peak, and a linear way up to it."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Warmup:
    """A linear warm-up from nothing to the peak.

    Spec: [training.warm-up][].
    """

    peak: float = Field(default=3e-3, gt=0)
    """Largest learning rate."""
    warmup_steps: int = Field(default=100, ge=0)

    def share(self, step: int) -> float:
        """Of the peak that the warm-up allows at a step, from 0."""
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
