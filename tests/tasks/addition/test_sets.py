"""What is drawn: lengths, shares, disjointness, and that a seed fixes it."""

import hashlib
from collections import Counter
from itertools import product, takewhile
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.spec import oracle
from looplm.tasks.addition import Addition
from looplm.tasks.addition.problems import Problems, add, held_out, problems_of
from looplm.tasks.addition.sets import CARRY_HEAVY_RATE, TestKind, _keep, chain_set, draw_training, nines_set, test_set

test_set.__test__ = False  # type: ignore[attr-defined]
spec = oracle("addition")


def draw(task: Addition, seed: int = 0, count: int = 4000) -> Problems:
    return draw_training(range(count), task, Draw(seed, "problems"))


def drawn_numbers(task: Addition, seed: int = 0, count: int = 4000) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in draw(task, seed, count).numbers()]


@pytest.mark.spec("addition.training-draw", "addition.held-out")
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 9))
def test_training_operands_have_the_asked_lengths_and_are_never_held_out(fewest: int, more: int, seed: int) -> None:
    drawn = drawn_numbers(Addition(min_digits=fewest, max_digits=fewest + more), seed, 300)
    assert len(drawn) == 300
    for a, b in drawn:
        assert fewest <= len(str(a)) <= fewest + more
        assert fewest <= len(str(b)) <= fewest + more
        assert not spec.held_out(a, b)


@pytest.mark.spec("addition.training-draw")
def test_training_shares_are_as_configured() -> None:
    lengths = [(len(str(a)), len(str(b))) for a, b in drawn_numbers(Addition(equal_length_share=0.4, carry_heavy_share=0))]
    equal = sum(a == b for a, b in lengths) / len(lengths)
    assert equal == pytest.approx(0.4 + 0.6 / 4, abs=0.04)  # 4,000 draws: 0.04 is five standard deviations
    for length in range(1, 5):
        assert sum(a == length for a, _ in lengths) / len(lengths) == pytest.approx(0.25, abs=0.04)
    light = sum(spec.longest_chain(a, b) for a, b in drawn_numbers(Addition(carry_heavy_share=0))) / 4000
    heavy = sum(spec.longest_chain(a, b) for a, b in drawn_numbers(Addition(carry_heavy_share=1))) / 4000
    assert heavy > 1.3 * light


@pytest.mark.spec("addition.training-draw")
def test_carry_heavy_training_problems_are_as_the_spec_notes() -> None:
    for share, nines, carries_at_the_lowest in ((0, 0.1, 0.45), (1, 0.5 + 0.5 * 0.1, 0.5 + 0.5 * 0.5 * 0.45)):
        problems = draw(Addition(min_digits=6, max_digits=6, carry_heavy_share=share))
        pair = problems.a + problems.b  # 4,000 draws: 0.03 is more than three standard deviations
        assert pair[:, 1:5].eq(9).float().mean().item() == pytest.approx(nines, abs=0.03)
        assert pair[:, 0].ge(10).float().mean().item() == pytest.approx(carries_at_the_lowest, abs=0.03)


@pytest.mark.spec("addition.training-draw")
def test_batches_of_different_widths_are_joined_without_loss() -> None:
    batches = [problems_of([(number, "3")]) for number in ("12", "4567", "8")]
    kept = _keep(3, lambda n: batches.pop(0), lambda drawn: torch.ones(len(drawn), dtype=torch.bool))
    assert kept.numbers() == [("12", "3"), ("4567", "3"), ("8", "3")]


@pytest.mark.spec("addition.training-draw")
@pytest.mark.parametrize("seed", range(5))
def test_long_training_problems_keep_all_their_digits(seed: int) -> None:
    problems = draw(Addition(min_digits=1, max_digits=200), seed, count=64)
    for (a, b), a_length, b_length in zip(problems.numbers(), problems.a_length, problems.b_length, strict=True):
        assert (len(str(int(a))), len(str(int(b)))) == (a_length, b_length)


def test_training_holds_more_than_200_000_distinct_problems() -> None:
    problems = draw(Addition(), count=400_000)
    place = 10 ** torch.arange(4)
    assert len(((problems.a * place).sum(1) * 10_000 + (problems.b * place).sum(1)).unique()) > 200_000


@pytest.mark.spec("addition.uniform-set", "addition.carry-heavy-set", "addition.nines-set", "addition.held-out")
@given(st.sampled_from(["uniform", "carry-heavy", "nines"]), st.integers(1, 40), st.integers(0, 9))
def test_test_sets_have_exact_lengths_and_are_held_out(kind: TestKind, digits: int, seed: int) -> None:
    problems = test_set(kind, digits, 20, seed)
    assert problems.numbers() == test_set(kind, digits, 20, seed).numbers()
    for a, b in problems.numbers():
        assert len(a) == len(b) == digits
        assert spec.held_out(int(a), int(b))
        if kind == "carry-heavy":
            assert int(a[-1]) + int(b[-1]) >= 10


@pytest.mark.spec("addition.uniform-set", "addition.carry-heavy-set")
def test_test_sets_are_drawn_as_the_spec_says() -> None:
    uniform, heavy = test_set("uniform", 12, 4000, 0), test_set("carry-heavy", 12, 4000, 0)
    inner = slice(1, 11)  # lowest and highest place have rules of their own
    nine = {name: (p.a + p.b)[:, inner].eq(9).float().mean().item() for name, p in (("u", uniform), ("h", heavy))}
    assert nine["u"] == pytest.approx(0.1, abs=0.01)
    assert nine["h"] == pytest.approx(CARRY_HEAVY_RATE + (1 - CARRY_HEAVY_RATE) * 0.1, abs=0.01)
    for digit in range(10):
        assert uniform.a[:, inner].eq(digit).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert test_set("uniform", 12, 50, 1).numbers() != test_set("uniform", 12, 50, 2).numbers()


@pytest.mark.spec("addition.chain-set")
@given(st.integers(1, 30).flatmap(lambda d: st.tuples(st.just(d), st.integers(0, d))), st.integers(0, 9))
def test_chain_sets_have_exactly_the_asked_chain(size: tuple[int, int], seed: int) -> None:
    digits, chain = size
    for a, b in chain_set(chain, digits, 8, seed).numbers():
        assert len(str(int(a))) == len(str(int(b))) == digits
        assert spec.longest_chain(int(a), int(b)) == chain
        assert spec.held_out(int(a), int(b))


def runs_of_nines(a: str, b: str) -> set[tuple[int, bool]]:
    """(length, whether a carry comes in) of every run above a place that settles it, and of its beginnings."""
    pairs = [int(x) + int(y) for x, y in zip(reversed(a), reversed(b), strict=True)]
    found = set()
    for place, pair in enumerate(pairs):
        if pair != 9:
            run = list(takewhile(lambda above: above == 9, pairs[place + 1 :]))
            found |= {(length, pair >= 10) for length in range(len(run) + 1)}
    return found


@pytest.mark.spec("addition.nines-set", "addition.distance")
@given(st.integers(1, 30).flatmap(lambda d: st.tuples(st.just(d), st.integers(0, d - 1))), st.booleans(), st.integers(0, 9))
def test_nines_sets_hold_the_asked_run(size: tuple[int, int], carried: bool, seed: int) -> None:
    digits, length = size
    for a, b in nines_set(digits, 8, seed, length=length, carried=carried).numbers():
        assert len(a) == len(b) == digits
        assert (length, carried) in runs_of_nines(a, b)
        assert spec.held_out(int(a), int(b))


@pytest.mark.spec("addition.nines-set")
def test_runs_of_nines_are_of_every_length_with_a_carry_and_without() -> None:
    digits, n = 12, 2400
    longest = Counter(max(runs_of_nines(a, b)) for a, b in test_set("nines", digits, n, 0).numbers())
    for run in product(range(2, digits), (False, True)):  # shorter ones also come about by chance
        assert longest[run] == pytest.approx(n / digits / 2, abs=50)  # five standard deviations
    assert test_set("nines", digits, 50, 1).numbers() != test_set("nines", digits, 50, 2).numbers()


def test_an_impossible_run_of_nines_is_refused() -> None:
    with pytest.raises(InputError, match="runs of 0 to 2 places above another: got 3"):
        nines_set(3, 1, 0, length=3)


@pytest.mark.spec("addition.uniform-set", "addition.carry-heavy-set", "addition.nines-set", "addition.chain-set")
def test_the_test_sets_are_those_that_results_were_measured_on() -> None:
    # A new digest means new test sets: measure every published accuracy anew.
    sets = [test_set(kind, digits, 50, digits) for kind in get_args(TestKind) for digits in (2, 12)]
    sets += [
        chain_set(chain, digits, 50, digits) for chain, digits in ((0, 1), (0, 2), (1, 2), (0, 5), (1, 5), (5, 5), (3, 12))
    ]
    drawn = "\n".join(f"{a}+{b}" for problems in sets for a, b in problems.numbers())
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "27782d7cf2a1a3d3"


def test_an_impossible_chain_is_refused() -> None:
    with pytest.raises(InputError, match="chains of 0 to 3 places: got 4"):
        chain_set(4, 3, 1, 0)


@pytest.mark.spec("addition.held-out")
def test_about_one_pair_in_16_is_held_out_at_every_length() -> None:
    for digits in (2, 3, 4, 12):
        generator = torch.Generator().manual_seed(digits)
        a, b = torch.randint(0, 10, (2, 20_000, digits), generator=generator)
        length = torch.full((20_000,), digits)
        assert held_out(Problems(a, b, length, length)).float().mean().item() == pytest.approx(1 / 16, abs=0.015)
        assert add(Problems(a, b, length, length)).digits.shape == (20_000, digits + 1)
