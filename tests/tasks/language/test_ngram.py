"""Counting: probabilities are those of the spec and of a hand, and sum to one."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from looplm.errors import InputError
from looplm.spec import oracle
from looplm.tasks.language.ngram import NGrams, bits_per_character, discounts

spec = oracle("korean")
BEGIN, SIZE = 4, 5
texts = st.lists(st.integers(0, 3), min_size=1, max_size=40)
# counts of counts that give discounts of their own, not the fallback
LONG = [0, 1, 0, 2, 0, 1, 3, 0, 0, 1, 2, 2, 0, 1, 0, 3, 1, 1, 2, 0, 3, 3, 1, 0, 2, 2, 2, 1, 3, 0, 0, 0, 1, 2, 0, 1, 0, 2]


def model(text: list[int], order: int) -> NGrams:
    return NGrams.count(np.array(text), order, SIZE, BEGIN)


@pytest.mark.spec("korean.ngram-counts", "korean.ngram-discounts")
@given(texts, st.integers(1, 4))
@example(LONG, 3)
def test_counts_are_those_of_the_spec(text: list[int], order: int) -> None:
    made = model(text, order)
    for n, found in enumerate(made.orders, 1):
        wanted = spec.counts(text, n, order, BEGIN)
        assert sorted(found.counts.tolist()) == sorted(wanted.values())
        assert found.discounts.tolist() == pytest.approx(spec.discounts(wanted))


@pytest.mark.spec("korean.kneser-ney")
@given(texts, st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 4))
@example(LONG, [0, 1, 2, 0], 3)
def test_probabilities_are_those_of_the_spec(text: list[int], row: list[int], order: int) -> None:
    *_, found = model(text, order).probabilities(torch.tensor([row]))
    padded = [BEGIN] * order + row
    for i, probability in enumerate(found[0].tolist()):
        wanted = spec.probability(row[i], padded[: order + i], text, order, SIZE, BEGIN)
        assert probability == pytest.approx(wanted, rel=1e-9)


@pytest.mark.spec("korean.kneser-ney")
@given(texts, st.lists(st.integers(0, 4), max_size=4), st.integers(1, 5))
@example(LONG, [0, 1], 3)
@example(LONG, [3, 3, 3, 3], 5)
def test_probabilities_sum_to_one_after_any_history(text: list[int], history: list[int], order: int) -> None:
    rows = torch.tensor([[*history, word] for word in range(SIZE)])
    for found in model(text, order).probabilities(rows):
        assert found[:, -1].sum() == pytest.approx(1, abs=1e-12)
        assert (found > 0).all() or order == 1 or (found >= 0).all()


@pytest.mark.spec("korean.kneser-ney", "korean.ngram-counts")
def test_an_example_by_hand() -> None:
    # "0 1 0 1 0 2", order 2. Counts of pairs: 01 twice, 10 twice, B0 and 02 once. No count is 3: discounts 0.5, 1, 1.5.
    # Before 0 stand B and 1, before 1 stands 0, before 2 stands 0: counts 2, 1, 1 of 4, again with the fallback.
    made = model([0, 1, 0, 1, 0, 2], 2)
    left_one = (1 + 0.5 + 0.5) / 4
    one = [(2 - 1) / 4 + left_one / 5, (1 - 0.5) / 4 + left_one / 5, (1 - 0.5) / 4 + left_one / 5, left_one / 5, left_one / 5]
    # after 0: 1 twice, 2 once, of 3
    left_two = (1 + 0.5) / 3
    two = [left_two * one[0], (2 - 1) / 3 + left_two * one[1], (1 - 0.5) / 3 + left_two * one[2], left_two * one[3]]
    first, second = made.probabilities(torch.tensor([[0, word] for word in range(4)]))
    assert first[:, 1].tolist() == pytest.approx(one[:4])
    assert second[:, 1].tolist() == pytest.approx(two)


@pytest.mark.spec("korean.ngram-discounts")
def test_discounts_by_hand() -> None:
    # n1..n4 = 4, 2, 2, 1: y = 4 / 8; 1 - 2 y 2/4, 2 - 3 y 2/2, 3 - 4 y 1/2
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 3, 4, 9])
    assert discounts(counts).tolist() == pytest.approx([0, 0.5, 0.5, 2.0])
    assert discounts(np.array([1, 2, 4])).tolist() == [0, 0.5, 1, 1.5], "no count is 3"
    assert discounts(np.array([1, 2, 3, 3, 3, 3, 3, 3, 4])).tolist() == [0, 0.5, 1, 1.5], "the second were negative"


def test_longer_histories_help_on_a_text_that_has_them() -> None:
    text = [0, 1, 2, 0, 1, 3] * 30
    bits = [bits_per_character(found, 60) for found in model(text, 4).probabilities(torch.tensor([text[:60]]))]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > 1.5
    assert bits[-1] < 0.2


@pytest.mark.parametrize(("text", "order", "words"), [([], 2, "no text"), ([1], 0, "from 1 to 8"), ([1], 9, "from 1 to 8")])
def test_what_cannot_be_counted_is_refused(text: list[int], order: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        model(text, order)
