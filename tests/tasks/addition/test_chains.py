"""Whether loops follow the carry, as it is measured."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from strategies import models

from looplm.errors import InputError
from looplm.evaluate.scores import exact_match
from looplm.lab.measures import Measures
from looplm.models.looped import LoopLM
from looplm.runs.checkpoint import Trained
from looplm.settings import parse
from looplm.tasks.addition.chains import Chains, by_chain, rank_correlation
from looplm.tasks.addition.problems import collate
from looplm.tasks.addition.sets import chain_set
from looplm.train.recipe import Recipe, load_recipe


@cache
def recipe() -> Recipe:
    halting = {"rule": "two-equal-argmaxes", "max_loops": 5}
    return load_recipe("parallel", {"halting": halting, "evaluation": {"sizes": [2]}})


@settings(max_examples=8)
@given(models(positions="place", vocab_size=16, body="looped"))
def test_chains_are_measured_one_by_one(model: LoopLM) -> None:
    made = Chains(size=3, chains=(0, 2), n=4, seed=1)(Trained(model, recipe()), Path("no run"))
    sets = [collate(chain_set(chain, 3, 4, 1), "double-reversed", "parallel") for chain in (0, 2)]
    attempts = [exact_match(model, problems, recipe().halting) for problems in sets]
    assert made.curves["chain"] == [0, 2]
    assert made.curves["loops_by_chain"] == pytest.approx([float(a.most_loops.double().mean()) for a in attempts], abs=1e-3)
    assert made.curves["right_by_chain"] == pytest.approx([float(a.solved.double().mean()) for a in attempts])
    most = torch.cat([a.most_loops for a in attempts]).double()
    assert made.values["spearman"] == pytest.approx(
        rank_correlation(torch.tensor([0.0, 2]).repeat_interleave(4), most), abs=1e-4
    )


def test_the_slope_is_that_of_the_line_that_fits_best(monkeypatch: pytest.MonkeyPatch) -> None:
    class Attempts:
        def __init__(self, loops: list[int]) -> None:
            self.most_loops, self.solved = torch.tensor(loops), torch.ones(2, dtype=torch.bool)

    loops = iter([[3, 5], [6, 6], [7, 9]])
    monkeypatch.setattr("looplm.tasks.addition.chains.exact_match", lambda *_: Attempts(next(loops)))
    found = by_chain(Trained(torch.nn.Identity(), recipe()), [0, 1, 2], 3, 2, seed=1)  # type: ignore[arg-type]
    assert found["loops_per_chain_digit"] == 2
    assert found["points"][0] == {"chain": 0, "n": 2, "correct": 2, "mean": 4, "least": 3, "most": 5}
    assert found["spearman"] > 0.9 > abs(found["spearman_shuffled"])


def test_rank_correlation_at_known_points() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(x, x**3) == pytest.approx(1)
    assert rank_correlation(x, -x) == pytest.approx(-1)
    assert rank_correlation(x, torch.tensor([1.0, 1.0, 2.0, 2.0])) == pytest.approx(0.8944, abs=1e-4)
    assert rank_correlation(x, torch.ones(4)) == 0, "nothing to correlate"


def test_a_study_finds_the_measure_by_its_path_and_refuses_chains_that_no_sum_has() -> None:
    table = {"measure": "looplm.tasks.addition.chains:Chains", "size": 3, "chains": [0, 3], "n": 2, "seed": 1}
    assert parse(Measures, {"chains": table}, where="test") == {"chains": Chains(size=3, chains=(0, 3), n=2, seed=1)}
    with pytest.raises(InputError, match="`chains`: sums of 3 digits have no chain of 4 places"):
        parse(Measures, {"chains": table | {"chains": [4]}}, where="test")
