"""What the package carries: chosen by a rule, tested once, and free of this machine's paths."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
import torch
from korean_text import tokenizer
from tiny_recipe import tiny

from looplm.cli import main
from looplm.errors import InputError
from looplm.models import build_model
from looplm.resources import asset
from looplm.runs.checkpoint import Trained, load, read_card, save, shipped_names
from looplm.runs.ship import ship, without_data
from looplm.settings import as_table
from looplm.train.recipe import read_recipe

MOST_BYTES = 4_000_000


def untrained(folder: Path, seed: int) -> str:
    recipe = tiny()
    torch.manual_seed(seed)
    save(Trained(build_model(recipe.model).eval(), recipe, {"seed": seed, "training": {}}), folder)
    return str(folder)


def test_the_one_that_is_shipped_is_one_that_was_given(tmp_path: Path) -> None:
    runs, said = [untrained(tmp_path / f"run-{seed}", seed) for seed in (1, 2)], list[str]()
    result = ship(runs, tmp_path / "shipped", (1,), (2,), 5, said.append)
    assert [line.split(":")[0] for line in said] == runs
    assert [(cell["size"], cell["n"]) for cell in result["cells"]] == [(2, 5)] * len(result["cells"])
    shipped = load(tmp_path / "shipped")
    assert shipped.provenance["seed"] in (1, 2)
    assert json.loads((tmp_path / "shipped" / "summary.json").read_text())["results"] == [result]
    ship(runs[:1], tmp_path / "shipped", (1,), (2,), 5)
    assert load(tmp_path / "shipped").provenance["seed"] == 1, "it takes the old one's place"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-1", "run-2", "shipped"], "no draft is left"


def test_a_text_model_names_no_file_of_the_machine_that_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ko-text.model").write_bytes(tokenizer(4000).model)
    Path("text.txt").write_text("옛날 옛적에 " * 2000, encoding="utf-8")
    recipe = read_recipe("ko-text", {"task": {"path": str(tmp_path / "text.txt")}, "model": {"layers": 1, "width": 64}})
    save(Trained(build_model(recipe.model).eval(), recipe, {"seed": 0, "training": {}}), "run")
    ship(["run"], tmp_path / "shipped", (), (64,), 1)
    Path("text.txt").unlink()
    Path("ko-text.model").unlink()
    assert str(tmp_path) not in (tmp_path / "shipped" / "model.json").read_text()
    assert load(tmp_path / "shipped").recipe.task.prompt("옛날").tokens


def test_a_name_that_is_no_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ship", "../adder", "adder"]) == 2
    assert "a model's name is of letters, numbers and hyphens" in capsys.readouterr().err


def test_a_recipe_without_a_file_stays_as_it_is() -> None:
    assert as_table(without_data(tiny())) == as_table(tiny())


def texts_of(value: Any) -> Iterator[str]:
    """Every text in some JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_of(each)


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_model_says_where_it_comes_from_and_names_no_path(name: str) -> None:
    folder = asset(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES
    card = read_card(name)
    assert {"preset", "seed", "commit", "clauses", "torch", "device", "training"} <= set(card["provenance"])
    assert card["provenance"]["commit"] != "unknown"
    assert not card["recipe"]["task"].get("path")
    for file in ("model.json", "summary.json"):
        for text in texts_of(json.loads((folder / file).read_bytes())):
            assert not PurePosixPath(text).is_absolute(), f"{file} names a place of a machine: {text}"
            assert not PureWindowsPath(text).is_absolute(), f"{file} names a place of a machine: {text}"
    assert any(parameter.numel() for parameter in load(name).model.parameters())


def test_no_run_is_refused() -> None:
    with pytest.raises(InputError):
        ship(["nothing-there"], Path("nowhere"), (), (), 1)
