"""Saving a model, and getting it back in one line: `looplm.load(path_or_name)`.

A checkpoint is a folder of safetensors and JSON, with a manifest of the SHA-256 of every file, written last. No pickle:
loading runs no code of the file's author. What a trainer goes on from is such a folder too, with more in it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from looplm.errors import InputError
from looplm.files import to_json, write_file
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.resources import asset
from looplm.settings import as_table
from looplm.train.recipe import Recipe, parse_recipe

FORMAT = 2
"""Version of the checkpoint's layout."""
_MODEL, _CARD, _MANIFEST = "model.safetensors", "model.json", "manifest.json"


@dataclass(frozen=True)
class Trained:
    """A model, what it was trained as, and where it comes from."""

    model: LoopLM
    recipe: Recipe
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """The model's own forward pass."""
        return self.model(*args, **settings)


def shipped_names() -> list[str]:
    """Names of the models inside the package, sorted."""
    return sorted(folder.parent.name for folder in asset("").glob(f"*/{_MANIFEST}"))


def save(trained: Trained, folder: str | Path) -> None:
    """Write a checkpoint into a new folder; `load` gives the same again.

    Raises:
        InputError: if there is a checkpoint already, or the folder cannot be written to.

    Spec: [training.checkpoint][].
    """
    folder = Path(folder)
    if (folder / _MANIFEST).exists():
        raise InputError(f"{folder} holds a checkpoint already; nothing is overwritten. Give another folder, or remove it.")
    card = {"format": FORMAT, "recipe": as_table(trained.recipe), "provenance": dict(trained.provenance)}
    write_manifested(folder, {_MODEL: tensor_file(plain_weights(trained.model)), _CARD: to_json(card)})


def load(path_or_name: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Trained:
    """A trained model, ready to use.

    Args:
        path_or_name: the name of a model inside the package, such as `adder`; or a run, or a checkpoint folder. A folder
            that has the name of a shipped model is given with its path, such as `./adder`.
        device: where its weights shall be.
        dtype: of its weights; by default as they were saved.

    Raises:
        InputError: if there is none, or a file is missing or damaged, or weights are not finite.

    Spec: [training.checkpoint][].
    """
    folder = find_checkpoint(path_or_name)
    contents, card = _contents(folder)
    recipe = parse_recipe(_of_card(card, "recipe", folder), where=f"{folder / _CARD}")
    model = build_model(recipe.model)
    weights = _tensors(contents[_MODEL], folder / _MODEL)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder / _MODEL} is not of the model that {_CARD} describes: {error}.") from None
    if broken := [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]:
        raise InputError(f"{folder / _MODEL} holds weights that are not finite, in {broken[0]}; it cannot be used. Train anew.")
    saved = next(iter(weights.values())).dtype
    return Trained(model.to(device, dtype or saved).eval(), recipe, _of_card(card, "provenance", folder))


def read_card(path_or_name: str | Path) -> dict[str, Any]:
    """What model.json says: the resolved recipe and the provenance."""
    return _contents(find_checkpoint(path_or_name))[1]


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The checkpoint folder of a shipped model, a run, or a checkpoint.

    Raises:
        InputError: if there is none.
    """
    if str(path_or_name) in shipped_names():
        return asset(str(path_or_name))
    path = Path(path_or_name)
    for folder in (path / "checkpoint", path):
        if (folder / _MANIFEST).is_file():
            return folder
    what = "holds no finished checkpoint" if path.exists() else "does not exist"
    if (path / "run.json").exists():
        what = "is a run whose training is not finished: `looplm train ... --resume` goes on with it"
    raise InputError(
        f"{path_or_name} {what}; give a run folder, a checkpoint folder, or the name of a shipped model "
        f"({', '.join(shipped_names())})."
    )


def plain_weights(model: LoopLM) -> dict[str, Tensor]:
    """The weights under the names of the plain model, also of one that was compiled."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in model.state_dict().items()}


def tensor_file(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file."""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def write_manifested(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files, and last the manifest that makes them count."""
    for name, content in contents.items():
        write_file(folder / name, content)
    hashes = {name: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for name, c in contents.items()}
    write_file(folder / _MANIFEST, to_json({"format": FORMAT, "files": hashes}))


def read_manifested(folder: Path) -> dict[str, bytes]:
    """The files of a folder, each of which has the hash that the manifest says.

    Raises:
        InputError: if one is missing, or differs.
    """
    try:
        listed = json.loads((folder / _MANIFEST).read_bytes())
        if listed["format"] != FORMAT:
            raise InputError(
                f"{folder} has checkpoint format {listed['format']}; this version of looplm reads {FORMAT}. "
                "Use the version that wrote it, or train anew."
            )
        contents = {name: (folder / name).read_bytes() for name in listed["files"]}
        damaged = [n for n, content in contents.items() if hashlib.sha256(content).hexdigest() != listed["files"][n]["sha256"]]
    except FileNotFoundError as error:
        raise InputError(f"the checkpoint {folder} lacks {Path(error.filename).name}; copy it again, or train anew.") from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder / _MANIFEST} is damaged; copy the checkpoint again, or train anew.") from None
    if damaged:
        raise InputError(
            f"{folder / damaged[0]} is damaged (its SHA-256 differs from the manifest's); copy it again, or train anew."
        )
    return contents


def save_progress(folder: Path, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep a trainer's state in a new folder, which appears whole or not at all.

    Spec: [training.checkpoint][], [training.nothing-half-written][].
    """
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    contents = {
        _MODEL: tensor_file(state["model"]),
        "optimizer.safetensors": tensor_file(state["optimizer"]),
        "progress.json": to_json(state["progress"]),
    }
    write_manifested(draft, contents)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def load_progress(folder: Path) -> dict[str, dict[str, Any]]:
    """A trainer's state again.

    Raises:
        InputError: if it is not whole.
    """
    contents = read_manifested(folder)
    return {
        "model": _tensors(contents[_MODEL], folder / _MODEL),
        "optimizer": _tensors(contents["optimizer.safetensors"], folder / "optimizer.safetensors"),
        "progress": json.loads(contents["progress.json"]),
    }


def _contents(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    contents = read_manifested(folder)
    for name in (_MODEL, _CARD):
        if name not in contents:
            raise InputError(f"the checkpoint {folder} lacks {name}; copy it again, or train anew.")
    try:
        card = json.loads(contents[_CARD])
        assert isinstance(card, dict)
    except (json.JSONDecodeError, UnicodeDecodeError, AssertionError):
        raise InputError(f"{folder / _CARD} is no JSON object; copy the checkpoint again, or train anew.") from None
    return contents, card


def _of_card(card: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    if not isinstance(card.get(name), dict):
        raise InputError(f"{folder / _CARD} has no table `{name}`; copy the checkpoint again, or train anew.")
    table: dict[str, Any] = card[name]
    return table


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file ({error}); copy the checkpoint again, or train anew.") from None
