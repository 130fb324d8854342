"""Counting and intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looplm.evaluate.scores import Cell, evaluate, wilson_interval
from looplm.loop.halting.fixed import Fixed
from looplm.runs.checkpoint import load


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_its_equation(counts: tuple[int, int]) -> None:
    successes, trials = counts
    share, z = successes / trials, 1.959964
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):  # the ends are where the observed share is just z standard errors away
        if 0 < end < 1:
            assert (share - end) ** 2 == pytest.approx(z * z * end * (1 - end) / trials, abs=1e-9)


def test_wilson_interval_at_known_points() -> None:
    assert wilson_interval(66, 66) == pytest.approx((0.945, 1.0), abs=5e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-4)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson_interval(3, 2)


def test_cells_count_what_is_solved() -> None:
    adder = load("adder")
    cells = list(evaluate(adder.model, adder.recipe.task, (4, 6), lambda size: size * 5, Fixed(6), seed=9))
    assert [(c.set, c.size, c.n) for c in cells] == [
        ("uniform", 4, 20),
        ("uniform", 6, 30),
        ("carry-heavy", 4, 20),
        ("carry-heavy", 6, 30),
        ("nines", 4, 20),
        ("nines", 6, 30),
    ]
    assert all(cell.mean_loops == 6 for cell in cells)
    assert all(cell.block_evaluations > 6 * cell.size * 3 for cell in cells), "all tokens run six loops"
    assert Cell("uniform", 4, 200, 199, 2.5, 40.0, 0.1).as_json() | {"low": 0, "high": 0} == {
        "set": "uniform",
        "size": 4,
        "n": 200,
        "correct": 199,
        "mean_loops": 2.5,
        "block_evaluations": 40.0,
        "elapsed_s": 0.1,
        "ran_out": 0,
        "accuracy": 0.995,
        "low": 0,
        "high": 0,
    }
