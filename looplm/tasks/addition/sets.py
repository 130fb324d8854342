"""Which additions are drawn: for training, and for the four kinds of test set."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.shapes import Int
from looplm.task import check_count
from looplm.tasks.addition.problems import MAX_DIGITS, Problems, held_out
from looplm.tasks.addition.random import FromDraw, FromGenerator, Random

if TYPE_CHECKING:
    from looplm.tasks.addition import Addition

TestKind = Literal["uniform", "carry-heavy", "nines"]
CARRY_HEAVY_RATE = 0.7
"""Probability that a place above the lowest sums to 9, in the carry-heavy test sets."""

_LARGEST_SEED = 10**12
"""Of a test set: each has streams of its own, all within 64 bits."""


def draw_training(rows: range, task: "Addition", draw: Draw) -> Problems:
    """Problems to train on, one for each row of a batch; pairs held out for testing are drawn again.

    Spec: [addition.training-draw][], [addition.held-out][], [tasks.rows][].
    """
    drawn = _draw_training(task, FromDraw(draw, rows))
    tries = 0
    while bool((again := held_out(drawn)).any()):
        tries += 1
        if tries > 1000:
            raise InputError("all such problems are held out for testing; allow more digits.")
        other = _draw_training(task, FromDraw(draw.of(f"again {tries}"), rows))
        drawn = Problems(
            torch.where(again[:, None], other.a, drawn.a),
            torch.where(again[:, None], other.b, drawn.b),
            torch.where(again, other.a_length, drawn.a_length),
            torch.where(again, other.b_length, drawn.b_length),
        )
    longest = int(torch.maximum(drawn.a_length, drawn.b_length).max())
    return Problems(drawn.a[:, :longest], drawn.b[:, :longest], drawn.a_length, drawn.b_length)


def _draw_training(task: "Addition", random: Random) -> Problems:
    a_length, b_length = (random.integers(task.min_digits, task.max_digits, ()) for _ in range(2))
    equal = random.chance(task.equal_length_share, ())
    drawn = _uniform(a_length, torch.where(equal, a_length, b_length), random, task.max_digits)
    heavy = random.chance(task.carry_heavy_share, (1,))
    nine = heavy & (random.unit((task.max_digits,)) < random.unit((1,)))
    lowest = torch.arange(task.max_digits) == 0
    generating = heavy & random.chance(0.5, (1,)) & lowest
    return _with_carries(drawn, nine, generating, random)


def test_set(kind: str, digits: int, count: int, seed: int) -> Problems:
    """A test set: both operands have exactly `digits` digits, and every pair is held out from training.

    Spec: [addition.uniform-set][], [addition.carry-heavy-set][], [addition.nines-set][], [addition.held-out][].
    """
    _check(digits, seed)
    if kind == "nines":
        return nines_set(digits, count, seed)
    generator = _test_generator(kind, digits, seed)

    def draw(n: int) -> Problems:
        random = FromGenerator(generator, n)
        drawn = _uniform(torch.full((n,), digits), torch.full((n,), digits), random, digits)
        if kind == "uniform":
            return drawn
        nine = random.chance(CARRY_HEAVY_RATE, (digits,))
        lowest = (torch.arange(digits) == 0).expand(n, digits)
        return _with_carries(drawn, nine & ~lowest, lowest, random)

    return _keep(count, draw, held_out)


def chain_set(chain: int, digits: int, count: int, seed: int) -> Problems:
    """A test set whose problems all have a longest carry chain of exactly `chain` places.

    A chain of that length is planted at a drawn place; elsewhere digits are drawn, and changed where they would carry
    (chain 0) or make a chain longer.

    Spec: [addition.chain-set][], [addition.held-out][].
    """
    _check(digits, seed)
    if not 0 <= chain <= digits:
        raise InputError(f"a sum of {digits} digits has chains of 0 to {digits} places: got {chain}.")
    generator = _test_generator("chain", digits, seed * (MAX_DIGITS + 1) + chain)

    def draw(n: int) -> Problems:
        random = FromGenerator(generator, n)
        drawn = _uniform(torch.full((n,), digits), torch.full((n,), digits), random, digits)
        if chain == 0:
            return _at_most(9, drawn, torch.ones_like(drawn.a, dtype=torch.bool), random)
        start = random.integers(0, digits - chain, (1,))
        place = torch.arange(digits).expand(n, digits)
        drawn = _with_carries(drawn, (place > start) & (place < start + chain), place == start, random)
        return _without_longer_chains(drawn, chain, random)

    return _keep(count, draw, held_out)


def nines_set(digits: int, count: int, seed: int, *, length: int | None = None, carried: bool | None = None) -> Problems:
    """A test set whose problems hold a run of places that sum to 9, into which a carry comes or does not.

    Args:
        digits: of the operands.
        count: of the problems.
        seed: fixes them.
        length: of the run, in places; None: drawn evenly for each problem, from 0 to all but the place below the run.
        carried: whether a carry comes into the run; None: drawn evenly.

    Spec: [addition.nines-set][], [addition.held-out][].
    """
    _check(digits, seed)
    if length is not None and not 0 <= length < digits:
        raise InputError(f"a sum of {digits} digits has runs of 0 to {digits - 1} places above another: got {length}.")
    tries = itertools.count()

    def draw(n: int) -> Problems:
        random = FromDraw(Draw(seed, f"nines of {digits}").of(str(next(tries))), range(n))
        drawn = _uniform(torch.full((n,), digits), torch.full((n,), digits), random, digits)
        run = random.integers(0, digits - 1, (1,)) if length is None else torch.full((n, 1), length)
        below = (random.unit((1,)) * (digits - run)).long()  # the place that settles what comes into the run
        carries = random.chance(0.5, (1,)) if carried is None else torch.full((n, 1), carried)
        place = torch.arange(digits)
        drawn = _with_carries(drawn, (place > below) & (place <= below + run), (place == below) & carries, random)
        return _at_most(8, drawn, (place == below) & ~carries, random)

    return _keep(count, draw, held_out)


def _keep(count: int, draw: Callable[[int], Problems], wanted: Callable[[Problems], Tensor]) -> Problems:
    """Draw until `count` problems are wanted; the first `count` of them."""
    check_count(count)
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


def _uniform(
    a_length: Annotated[Tensor, Int("N")], b_length: Annotated[Tensor, Int("N")], random: Random, places: int
) -> Problems:
    """Operands of these lengths, every digit equally likely; the highest is not 0 unless it is the only one."""
    digits = random.pairs(0, 9, (places,))
    leading = random.pairs(1, 9, ())
    place = torch.arange(places)
    for row, length in enumerate((a_length, b_length)):
        is_leading = (place == length[:, None] - 1) & (length[:, None] > 1)
        digits[row] = torch.where(is_leading & (digits[row] == 0), leading[row][:, None], digits[row])
        digits[row] *= place < length[:, None]
    return Problems(digits[0], digits[1], a_length, b_length)


def _with_carries(drawn: Problems, nine: Tensor, generating: Tensor, random: Random) -> Problems:
    """Make a + b equal 9 at the places `nine`, as far as b reaches, and at least 10 at the places `generating`."""
    place = torch.arange(drawn.b.shape[1])
    nine = nine & (place < drawn.b_length[:, None])
    no_zero = (place == drawn.b_length[:, None] - 1) & (drawn.b_length[:, None] > 1)  # b's highest digit stays above 0
    a = torch.where(nine & no_zero & (drawn.a == 9), random.integers(1, 8, drawn.a.shape[1:]), drawn.a)
    b = torch.where(nine, 9 - a, drawn.b)
    a = torch.where(generating & (a == 0), random.integers(1, 9, a.shape[1:]), a)
    b = torch.where(generating, 10 - a + _below(a, random), b)
    return Problems(a, b, drawn.a_length, drawn.b_length)


def _at_most(most: int, drawn: Problems, places: Tensor, random: Random) -> Problems:
    """Redraw b, and a where it must be, so that a + b is at most so much at these places; a and b are of the same length."""
    digits = drawn.a.shape[1]
    least = ((torch.arange(digits) == digits - 1) & (digits > 1)).long().expand(drawn.a.shape)  # highest digits are 1 or more
    a = torch.where(places & (drawn.a + least > most), random.integers(1, most - 1, drawn.a.shape[1:]), drawn.a)
    b = torch.where(places, least + _below((most + 1 - a - least).clamp(min=1), random), drawn.b)
    return Problems(a, b, drawn.a_length, drawn.b_length)


def _without_longer_chains(drawn: Problems, chain: int, random: Random) -> Problems:
    """Change b, upwards from the lowest place, wherever a sum of 9 would make a chain longer than `chain`."""
    digits = drawn.b.shape[1]
    b, length = drawn.b.clone(), torch.zeros_like(drawn.b[:, 0])
    for place in range(digits):
        pair = drawn.a[:, place] + b[:, place]
        too_long = (pair == 9) & (length == chain)
        least = 1 if place == digits - 1 and digits > 1 else 0
        other = least + (b[:, place] - least + random.integers(1, 9 - least, ())) % (10 - least)
        b[:, place] = torch.where(too_long, other, b[:, place])
        pair = drawn.a[:, place] + b[:, place]
        length = torch.where(pair >= 10, 1, torch.where((pair == 9) & (length > 0), length + 1, 0))
    return Problems(drawn.a, b, drawn.a_length, drawn.b_length)


def _below(limit: Tensor, random: Random) -> Tensor:
    """An integer in 0 .. limit - 1 for each limit."""
    return (random.unit(limit.shape[1:]) * limit).long()


def _test_generator(kind: str, digits: int, seed: int) -> torch.Generator:
    """Each kind and digit count has a stream of its own, far from training's, which is seeded by small numbers."""
    kinds = ("uniform", "carry-heavy", "chain")
    return torch.Generator().manual_seed(10**12 + (seed * len(kinds) + kinds.index(kind)) * (MAX_DIGITS + 1) + digits)


def _check(digits: int, seed: int) -> None:
    if not 1 <= digits <= MAX_DIGITS:
        raise InputError(f"sums have operands of 1 to {MAX_DIGITS:,} digits: got {digits}.")
    if abs(seed) > _LARGEST_SEED:
        raise InputError(f"`seed` must be from {-_LARGEST_SEED} to {_LARGEST_SEED}: got {seed}.")
