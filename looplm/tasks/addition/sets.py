"""Which additions are drawn: for training, and for the three kinds of test set."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from looplm.config import DataConfig
from looplm.tasks.addition.problems import MAX_DIGITS, Problems, held_out
from looplm.errors import InputError
from looplm.shapes import Int

TestKind = Literal["uniform", "carry-heavy"]
CARRY_HEAVY_RATE = 0.7
"""Probability that a place above the lowest sums to 9, in the carry-heavy test sets."""


def draw_training(count: int, config: DataConfig, generator: Generator) -> Problems:
    """Problems to train on; pairs held out for testing are drawn again.

    Spec: [addition.training-draw][], [addition.held-out][].
    """
    return _keep(count, lambda n: _draw_training(n, config, generator), lambda drawn: ~held_out(drawn))


def _draw_training(count: int, config: DataConfig, generator: Generator) -> Problems:
    a_length, b_length = (_integers(config.min_digits, config.max_digits, (count,), generator) for _ in range(2))
    equal = _chance(config.equal_length_share, (count,), generator)
    b_length = torch.where(equal, a_length, b_length)
    drawn = _uniform(a_length, b_length, generator)
    heavy = _chance(config.carry_heavy_share, (count, 1), generator)
    rate = torch.rand((count, 1), generator=generator)
    nine = heavy & (torch.rand(drawn.a.shape, generator=generator) < rate)
    lowest = torch.arange(drawn.a.shape[1]) == 0
    generating = heavy & _chance(0.5, (count, 1), generator) & lowest
    return _with_carries(drawn, nine, generating, generator)


def test_set(kind: TestKind, digits: int, count: int, seed: int) -> Problems:
    """A test set: both operands have exactly `digits` digits, and every pair is held out from training.

    Spec: [addition.uniform-set][], [addition.carry-heavy-set][], [addition.held-out][].
    """
    generator = _test_generator(kind, digits, seed)

    def draw(n: int) -> Problems:
        drawn = _uniform(torch.full((n,), digits), torch.full((n,), digits), generator)
        if kind == "uniform":
            return drawn
        nine = _chance(CARRY_HEAVY_RATE, drawn.a.shape, generator)
        lowest = (torch.arange(digits) == 0).expand(n, digits)
        return _with_carries(drawn, nine & ~lowest, lowest, generator)

    return _keep(count, draw, held_out)


def chain_set(chain: int, digits: int, count: int, seed: int) -> Problems:
    """A test set whose problems all have a longest carry chain of exactly `chain` places.

    A chain of that length is planted at a drawn place; elsewhere digits are drawn, and changed where they would carry
    (chain 0) or make a chain longer.

    Spec: [addition.chain-set][], [addition.held-out][].
    """
    if not 0 <= chain <= digits:
        raise InputError(f"a sum of {digits} digits has chains of 0 to {digits} places: got {chain}.")
    generator = _test_generator("chain", digits, seed * (MAX_DIGITS + 1) + chain)

    def draw(n: int) -> Problems:
        drawn = _uniform(torch.full((n,), digits), torch.full((n,), digits), generator)
        if chain == 0:
            return _without_carries(drawn, generator)
        start = _integers(0, digits - chain, (n, 1), generator)
        place = torch.arange(digits).expand(n, digits)
        drawn = _with_carries(drawn, (place > start) & (place < start + chain), place == start, generator)
        return _without_longer_chains(drawn, chain, generator)

    return _keep(count, draw, held_out)


def _keep(count: int, draw: Callable[[int], Problems], wanted: Callable[[Problems], Tensor]) -> Problems:
    """Draw until `count` problems are wanted; the first `count` of them."""
    kept: list[Problems] = []
    tries = 0
    while sum(map(len, kept)) < count:
        drawn = draw(max(count, 64) if tries == 0 else 4096)
        kept.append(drawn[wanted(drawn)])
        tries += 1
        if tries > 20_000:
            raise InputError(f"found only {sum(map(len, kept))} of {count} such problems; ask for fewer, or more digits.")
    places = max(batch.a.shape[1] for batch in kept)

    def join(parts: list[Tensor]) -> Tensor:
        return torch.cat([torch.nn.functional.pad(part, (0, places - part.shape[1])) for part in parts])[:count]

    return Problems(
        join([k.a for k in kept]),
        join([k.b for k in kept]),
        torch.cat([k.a_length for k in kept])[:count],
        torch.cat([k.b_length for k in kept])[:count],
    )


def _uniform(a_length: Annotated[Tensor, Int("N")], b_length: Annotated[Tensor, Int("N")], generator: Generator) -> Problems:
    """Operands of these lengths, every digit equally likely; the highest is not 0 unless it is the only one."""
    places = int(torch.maximum(a_length, b_length).max())
    digits = _integers(0, 9, (2, len(a_length), places), generator)
    leading = _integers(1, 9, (2, len(a_length)), generator)
    place = torch.arange(places)
    for row, length in enumerate((a_length, b_length)):
        is_leading = (place == length[:, None] - 1) & (length[:, None] > 1)
        digits[row] = torch.where(is_leading & (digits[row] == 0), leading[row][:, None], digits[row])
        digits[row] *= place < length[:, None]
    return Problems(digits[0], digits[1], a_length, b_length)


def _with_carries(drawn: Problems, nine: Tensor, generating: Tensor, generator: Generator) -> Problems:
    """Make a + b equal 9 at the places `nine`, as far as b reaches, and at least 10 at the places `generating`."""
    place = torch.arange(drawn.b.shape[1])
    nine = nine & (place < drawn.b_length[:, None])
    no_zero = (place == drawn.b_length[:, None] - 1) & (drawn.b_length[:, None] > 1)  # b's highest digit stays above 0
    a = torch.where(nine & no_zero & (drawn.a == 9), _integers(1, 8, drawn.a.shape, generator), drawn.a)
    b = torch.where(nine, 9 - a, drawn.b)
    a = torch.where(generating & (a == 0), _integers(1, 9, a.shape, generator), a)
    b = torch.where(generating, 10 - a + _below(a, generator), b)
    return Problems(a, b, drawn.a_length, drawn.b_length)


def _without_carries(drawn: Problems, generator: Generator) -> Problems:
    """Redraw b, of the same length as a, so that no place carries."""
    digits = drawn.a.shape[1]
    least = ((torch.arange(digits) == digits - 1) & (digits > 1)).long().expand(drawn.a.shape)  # highest digits are 1 or more
    a = torch.where(drawn.a + least > 9, _integers(1, 8, drawn.a.shape, generator), drawn.a)
    return Problems(a, least + _below(10 - a - least, generator), drawn.a_length, drawn.b_length)


def _without_longer_chains(drawn: Problems, chain: int, generator: Generator) -> Problems:
    """Change b, upwards from the lowest place, wherever a sum of 9 would make a chain longer than `chain`."""
    size, digits = drawn.b.shape
    b, length = drawn.b.clone(), torch.zeros(size, dtype=torch.int64)
    for place in range(digits):
        pair = drawn.a[:, place] + b[:, place]
        too_long = (pair == 9) & (length == chain)
        least = 1 if place == digits - 1 and digits > 1 else 0
        other = least + (b[:, place] - least + _integers(1, 9 - least, (size,), generator)) % (10 - least)
        b[:, place] = torch.where(too_long, other, b[:, place])
        pair = drawn.a[:, place] + b[:, place]
        length = torch.where(pair >= 10, 1, torch.where((pair == 9) & (length > 0), length + 1, 0))
    return Problems(drawn.a, b, drawn.a_length, drawn.b_length)


def _below(limit: Tensor, generator: Generator) -> Tensor:
    """An integer in 0 .. limit - 1 for each limit."""
    return (torch.rand(limit.shape, generator=generator) * limit).long()


def _integers(low: int, high: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=generator)


def _chance(probability: float, shape: tuple[int, ...] | torch.Size, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator) < probability


def _test_generator(kind: str, digits: int, seed: int) -> Generator:
    """Each kind and digit count has a stream of its own, far from training's, which is seeded by small numbers."""
    kinds = ("uniform", "carry-heavy", "chain")
    return Generator().manual_seed(10**12 + (seed * len(kinds) + kinds.index(kind)) * (MAX_DIGITS + 1) + digits)
