"""An answer that settles from its front."""

from dataclasses import field
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.loop.halting import Bounded, Evidence
from looplm.shapes import Bool


@dataclass(frozen=True)
class PrefixStability(Bounded):
    """An answer token halts once it is settled, and all answer tokens before it are or have halted.

    Settled: two equal guesses, with confidence at both of at least `threshold`, or at a state that changes by less
    than `epsilon`. Made for answers given in parallel, where a far place is confidently wrong until the news comes.

    Spec: [halting.prefix-stability][].
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = field(kw_only=True)
    """Probability."""
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = field(kw_only=True)
    """Change of the state in one loop, relative to its norm."""
    in_order: bool = field(default=True, init=False)
    """Nothing to set: the rule is about the order."""

    looks_at: ClassVar[frozenset[str]] = frozenset({"guess", "confidence", "change"})

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Settled tokens."""
        confident = torch.minimum(seen.confidence, seen.previous_confidence) >= self.threshold
        return (seen.guess == seen.previous_guess) & (confident | (seen.change < self.epsilon))

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the rule exercises."""
        return ("halting.bounds", "halting.prefix-stability")


CHOICE = PrefixStability
