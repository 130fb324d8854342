"""Results side by side, and the summaries that hold them."""

import functools
import json
import operator
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looplm.errors import InputError
from looplm.files import to_json, write_file
from looplm.runs.results import (
    comparison_table,
    control_results,
    figure_lines,
    groups_of,
    legend,
    make_summary,
    pooled_cells,
    read_summary,
    refuse_twice,
    work_note,
)


def fake(preset: str, seed: int, correct: int) -> dict[str, object]:
    cells = [
        {
            "set": kind,
            "size": 8,
            "n": 100,
            "correct": correct,
            "accuracy": correct / 100,
            "low": 0,
            "high": 1,
            "mean_loops": 2.0,
        }
        for kind in ("uniform", "carry-heavy")
    ]
    named = {"preset": preset, "task": "addition", "title": preset, "seed": seed, "parameters": 10}
    return named | {"axis": "digits", "trained_sizes": [1, 4], "cells": cells}


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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda summary: summary.update(results=[]), "it holds no results"),
        (lambda summary: summary.update(results={}), "it holds no results"),
        (lambda summary: summary["results"][0].pop("seed"), r"`0\.seed`: Field required"),
        (lambda summary: summary["results"][0].update(cells=[]), r"`0\.cells`: List should have at least 1 item"),
        (lambda summary: summary["results"][0]["cells"][1].pop("n"), r"`0\.cells\.1\.n`: Field required"),
        (lambda summary: summary["results"][0]["cells"][1].update(accuracy=0.5), r"90 of 100 is not an accuracy of 0\.5"),
        (lambda summary: summary["results"][0]["cells"][1].update(correct=101), "101 of 100 is not"),
    ],
)
def test_a_summary_that_contradicts_itself_is_refused(
    change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path
) -> None:
    summary: dict[str, Any] = make_summary([fake("first-light", 0, 90)])
    write_file(tmp_path / "summary.json", to_json(summary))
    assert read_summary(tmp_path) == summary
    change(summary)
    write_file(tmp_path / "summary.json", to_json(summary))
    with pytest.raises(InputError, match=f"is damaged: {says}"):
        read_summary(tmp_path)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a file's tables and lists a number, a word or nothing stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from leaves(below, (*path, key))


@given(st.data(), st.sampled_from([None, -1, 0, 2.5, float("nan"), "x", [], {}, True]))
@settings(max_examples=200)
def test_a_summary_with_a_strange_value_anywhere_is_refused_or_its_tables_are_made(data: st.DataObject, strange: Any) -> None:
    summary: dict[str, Any] = make_summary([fake("first-light", seed, 90) for seed in (0, 1)])
    *above, last = data.draw(st.sampled_from(list(leaves(summary))))
    functools.reduce(operator.getitem, above, summary)[last] = strange
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "summary.json"
        path.write_text(json.dumps(summary))
        try:
            read = read_summary(path)
        except InputError:
            return
    comparison_table(read["results"], [])
    for group in groups_of(read["results"]).values():
        pooled_cells(group, "uniform")


def test_only_what_differs_in_nothing_but_the_seed_is_pooled() -> None:
    settings = {"rule": "fixed", "max_loops": 4, "prompt": {"rule": "fixed", "max_loops": 2}}
    one = [fake("first-light", seed, 90) | {"evaluation": {"seed": 2, "settings": settings}} for seed in (0, 1)]
    other = fake("first-light", 2, 0) | {"evaluation": {"seed": 2, "settings": settings | {"max_loops": 8}}}
    again = fake("first-light", 1, 0) | {"evaluation": {"seed": 2, "settings": settings}}
    control = fake("first-light-rope", 0, 0)
    groups = groups_of([*one, other, again, control])
    assert groups == {"first-light": one, "first-light (2)": [other], "first-light (3)": [again], "first-light-rope": [control]}
    told = legend([*one, other, again, control])
    assert told["first-light"] == "first-light, 10 parameters, 2 seeds"
    assert told["first-light (2)"] == "first-light, 10 parameters, seed 2, max_loops 8 (not 4)"
    assert told["first-light (3)"] == "first-light, 10 parameters, seed 1"


def test_the_same_numbers_twice_are_no_more_evidence() -> None:
    results = [fake("first-light", 0, 90), fake("first-light", 1, 90)]
    refuse_twice(results)
    with pytest.raises(InputError, match="first-light, seed 0, are given twice"):
        refuse_twice([*results, fake("first-light", 0, 90)])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema": 2}', b"\xff\xfe"])
def test_what_is_no_summary_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(InputError, match=r"summary"):
        read_summary(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_summary(tmp_path / "other")


def test_committed_results_reach_the_numbers_of_the_plan() -> None:
    results = read_summary(Path(__file__).parents[2] / "docs/data/first-light.json")["results"]
    groups = groups_of(results)
    assert [result["seed"] for result in groups["first-light"]] == [0, 1, 2, 3, 4]
    for result in groups["first-light"]:
        for cell in result["cells"]:
            assert cell["n"] >= (500 if cell["size"] == 100 else 2000)
            if cell["size"] in (8, 12):
                assert cell["accuracy"] >= (0.99 if cell["set"] == "uniform" else 0.98)
    hundred = [cell["accuracy"] for cell in pooled_cells(groups["first-light"], "uniform") if cell["size"] == 100]
    assert hundred[0] >= 0.95
    assert {c["preset"] for c in control_results("first-light")} == {
        "first-light-rope",
        "first-light-static",
        "first-light-one-layer",
    }
    assert len(figure_lines(groups["first-light"], control_results("first-light"))) == 3 + 3, "test sets, controls"
