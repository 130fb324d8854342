"""What a study measures, against the plain definition."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import models

import looplm
from looplm.evaluate.scores import exact_match
from looplm.experiments import measures
from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM
from looplm.tasks.addition.problems import ask
from looplm.tasks.addition.sets import chain_set, test_set
from looplm.train.recipe import load_recipe

test_set.__test__ = False  # type: ignore[attr-defined]
NOWHERE = Path("no run")
ROUNDED = 1e-6
"""Values and curves are kept with six decimals."""
adders = models(positions="place", vocab_size=16, body="looped")


def parallel(model: LoopLM) -> LoopLM:
    model.preset = load_recipe("parallel")
    return model


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.floats(0.1, 1.5), st.integers(1, 5))
def test_convergence_is_the_first_window_below_the_loss(losses: list[float], bound: float, window: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"schema": 1}), *(json.dumps({"loss": loss}) for loss in losses)]
        (Path(folder) / "log.jsonl").write_text("\n".join(lines))
        with torch.device("meta"):
            model = LoopLM(load_recipe("first-light").model)
        found = measures.convergence(model, Path(folder), loss=bound, window=window).values
    width = min(window, len(losses))
    ends = [e for e in range(width, len(losses) + 1) if torch.tensor(losses[e - width : e]).mean() < bound]
    assert found["steps_to_loss"] == (ends[0] if ends else len(losses))
    assert found["reached"] == bool(ends)


@given(adders)
def test_a_curve_over_loops_is_what_fixed_halting_gives(model: LoopLM) -> None:
    parallel(model)
    made = measures.loops(model, NOWHERE, digits=2, n=6, seed=1, times=[1, 2], most=16)
    curve = made.curves["accuracy_by_loops"]
    assert len(curve) == 16
    for l in (1, 8, 16):
        sets = [test_set(kind, 2, 6, 1) for kind in ("uniform", "carry-heavy")]
        solved = torch.cat([exact_match(model, problems, Fixed(l)).solved for problems in sets])
        assert curve[l - 1] == pytest.approx(float(solved.double().mean()), abs=ROUNDED)
    assert made.values["at.2x"] == curve[15]
    assert made.values["lost.2x"] == pytest.approx(max(curve) - curve[15], abs=ROUNDED)


@given(adders)
def test_dynamics_are_those_of_the_states(model: LoopLM) -> None:
    parallel(model)
    made = measures.dynamics(model, NOWHERE, digits=2, n=3, seed=1, most=4)
    asked = ask(test_set("uniform", 2, 3, 1), "double-reversed", "parallel")
    states = [h.detach() for h in model.states(asked.tokens, 4)]
    for l, h in enumerate(states):
        before = states[l - 1] if l else torch.zeros_like(h)
        assert made.curves["norm"][l] == pytest.approx(float(h.norm(dim=-1).mean()), abs=ROUNDED)
        assert made.curves["change"][l] == pytest.approx(
            float(((h - before).norm(dim=-1) / h.norm(dim=-1)).mean()), abs=ROUNDED
        )
        cosine = (h * before).sum(-1) / (h.norm(dim=-1) * before.norm(dim=-1).clamp(min=1e-12))
        assert made.curves["cosine"][l] == pytest.approx(float(cosine.mean()), abs=ROUNDED)


def test_only_the_adder_that_was_trained_with_restarts_finds_its_way_from_a_stale_state() -> None:
    settings = {"digits": 4, "n": 20, "seed": 1, "most": 8}
    assert measures.dynamics(looplm.load("parallel-adder"), NOWHERE, **settings).values["stale"] == 1
    assert measures.dynamics(looplm.load("adder"), NOWHERE, **settings).values["stale"] == 0


@given(adders)
def test_chains_are_measured_one_by_one(model: LoopLM) -> None:
    parallel(model)
    assert model.preset is not None
    made = measures.chains(model, NOWHERE, digits=3, chains=[0, 2], n=4, seed=1)
    rule = model.preset.halting
    most = [exact_match(model, chain_set(chain, 3, 4, 1), rule).most_loops.double().mean() for chain in (0, 2)]
    assert made.curves["chain"] == [0, 2]
    assert made.curves["loops_by_chain"] == pytest.approx([float(m) for m in most], abs=1e-3)
    assert not math.isnan(made.values["spearman"])


@given(adders)
def test_calibration_bins_every_prediction_once(model: LoopLM) -> None:
    parallel(model)
    made = measures.calibration(model, NOWHERE, digits=[2], loops=3, n=4, seed=1)
    for name in ("confidence", "gate"):
        rows = made.notes[f"{name}.2"]
        assert sum(row["n"] for row in rows) == 3 * 2 * 4 * 4, "loops x sets x sums x slots"
        error = sum(row["n"] * abs(row["predicted"] - row["right"]) for row in rows) / 96
        assert made.values[f"calibration_error.{name}.2"] == pytest.approx(error, abs=1e-3)
