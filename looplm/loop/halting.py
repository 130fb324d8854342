"""When a token stops thinking.

A rule is asked after each loop, for every token at once, and answers from what this loop and those before it gave at
the token itself, so a decision never looks at a later token. The model freezes the tokens for which it says yes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from looplm.config import HaltingConfig
from looplm.shapes import Bool, Float


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at after a loop."""

    l: int
    """The loop that has just run, from 1."""
    logits: Annotated[Tensor, Float("B T V")]
    """Read from the state after loop l."""
    previous_logits: Annotated[Tensor, Float("B T V")] | None
    """The same after loop l - 1; None at the first loop."""


class HaltingRule(Protocol):
    """Decides, after each loop, which tokens are ready to halt."""

    @property
    def max_loops(self) -> int:
        """The loop after which every token halts."""
        ...

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """True for the tokens that are ready."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Every token runs exactly `max_loops` loops.

    Spec: [halting.fixed][].
    """

    max_loops: int

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """All tokens, at the last loop."""
        return torch.full(seen.logits.shape[:2], seen.l >= self.max_loops, device=seen.logits.device)


@dataclass(frozen=True)
class TwoEqualArgmaxes:
    """A token is ready once its most likely next token is the same after two successive loops.

    Spec: [halting.two-equal-argmaxes][].
    """

    max_loops: int

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens whose two newest argmaxes agree; all, at the last loop."""
        if seen.l >= self.max_loops:
            return Fixed(self.max_loops)(seen)
        if seen.previous_logits is None:
            return torch.zeros(seen.logits.shape[:2], dtype=torch.bool, device=seen.logits.device)
        return seen.logits.argmax(-1) == seen.previous_logits.argmax(-1)


def make_halting(config: HaltingConfig) -> HaltingRule:
    """The rule that the config names."""
    rules: dict[str, Callable[[int], HaltingRule]] = {"fixed": Fixed, "two-equal-argmaxes": TwoEqualArgmaxes}
    return rules[config.rule](config.max_loops)
