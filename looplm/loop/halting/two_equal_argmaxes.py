"""Two guesses in a row that agree."""

from typing import Annotated, ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.loop.halting import Bounded, Evidence
from looplm.shapes import Bool


@dataclass(frozen=True)
class TwoEqualArgmaxes(Bounded):
    """A token is ready once its most likely next token is the same after two successive loops.

    Spec: [halting.two-equal-argmaxes][].
    """

    looks_at: ClassVar[frozenset[str]] = frozenset({"guess"})

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens whose two newest guesses agree."""
        return seen.guess == seen.previous_guess

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the rule exercises."""
        return (*super().clauses(), "halting.two-equal-argmaxes")


CHOICE = TwoEqualArgmaxes
