"""The tables of controls follow the summary, in both languages with the same numbers."""

import re
from pathlib import Path

import pytest
from controls import controls_table, readings_table

from looplm.evaluate.scores import Cell
from looplm.files import to_json
from looplm.runs.results import make_summary


def summary(path: Path, **presets: tuple[int, ...]) -> Path:
    shared = {"task": "babi", "title": "mine", "parameters": 5, "axis": "task", "trained_sizes": [16, 16]}
    results = [
        shared
        | {"preset": preset.replace("_", "-"), "seed": seed, "readings": [[0.5, 0.1 * seed, 0.25]]}
        | {"cells": [Cell("test", 16, 1000, correct, 2.0, 2.0, 0.1).as_json()]}
        for preset, found in presets.items()
        for seed, correct in enumerate(found)
    ]
    path.write_bytes(to_json(make_summary(results)))
    return path


def test_seeds_are_pooled_beside_the_worst_and_nothing_is_rounded_up_to_all(tmp_path: Path) -> None:
    path = summary(tmp_path / "mine.json", mine=(1000, 999, 1000), mine_pure=(480,))
    assert "| the recipe | 99.9 | 99.9 | 3,000 | 3 |" in controls_table(path, "mine", "en")
    assert "| trained without re-reading | 48.0 | 48.0 | 1,000 | 1 |" in controls_table(path, "mine", "en")
    assert "| 1 | 50 | 10 | 25 |" in readings_table(path, "mine", "en")
    for table in (controls_table, readings_table):
        english, korean = (re.findall(r"[\d.,]*\d", table(path, "mine", language)) for language in ("en", "ko"))
        assert english == korean


def test_a_control_without_a_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the control 'strange' has no name"):
        controls_table(summary(tmp_path / "mine.json", mine=(1,), mine_strange=(1,)), "mine", "en")
