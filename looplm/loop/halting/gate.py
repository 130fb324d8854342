"""What the model's own gate says."""

from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.errors import InputError
from looplm.loop.halting import Bounded, Evidence
from looplm.shapes import Bool


@dataclass(frozen=True)
class Gate(Bounded):
    """A token is ready once the model's learned gate gives at least the threshold.

    Spec: [halting.gate][].
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = field(kw_only=True)
    """Probability."""

    reads_gate: ClassVar[bool] = True
    looks_at: ClassVar[frozenset[str]] = frozenset({"halt_prob"})

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens that the gate would halt."""
        if seen.halt_prob is None:
            raise InputError("the halting rule 'gate' needs a model with a trained gate; choose another rule, or such a model.")
        return seen.halt_prob >= self.threshold

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the rule exercises."""
        return (*super().clauses(), "halting.gate")


CHOICE = Gate
