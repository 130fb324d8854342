"""All randomness is keyed: what is drawn follows from a seed, what it is for, a step, and a row, and from nothing else.

No generator is carried from one draw to the next. So a resumed run needs none saved, a batch may be cut into parts or
shared among ranks, and two models that differ in one setting see the same problems.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from looplm.shapes import Float

_WORDS = 4
"""Numbers that one count of Philox gives."""


@dataclass(frozen=True)
class Draw:
    """The key of some random numbers.

    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox, as NumPy has it).
    Spec: [training.keyed-randomness][].
    """

    seed: int
    stream: str
    """What the numbers are for, such as `problems`."""
    step: int = 0

    def of(self, stream: str) -> "Draw":
        """The same seed and step for another use, named within this one."""
        return replace(self, stream=f"{self.stream}/{stream}")

    @cached_property
    def _key(self) -> tuple[int, int]:
        digest = hashlib.blake2b(f"{self.seed}|{self.stream}|{self.step}".encode(), digest_size=16).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")

    def uniform(self, rows: range, count: int) -> Annotated[Tensor, Float("R N")]:
        """`count` numbers in [0, 1) for each row of the batch, float64; a row's do not depend on which rows are asked for."""
        counts = -(-count // _WORDS)
        if len(rows) == 0:
            return torch.empty(0, count, dtype=torch.float64)
        first = rows.start if rows.step == 1 else min(rows)
        philox = np.random.Philox(key=np.array(self._key, dtype=np.uint64), counter=first * counts)
        span = max(rows) - first + 1
        drawn = np.random.Generator(philox).random((span, counts * _WORDS))[:, :count]
        whole = torch.from_numpy(np.ascontiguousarray(drawn))
        return whole if rows.step == 1 else whole[[row - first for row in rows]]

    def one(self) -> float:
        """A single number in [0, 1), for what holds for the whole batch."""
        return float(self.uniform(range(1), 1)[0, 0])

    def integer(self, low: int, high: int) -> int:
        """A single integer, low and high included."""
        return low + int(self.one() * (high - low + 1))

    def order(self, count: int) -> Tensor:
        """A permutation of 0..count - 1: Int[count]."""
        return torch.randperm(count, generator=self.generator())

    def generator(self, row: int | None = None) -> torch.Generator:
        """A fresh generator on the CPU, of this key alone, or of one row."""
        name = f"{self._key[0]}|{self._key[1]}|{'' if row is None else row}"
        seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1
        return torch.Generator().manual_seed(seed)

    def normal(self, rows: Sequence[int], shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers of one shape for each row, [R, *shape], in the dtype and on the device of `like`."""
        drawn = torch.empty(len(rows), *shape)
        for at, row in enumerate(rows):
            torch.randn(shape, generator=self.generator(row), out=drawn[at])
        return drawn.to(like)


@contextmanager
def seeded(draw: Draw) -> Iterator[None]:
    """Within it, torch's global generator is that of the key; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(draw.generator().get_state())
        yield
