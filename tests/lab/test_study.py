"""Studies: what is run, that it goes on where it stopped, and that verdicts follow from the numbers."""

import json
import multiprocessing
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.cli import main
from looplm.errors import InputError
from looplm.lab.study import Question, Study, _stop, load_study, make_cell, make_cells, run_study, study_names
from looplm.lab.study_figures import study_figures
from looplm.lab.verdicts import rules_table, study_table, values_table, verdict_lines, verdicts
from looplm.runs.record import read_steps
from looplm.runs.run import Keeping, run_recipe
from looplm.runs.signals import Stopped
from looplm.settings import as_table, parse
from looplm.train.trainer import Step

TITLE = {"en": "a study", "ko": "연구"}


def study(**changes: Any) -> Study:
    table: dict[str, Any] = {
        "name": "tried",
        "title": TITLE,
        "seeds": (0, 1),
        "base": {
            "extends": "prefix-sums",
            "task": {"max_bits": 4},
            "training": {"steps": 2, "batch_size": 4, "max_loops": 2, "restart_share": 0},
            "model": {"width": 8, "heads": 2, "mlp_width": 8},
            "halting": {"rule": "fixed", "max_loops": 3},
        },
        "factors": {"x0": {"every": {}, "first": {"model": {"injection": "first"}}}},
        "measures": {"convergence": {"loss": 0.05}, "loops": {"size": 2, "n": 4, "seed": 1, "times": [1, 2], "most": 5}},
        "columns": [{"value": "at.1x", "label": {"en": "trained", "ko": "훈련"}}],
        "figures": [{"curve": "accuracy_by_loops", "y": "solved", "percent": True}],
    }
    return parse(Study, table | changes, where="test")


def summary(every: list[float], first: list[float], value: str = "at.1x") -> dict[str, Any]:
    cells = [
        {
            "levels": {"x0": level},
            "seed": seed,
            "values": {value: number},
            "curves": {"accuracy_by_loops": [number]},
            "notes": {},
        }
        for level, numbers in (("every", every), ("first", first))
        for seed, number in enumerate(numbers)
    ]
    return {"schema": 1, "study": "tried", "cells": cells}


def compare(margin: float = 0.01, **more: Any) -> dict[str, Any]:
    return {"ask": TITLE, "value": "at.1x", "factor": "x0", "level": "every", "against": "first", "margin": margin} | more


@pytest.mark.parametrize(
    ("every", "first", "outcome"),
    [
        ([1.0, 0.9], [0.5, 0.6], "better"),
        ([0.5, 0.6], [1.0, 0.9], "worse"),
        ([0.5, 0.6], [0.505, 0.6], "same"),
        ([0.5, 0.6], [0.5, 0.9], "undecided"),
        ([1.0, 0.1], [0.5, 0.6], "undecided"),
    ],
)
def test_opposite_numbers_give_opposite_verdicts(every: list[float], first: list[float], outcome: str) -> None:
    asked = study(questions=[compare()])
    (found,) = verdicts(asked, summary(every, first))
    assert found.outcome == outcome
    turned = study(questions=[compare(higher_is_better=False)])
    opposite = {"better": "worse", "worse": "better"}
    assert verdicts(turned, summary(every, first))[0].outcome == opposite.get(outcome, outcome)
    for language in ("en", "ko"):
        ((_, (sentence,)),) = verdict_lines(asked, summary(every, first), language)
        winner = {"better": "**every**", "worse": "**first**"}.get(outcome)
        assert winner is None or winner in sentence
        other = {"better": "**first**", "worse": "**every**"}.get(outcome, "**")
        assert winner is None or other not in sentence


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.floats(0, 1))
def test_a_bound_holds_fails_or_holds_for_some(values: list[float], bound: float) -> None:
    asked = study(questions=[{"ask": TITLE, "value": "at.1x", "at_most": bound}], factors={"x0": {"every": {}}})
    (found,) = verdicts(asked, summary(values, []))
    within = sum(value <= bound for value in values)
    assert found.passed == within
    assert found.outcome == ("holds" if within == len(values) else "some" if within else "fails")


def test_a_verdict_is_given_apart_for_each_level_of_another_factor() -> None:
    factors: dict[str, Any] = {"recipe": {"A": {}, "B": {}}, "x0": {"every": {}, "first": {}}}
    cells = [
        {"levels": {"recipe": recipe, "x0": x0}, "seed": 0, "values": {"at.1x": value}}
        for recipe, x0, value in (("A", "every", 1), ("A", "first", 0), ("B", "every", 0), ("B", "first", 1))
    ]
    found = verdicts(study(factors=factors, questions=[compare()]), {"cells": cells})
    assert [(dict(v.where), v.outcome) for v in found] == [({"recipe": "A"}, "better"), ({"recipe": "B"}, "worse")]
    asked = study(factors=factors, questions=[compare(where={"recipe": "B"})])
    assert [v.outcome for v in verdicts(asked, {"cells": cells})] == ["worse"]


def test_korean_names_stand_in_the_korean_texts_alone() -> None:
    asked = study(questions=[compare()], korean={"every": "매 루프", "first": "첫 루프", "x0": "주입"})
    numbers = summary([1.0, 0.9], [0.5, 0.6])
    ((_, (korean,)),) = verdict_lines(asked, numbers, "ko")
    ((_, (english,)),) = verdict_lines(asked, numbers, "en")
    assert "매 루프" in korean and "every" not in korean
    assert "every" in english and "매 루프" not in english
    header, rows = study_table(asked, numbers, "ko")
    assert (header[0], rows[0][0]) == ("주입", "매 루프")


def test_a_table_shows_the_mean_and_the_range_of_seeds() -> None:
    header, rows = study_table(study(), summary([1.0, 0.5], [0.9996, 0.9996]), "ko")
    assert header == ["x0", "훈련", "시드"]
    assert rows == [["every", "75.0 (50.0–100)", "2"], ["first", "99.9", "2"]]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"ask": TITLE, "value": "x"}, "one of `at_least` and `at_most`"),
        ({"ask": TITLE, "value": "x", "factor": "x0", "level": "every"}, "`factor`, `level` and `against`"),
        ({"ask": TITLE, "value": "x", "at_least": 0.5, "at_most": 0.6}, "one of `at_least` and `at_most`"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(question: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(Question, question, where="test")


def test_a_level_or_measure_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="`x0 = second` is named, but is no level"):
        study(questions=[compare(against="second")])
    with pytest.raises(InputError, match=r"`measures\.colour\.measure`: there is no measure 'colour'; there are: accuracy"):
        study(measures={"colour": {}})
    with pytest.raises(InputError, match=r"`measures\.accuracy\.n`: must be given for the measure 'accuracy'"):
        study(measures={"accuracy": {"sizes": [2], "seed": 1}})
    with pytest.raises(InputError, match=r"There is no study 'y0'; there are: .*x0"):
        load_study("y0")
    with pytest.raises(InputError, match="`base` says which recipe it `extends`"):
        list(study(base={}).cells())


def test_a_study_of_ones_own_is_a_file(tmp_path: Path) -> None:
    table = {name: value for name, value in as_table(study()).items() if name != "name"}
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(table))
    assert load_study(str(tmp_path / "mine.toml")) == study(name="mine")


@pytest.mark.parametrize("name", study_names())
def test_a_fast_look_trains_and_measures_less(name: str) -> None:
    whole, fast = load_study(name), load_study(name, fast=True)
    assert len(fast.seeds) == 1 < len(whole.seeds)
    longest = max(cell.recipe.training.steps for cell in fast.cells())
    assert longest < min(cell.recipe.training.steps for cell in whole.cells()) / 5
    assert fast.measures.keys() == whole.measures.keys()
    for name, measure in fast.measures.items():
        assert getattr(measure, "n", 0) <= getattr(whole.measures[name], "n", 0) / 2


@pytest.mark.parametrize("name", study_names())
@pytest.mark.parametrize("fast", [False, True])
def test_every_study_in_the_spec_can_be_run(name: str, fast: bool) -> None:
    loaded = load_study(name, fast=fast)
    cells = list(loaded.cells())
    assert cells
    assert len({(tuple(cell.levels.items()), cell.seed) for cell in cells}) == len(cells)
    for item in loaded.left_out:
        assert not any(item.levels.items() <= cell.levels.items() for cell in cells)


def test_cells_that_train_alike_share_a_run_whatever_study_asks() -> None:
    one, other = study(), study(name="other", factors={"positions": {"place": {}}})
    assert {cell.key for cell in other.cells()} < {cell.key for cell in one.cells()}
    assert len({cell.key for cell in one.cells()}) == 4
    longer = study(base=one.base | {"training": one.base["training"] | {"steps": 3}})
    assert not {cell.key for cell in longer.cells()} & {cell.key for cell in one.cells()}


@pytest.mark.slow
def test_a_study_trains_measures_goes_on_and_renders(tmp_path: Path) -> None:
    small = study(seeds=(0,))
    said: list[str] = []
    first = run_study(small, tmp_path, jobs=1, on_message=said.append)
    assert [cell["levels"] for cell in first["cells"]] == [{"x0": "every"}, {"x0": "first"}]
    assert said[-1].startswith("2 of 2")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run_study(small, tmp_path, jobs=1)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times, "nothing made again"
    assert len(list(study_figures(small, first))) == 1
    measured = next(path for path in tmp_path.rglob("loops-*.json"))
    measured.unlink()
    assert run_study(small, tmp_path, jobs=1) == first


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_also_in_another_study(tmp_path: Path) -> None:
    rules = {name: {"halting": {"rule": "fixed", "max_loops": loops}} for name, loops in (("one", 1), ("three", 3))}
    settings: dict[str, Any] = {
        "seeds": (0,),
        "factors": {"halting": rules},
        "measures": {"accuracy": {"sizes": [2], "n": 4, "seed": 1}},
    }
    begins, goes_on = study(**settings), study(name="other", **settings)
    first, (one, three) = next(begins.cells()), list(goes_on.cells())

    def stop(step: Step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    keeping = Keeping(checkpoint_every=1, on_step=stop)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(first.recipe, 0, tmp_path / "runs" / first.key, torch.device("cpu"), keeping=keeping)
    assert first.key == one.key == three.key
    work = [make_cell(cell, goes_on.measures, tmp_path)["values"]["work.uniform.2"] for cell in (one, three)]
    assert len(read_steps(tmp_path / "runs" / one.key)) == 2
    assert work == [3, 9], "one run, and each cell halts by its own rule: three tokens, one loop or three"


def test_a_stop_comes_back_whole_from_a_process_of_a_study() -> None:
    back = pickle.loads(pickle.dumps(Stopped(15, "step 1 of 2 is kept")))
    assert (back.signum, str(back)) == (15, "step 1 of 2 is kept")


@pytest.mark.slow
def test_a_gate_is_trained_for_the_model_of_another_run(tmp_path: Path) -> None:
    gated = study(
        seeds=(0,),
        base=study().base | {"model": {"width": 8, "heads": 2, "mlp_width": 8, "gate": True}},
        frontier="uniform",
        korean={"uniform": "고른 열", "bits": "비트", "gate": "게이트"},
        factors={"gate": {name: {"gate": {"objective": name, "steps": 2, "max_loops": 3}} for name in ("right", "ponder")}},
        measures={
            "rules": {
                "rules": {"gate 0.5": {"rule": "gate", "threshold": 0.5, "max_loops": 3}},
                "sizes": [2],
                "n": 3,
                "seed": 1,
            },
            "calibration": {"sizes": [2], "loops": 3, "n": 3, "seed": 1},
        },
        figures=[],
    )
    cells = make_cells(list(gated.cells()), gated.measures, tmp_path)
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(runs) == 3, "the model once, and once with each gate"
    assert {cell["run"] for cell in cells} < set(runs)
    assert cells[0]["training"] == cells[1]["training"]
    header, first_step = (tmp_path / "runs" / cells[1]["run"] / "log.jsonl").read_text().splitlines()[:2]
    cited = {citation.split("@")[0] for citation in json.loads(header)["clauses"]}
    assert {"training.gate", "training.gate-ponder", "halting.gate-probability"} <= cited
    assert json.loads(first_step)["step"] == 1
    assert "calibration_error.gate.2" in cells[0]["values"]
    cells = [{"levels": {"gate": level}, **cell} for level, cell in zip(("right", "ponder"), cells, strict=True)]
    summary = {"cells": cells}
    assert [name for name, _ in study_figures(gated, summary)] == ["frontier-right", "frontier-ponder"]
    (header, (row,)) = rules_table(gated, summary, {"gate": "right"}, [("uniform", 2)])
    assert (header, row[0]) == (["rule", "2 bits, uniform"], "gate 0.5")
    assert rules_table(gated, summary, {}, [("uniform", 2)], "ko")[0] == ["규칙", "2비트, 고른 열"]
    names = ["gate", "confidence, 2비트", "게이트, 2비트", "시드"]
    assert values_table(gated, summary, "calibration_error.", "ko")[0] == names


def test_a_summary_is_rendered_and_a_wrong_one_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"x0": "every", "recipe": "A", "restarts": "without"}
    curves = {"accuracy_by_loops": [0.5, 1.0], "norm": [1.0, 2.0], "cosine": [0.0, 0.9]}
    cell = {"levels": names, "seed": 0, "values": {"stale": 0.0}, "curves": curves, "notes": {}}
    path = tmp_path / "x0.json"
    path.write_text(json.dumps({"schema": 1, "study": "x0", "cells": [cell]}))
    assert main(["study", "x0", "--summary", str(path), "--figures", str(tmp_path)]) == 0
    assert "no, with none of 1 seeds: 0.0 to 0.0." in capsys.readouterr().out
    assert (tmp_path / "study-x0-norm.svg").is_file()
    assert main(["study", "loops", "--summary", str(path)]) == 2
    assert "is of the study 'x0'" in capsys.readouterr().err
    assert main(["study", "x0", "--summary", str(tmp_path / "none.json")]) == 2
    assert main(["study", "x0", "--jobs", "0"]) == 2


def test_the_settings_of_a_study_are_a_table_again() -> None:
    loaded = load_study("x0")
    assert parse(Study, as_table(loaded), where="test") == loaded


def test_workers_that_heard_nothing_of_an_interrupt_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looplm.lab.study._SECONDS_TO_STOP", 0.1)
    deaf = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
    deaf.start()
    _stop([deaf])
    deaf.join(20)
    assert deaf.exitcode == -signal.SIGTERM
