"""Where the numbers come from that make problems: a keyed draw for training, a seeded generator for test sets.

Both give tensors with one row for each problem; `tail` is the shape of a row.
"""

from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from looplm.draws import Draw


class Random(Protocol):
    """Gives random numbers for all problems of a batch at once."""

    def unit(self, tail: tuple[int, ...]) -> Tensor:
        """Numbers in [0, 1): [N, *tail]."""
        ...

    def integers(self, low: int, high: int, tail: tuple[int, ...]) -> Tensor:
        """Integers, low and high included: Int[N, *tail]."""
        ...

    def pairs(self, low: int, high: int, tail: tuple[int, ...]) -> Tensor:
        """The same for both operands: Int[2, N, *tail]."""
        ...

    def chance(self, probability: float, tail: tuple[int, ...]) -> Tensor:
        """True with this probability: Bool[N, *tail]."""
        ...


@dataclass(frozen=True)
class FromDraw:
    """What a row gets depends on the draw and its number alone, not on the other rows."""

    draw: Draw
    rows: range
    _use: "count[int]" = field(default_factory=count)

    def unit(self, tail: tuple[int, ...]) -> Tensor:
        """Numbers in [0, 1)."""
        drawn = self.draw.of(str(next(self._use))).uniform(self.rows, prod(tail))
        return drawn.view(len(self.rows), *tail)

    def integers(self, low: int, high: int, tail: tuple[int, ...]) -> Tensor:
        """Integers, low and high included."""
        return low + (self.unit(tail) * (high - low + 1)).long()

    def pairs(self, low: int, high: int, tail: tuple[int, ...]) -> Tensor:
        """The same for both operands."""
        return self.integers(low, high, (2, *tail)).movedim(1, 0).contiguous()

    def chance(self, probability: float, tail: tuple[int, ...]) -> Tensor:
        """True with this probability."""
        return self.unit(tail) < probability


@dataclass(frozen=True)
class FromGenerator:
    """The next numbers of a generator, for a batch of `n` problems."""

    generator: torch.Generator
    n: int

    def unit(self, tail: tuple[int, ...]) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand((self.n, *tail), generator=self.generator)

    def integers(self, low: int, high: int, tail: tuple[int, ...]) -> Tensor:
        """Integers, low and high included."""
        return torch.randint(low, high + 1, (self.n, *tail), generator=self.generator)

    def pairs(self, low: int, high: int, tail: tuple[int, ...]) -> Tensor:
        """The same for both operands."""
        return torch.randint(low, high + 1, (2, self.n, *tail), generator=self.generator)

    def chance(self, probability: float, tail: tuple[int, ...]) -> Tensor:
        """True with this probability."""
        return self.unit(tail) < probability
