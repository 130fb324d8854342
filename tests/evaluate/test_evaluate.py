"""Counting, intervals, solving, traces; and the shipped adder itself."""

import json
import random
from pathlib import Path

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import models

import looplm
from looplm.errors import InputError
from looplm.evaluate.figures import accuracy_figure, save_figure, trace_figure
from looplm.evaluate.scores import Cell, evaluate_adder, exact_match, wilson_interval
from looplm.loop.halting import ByRole
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.resources import asset, resource
from looplm.runs.checkpoint import load, read_card
from looplm.spec import oracle
from looplm.tasks.addition.problems import EOS, SYMBOLS, problems_of, write
from looplm.tasks.addition.sets import test_set
from looplm.tasks.addition.solve import Solution, solve
from looplm.think.generate import generate
from looplm.think.trace import trace_sum
from looplm.train.recipe import load_recipe

halting = oracle("halting")

numbers = st.integers(0, 10**6)
test_set.__test__ = False  # type: ignore[attr-defined]


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


@pytest.mark.spec("addition.exact-match")
@given(models(positions="place"), st.integers(1, 4), st.integers(0, 99))
def test_exact_match_agrees_with_greedy_decoding(model: LoopLM, digits: int, seed: int) -> None:
    problems = problems_of([(str(random.Random(seed + i).randrange(10**digits)), str(i)) for i in range(4)])
    texts = write(problems, "double-reversed")
    with torch.no_grad():  # make some of the answers right, by making the answer's tokens likely everywhere
        model.embedding.weight[EOS] *= 4
    model.preset = load_recipe("first-light")
    made_of_all = exact_match(model, problems, TwoEqualArgmaxes(3))
    for row in range(4):
        start = int(texts.prompt_length[row])
        target = texts.tokens[row, start:][texts.answer[row, start:]].tolist()
        made = generate(
            model, texts.tokens[row : row + 1, :start], halting=TwoEqualArgmaxes(3), max_new_tokens=len(target), stop_token=EOS
        )
        assert bool(made_of_all.solved[row]) == (made.tokens[0] == target)
        assert 1 <= made_of_all.mean_loops[row] <= made_of_all.most_loops[row] <= 3


@pytest.mark.spec("addition.exact-match", "addition.slots")
@given(models(positions="place", vocab_size=16), st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
def test_exact_match_in_parallel_agrees_with_solving(model: LoopLM, pairs: list[tuple[int, int]]) -> None:
    model.preset = load_recipe("parallel")
    rule = TwoEqualArgmaxes(4)
    sums = [f"{a}+{b}" for a, b in pairs]
    attempts = exact_match(model, problems_of([(str(a), str(b)) for a, b in pairs]), rule)
    for row, solution in enumerate(solve(model, sums, rule)):
        assert len(solution.loops_taken) == max(map(len, sums[row].split("+"))) + 2
        assert attempts.most_loops[row] == max(solution.loops_taken)
        assert attempts.block_evaluations[row] == pytest.approx(solution.block_evaluations)
        assert solution.correct or not attempts.solved[row]


def test_cells_count_what_is_solved() -> None:
    model = load("adder")
    cells = evaluate_adder(model, (4, 6), lambda digits: digits * 5, Fixed(6), seed=9)
    assert [(c.set, c.digits, c.n) for c in cells] == [
        ("uniform", 4, 20),
        ("uniform", 6, 30),
        ("carry-heavy", 4, 20),
        ("carry-heavy", 6, 30),
    ]
    assert all(cell.mean_loops == 6 for cell in cells)
    assert all(cell.block_evaluations > 6 * cell.digits * 3 for cell in cells), "all tokens run six loops"
    assert Cell("uniform", 4, 200, 199, 2.5, 40.0, 0.1).as_json() | {"low": 0, "high": 0} == {
        "set": "uniform",
        "digits": 4,
        "n": 200,
        "correct": 199,
        "mean_loops": 2.5,
        "block_evaluations": 40.0,
        "elapsed_s": 0.1,
        "accuracy": 0.995,
        "low": 0,
        "high": 0,
    }


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
    assert [(c["digits"], c["n"]) for c in result["cells"]] == [(12, 10_000), (12, 10_000)]
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
        solve(build_model(load_recipe("first-light").model), ["1+2"])


def test_a_trace_follows_its_schema_and_its_model() -> None:
    adder = load("adder")
    trace = trace_sum(adder, "978+457").as_json()
    jsonschema.validate(trace, json.loads((resource("spec") / "trace.schema.json").read_text()))
    assert trace["answer"] == "1435"
    assert trace["correct"]
    assert [t["text"] for t in trace["tokens"]] == ["<bos>", *"879+754=5341"]
    assert [t["role"] for t in trace["tokens"]] == ["prompt"] * 8 + ["answer"] * 5
    solution = solve(adder, ["978+457"])[0]
    answering = [t for t in trace["tokens"] if t["role"] == "answer"]
    assert [t["loops_taken"] for t in answering] == solution.loops_taken
    assert [t["guesses"][-1] for t in answering] == [*"5341", "<eos>"]
    assert adder.preset is not None
    rule = adder.preset.halting
    for token in trace["tokens"]:
        for kind in ("guesses", "confidences", "entropies", "changes"):
            assert len(token[kind]) == token["loops_taken"]
        assert (token["halt_reason"] == "max-loops") == (token["loops_taken"] == rule.max_loops)


@pytest.mark.spec("halting.trace")
@given(models(positions="place"), st.integers(0, 999), st.integers(0, 999))
def test_a_trace_says_what_the_spec_says_of_every_loop(model: LoopLM, a: int, b: int) -> None:
    model.preset = load_recipe("first-light")
    states: list[torch.Tensor] = []
    rule = ByRole(Confidence(5, 2, threshold=0.6), Fixed(5))
    trace = trace_sum(model, f"{a}+{b}", rule, hook=lambda l, h: states.append(h[0]))
    for t, token in enumerate(trace.tokens):
        before = torch.zeros_like(states[0][t])
        for l in range(token.loops_taken):
            h = states[l][t]
            logits = model.read(h[None, None])[0, 0].detach()
            assert token.entropies[l] == pytest.approx(halting.entropy(logits), abs=2e-6)
            assert token.changes[l] == pytest.approx(halting.change(h, before), abs=2e-6)
            assert token.guesses[l] == SYMBOLS[int(logits.argmax())]
            assert token.confidences[l] == pytest.approx(float(logits.softmax(0).max()), abs=2e-6)
            before = h
        expected = "max-loops" if token.loops_taken == 5 else "confidence"
        assert token.halt_reason == expected


def test_a_sum_too_long_to_show_is_refused() -> None:
    with pytest.raises(InputError, match="at most 24 digits in all: got 26"):
        trace_sum(load("adder"), "9" * 13 + "+" + "9" * 13)


def test_figures_are_the_same_bytes_for_the_same_data(tmp_path: Path) -> None:
    cells = [Cell("uniform", digits, 200, 190, 2.0, 40.0, 0.1).as_json() for digits in (4, 12, 100)]
    trace = trace_sum(load("adder"), "12+34").as_json()
    for name in ("one", "two"):
        figure = accuracy_figure({"ours": cells, "other": cells[:2]}, (1, 4), {"target": {8: 0.7}, "origin": {}})
        save_figure(figure, tmp_path / f"{name}-accuracy.svg")
        save_figure(trace_figure(trace), tmp_path / f"{name}-trace")
    for kind in ("accuracy.svg", "accuracy.png", "trace.svg", "trace.png"):
        assert (tmp_path / f"one-{kind}").read_bytes() == (tmp_path / f"two-{kind}").read_bytes()
