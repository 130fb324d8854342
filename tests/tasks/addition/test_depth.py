"""What is measured of a parallel adder."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import models

from looplm.cli import main
from looplm.loop.halting import ByRole
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.state_change import StateChange
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.loop.work import Offer, block_evaluations
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.runs.checkpoint import Trained, save
from looplm.spec import oracle
from looplm.tasks.addition import Addition
from looplm.tasks.addition.depth import chain_table, offers, offers_table, saved_table, work_saved
from looplm.tasks.addition.sets import TestKind
from looplm.train.recipe import load_recipe

parallel = Addition(mode="parallel")
halting = oracle("halting")
rows_of_loops = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, 9), min_size=n, max_size=n), min_size=1, max_size=4)
)


@pytest.mark.spec("halting.block-evaluations")
@given(rows_of_loops, st.floats(0.01, 1))
def test_work_is_counted_as_the_spec_says(rows: list[list[int]], share: float) -> None:
    counted = block_evaluations(torch.tensor(rows), share)
    for row, work in zip(rows, counted.tolist(), strict=True):
        assert work == pytest.approx(halting.block_evaluations(row, share))


@given(rows_of_loops, st.floats(0.01, 1))
def test_what_others_offer_costs_what_is_read(rows: list[list[int]], share: float) -> None:
    for offer in get_args(Offer):
        expected = []
        for row in rows:
            work = 0.0
            for t, s in enumerate(row):
                unread = [0] * len(row)
                loops_read = range(s + 1, max(row[t + 1 :] or unread[:1]) + 1)
                work += s + len(loops_read) * {"carry": 0.0, "recompute": share, "no-freeze": 1.0, "publish": 0.0}[offer]
                work += share if offer == "publish" and loops_read else 0.0
            expected.append(work)
        assert block_evaluations(torch.tensor(rows), share, offer).tolist() == pytest.approx(expected)


@given(models(positions="place", vocab_size=16, body="looped"))
def test_the_smallest_sufficient_count_is_found_and_costs_what_it_runs(model: LoopLM) -> None:
    rule = ByRole(TwoEqualArgmaxes(5), StateChange(5, epsilon=1e9))
    found = work_saved(model, rule, parallel.suite("uniform", 2, 8, seed=1))
    # an untrained model is never right, so one loop is as accurate as any number
    assert found["adaptive"]["correct"] == 0
    assert found["full_prompt"]["loops"] == found["cheap_prompt"]["loops"] == 1
    assert found["full_prompt"]["block_evaluations"] == found["cheap_prompt"]["block_evaluations"] == 1 + 2 + 1 + 2 + 1 + 4
    assert len(found["full_prompt"]["correct_after_each_loop"]) == 5


@given(models(positions="place", vocab_size=16, body="looped"))
def test_with_fixed_loops_all_offers_are_one(model: LoopLM) -> None:
    rows = offers(model, ByRole.of(Fixed(3)), parallel.suite("uniform", 2, 4, seed=1))
    assert [row["offer"] for row in rows] == list(get_args(Offer))
    assert {row["block_evaluations"] for row in rows} == {33.0}


@pytest.mark.slow
def test_a_checkpoint_is_measured_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"rule": "state-change", "max_loops": 6, "epsilon": 0.1}
    recipe = load_recipe("parallel", {"evaluation": {"sizes": [2]}, "halting": {**rule, "prompt": rule}})
    save(Trained(build_model(recipe.model), recipe, {"seed": 7}), tmp_path / "run" / "checkpoint")
    run, out, figure = (str(tmp_path / name) for name in ("run", "out.json", "figure.svg"))
    settings = ["--n", "20", "--digits", "3", "--chains", "2"]
    assert main(["depth", run, "--out", out, "--figure", figure, *settings]) == 0
    made: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    (result,) = made["results"]
    assert result["seed"] == 7
    assert [point["chain"] for point in result["chain"]["points"]] == [0, 1, 2]
    assert {(row["set"], row["offer"]) for row in result["offers"]} == {
        (kind, offer) for kind in get_args(TestKind) for offer in get_args(Offer)
    }
    assert (tmp_path / "figure.svg").is_file()
    for table in (saved_table, chain_table, offers_table):
        header, rows = table(made["results"])
        assert rows
        assert all(len(row) == len(header) for row in rows)
    assert main(["depth", run, "--out", out, *settings]) == 2, "nothing is overwritten"
    assert main(["depth", "--out", str(tmp_path / "run" / "checkpoint" / "model.json"), "--figure", figure]) == 2
    assert "holds no measurements" in capsys.readouterr().err
    assert main(["depth", "--out", out]) == 2
    assert "nothing to do" in capsys.readouterr().err
