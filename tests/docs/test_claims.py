"""Sentences with numbers: they follow the data, in both languages with the same numbers."""

import json
import re
from pathlib import Path

import claims
import pytest
import render

from looplm.evaluate.scores import Cell
from looplm.runs.results import make_summary

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("sentences", "name"), [(claims.tested, "first-light"), (claims.tested, "parallel"), (claims.saved, "parallel-depth")]
)
def test_both_languages_say_the_same_numbers(sentences: object, name: str) -> None:
    assert callable(sentences)
    english, korean = (set(re.findall(r"\d[\d,.]*\d|\d", sentences(name, language))) for language in ("en", "ko"))
    assert english == korean


def test_a_test_set_says_how_many_of_its_pairs_are_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell(kind, digits, 400, 400, 2.5, 40.0, 0.1).as_json() for kind in ("uniform", "carry-heavy") for digits in (1, 9)]
    result = {"preset": "mine", "title": "mine", "seed": 0, "parameters": 1, "cells": cells}
    result |= {"task": "addition", "axis": "digits", "trained_sizes": [1, 4]}
    results = [result | {"seed": seed, "evaluation": {"seed": 2}} for seed in (0, 1)]
    (tmp_path / "mine.json").write_text(json.dumps(make_summary(results)), encoding="utf-8")
    monkeypatch.setattr(claims, "resource", lambda name: tmp_path)
    told = claims.tested("mine", "en")
    assert told.startswith("All 2 models answer the same 400 sums")
    assert re.search(r"at 1 digits: \d different pairs among the 400 uniform ones", told)
    assert "at 9 digits" not in told


def test_what_halting_saves_is_told_of_both_prompts_and_of_uniform_sums() -> None:
    times = {"full_prompt": [], "cheap_prompt": []}  # type: dict[str, list[float]]
    for result in json.loads((ROOT / "docs/data/parallel-depth.json").read_text(encoding="utf-8"))["results"]:
        for prompt, found in times.items():
            found.append(result["saved"][prompt]["times_the_work"])
    told = claims.saved("parallel-depth", "en")
    for found in times.values():
        assert f"{min(found):.2f} to {max(found):.2f} times" in told
    assert "On uniform sums of 24 digits halting saves nothing" in told


def test_missing_data_are_said() -> None:
    assert "`docs/data/nothing.json` is missing" in render.fill("<!-- render: tested nothing -->", "en", Path("page.md"))


def test_the_changelog_says_of_shipped_models_what_was_measured() -> None:
    told = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (result,) = json.loads((ROOT / "looplm/assets/translator/summary.json").read_text(encoding="utf-8"))["results"]
    one, two = (cell for cell in result["cells"] if cell["set"] == "unseen")
    assert f"**{one['correct']:,} and {two['correct']:,} of {one['n']:,} sentences with unseen pairs**" in told
    shares = json.loads((ROOT / "docs/data/ko-tiny.json").read_text(encoding="utf-8"))["shares"]
    parse, keep = shares["parse"], shares["keep_who_has_what"]
    assert f"**{parse['right']:,} of {parse['n']:,} sentences right**, {keep['right']} of {keep['n']} stories keep" in told
