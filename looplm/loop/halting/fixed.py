"""A fixed number of loops."""

from dataclasses import field
from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.loop.halting import Bounded, Evidence
from looplm.shapes import Bool


@dataclass(frozen=True)
class Fixed(Bounded):
    """Every token runs exactly `max_loops` loops.

    Spec: [halting.fixed][].
    """

    in_order: bool = field(default=False, init=False)
    """Nothing to set: all tokens halt together."""

    looks_at: ClassVar[frozenset[str]] = frozenset()

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """No token."""
        return torch.zeros_like(seen.active)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the rule exercises."""
        return (*super().clauses(), "halting.fixed")


CHOICE = Fixed
