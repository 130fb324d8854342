"""What is saved comes back, and what is damaged is refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from korean_text import tokenizer
from safetensors.torch import load_file, save_file
from tiny_recipe import tiny
from typeguard import suppress_type_checks

import looplm
from looplm.errors import InputError
from looplm.models import build_model
from looplm.models.looped import looped
from looplm.runs.checkpoint import FORMAT, Trained, load, read_card, save
from looplm.settings import as_table
from looplm.task import carried_files
from looplm.train.recipe import read_recipe, recipe_names


def fresh(recipe_name: str = "first-light") -> Trained:
    recipe = read_recipe(recipe_name)
    return Trained(build_model(recipe.model).eval(), recipe, {"seed": 7, "training": {}})


def saved(folder: Path) -> Path:
    save(fresh(), folder)
    return folder


def same_weights(a: Trained, b: Trained) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(
        value.dtype == right[name].dtype and torch.equal(value, right[name]) for name, value in left.items()
    )


@pytest.mark.spec("training.checkpoint")
@pytest.mark.parametrize("name", recipe_names())
def test_a_model_comes_back_as_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, pieces in (("ko-text.model", 4000), ("ko-tiny.model", 2000)):
        Path(file).write_bytes(tokenizer(pieces).model)
    trained = fresh(name)
    save(trained, tmp_path / "checkpoint")
    task = as_table(trained.recipe)["task"]
    copies = {setting: str(tmp_path / "checkpoint" / f"{setting}.model") for setting in carried_files(trained.recipe.task)}
    for path in (tmp_path, tmp_path / "checkpoint", str(tmp_path)):
        again = load(path)
        assert as_table(again.recipe) == as_table(trained.recipe) | {"task": task | copies}
        assert not again.model.training
        assert same_weights(again, trained)
        assert again.provenance == {"seed": 7, "training": {}}
    tokens = torch.randint(0, trained.recipe.model.vocab_size, (2, 5))
    tokens[:, 1], tokens[:, -1] = 1, 2  # for a body that reads a source, or facts and a question: their ends
    assert torch.equal(trained(tokens, 1), again(tokens, 1))
    assert read_card(tmp_path)["format"] == FORMAT


@pytest.mark.spec("training.checkpoint")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_number_format_comes_back_too(dtype: torch.dtype, tmp_path: Path) -> None:
    trained = fresh()
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.normal_()
    looplm.save(Trained(trained.model.to(dtype), trained.recipe), tmp_path / "a")
    again = looplm.load(tmp_path / "a")
    assert same_weights(again, trained)
    looplm.save(again, str(tmp_path / "b"))
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    wide = looplm.load(tmp_path / "b", dtype=torch.float64)
    assert {parameter.dtype for parameter in wide.model.parameters()} == {torch.float64}
    exact = dict(trained.model.named_parameters())
    assert all(torch.equal(parameter, exact[name].double()) for name, parameter in wide.model.named_parameters())
    tokens = torch.randint(0, 15, (2, 5))
    assert torch.equal(again(tokens, 2), trained(tokens, 2))


@pytest.mark.spec("training.checkpoint")
def test_a_compiled_model_comes_back_as_the_plain_one(tmp_path: Path) -> None:
    trained = fresh()
    compiled: Any = torch.compile(trained.model, backend="eager")
    looplm.save(Trained(compiled, trained.recipe), tmp_path / "whole")
    looped(trained.model, "this test").block.compile(backend="eager")
    looplm.save(trained, tmp_path / "block")
    for name in ("whole", "block"):
        assert same_weights(looplm.load(tmp_path / name), trained)


@pytest.mark.spec("training.checkpoint")
def test_a_checkpoint_is_safetensors_and_json_with_a_manifest(tmp_path: Path) -> None:
    names = {path.name for path in saved(tmp_path).iterdir()}
    assert names == {"model.safetensors", "model.json", "manifest.json"}
    listed = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert set(listed) == names - {"manifest.json"}


def test_nothing_is_overwritten_or_hidden_by_a_save(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a checkpoint already; nothing is overwritten"):
        save(fresh(), saved(tmp_path / "a"))
    saved(tmp_path / "run" / "checkpoint")
    with pytest.raises(InputError, match="holds a checkpoint already"):
        save(fresh(), tmp_path / "run")  # which load would not find there
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is a run, which keeps a checkpoint of its own"):
        save(fresh(), tmp_path / "begun")


def test_a_model_alone_is_not_saved(tmp_path: Path) -> None:
    bare: Any = fresh().model
    with suppress_type_checks(), pytest.raises(InputError, match=r"must be a Trained, a model with its recipe: got LoopLM"):
        save(bare, tmp_path / "a")


def test_a_folder_never_replaces_a_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = fresh()
    save(mine, "adder")
    assert not same_weights(load("adder"), mine)
    assert same_weights(load("./adder"), mine)
    assert same_weights(load(Path("adder")), mine), "a Path is a path"


@pytest.mark.spec("training.checkpoint")
@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
@pytest.mark.parametrize("damage", ["flip a bit", "cut short", "remove", "a folder in its place"])
def test_a_damaged_file_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    file = saved(tmp_path) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "flip a bit":
        file.write_bytes(content)
    elif damage == "cut short":
        file.write_bytes(content[:-7])
    else:
        file.unlink()
    if damage == "a folder in its place":
        file.mkdir()
    with pytest.raises(InputError, match=name):
        load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 2, "files": ["model.json"]}', b'{"format": 2, "files": 3}', b"\xff"],
)
def test_a_damaged_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (saved(tmp_path) / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest.json is damaged"):
        load(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    manifest = saved(tmp_path) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 1'))
    with pytest.raises(InputError, match=rf"has checkpoint format 1; this version of looplm reads {FORMAT}"):
        load(tmp_path)


def rehash(folder: Path) -> None:
    """Make the manifest say what is there now: damage that no hash can tell."""
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    hashes = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in files}
    (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": hashes}))


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def card(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        table = json.loads((folder / "model.json").read_text())
        change(table)
        (folder / "model.json").write_text(json.dumps(table))

    return damage


EMBEDDING = "embedding.weight"
CONSISTENT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another shape": (
        weights(lambda t: t.update({EMBEDDING: torch.zeros(3, 3)})),
        r"embedding\.weight has the shape \[3, 3\]",
    ),
    "not a number": (weights(lambda t: t[EMBEDDING].fill_(torch.nan)), r"not finite, in embedding\.weight"),
    "infinite": (weights(lambda t: t[EMBEDDING].fill_(torch.inf)), "not finite"),
    "a tensor is missing": (weights(lambda t: t.pop("embedding.weight")), r"embedding\.weight has the shape of none"),
    "a tensor too many": (weights(lambda t: t.update(more=torch.zeros(1))), r"more has the shape \[1\], not of any"),
    "no tensors": (weights(lambda t: t.clear()), "is not of the model"),
    "whole numbers": (
        weights(lambda t: t.update({n: v.to(torch.int8) for n, v in t.items()})),
        "not in one floating-point format",
    ),
    "two formats": (
        weights(lambda t: t.update({EMBEDDING: t[EMBEDDING].half()})),
        "torch.float16, torch.float32",
    ),
    "no safetensors": (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678"), "is no safetensors file"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"lacks model\.safetensors"),
    "no card": (lambda folder: (folder / "model.json").unlink(), r"lacks model\.json"),
    "card is no JSON": (lambda folder: (folder / "model.json").write_bytes(b"\xff{"), r"model\.json is no JSON object"),
    "card is no table": (lambda folder: (folder / "model.json").write_text("[]"), r"model\.json is no JSON object"),
    "no recipe": (card(lambda t: t.pop("recipe")), "has no table `recipe`"),
    "recipe is no table": (card(lambda t: t.update(recipe=3)), "has no table `recipe`"),
    "no provenance": (card(lambda t: t.pop("provenance")), "has no table `provenance`"),
    "another body": (card(lambda t: t["recipe"]["model"].update(width=32)), "is not of the model that its recipe describes"),
    "a body that cannot be": (card(lambda t: t["recipe"]["model"].update(heads=3)), "`width` must be a multiple of `heads`"),
    "no task": (card(lambda t: t["recipe"].pop("task")), "task"),
    "task is a number": (card(lambda t: t["recipe"].update(task=3)), "must be a table that names a `name`"),
    "an unknown task": (card(lambda t: t["recipe"]["task"].update(name="nosuch")), "there is no task 'nosuch'"),
    "a setting that is not known": (card(lambda t: t["recipe"]["training"].update(speed=3)), r"training\.speed"),
}


@pytest.mark.spec("training.checkpoint")
@pytest.mark.parametrize("damage", CONSISTENT)
def test_a_checkpoint_that_agrees_with_its_hashes_and_is_wrong_is_refused(damage: str, tmp_path: Path) -> None:
    change, says = CONSISTENT[damage]
    save(Trained(build_model(tiny().model), tiny()), tmp_path / "a")
    change(tmp_path / "a")
    rehash(tmp_path / "a")
    with pytest.raises(InputError, match=says) as caught:
        load(tmp_path / "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("path", "message"), [("nosuch", "does not exist"), (".", "holds no finished checkpoint")])
def test_what_is_no_checkpoint_is_refused(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        looplm.load(path)


def test_a_run_that_is_not_finished_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"training is not finished: `looplm train \.\.\. --resume` goes on"):
        load(tmp_path)


def test_a_trained_model_is_loaded_without_drawing_its_test_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from looplm.tasks.addition import Addition

    saved(tmp_path)
    monkeypatch.setattr(Addition, "suite", lambda *arguments: pytest.fail("drawn"))
    assert load(tmp_path).recipe.name == "first-light"
