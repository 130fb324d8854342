"""Confidence in the most likely next token."""

from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.loop.halting import Bounded, Evidence
from looplm.shapes import Bool


@dataclass(frozen=True)
class Confidence(Bounded):
    """A token is ready once the probability of its most likely next token reaches the threshold.

    Source: Wait-to-Think is the LoopLM plan's name for a low threshold in the prompt and a high one in the answer.
    Spec: [halting.confidence][], [halting.wait-to-think][], [halting.not-known-yet][].
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = field(kw_only=True)
    """Probability."""
    unknown_id: Annotated[int, Field(ge=0)] | None = field(default=None, kw_only=True)
    """The token that says "not known yet", for models that are trained to say so: a token that guesses it goes on."""

    looks_at: ClassVar[frozenset[str]] = frozenset({"guess", "confidence"})
    clauses_of_both: ClassVar[tuple[str, ...]] = ("halting.wait-to-think",)

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Confident tokens."""
        confident = seen.confidence >= self.threshold
        return confident if self.unknown_id is None else confident & (seen.guess != self.unknown_id)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the rule exercises."""
        known = () if self.unknown_id is None else ("halting.not-known-yet",)
        return (*super().clauses(), "halting.confidence", *known)


CHOICE = Confidence
