"""Addition: problems as digits, their text, and what makes one hard.

A batch of problems is two digit arrays, least-significant digit first, so a thousand digits are as easy as two. Texts
are token ids; the vocabulary is the ten digits, `+`, `=`, the marks of begin, end and padding, and the empty slot that
a model fills which answers in parallel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from looplm.errors import InputError
from looplm.shapes import Bool, Int
from looplm.task import Batch

PLUS, EQUALS, BOS, EOS, PAD, SLOT = 10, 11, 12, 13, 14, 15
SYMBOLS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "+", "=", "<bos>", "<eos>", "<pad>", "<slot>")
"""What each token id stands for (addition.vocabulary)."""
MAX_DIGITS = 1000
"""Longest operand that texts are made of."""

Format = Literal["plain", "reversed", "double-reversed", "equals-first"]
Mode = Literal["left-to-right", "parallel"]
"""How an answer is given: token after token, or all at once, one token in each slot."""

_HELD_OUT_MODULUS = 2**31 - 1
_HELD_OUT_MULTIPLIER = 1_103_515_245
HELD_OUT_ONE_IN = 16
"""One unordered pair in this many is never trained on."""


@dataclass(frozen=True)
class Problems:
    """A batch of additions a + b."""

    a: Annotated[Tensor, Int("N M")]
    """Digits of the first operand, least-significant first, 0 beyond its length."""
    b: Annotated[Tensor, Int("N M")]
    a_length: Annotated[Tensor, Int("N")]
    b_length: Annotated[Tensor, Int("N")]

    def __len__(self) -> int:
        return self.a.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Problems":
        return Problems(self.a[rows], self.b[rows], self.a_length[rows], self.b_length[rows])

    def batches(self, rows: int) -> Iterator["Problems"]:
        """The problems in order, at most `rows` at a time."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]

    def numbers(self) -> list[tuple[str, str]]:
        """Operands in decimal, most-significant digit first."""
        return [(decimal(a, n), decimal(b, m)) for a, n, b, m in zip(self.a, self.a_length, self.b, self.b_length, strict=True)]


def decimal(digits: Annotated[Tensor, Int("M")], length: Tensor) -> str:
    """A number in decimal from its digits, least-significant first."""
    return "".join(map(str, reversed(digits[: int(length)].tolist())))


def parse_problem(text: str) -> tuple[str, str]:
    """The two operands of `a+b`, without leading zeros.

    Raises:
        InputError: if the text is anything but two unsigned decimal numbers of at most 1,000 digits and a plus sign.
    """
    parts = [part.strip() for part in text.strip().split("+")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        shown = text.strip() if len(text.strip()) <= 40 else text.strip()[:37] + "..."
        raise InputError(f"{shown!r} is not a sum: give two unsigned decimal numbers and a plus, such as 978+457.")
    if max(map(len, parts)) > MAX_DIGITS:
        raise InputError(f"an operand has {max(map(len, parts)):,} digits: at most {MAX_DIGITS:,} are allowed.")
    return parts[0].lstrip("0") or "0", parts[1].lstrip("0") or "0"


def problems_of(numbers: Sequence[tuple[str, str]]) -> Problems:
    """Problems from pairs of decimal numbers without leading zeros."""
    places = max(len(number) for pair in numbers for number in pair)

    def digits(number: str) -> list[int]:
        return [int(digit) for digit in reversed(number)] + [0] * (places - len(number))

    lengths = torch.tensor([[len(number) for number in pair] for pair in numbers])
    both = torch.tensor([[digits(number) for number in pair] for pair in numbers])
    return Problems(both[:, 0], both[:, 1], lengths[:, 0], lengths[:, 1])


@dataclass(frozen=True)
class Sums:
    """Results of a batch of additions, and the carries on the way."""

    digits: Annotated[Tensor, Int("N P")]
    """Digits of a + b, least-significant first; P = M + 1."""
    length: Annotated[Tensor, Int("N")]
    chains: Annotated[Tensor, Int("N M")]
    """Length of the carry chain that ends at each place; 0 where no carry goes out."""

    @property
    def carries(self) -> Annotated[Tensor, Int("N")]:
        """Places with a carry out (addition.carries)."""
        return (self.chains > 0).sum(1)

    @property
    def longest_chain(self) -> Annotated[Tensor, Int("N")]:
        """Longest carry chain of each problem (addition.longest-chain)."""
        return self.chains.amax(1)


def add(problems: Problems) -> Sums:
    """Add digit by digit, as by hand.

    Spec: [addition.carries][], [addition.longest-chain][].
    """
    size, places = problems.a.shape
    carry, chain = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
    digits, chains = [], []
    for place in range(places):
        pair = problems.a[:, place] + problems.b[:, place]
        total = pair + carry
        carry = total // 10
        chain = torch.where(pair >= 10, 1, chain + 1) * carry
        digits.append(total % 10)
        chains.append(chain)
    chain_at = torch.stack(chains, 1)
    longer = torch.maximum(problems.a_length, problems.b_length)
    carry_out = chain_at.gather(1, longer[:, None] - 1)[:, 0] > 0
    return Sums(digits=torch.stack([*digits, carry], 1), length=longer + carry_out, chains=chain_at)


@dataclass(frozen=True)
class Texts:
    """Problems written out as token ids, padded on the right."""

    tokens: Annotated[Tensor, Int("N T")]
    answer: Annotated[Tensor, Bool("N T")]
    """True for the tokens of the answer, its end mark included."""
    prompt_length: Annotated[Tensor, Int("N")]


def write(problems: Problems, format: Format) -> Texts:
    """Problems as token ids in a format: begin mark, text, end mark.

    Spec: [addition.vocabulary][], [addition.sequence][], [addition.plain][], [addition.reversed][],
    [addition.double-reversed][], [addition.equals-first][], [addition.answer][].
    """
    sums = add(problems)
    a = (problems.a, problems.a_length, format == "double-reversed")
    b = (problems.b, problems.b_length, format == "double-reversed")
    c = (sums.digits, sums.length, format in ("reversed", "double-reversed"))
    if format == "equals-first":
        return _lay_out([c, a, b], [EQUALS, PLUS])
    return _lay_out([a, b, c], [PLUS, EQUALS])


def _lay_out(numbers: list[tuple[Tensor, Tensor, bool]], operators: list[int]) -> Texts:
    """Write number, operator, number, operator, number; each number is (digits, length, reversed)."""
    size = len(numbers[0][1])
    longest = torch.stack([length for _, length, _ in numbers]).sum(0).max()
    width = int(longest) + len(operators) + 2
    tokens = torch.full((size, width), PAD)
    column = torch.arange(width).expand(size, width)
    row = torch.arange(size)
    tokens[:, 0] = BOS
    start = torch.ones(size, dtype=torch.int64)
    for (digits, length, is_reversed), after in zip(numbers, [*operators, EOS], strict=True):
        inside = (column >= start[:, None]) & (column < (start + length)[:, None])
        place = column - start[:, None] if is_reversed else (start + length)[:, None] - 1 - column
        tokens = torch.where(inside, digits.gather(1, place.clamp(0, digits.shape[1] - 1)), tokens)
        answer_start, start = start, start + length + 1
        tokens[row, start - 1] = after
    answer = (column >= answer_start[:, None]) & (column < start[:, None])
    return Texts(tokens=tokens, answer=answer, prompt_length=answer_start)


def collate(problems: Problems, format: Format, mode: Mode) -> Batch:
    """Problems with their right answers: as text to go on with, or as slots to fill.

    Left to right, each answer token is predicted from the token before it, and the text holds the answer (teacher
    forcing). In parallel, the text holds empty slots in its place, two more than the longer operand has digits, and
    each slot predicts its own answer token; the end mark fills those beyond.

    Spec: [addition.answer][], [addition.slots][], [addition.distance][].
    """
    texts = write(problems, format)
    if mode == "left-to-right":
        tokens = texts.tokens[:, :-1]
        return Batch(tokens, texts.tokens[:, 1:], texts.answer[:, 1:], tokens != PAD)
    start = texts.prompt_length[:, None]
    end = start + torch.maximum(problems.a_length, problems.b_length)[:, None] + 2
    width = int(end.max())
    known = torch.nn.functional.pad(texts.tokens, (0, max(0, width - texts.tokens.shape[1])), value=PAD)[:, :width]
    column = torch.arange(width)
    asked = (column >= start) & (column < end)
    tokens = torch.where(column < start, known, torch.where(asked, SLOT, PAD))
    slot = (column - start).clamp(0, problems.a.shape[1] + 1)
    distance = torch.where(asked, carry_distances(problems).gather(1, slot), 0)
    return Batch(tokens, torch.where(asked & (known == PAD), EOS, known), asked, tokens != PAD, distance)


def carry_distances(problems: Problems) -> Annotated[Tensor, Int("N P")]:
    """For each slot, M + 2 of them, how many places down the carry into it may come from.

    Spec: [addition.distance][].
    """
    distance = [torch.zeros_like(problems.a_length)]
    for place in range(problems.a.shape[1]):
        passes_on = problems.a[:, place] + problems.b[:, place] == 9
        distance.append(1 + distance[-1] * passes_on)
    return torch.stack([*distance, torch.ones_like(distance[0])], 1)


def read_answer(tokens: Sequence[int], format: Format) -> str:
    """The answer in decimal, most-significant digit first, from its tokens up to the end mark.

    Tokens that are no digits are shown as they are, so that a wrong answer can be seen.
    """
    kept = list(tokens[: tokens.index(EOS)]) if EOS in tokens else list(tokens)
    symbols = [SYMBOLS[token] for token in kept]
    return "".join(reversed(symbols) if format in ("reversed", "double-reversed") else symbols)


def swap(problems: Problems) -> Problems:
    """B + a.

    Spec: [addition.swap][].
    """
    return Problems(problems.b, problems.a, problems.b_length, problems.a_length)


def held_out(problems: Problems) -> Annotated[Tensor, Bool("N")]:
    """True for the pairs that are for testing only; the order of the operands does not matter.

    Spec: [addition.held-out][].
    """

    def remainder(digits: Tensor) -> Tensor:
        value = torch.zeros(len(digits), dtype=torch.int64)
        for place in reversed(range(digits.shape[1])):
            value = (value * 10 + digits[:, place]) % _HELD_OUT_MODULUS
        return value

    u, v = remainder(problems.a), remainder(problems.b)
    key = (u * v + 31 * (u + v)) % _HELD_OUT_MODULUS
    return key * _HELD_OUT_MULTIPLIER % _HELD_OUT_MODULUS % HELD_OUT_ONE_IN == 0
