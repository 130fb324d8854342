"""Solving sums, and the shipped adder itself."""

import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import models

import looplm
from looplm.errors import InputError
from looplm.evaluate.scores import exact_match
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.resources import asset
from looplm.runs.checkpoint import Trained, load, read_card
from looplm.tasks.addition.problems import EOS, collate, problems_of, write
from looplm.tasks.addition.solve import Solution, solve
from looplm.think.generate import generate
from looplm.train.recipe import load_recipe

numbers = st.integers(0, 10**6)
PARALLEL, BITS = load_recipe("parallel"), load_recipe("prefix-sums", {"evaluation": {"sizes": [4]}})


@pytest.mark.spec("tasks.exact-match")
@given(models(positions="place"), st.integers(1, 4), st.integers(0, 99))
def test_exact_match_agrees_with_greedy_decoding(model: LoopLM, digits: int, seed: int) -> None:
    problems = problems_of([(str(random.Random(seed + i).randrange(10**digits)), str(i)) for i in range(4)])
    texts = write(problems, "double-reversed")
    with torch.no_grad():  # make some of the answers right, by making the answer's tokens likely everywhere
        model.embedding.weight[EOS] *= 4
    made_of_all = exact_match(model, collate(problems, "double-reversed", "left-to-right"), TwoEqualArgmaxes(3))
    for row in range(4):
        start = int(texts.prompt_length[row])
        target = texts.tokens[row, start:][texts.answer[row, start:]].tolist()
        made = generate(
            model, texts.tokens[row : row + 1, :start], halting=TwoEqualArgmaxes(3), max_new_tokens=len(target), stop_token=EOS
        )
        assert bool(made_of_all.solved[row]) == (made.tokens[0] == target)
        assert 1 <= made_of_all.mean_loops[row] <= made_of_all.most_loops[row] <= 3


@pytest.mark.spec("tasks.exact-match", "addition.slots")
@given(models(positions="place", vocab_size=16), st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
def test_exact_match_in_parallel_agrees_with_solving(model: LoopLM, pairs: list[tuple[int, int]]) -> None:
    rule = TwoEqualArgmaxes(4)
    sums = [f"{a}+{b}" for a, b in pairs]
    problems = problems_of([(str(a), str(b)) for a, b in pairs])
    attempts = exact_match(model, collate(problems, "double-reversed", "parallel"), rule)
    for row, solution in enumerate(solve(Trained(model, PARALLEL), sums, rule)):
        assert len(solution.loops_taken) == max(map(len, sums[row].split("+"))) + 2
        assert attempts.most_loops[row] == max(solution.loops_taken)
        assert attempts.block_evaluations[row] == pytest.approx(solution.block_evaluations)
        assert solution.correct or not attempts.solved[row]


def test_the_shipped_adder_adds_fresh_sums_of_every_length() -> None:
    adder, generator = looplm.load("adder"), random.Random(2026)
    sums = []
    for digits in (1, 2, 3, 4, 5, 8, 12, 20, 40, 64):
        a, b = (generator.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
        sums += [(a, b), (a, 10**digits - a)]
    solutions = looplm.solve(adder, [f"{a}+{b}" for a, b in sums])
    wrong = [s.problem for s, (a, b) in zip(solutions, sums, strict=True) if s.answer != str(a + b)]
    assert not wrong
    assert all(s.correct for s in solutions)
    assert all(len(s.loops_taken) == len(s.answer) + 1 for s in solutions)


def test_the_shipped_adder_says_where_it_comes_from() -> None:
    size = sum(path.stat().st_size for path in asset("adder").iterdir())
    assert size < 1_000_000
    source = read_card("adder")["provenance"]
    assert {"preset", "seed", "commit", "clauses", "torch", "device", "training"} <= set(source)
    (result,) = json.loads((asset("adder") / "summary.json").read_text())["results"]
    assert [(c["set"], c["size"], c["n"]) for c in result["cells"]] == [
        (name, 12, 10_000) for name in ("uniform", "carry-heavy", "nines")
    ]
    assert all(c["accuracy"] >= 0.999 for c in result["cells"])


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**30)), min_size=1, max_size=6))
def test_answers_come_in_the_order_of_the_problems(pairs: list[tuple[int, int]]) -> None:
    solutions = solve(load("adder"), [f"{a}+{b}" for a, b in pairs])
    assert [s.problem for s in solutions] == [f"{a}+{b}" for a, b in pairs]
    alone = [solve(load("adder"), [f"{a}+{b}"])[0] for a, b in pairs]
    assert [(s.answer, s.loops_taken) for s in alone] == [(s.answer, s.loops_taken) for s in solutions]


@given(st.integers(0, 10**40), st.integers(0, 10**40), st.integers(-1, 1))
def test_correct_means_the_exact_sum(a: int, b: int, error: int) -> None:
    assert Solution(f"{a}+{b}", str(max(0, a + b + error)), [], [], 0.0).correct == (max(0, a + b + error) == a + b)


def test_only_an_adder_solves() -> None:
    with pytest.raises(InputError, match="not trained to complete"):
        solve(Trained(build_model(BITS.model), BITS), ["101"])
