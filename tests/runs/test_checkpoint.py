"""What is saved comes back, and what is damaged is refused."""

import json
from pathlib import Path

import pytest
import torch

import looplm
from looplm.errors import InputError
from looplm.models import build_model
from looplm.runs.checkpoint import FORMAT, load, read_card, save
from looplm.train.recipe import load_recipe, recipe_names


def saved(folder: Path, preset_name: str = "first-light") -> Path:
    preset = load_recipe(preset_name)
    save(build_model(preset.model), preset, {"seed": 0, "training": {}}, folder)
    return folder


@pytest.mark.spec("training.checkpoint")
@pytest.mark.parametrize("name", recipe_names())
def test_a_model_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    preset = load_recipe(name)
    model = build_model(preset.model).eval()
    save(model, preset, {"seed": 7}, tmp_path / "checkpoint")
    for path in (tmp_path, tmp_path / "checkpoint", str(tmp_path)):
        again = load(path)
        assert again.preset == preset
        assert not again.training
        assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    tokens = torch.randint(0, 15, (2, 5))
    assert torch.equal(model(tokens, 1), again(tokens, 1))
    card = read_card(tmp_path)
    assert (card["format"], card["provenance"]) == (FORMAT, {"seed": 7})


@pytest.mark.spec("training.checkpoint")
def test_a_checkpoint_is_safetensors_and_json_with_a_manifest(tmp_path: Path) -> None:
    names = {path.name for path in saved(tmp_path).iterdir()}
    assert names == {"model.safetensors", "model.json", "manifest.json"}
    listed = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert set(listed) == names - {"manifest.json"}


@pytest.mark.spec("training.checkpoint")
@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
@pytest.mark.parametrize("damage", ["flip a bit", "cut short", "remove"])
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
    with pytest.raises(InputError, match=name):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1, "files": {}}', b"\xff"])
def test_a_damaged_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (saved(tmp_path) / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest.json is damaged"):
        load(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    manifest = saved(tmp_path) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(InputError, match="format 99"):
        load(tmp_path)


@pytest.mark.parametrize(("path", "message"), [("nosuch", "does not exist"), (".", "holds no finished checkpoint")])
def test_what_is_no_checkpoint_is_refused(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        looplm.load(path)
