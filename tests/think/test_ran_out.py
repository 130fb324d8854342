"""An answer that the bound on loops ended is told apart from one that its rule ended."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.cli import main
from looplm.evaluate.scores import exact_match
from looplm.loop.halting import ByRole, bound_for_slots, loops_that_run_out
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.runs.checkpoint import Trained, load
from looplm.spec import oracle
from looplm.tasks.addition.solve import solve
from looplm.think.trace import trace_text


@pytest.fixture(scope="module")
def parallel() -> Trained:
    return load("parallel-adder")


def bounded(trained: Trained, most: int) -> ByRole:
    answer = replace(trained.recipe.halting.answer, max_loops=most)  # type: ignore[type-var]
    return ByRole(answer, trained.recipe.halting.prompt)


@pytest.mark.spec("halting.ran-out")
def test_an_answer_ran_out_exactly_where_a_token_took_all_the_loops_that_its_rule_has(parallel: Trained) -> None:
    sums = ["1+1", "99999999+1", "12345678+1", "999+1"]
    for most in (2, 5, 8, 12):
        for solution in solve(parallel, sums, bounded(parallel, most)):
            assert solution.ran_out == (max(solution.loops_taken) == most)
    assert [s.ran_out for s in solve(parallel, sums)] == [False] * 4
    assert not any(s.ran_out for s in solve(parallel, sums, Fixed(3))), "it was told how many"


@pytest.mark.spec("halting.ran-out")
def test_an_evaluation_counts_the_problems_that_ran_out(parallel: Trained) -> None:
    problems = parallel.recipe.task.suite("carry-heavy", 8, 20, 1)
    for halting in (bounded(parallel, 5), parallel.recipe.halting, Fixed(5)):
        attempts = exact_match(parallel.model, problems, halting)
        assert attempts.ran_out == int((attempts.most_loops >= loops_that_run_out(halting)).sum())
    assert exact_match(parallel.model, problems, bounded(parallel, 5)).ran_out > 0
    assert torch.isinf(torch.tensor(loops_that_run_out(ByRole(Fixed(2), Confidence(max_loops=3, threshold=0.9)))))


@pytest.mark.spec("halting.ran-out")
def test_solve_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "99999999+1", "--mode", "parallel", "--max-loops", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ran_out"] is True
    assert "1 of 1 answers ran out of loops" in err
    assert "--max-loops 6" in err
    assert main(["solve", "99999999+1", "--mode", "parallel", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ran_out"] is False
    assert err == ""


@pytest.mark.spec("halting.slots")
@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 1100))
def test_bounds_follow_the_slots_but_a_number_of_loops_does_not(most: int, prompt_most: int, slots: int) -> None:
    answer, prompt = Confidence(max_loops=most, threshold=0.9), Confidence(max_loops=prompt_most, threshold=0.5)
    bound_for = oracle("halting").bound_for
    longer = bound_for_slots(ByRole(answer, prompt), slots)
    assert longer.answer == replace(answer, max_loops=bound_for(most, slots))
    assert longer.prompt == replace(prompt, max_loops=bound_for(prompt_most, slots))
    assert bound_for_slots(ByRole(Fixed(most), Fixed(prompt_most)), slots) == ByRole(Fixed(most), Fixed(prompt_most))


@pytest.mark.slow
@pytest.mark.spec("halting.slots")
@pytest.mark.parametrize("digits", [100, 300])
def test_a_carry_through_a_whole_long_sum_is_right(parallel: Trained, digits: int) -> None:
    first = random.Random(digits).randrange(10 ** (digits - 1), 10**digits)
    long, short = solve(parallel, [f"{first}+{10**digits - first}", "1+2"])
    assert long.correct
    assert not long.ran_out
    assert max(long.loops_taken) > digits
    (stopped,) = solve(parallel, [long.problem], parallel.recipe.halting)
    assert stopped.ran_out, "a bound that is given stands"
    assert short == solve(parallel, ["1+2"])[0]


@pytest.mark.spec("halting.ran-out")
def test_every_table_says_how_many_ran_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cut.json"
    command = ["eval", "parallel-adder", "--sizes", "8", "--n", "5", "--out", str(out)]
    assert main([*command, "--max-loops", "2"]) == 0
    said = "parallel: 15 of 15 answers ran out of loops."
    assert said in capsys.readouterr().out
    assert main(["report", str(out), "--markdown"]) == 0
    assert said in capsys.readouterr().out
    assert main(["eval", "parallel-adder", "--sizes", "8", "--n", "5"]) == 0
    assert "ran out" not in capsys.readouterr().out


@pytest.mark.spec("halting.slots")
def test_sums_of_unlike_bounds_keep_their_order_and_a_trace_has_the_same_bound(parallel: Trained) -> None:
    two = parallel.recipe.halting
    small = ByRole(replace(two.answer, max_loops=4), replace(two.prompt, max_loops=4))  # type: ignore[type-var]
    sums = ["99999999+1", "1+1", "12+30", "123456789+1", "7+8", "1000000+2"]
    together = solve(parallel, sums, small, bound_follows_slots=True)
    assert [solution.problem for solution in together] == sums
    for solution in together:
        assert solution == solve(parallel, [solution.problem], small, bound_follows_slots=True)[0]
        traced = trace_text(parallel.model, parallel.recipe.task, solution.problem, small, bound_follows_slots=True)
        assert [token.loops_taken for token in traced.tokens if token.role == "answer"] == solution.loops_taken
    assert max(together[0].loops_taken) > 4
