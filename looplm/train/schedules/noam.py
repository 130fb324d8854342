"""The schedule of the 2017 Transformer: up linearly, down with the inverse square root of the step."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Noam:
    r"""$c\,D^{-1/2} \min(s^{-1/2},\; s\,w^{-3/2})$ with step $s$ from 1 and $w$ warm-up steps; it does not know the last step.

    Source: Vaswani et al. 2017, equation 3, arXiv:1706.03762. We add the factor c.
    Spec: [training.noam][].
    """

    width: int = Field(ge=1)
    """D, of the model."""
    factor: float = Field(default=1.0, gt=0)
    """c."""
    warmup_steps: int = Field(default=4000, ge=1)
    """w."""

    def __call__(self, step: int, steps: int) -> float:
        """The rate of a step, from 0, of so many."""
        s = step + 1
        return float(self.factor * self.width**-0.5 * min(s**-0.5, s * self.warmup_steps**-1.5))

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that it follows."""
        return ("training.noam",)


CHOICE = Noam
