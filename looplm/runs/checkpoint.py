"""Saving a model, and getting it back in one line: `looplm.load(path_or_name)`.

A checkpoint is a folder: model.safetensors (weights), model.json (the resolved preset, and where the weights come
from), and manifest.json with the SHA-256 of both, written last. No pickle: loading runs no code of the file's author.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from looplm.config import Preset, as_table, parse
from looplm.errors import InputError
from looplm.files import to_json, write_file
from looplm.models.looped import LoopLM
from looplm.models.static import build_model
from looplm.resources import asset

FORMAT = 1
"""Version of the checkpoint's layout."""
SHIPPED = ("adder", "parallel-adder")
"""Models inside the package, by name."""
_FILES = ("model.safetensors", "model.json")


def save(model: LoopLM, preset: Preset, provenance: dict[str, Any], folder: Path) -> None:
    """Write a checkpoint into `folder`; the manifest comes last.

    Spec: [training.checkpoint][].
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    card = {"format": FORMAT, "preset": as_table(preset), "provenance": provenance}
    contents = dict(zip(_FILES, (save_tensors(tensors), to_json(card)), strict=True))
    for name, content in contents.items():
        write_file(folder / name, content)
    hashes = {name: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for name, c in contents.items()}
    write_file(folder / "manifest.json", to_json({"format": FORMAT, "files": hashes}))


def load(path_or_name: str | Path, device: str | torch.device = "cpu") -> LoopLM:
    """A trained model, ready to use; its preset is `model.preset`.

    Args:
        path_or_name: a run, a checkpoint folder, or the name of a model inside the package, such as `adder`.
        device: where its weights shall be.

    Raises:
        InputError: if there is none, or a file is missing or damaged.

    Spec: [training.checkpoint][].
    """
    folder = find_checkpoint(path_or_name)
    contents = _verified(folder)
    preset = parse(Preset, json.loads(contents["model.json"])["preset"], where=f"{folder / 'model.json'}")
    model = build_model(preset.model)
    model.load_state_dict(load_tensors(contents["model.safetensors"]))
    model.preset = preset
    return model.to(device).eval()


def read_card(path_or_name: str | Path) -> dict[str, Any]:
    """What model.json says: the resolved preset and the provenance."""
    card = json.loads(_verified(find_checkpoint(path_or_name))["model.json"])
    assert isinstance(card, dict)
    return card


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The checkpoint folder of a run, a checkpoint, or a shipped model."""
    path = Path(path_or_name)
    for folder in (path / "checkpoint", path, asset(str(path_or_name)) if str(path_or_name) in SHIPPED else path):
        if (folder / "manifest.json").is_file():
            return folder
    what = "holds no finished checkpoint" if path.exists() else "does not exist"
    raise InputError(
        f"{path_or_name} {what}; give a run folder, a checkpoint folder, or the name of a shipped model ({', '.join(SHIPPED)})."
    )


def _verified(folder: Path) -> dict[str, bytes]:
    """The checkpoint's files, each of which has the hash that the manifest says."""
    try:
        listed = json.loads((folder / "manifest.json").read_bytes())
        if listed["format"] != FORMAT:
            raise InputError(f"{folder} has checkpoint format {listed['format']}; this version of looplm reads {FORMAT}.")
        contents = {name: (folder / name).read_bytes() for name in _FILES}
        damaged = [name for name in _FILES if hashlib.sha256(contents[name]).hexdigest() != listed["files"][name]["sha256"]]
    except FileNotFoundError as error:
        raise InputError(f"the checkpoint {folder} lacks {Path(error.filename).name}; copy it again, or train anew.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise InputError(f"{folder / 'manifest.json'} is damaged; copy the checkpoint again, or train anew.") from None
    if damaged:
        raise InputError(
            f"{folder / damaged[0]} is damaged (its SHA-256 differs from the manifest's); copy it again, or train anew."
        )
    return contents
