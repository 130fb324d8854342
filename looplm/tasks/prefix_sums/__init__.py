"""The parity of every prefix: at each bit, whether the number of ones up to here is odd; all answers at once."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.shapes import Bool, Int
from looplm.task import Batch, Prompt, Suite, Vocabulary, check_count

BOS, PAD = 2, 3
MAX_BITS = 2**16
"""Longest string of bits that texts are made of."""
_MULTIPLIER, _MODULUS, _ONE_IN = 1_103_515_245, 2**31 - 1, 16
_FEW_BITS = 8
"""Below so many bits there are too few strings to hold some out."""
_TRIES = 1000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrefixSums:
    """Strings of bits, each answered at its own bit.

    Source: the task of Bansal et al. 2022, section 3, arXiv:2202.05826.
    Spec: [tasks.prefix-sums][], [tasks.prefix-places][], [tasks.prefix-draw][].
    """

    min_bits: int = Field(default=1, ge=1, le=MAX_BITS)
    max_bits: int = Field(default=32, ge=1, le=MAX_BITS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_bits > self.max_bits:
            raise ValueError(f"`min_bits` ({self.min_bits}) must not exceed `max_bits` ({self.max_bits})")
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        """Bits and marks; the begin mark stands in the run of bits, and a model sees where a string begins."""
        return Vocabulary(("0", "1", "<bos>", "<pad>"), pad=PAD, places=(0, 1, BOS))

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Bits drawn evenly."""
        return {"uniform": Suite("uniform", "bits")}

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """Bits of the strings."""
        return self.min_bits, self.max_bits

    @property
    def example(self) -> str:
        """Bits with a one now and then."""
        return "100000000001000000000010"

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Training strings, one a row; one that is held out is drawn again."""
        bits, length = self._drawn(rows, draw)
        for again in range(1, _TRIES):
            wanted = held_out(bits, length) & (length >= _FEW_BITS)
            if not bool(wanted.any()):
                break
            other_bits, other_length = self._drawn(rows, draw.of(f"again {again}"))
            bits, length = torch.where(wanted[:, None], other_bits, bits), torch.where(wanted, other_length, length)
        return collate(bits, length)

    def longest(self) -> Batch:
        """As many ones as there may be bits."""
        return collate(torch.ones(1, self.max_bits, dtype=torch.int64), torch.tensor([self.max_bits]))

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Held-out strings of `size` bits.

        Raises:
            InputError: if there is no such set or size.

        Spec: [tasks.held-out][], [tasks.prefix-held-out][].
        """
        if name not in self.suites:
            raise InputError(f"there is no test set {name!r} of prefix sums; there is: uniform.")
        if not 1 <= size <= MAX_BITS:
            raise InputError(f"strings have 1 to {MAX_BITS:,} bits: got {size}.")
        check_count(count)
        generator = Draw(seed, "test", size).generator()
        length, kept = torch.full((4 * count + 64,), size), torch.empty(0, size, dtype=torch.int64)
        while len(kept) < count:
            drawn = torch.randint(0, 2, (len(length), size), generator=generator)
            kept = torch.cat((kept, drawn if size < _FEW_BITS else drawn[held_out(drawn, length)]))
        return collate(kept[:count], length[:count])

    def prompt(self, text: str) -> Prompt:
        """A string of zeros and ones.

        Raises:
            InputError: if it is anything else.
        """
        bits = self._bits(text)
        return Prompt([BOS, *bits], slots=len(bits))

    def answer(self, ids: Sequence[int]) -> str:
        """The parities as zeros and ones; tokens that are no bits are shown as they are."""
        return self.vocabulary.text(ids)

    def right(self, text: str) -> str | None:
        """The parity of every prefix."""
        ones, parities = 0, []
        for bit in self._bits(text):
            ones += bit
            parities.append(str(ones % 2))
        return "".join(parities)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that this task exercises."""
        names = ("exact-match", "prefix-sums", "prefix-places", "prefix-draw", "prefix-held-out")
        return tuple(f"tasks.{name}" for name in names)

    def _drawn(self, rows: range, draw: Draw) -> tuple[Tensor, Tensor]:
        length = self.min_bits + (draw.of("bits").uniform(rows, 1)[:, 0] * (self.max_bits - self.min_bits + 1)).long()
        return (draw.of("which").uniform(rows, self.max_bits) < 0.5).long(), length

    def _bits(self, text: str) -> list[int]:
        shown = text.strip()
        if not shown or set(shown) - {"0", "1"} or len(shown) > MAX_BITS:
            short = shown if len(shown) <= 40 else shown[:37] + "..."
            raise InputError(f"{short!r} is no string of bits: give 1 to {MAX_BITS:,} zeros and ones, such as 10011.")
        return [int(bit) for bit in shown]


def collate(bits: Annotated[Tensor, Int("N M")], length: Annotated[Tensor, Int("N")]) -> Batch:
    """Strings as a model reads them, with the right answer and its distance at each bit.

    Spec: [tasks.prefix-sums][], [tasks.prefix-places][], [tasks.distance][].
    """
    longest = int(length.max())
    column = torch.arange(longest + 1)
    real = column <= length[:, None]
    tokens = torch.cat((torch.full_like(length[:, None], BOS), bits[:, :longest]), 1).where(real, PAD)
    parity = bits[:, :longest].cumsum(1) % 2
    targets = torch.cat((torch.zeros_like(parity[:, :1]), parity), 1).where(real, 0)
    distance = (column - 1).clamp(min=0).expand_as(tokens)
    return Batch(tokens, targets, real & (column > 0), real, distance)


def held_out(bits: Annotated[Tensor, Int("N M")], length: Annotated[Tensor, Int("N")]) -> Annotated[Tensor, Bool("N")]:
    """True for the strings that are for testing only, by a rule over all their bits.

    Spec: [tasks.prefix-held-out][].
    """
    key = torch.ones_like(length)
    for place in range(int(length.max())):
        key = torch.where(place < length, (key * _MULTIPLIER + 2 * bits[:, place] + 1) % _MODULUS, key)
    return key % _ONE_IN == 0


CHOICE = PrefixSums
