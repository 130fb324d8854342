"""What a study measures, against the plain definition."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import models

import looplm
from looplm.evaluate.scores import exact_match
from looplm.lab.measures import MEASURES, Measure, Measured, read_measures, write_measure
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.runs.checkpoint import Trained
from looplm.task import Batch
from looplm.train.recipe import Recipe, load_recipe
from looplm.train.trainer import Step

NOWHERE = Path("no run")
ROUNDED = 1e-6
"""Values and curves are kept with six decimals."""
adders = models(positions="place", vocab_size=16, body="looped")


@cache
def recipe() -> Recipe:
    halting = {"rule": "two-equal-argmaxes", "max_loops": 5}
    return load_recipe("parallel", {"training": {"max_loops": 2}, "halting": halting, "evaluation": {"sizes": [2]}})


@cache
def untrained() -> Trained:
    return Trained(build_model(recipe().model), recipe())


def sets(size: int, n: int, seed: int) -> list[Batch]:
    return [recipe().task.suite(name, size, n, seed) for name in recipe().task.suites]


def measure(name: str, **settings: Any) -> Measure:
    return read_measures({name: settings})[name]


def measured(model: LoopLM, name: str, **settings: Any) -> Measured:
    return measure(name, **settings)(Trained(model, recipe()), NOWHERE)


def test_every_file_of_the_folder_is_a_measure() -> None:
    assert MEASURES.names() == ["accuracy", "calibration", "convergence", "dynamics", "loops", "rules"]
    for kind in MEASURES:
        assert callable(kind.__call__)


def test_a_table_gives_the_measure_and_the_measure_the_table() -> None:
    rule = {"rule": "fixed", "max_loops": 3, "min_loops": 1}
    table = {"measure": "rules", "rules": {"fixed 3": rule}, "sizes": [2], "n": 4, "seed": 1}
    made = measure("rules.low", **{key: value for key, value in table.items() if key != "measure"})
    assert write_measure(made) == table
    assert measure("anything", **write_measure(made)) == made


def test_every_mistake_in_a_table_is_named_with_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        read_measures({"colour": {}, "loops": {"sise": 4}, "rules": {"rules": {"one": {"rule": "fixt"}}, "n": 0, "sizes": [2]}})
    places = {".".join(map(str, item["loc"])) for item in caught.value.errors()}
    assert places == {
        "colour.measure", "loops.sise", "loops.size", "loops.n", "loops.seed", "loops.times", "loops.most",
        "rules.rules.one.rule", "rules.n", "rules.seed",
    }  # fmt: skip


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.floats(0.1, 1.5), st.integers(1, 5))
def test_convergence_is_the_first_window_below_the_loss(losses: list[float], bound: float, window: int) -> None:
    steps = [asdict(Step(step, loss, 0.1, grad_norm=1, loops=2, tokens=9, elapsed_s=1)) for step, loss in enumerate(losses, 1)]
    with TemporaryDirectory() as run:
        (Path(run) / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [{"schema": 2}, *steps]))
        found = measure("convergence", loss=bound, window=window)(untrained(), Path(run)).values
    width = min(window, len(losses))
    ends = [e for e in range(width, len(losses) + 1) if torch.tensor(losses[e - width : e]).mean() < bound]
    assert found["steps_to_loss"] == (ends[0] if ends else len(losses))
    assert found["reached"] == bool(ends)


@given(adders)
def test_accuracy_and_work_are_those_of_the_models_own_halting(model: LoopLM) -> None:
    made = measured(model, "accuracy", sizes=[2], n=6, seed=1).values
    attempts = exact_match(model, sets(2, 6, 1)[1], recipe().halting)
    assert made["accuracy.carry-heavy.2"] == pytest.approx(float(attempts.solved.double().mean()), abs=ROUNDED)
    assert made["work.carry-heavy.2"] == pytest.approx(float(attempts.block_evaluations.mean()), abs=0.05)
    assert len(made) == 2 * 3, "values, sets"


@given(adders)
def test_a_curve_over_loops_is_what_fixed_halting_gives(model: LoopLM) -> None:
    made = measured(model, "loops", size=2, n=6, seed=1, times=[1, 2, 3], most=5)
    curve = made.curves["accuracy_by_loops"]
    assert len(curve) == 5
    for l in (1, 2, 5):
        solved = torch.cat([exact_match(model, problems, Fixed(l)).solved for problems in sets(2, 6, 1)])
        assert curve[l - 1] == pytest.approx(float(solved.double().mean()), abs=ROUNDED)
    assert made.values["at.2x"] == curve[3]
    assert made.values["lost.2x"] == pytest.approx(max(curve) - curve[3], abs=ROUNDED)
    assert "at.3x" not in made.values, "six loops were not run"
    assert made.notes == {"trained_loops": 2, "n": 18}


@given(adders)
def test_dynamics_are_those_of_the_states(model: LoopLM) -> None:
    made = measured(model, "dynamics", size=2, n=3, seed=1, most=4)
    states = [h.detach() for h in model.states(sets(2, 3, 1)[0].tokens, 4)]
    for l, h in enumerate(states):
        before = states[l - 1] if l else torch.zeros_like(h)
        assert made.curves["norm"][l] == pytest.approx(float(h.norm(dim=-1).mean()), abs=ROUNDED)
        assert made.curves["change"][l] == pytest.approx(
            float(((h - before).norm(dim=-1) / h.norm(dim=-1)).mean()), abs=ROUNDED
        )
        cosine = (h * before).sum(-1) / (h.norm(dim=-1) * before.norm(dim=-1).clamp(min=1e-12))
        assert made.curves["cosine"][l] == pytest.approx(float(cosine.mean()), abs=ROUNDED)


def test_only_the_adder_that_was_trained_with_restarts_finds_its_way_from_a_stale_state() -> None:
    dynamics = measure("dynamics", size=4, n=20, seed=1, most=8)
    assert dynamics(looplm.load("parallel-adder"), NOWHERE).values["stale"] == 1
    assert dynamics(looplm.load("adder"), NOWHERE).values["stale"] == 0


@given(models(positions="place", vocab_size=16, body="looped", gate=False))
def test_rules_are_asked_one_by_one_and_a_gate_only_of_a_model_that_has_one(model: LoopLM) -> None:
    rules = {"two": {"rule": "fixed", "max_loops": 2}, "gate 0.5": {"rule": "gate", "threshold": 0.5}}
    made = measured(model, "rules", rules=rules, sizes=[2], n=6, seed=1)
    rows = made.notes["rows"]
    assert [(row["rule"], row["set"], row["size"], row["n"]) for row in rows] == [
        ("two", "uniform", 2, 6),
        ("two", "carry-heavy", 2, 6),
        ("two", "nines", 2, 6),
    ]
    for row, problems in zip(rows, sets(2, 6, 1), strict=True):
        attempts = exact_match(model, problems, Fixed(2))
        assert row["correct"] == int(attempts.solved.sum())
        assert row["work"] == made.values[f"rule_work.two.{row['set']}.2"] == 2 * problems.tokens.shape[1]


@given(adders)
def test_calibration_bins_every_prediction_once(model: LoopLM) -> None:
    made = measured(model, "calibration", sizes=[2], loops=3, n=4, seed=1)
    for name in ("confidence", "gate"):
        rows = made.notes[f"{name}.2"]
        assert sum(row["n"] for row in rows) == 3 * 3 * 4 * 4, "loops x sets x sums x slots"
        error = sum(row["n"] * abs(row["predicted"] - row["right"]) for row in rows) / sum(row["n"] for row in rows)
        assert made.values[f"calibration_error.{name}.2"] == pytest.approx(error, abs=1e-3)
