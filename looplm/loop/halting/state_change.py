"""A state that has come to rest."""

from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.loop.halting import Bounded, Evidence
from looplm.shapes import Bool


@dataclass(frozen=True)
class StateChange(Bounded):
    """A token is ready once a loop changes its state by less than `epsilon`, relative to the state's norm.

    Spec: [halting.state-change][].
    """

    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = field(kw_only=True)
    """Change of the state in one loop, relative to its norm."""

    looks_at: ClassVar[frozenset[str]] = frozenset({"change"})

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens near a fixed point of the loop."""
        return seen.change < self.epsilon

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the rule exercises."""
        return (*super().clauses(), "halting.state-change")


CHOICE = StateChange
