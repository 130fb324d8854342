"""Addition against ordinary Python integers and the spec's own functions."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from looplm.errors import InputError
from looplm.spec import oracle
from looplm.tasks.addition.problems import (
    BOS,
    EOS,
    EQUALS,
    PAD,
    PLUS,
    SLOT,
    SYMBOLS,
    Format,
    Problems,
    add,
    collate,
    decimal,
    held_out,
    parse_problem,
    problems_of,
    read_answer,
    swap,
    write,
)

spec = oracle("addition")
ORACLES = {
    "plain": spec.plain,
    "reversed": spec.reversed_sum,
    "double-reversed": spec.double_reversed,
    "equals-first": spec.equals_first,
}
numbers = st.one_of(st.integers(0, 99), st.integers(0, 10**12), st.integers(0, 10**60))
pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)


@pytest.mark.spec("addition.distance")
@given(pairs)
@example([(999, 1), (995, 8)])
@example([(0, 9), (123456, 876543)])
def test_distances_match_the_spec(drawn: list[tuple[int, int]]) -> None:
    questions = collate(problems_of([(str(a), str(b)) for a, b in drawn]), "double-reversed", "parallel")
    assert questions.distance is not None
    for row, (a, b) in enumerate(drawn):
        assert questions.distance[row][questions.scored[row]].tolist() == spec.distances(a, b)
    assert not questions.distance[~questions.scored].any()


def as_problems(drawn: list[tuple[int, int]]) -> Problems:
    return problems_of([(str(a), str(b)) for a, b in drawn])


def symbols(tokens: torch.Tensor) -> str:
    return "".join(SYMBOLS[token] for token in tokens.tolist())


@pytest.mark.spec(
    "addition.plain", "addition.reversed", "addition.double-reversed", "addition.equals-first", "addition.sequence"
)
@given(pairs, st.sampled_from(list(ORACLES)))
def test_texts_match_the_spec(drawn: list[tuple[int, int]], format: Format) -> None:
    texts = write(as_problems(drawn), format)
    for (a, b), row in zip(drawn, texts.tokens, strict=True):
        end = row.tolist().index(EOS)
        assert symbols(row[: end + 1]) == f"<bos>{ORACLES[format](a, b)}<eos>"
        assert (row[end + 1 :] == PAD).all()
    assert (texts.tokens[:, -1] != PAD).any(), "no wider than the longest text"


@pytest.mark.spec("addition.answer")
@given(pairs, st.sampled_from(list(ORACLES)))
def test_answer_is_what_follows_the_last_operator(drawn: list[tuple[int, int]], format: Format) -> None:
    texts = write(as_problems(drawn), format)
    for (a, b), row, answer, start in zip(drawn, texts.tokens, texts.answer, texts.prompt_length, strict=True):
        assert symbols(row[answer]) == spec.answer(ORACLES[format](a, b)) + "<eos>"
        assert int(answer.long().argmax()) == start
        asked = a + b if format != "equals-first" else b
        assert read_answer(row[int(start) :].tolist(), format) == str(asked)


@pytest.mark.spec("addition.answer")
@given(pairs, st.sampled_from(list(ORACLES)))
def test_left_to_right_each_answer_token_is_asked_of_the_token_before_it(drawn: list[tuple[int, int]], format: Format) -> None:
    texts, asked = write(as_problems(drawn), format), collate(as_problems(drawn), format, "left-to-right")
    for row in range(len(drawn)):
        assert asked.targets[row][asked.scored[row]].tolist() == texts.tokens[row][texts.answer[row]].tolist()
        first = int(asked.scored[row].long().argmax())
        assert asked.tokens[row, : first + 1].tolist() == texts.tokens[row, : first + 1].tolist()


@pytest.mark.spec("addition.slots")
@given(pairs, st.sampled_from(["reversed", "double-reversed"]))
def test_slots_match_the_spec(drawn: list[tuple[int, int]], format: Format) -> None:
    asked = collate(as_problems(drawn), format, "parallel")
    for (a, b), tokens, targets, slots in zip(drawn, asked.tokens, asked.targets, asked.scored, strict=True):
        prompt = ORACLES[format](a, b).split("=")[0] + "="
        expected = spec.slots(a, b)
        assert symbols(tokens) == f"<bos>{prompt}" + "<slot>" * len(expected) + "<pad>" * (
            len(tokens) - len(prompt) - 1 - len(expected)
        )
        assert [SYMBOLS[t] for t in targets[slots].tolist()] == expected
        assert (tokens[slots] == SLOT).all()
        assert int(slots.sum()) == len(expected)


@pytest.mark.spec("addition.vocabulary")
def test_vocabulary_is_the_spec_list() -> None:
    assert list(SYMBOLS) == spec.SYMBOLS
    named = {PLUS: "+", EQUALS: "=", BOS: "<bos>", EOS: "<eos>", PAD: "<pad>", SLOT: "<slot>"}
    assert {id: spec.SYMBOLS[id] for id in named} == named
    problem = problems_of([("90", "5")])
    assert symbols(write(problem, "plain").tokens[0]) == "<bos>90+5=95<eos>"


@pytest.mark.spec("addition.carries", "addition.longest-chain")
@given(pairs)
@example([(999, 1), (555, 555), (12, 30), (0, 0), (5, 5), (9999, 1)])
def test_sums_carries_and_chains_match_the_spec(drawn: list[tuple[int, int]]) -> None:
    sums = add(as_problems(drawn))
    for row, (a, b) in enumerate(drawn):
        assert decimal(sums.digits[row], sums.length[row]) == str(a + b)
        chains = spec.chains(a, b)
        assert sums.chains[row].tolist()[: len(chains)] == chains
        assert not sums.chains[row, len(chains) :].any()
        assert sums.carries[row] == spec.carries(a, b)
        assert sums.longest_chain[row] == spec.longest_chain(a, b)


@pytest.mark.spec("addition.held-out")
@given(pairs)
def test_held_out_matches_the_spec(drawn: list[tuple[int, int]]) -> None:
    assert held_out(as_problems(drawn)).tolist() == [spec.held_out(a, b) for a, b in drawn]


@pytest.mark.spec("addition.swap")
@given(pairs)
def test_swapping_changes_neither_sum_nor_difficulty(drawn: list[tuple[int, int]]) -> None:
    problems, swapped = as_problems(drawn), swap(as_problems(drawn))
    assert swapped.numbers() == [(b, a) for a, b in problems.numbers()]
    one, other = add(problems), add(swapped)
    assert torch.equal(one.digits, other.digits)
    assert torch.equal(one.chains, other.chains)
    assert torch.equal(held_out(problems), held_out(swapped))


@given(st.integers(0, 10**30), st.integers(0, 10**30), st.integers(0, 3))
def test_a_problem_is_parsed_as_it_is_printed(a: int, b: int, zeros: int) -> None:
    assert parse_problem(f" {'0' * zeros}{a} + {'0' * zeros}{b}\n") == (str(a), str(b))


@pytest.mark.parametrize("text", ["", "12-5", "1+2+3", "1+", "+1", "a+b", "1.5+2", "-1+2", "1 2+3", "٣+1", "1+2=3", "++"])
def test_what_is_no_sum_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a sum"):
        parse_problem(text)


def test_too_long_an_operand_is_refused() -> None:
    parse_problem("9" * 1000 + "+1")
    with pytest.raises(InputError, match="5,000 digits: at most 1,000"):
        parse_problem("1+" + "9" * 5000)
