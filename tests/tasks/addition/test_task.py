"""Addition as a task: its vocabulary, its places, its questions in every format."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.errors import InputError
from looplm.tasks.addition import Addition
from looplm.tasks.addition.problems import EOS, SLOT, SYMBOLS

numbers = st.integers(0, 10**30)
FORMATS = ("plain", "reversed", "double-reversed")


@pytest.mark.spec("addition.places")
def test_digits_have_places_and_in_parallel_slots_too() -> None:
    assert Addition().vocabulary.places == tuple(range(10))
    assert Addition(mode="parallel").vocabulary.places == (*range(10), SLOT)
    assert Addition().vocabulary.symbols == SYMBOLS[:SLOT]
    assert Addition(mode="parallel").vocabulary.symbols == SYMBOLS


@given(numbers, numbers, st.sampled_from(FORMATS))
def test_a_right_answer_reads_as_the_right_answer(a: int, b: int, format: str) -> None:
    task = Addition(format=format)  # type: ignore[arg-type]
    batch, prompt = task.suite("uniform", 3, 4, seed=0), task.prompt(f"{a}+{b}")
    assert task.right(f"{a}+{b}") == str(a + b)
    assert prompt.max_new_tokens >= len(str(a + b)) + 1
    ids = batch.targets[0][batch.scored[0]].tolist()
    assert ids[-1] == EOS
    question = "".join(SYMBOLS[token] for token in batch.tokens[0].tolist())
    first, second = question.removeprefix("<bos>").split("=")[0].split("+")
    if format == "double-reversed":
        first, second = first[::-1], second[::-1]
    assert task.answer(ids) == str(int(first) + int(second))


@given(st.integers(0, 10**20), st.integers(0, 10**20))
def test_equals_first_asks_for_the_second_operand(a: int, b: int) -> None:
    task = Addition(format="equals-first")
    text = f"{a + b}={a}+"
    assert task.right(text) == str(b)
    assert task.vocabulary.text(task.prompt(text).tokens) == f"<bos>{text}"


@pytest.mark.parametrize("wrong", ["5", "5=6+", "a=1+", "5=1+1"])
def test_what_equals_first_cannot_ask_is_refused(wrong: str) -> None:
    with pytest.raises(InputError):
        Addition(format="equals-first").prompt(wrong)


def test_in_parallel_a_prompt_ends_with_its_slots() -> None:
    prompt = Addition(mode="parallel").prompt("978+45")
    assert prompt.slots == 5
    assert prompt.tokens[-5:] == [SLOT] * 5
    assert torch.tensor(prompt.tokens[:-5]).tolist() == Addition().prompt("978+45").tokens


def test_a_test_set_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="there is no test set 'hard' of addition"):
        Addition().suite("hard", 3, 1, 0)
    with pytest.raises(InputError, match="operands of 1 to 1,000 digits: got 0"):
        Addition().suite("uniform", 0, 1, 0)
