"""Prefix sums: what is asked, what is held out, and that a short training learns it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.spec import oracle
from looplm.tasks.prefix_sums import BOS, PAD, PrefixSums, collate, held_out

spec = oracle("tasks")
strings = st.lists(st.integers(0, 1), min_size=1, max_size=40)


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    return torch.tensor([row + [1] * (longest - len(row)) for row in rows]), torch.tensor(list(map(len, rows)))


@pytest.mark.spec("tasks.prefix-sums", "tasks.prefix-places", "tasks.distance")
@given(st.lists(strings, min_size=1, max_size=4))
def test_every_bit_is_answered_by_the_parity_up_to_it(rows: list[list[int]]) -> None:
    batch = collate(*padded(rows))
    for row, bits in enumerate(rows):
        size = len(bits)
        assert batch.tokens[row].tolist() == [BOS, *bits] + [PAD] * (batch.tokens.shape[1] - 1 - size)
        assert batch.scored[row].nonzero()[:, 0].tolist() == list(range(1, size + 1))
        assert batch.targets[row, 1 : size + 1].tolist() == spec.prefix_sums(bits)
        assert batch.distance is not None
        assert batch.distance[row, 1 : size + 1].tolist() == [i - 1 for i in range(1, size + 1)]
    assert set(PrefixSums().vocabulary.places) == {0, 1, BOS}


@pytest.mark.spec("tasks.prefix-held-out")
@given(st.lists(strings, min_size=1, max_size=6))
def test_held_out_strings_are_those_of_the_spec(rows: list[list[int]]) -> None:
    assert held_out(*padded(rows)).tolist() == [spec.held_out(bits) for bits in rows]


@pytest.mark.spec("tasks.prefix-held-out", "tasks.prefix-draw", "tasks.held-out")
def test_training_and_test_never_meet() -> None:
    task = PrefixSums(min_bits=8, max_bits=11)
    lengths: set[int] = set()
    for step in range(5):
        drawn = task.batch(range(96), Draw(0, "problems", step))
        size = drawn.scored.sum(1)
        lengths |= set(size.tolist())
        assert not held_out(drawn.tokens[:, 1:].clamp(max=1), size).any()
    assert lengths == {8, 9, 10, 11}
    tested = task.suite("uniform", 10, 50, seed=3)
    assert tested.tokens.shape == (50, 11)
    assert held_out(tested.tokens[:, 1:], torch.full((50,), 10)).all()
    assert task.suite("uniform", 3, 20, seed=3).tokens.shape == (20, 4), "of few bits, any string"


def test_a_question_is_a_string_of_bits() -> None:
    task = PrefixSums()
    prompt = task.prompt(" 1011\n")
    assert (prompt.tokens, prompt.slots) == ([BOS, 1, 0, 1, 1], 4)
    assert task.right("1011") == task.answer(spec.prefix_sums([1, 0, 1, 1])) == "1101"
    for wrong in ("", "102", "1 0", "one"):
        with pytest.raises(InputError, match="is no string of bits"):
            task.prompt(wrong)
    with pytest.raises(InputError, match="there is no test set 'even'"):
        task.suite("even", 4, 1, 0)
    with pytest.raises(InputError, match="strings have 1 to"):
        task.suite("uniform", 0, 1, 0)
