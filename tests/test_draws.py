"""What is drawn follows from its key, and from nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.draws import Draw, seeded

draws = st.builds(Draw, st.integers(0, 2**40), st.sampled_from(["problems", "noise", "a/b"]), st.integers(0, 10**6))


@pytest.mark.spec("training.keyed-randomness")
@given(draws, st.integers(1, 9), st.integers(0, 40), st.integers(0, 40))
def test_a_row_is_the_same_whatever_rows_are_drawn_with_it(draw: Draw, count: int, start: int, more: int) -> None:
    rows = range(start, start + more)
    whole = draw.uniform(range(start + more + 3), count)
    assert torch.equal(draw.uniform(rows, count), whole[start : start + more])
    assert bool(((whole >= 0) & (whole < 1)).all())
    noise = draw.normal(range(4), (3, 16), whole)
    assert torch.equal(draw.normal([2, 0], (3, 16), whole), noise[[2, 0]])


@pytest.mark.spec("training.keyed-randomness")
@given(draws)
def test_another_seed_use_or_step_draws_other_numbers(draw: Draw) -> None:
    others = [Draw(draw.seed + 1, draw.stream, draw.step), draw.of("else"), Draw(draw.seed, draw.stream, draw.step + 1)]
    first = draw.uniform(range(2), 3)
    assert torch.equal(first, Draw(draw.seed, draw.stream, draw.step).uniform(range(2), 3))
    for other in others:
        assert not torch.equal(first, other.uniform(range(2), 3))
        assert not torch.equal(draw.order(50), other.order(50))
    assert not torch.equal(first[0], first[1]), "rows differ"


def test_numbers_are_spread_as_they_should_be() -> None:
    drawn = Draw(0, "problems").uniform(range(4000), 5)  # 20,000 numbers: bounds are more than four standard deviations
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().item() == pytest.approx(1 / 12, abs=0.003)
    assert abs(torch.corrcoef(drawn.T)[0, 1].item()) < 0.07
    integers = [Draw(0, "loops", step).integer(2, 4) for step in range(900)]
    assert {n: pytest.approx(integers.count(n) / 900, abs=0.08) for n in (2, 3, 4)} == dict.fromkeys((2, 3, 4), 1 / 3)
    noise = Draw(0, "noise").normal(range(100), (200,), drawn)
    assert [noise.mean().item(), noise.std().item()] == pytest.approx([0, 1], abs=0.03)


@given(draws)
def test_seeded_leaves_the_global_generator_as_it_was(draw: Draw) -> None:
    before = torch.get_rng_state()
    with seeded(draw):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(draw):
        assert torch.equal(torch.rand(3), first)
