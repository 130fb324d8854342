"""The tables of the tasks of bAbI follow the summary, in both languages."""

from pathlib import Path

from babi_tables import ask_table, babi_table

from looplm.evaluate.scores import Cell
from looplm.files import to_json
from looplm.runs.results import make_summary


def summary(path: Path, *told: tuple[str, str, int, int, int]) -> Path:
    """Results of a recipe: its test set, its task, and how many of how many are right."""
    results = [
        {"preset": preset, "task": "babi", "title": "mine", "parameters": 5, "axis": "task", "trained_sizes": [size, size]}
        | {"seed": 0, "cells": [Cell(kind, size, n, correct, 2.0, 2.0, 0.1).as_json()]}
        for preset, kind, size, correct, n in told
    ]
    path.write_bytes(to_json(make_summary(results)))
    return path


def test_tasks_that_reach_what_was_hoped_for_are_counted(tmp_path: Path) -> None:
    told = [("babi-looped", "test", 16, 900, 1000), ("babi-looped", "test", 3, 50, 95)]
    told += [("babi-looped-most-frequent", "test", 16, 250, 1000), ("babi-looped-most-frequent", "test", 3, 19, 95)]
    english = babi_table(summary(tmp_path / "babi.json", *told), "babi", "en")
    assert "| 16 | induction | 90.0 | 88.0-91.7 | 1,000 | 25.0 | ≥ 85 |" in english
    assert "1 of the 2 tasks measured reach 90 %" in english
    assert "Task 3 has 1,000 questions" in english


def test_both_languages_of_the_asked_model_stand_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "ask.json"
    cells = [Cell(said, 2, 500, correct, 4.0, 4.0, 0.1).as_json() for said, correct in (("en", 500), ("ko", 450))]
    result = {"preset": "ask", "task": "stories", "title": "mine", "parameters": 5, "axis": "task", "trained_sizes": [2, 2]}
    path.write_bytes(to_json(make_summary([result | {"seed": 0, "cells": cells}])))
    assert "| 2 | two facts | 100.0 | 90.0 | 500 |" in ask_table(path, "ask", "en")
    assert "| 2 | 사실 둘 | 100.0 | 90.0 | 500 |" in ask_table(path, "ask", "ko")
