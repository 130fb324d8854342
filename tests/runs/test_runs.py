"""What a run leaves behind, and what it does not."""

import csv
import json
import tomllib
from pathlib import Path

import pytest
import torch

from looplm.errors import InputError
from looplm.files import new_folder, write_file
from looplm.runs.checkpoint import load
from looplm.runs.results import (
    by_preset,
    comparison_table,
    control_results,
    figure_lines,
    make_summary,
    pooled_cells,
    read_summary,
    work_note,
)
from looplm.runs.run import run_preset
from looplm.settings import as_table, parse
from looplm.train.recipe import Recipe, load_recipe
from looplm.train.trainer import Step

CPU = torch.device("cpu")


def quick(**training: object) -> Recipe:
    table = as_table(load_recipe("first-light"))
    table["training"] |= {"steps": 3, "batch_size": 4, "warmup_steps": 1} | training
    table["evaluation"] = {"digits": [4, 8], "problems_per_cell": 10}
    return parse(Recipe, table, where="test")


@pytest.mark.spec("training.log")
def test_a_run_explains_itself(tmp_path: Path) -> None:
    preset, folder = quick(), tmp_path / "runs" / "one"
    steps: list[Step] = []
    result = run_preset(preset, 5, folder, CPU, on_step=steps.append)
    names = {"config.toml", "log.jsonl", "metrics.csv", "summary.json", "trace.json", "report.md", "checkpoint"}
    assert {path.name for path in folder.iterdir()} == names | {
        f"{figure}.{kind}" for figure in ("accuracy", "trace") for kind in ("svg", "png")
    }
    header, *lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"schema", "preset", "seed", "device", "commit", "clauses"} <= set(header)
    assert (header["schema"], header["preset"], header["seed"]) == (1, "first-light", 5)
    assert {citation.split("@")[0] for citation in header["clauses"]} == set(preset.clauses())
    assert [line["step"] for line in lines] == [step.step for step in steps] == [1, 2, 3]
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [line["loss"] for line in lines]
    assert parse(Recipe, tomllib.loads((folder / "config.toml").read_text()), where="test") == preset
    assert read_summary(folder) == make_summary([result])
    assert result["training"]["steps"] == 3
    assert [(c["set"], c["digits"], c["n"]) for c in result["cells"]] == [
        (kind, digits, 10) for kind in ("uniform", "carry-heavy") for digits in (4, 8)
    ]
    assert load(folder).preset == preset
    report = (folder / "report.md").read_text()
    assert "50,412 parameters" in report
    assert header["clauses"][0] in report


@pytest.mark.spec("training.nothing-half-written")
def test_a_run_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="already exists; nothing is overwritten"):
        run_preset(quick(), 0, tmp_path / "run", CPU)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "mine.txt"]


@pytest.mark.spec("training.nothing-half-written")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, RuntimeError])
def test_a_run_that_ends_early_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.step == 2:
            assert list(tmp_path.iterdir()), "it has begun to write"
            raise error

    with pytest.raises(error):
        run_preset(quick(), 0, tmp_path / "run", CPU, on_step=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spec("training.nothing-half-written")
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        run_preset(quick(), 0, tmp_path / "run", CPU)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def make() -> None:
        with new_folder(tmp_path / "x") as draft:
            (draft / "new.txt").write_text("new")
            (tmp_path / "x").mkdir()

    with pytest.raises(InputError, match="already exists"):
        make()
    assert [path.name for path in tmp_path.rglob("*")] == ["x"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a", b"old")

    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(InputError, match="Nothing was written"):
        write_file(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def fake(preset: str, seed: int, correct: int) -> dict[str, object]:
    cells = [
        {
            "set": kind,
            "digits": 8,
            "n": 100,
            "correct": correct,
            "accuracy": correct / 100,
            "low": 0,
            "high": 1,
            "mean_loops": 2.0,
        }
        for kind in ("uniform", "carry-heavy")
    ]
    return {"preset": preset, "title": preset, "seed": seed, "parameters": 10, "trained_digits": [1, 4], "cells": cells}


def test_seeds_are_pooled_and_the_worst_is_shown() -> None:
    results = [fake("first-light", seed, correct) for seed, correct in enumerate((100, 90))]
    (cell,) = pooled_cells(results, "uniform")
    assert (cell["n"], cell["correct"], cell["accuracy"], cell["worst"], cell["seeds"]) == (200, 190, 0.95, 0.9, 2)
    header, (row,) = comparison_table(results, [fake("first-light-rope", 0, 3)])
    assert header == ["digits", "target", "origin", "rope control", "2 seeds, uniform", "2 seeds, carry-heavy", "loops"]
    assert row == ["8", "70.0", "2.1", "3.0", "95.0 (worst 90.0)", "95.0 (worst 90.0)", "2.00"]


def test_a_table_says_whose_work_was_not_counted() -> None:
    counted, not_counted = fake("first-light", 0, 100), fake("first-light-rope", 0, 3)
    counted["cells"] = [cell | {"block_evaluations": 7.0} for cell in counted["cells"]]  # type: ignore[attr-defined]
    header, (row,) = comparison_table([counted], [not_counted])
    assert (header[-1], row[-1]) == ("work", "7 / 7")
    assert work_note([counted]) == ""
    assert "not counted when these were measured: first-light-rope." in work_note([counted, not_counted])


def test_one_result_is_shown_with_its_interval_and_100_means_all() -> None:
    _, (row,) = comparison_table([fake("first-light", 0, 100)], [])
    assert row[3].startswith("100 [")
    nearly = fake("first-light", 0, 100)
    nearly["cells"][0] |= {"n": 10_000, "correct": 9_999}  # type: ignore[index]
    _, (row,) = comparison_table([nearly], [])
    assert row[3].startswith("99.9 [")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema": 2}', b"\xff\xfe"])
def test_what_is_no_summary_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(InputError, match=r"summary"):
        read_summary(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_summary(tmp_path / "other")


def test_committed_results_reach_the_numbers_of_the_plan() -> None:
    results = read_summary(Path(__file__).parents[2] / "docs/data/first-light.json")["results"]
    groups = by_preset(results)
    assert [result["seed"] for result in groups["first-light"]] == [0, 1, 2, 3, 4]
    for result in groups["first-light"]:
        for cell in result["cells"]:
            assert cell["n"] >= (500 if cell["digits"] == 100 else 2000)
            if cell["digits"] in (8, 12):
                assert cell["accuracy"] >= (0.99 if cell["set"] == "uniform" else 0.98)
    hundred = [cell["accuracy"] for cell in pooled_cells(groups["first-light"], "uniform") if cell["digits"] == 100]
    assert hundred[0] >= 0.95
    assert {c["preset"] for c in control_results("first-light")} == {
        "first-light-rope",
        "first-light-static",
        "first-light-one-layer",
    }
    assert len(figure_lines(groups["first-light"], control_results("first-light"))) == 5
