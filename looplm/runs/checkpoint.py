"""Saving a model, and getting it back in one line: `looplm.load(path_or_name)`.

A checkpoint is a folder of safetensors and JSON, with a manifest of the SHA-256 of every file, written last. No pickle:
loading runs no code of the file's author. What a trainer goes on from is such a folder too, with more in it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from looplm.errors import InputError
from looplm.files import draft_of, to_json, write_file
from looplm.models import build_model
from looplm.models.body import Body
from looplm.resources import asset
from looplm.settings import as_table
from looplm.task import carried_files
from looplm.train.optimizer import MOMENTS
from looplm.train.recipe import Recipe, parse_recipe
from looplm.train.trainer import Trainer

FORMAT = 2
"""Version of the checkpoint's layout."""
_MODEL, _CARD, _MANIFEST = "model.safetensors", "model.json", "manifest.json"
_MOMENTS, _PROGRESS = "optimizer.safetensors", "progress.json"
_PROGRESS_OF = {"steps": int, "tokens": int, "elapsed_s": float, "scaler": dict}


@dataclass(frozen=True)
class Trained:
    """A model, what it was trained as, and where it comes from."""

    model: Body
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
        InputError: if there is a checkpoint already, the folder cannot be written to, or a file that goes with the model
            cannot be read.

    Spec: [training.checkpoint][], [tasks.carried][].
    """
    if not isinstance(trained, Trained):
        raise InputError(
            f"`trained` must be a Trained, a model with its recipe: got {type(trained).__name__}; "
            "looplm.load gives one, and Trained(model, recipe) makes one."
        )
    folder = Path(folder)
    if any((place / _MANIFEST).exists() for place in _places(folder)):
        raise InputError(f"{folder} holds a checkpoint already; nothing is overwritten. Give another folder, or remove it.")
    if (folder / "run.json").exists():
        raise InputError(f"{folder} is a run, which keeps a checkpoint of its own. Give another folder.")
    card: dict[str, Any] = {"format": FORMAT, "recipe": as_table(trained.recipe), "provenance": dict(trained.provenance)}
    contents = {_MODEL: tensor_file(plain_weights(trained.model))}
    for setting, path in carried_files(trained.recipe.task).items():
        name = f"{setting}{path.suffix}"
        contents[name] = read_carried(setting, path)
        card["recipe"]["task"][setting] = name
        card.setdefault("carried", {})[setting] = name
    write_manifested(folder, contents | {_CARD: to_json(card)})


def read_carried(setting: str, path: Path) -> bytes:
    """The content of a file that goes with a model.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}, the `task.{setting}` of the model, cannot be read: {error.strerror or error}.") from None


def load(path_or_name: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Trained:
    """A trained model, ready to use.

    Args:
        path_or_name: the name of a model inside the package, as text; or a run, or a checkpoint folder. A folder that
            has the name of a shipped model is given as `./NAME`, or as a Path.
        device: where its weights shall be.
        dtype: of its weights; by default as they were saved.

    Raises:
        InputError: if there is none, or a file is missing or damaged, or weights are not finite.

    Spec: [training.checkpoint][], [tasks.carried][].
    """
    folder = find_checkpoint(path_or_name)
    contents, card = _contents(folder)
    for setting, name in _of_card({"carried": {}} | card, "carried", folder).items():
        if name not in contents:
            raise InputError(f"the checkpoint {folder} lacks {name}; copy it again, or train anew.")
        _of_card(_of_card(card, "recipe", folder), "task", folder)[setting] = str(folder / name)
    recipe = parse_recipe(_of_card(card, "recipe", folder), where=f"{folder / _CARD}", trained=True)
    model = build_model(recipe.model)
    weights = _tensors(contents[_MODEL], folder / _MODEL)
    _check_weights(weights, model, folder / _MODEL)
    model = model.to(next(iter(weights.values())).dtype)
    model.load_state_dict(weights)
    return Trained(model.to(device, dtype).eval(), recipe, _of_card(card, "provenance", folder))


def read_card(path_or_name: str | Path) -> dict[str, Any]:
    """What model.json says: the resolved recipe and the provenance."""
    return _contents(find_checkpoint(path_or_name))[1]


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The checkpoint folder of a shipped model, a run, or a checkpoint.

    Raises:
        InputError: if there is none.
    """
    if isinstance(path_or_name, str) and path_or_name in shipped_names():
        return asset(path_or_name)
    path = Path(path_or_name)
    for folder in _places(path):
        if (folder / _MANIFEST).is_file():
            return folder
    what = "holds no finished checkpoint" if path.exists() else "does not exist"
    if (path / "run.json").exists():
        what = "is a run whose training is not finished: `looplm train ... --resume` goes on with it"
    raise InputError(
        f"{path_or_name} {what}; give a run folder, a checkpoint folder, or the name of a shipped model "
        f"({', '.join(shipped_names())})."
    )


def plain_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the names of the plain model, also of one that was compiled."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in model.state_dict().items()}


def tensor_file(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors as the content of a safetensors file."""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)


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
    again = "copy the checkpoint again, or train anew"
    try:
        listed = json.loads((folder / _MANIFEST).read_bytes())
        version, hashes = listed["format"], {name: entry["sha256"] for name, entry in listed["files"].items()}
        contents = {name: (folder / name).read_bytes() for name in hashes} if version == FORMAT else {}
    except FileNotFoundError as error:
        raise InputError(f"the checkpoint {folder} lacks {Path(error.filename).name}; {again}.") from None
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}; {again}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder / _MANIFEST} is damaged; {again}.") from None
    if version != FORMAT:
        raise InputError(
            f"{folder} has checkpoint format {version}; this version of looplm reads {FORMAT}. "
            "Use the version that wrote it, or train anew."
        )
    damaged = [name for name, content in contents.items() if hashlib.sha256(content).hexdigest() != hashes[name]]
    if damaged:
        raise InputError(
            f"{folder / damaged[0]} is damaged (its SHA-256 differs from the manifest's); copy it again, or train anew."
        )
    return contents


def save_progress(folder: Path, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep a trainer's state in a new folder, which appears whole or not at all.

    Raises:
        InputError: if it cannot be written.

    Spec: [training.checkpoint][], [training.nothing-half-written][].
    """
    draft = draft_of(folder)
    contents = {
        _MODEL: tensor_file(state["model"]),
        _MOMENTS: tensor_file(state["optimizer"]),
        _PROGRESS: to_json(state["progress"]),
    }
    try:
        write_manifested(draft, contents)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}. Nothing was written there.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_progress(folder: Path, trainer: Trainer) -> dict[str, dict[str, Any]]:
    """What `save_progress` kept, if it can be this trainer's state.

    Raises:
        InputError: if it is not whole, or another trainer's.
    """
    contents = read_manifested(folder)
    if lacks := [name for name in (_MODEL, _MOMENTS, _PROGRESS) if name not in contents]:
        raise InputError(f"the checkpoint {folder} lacks {lacks[0]}.")
    model, moments = (_tensors(contents[name], folder / name) for name in (_MODEL, _MOMENTS))
    _check_weights(model, trainer.model, folder / _MODEL)
    _check_moments(moments, trainer, folder / _MOMENTS)
    try:
        progress = json.loads(contents[_PROGRESS])
    except ValueError:
        progress = None
    if (
        not isinstance(progress, dict)
        or any(type(progress.get(name)) is not kind for name, kind in _PROGRESS_OF.items())
        or f"step-{progress['steps']:09d}" != folder.name
        or not 1 <= progress["steps"] <= trainer.config.steps
    ):
        raise InputError(f"{folder / _PROGRESS} is not the progress of this training.")
    return {"model": model, "optimizer": moments, "progress": progress}


def _contents(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    contents = read_manifested(folder)
    for name in (_MODEL, _CARD):
        if name not in contents:
            raise InputError(f"the checkpoint {folder} lacks {name}; copy it again, or train anew.")
    try:
        card = json.loads(contents[_CARD])
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise InputError(f"{folder / _CARD} is no JSON object; copy the checkpoint again, or train anew.")
    return contents, card


def _places(path: Path) -> tuple[Path, Path]:
    """Where a checkpoint may be, if this path is a run, or is the checkpoint itself."""
    return path / "checkpoint", path


def _check_weights(weights: Mapping[str, Tensor], model: Body, path: Path) -> None:
    """Refuse weights that are not all those of the model, in its shapes, in one number format, and finite."""
    wanted = {name: list(tensor.shape) for name, tensor in plain_weights(model).items()}
    given = {name: list(tensor.shape) for name, tensor in weights.items()}
    other = [name for name in sorted({*wanted, *given}) if wanted.get(name) != given.get(name)]
    if other:
        raise InputError(
            f"{path} is not of the model that its recipe describes: {other[0]} has the shape {given.get(other[0], 'of none')}, "
            f"not {wanted.get(other[0], 'of any')}. Copy it again, or train anew."
        )
    formats = {tensor.dtype for tensor in weights.values()}
    if len(formats) > 1 or not all(dtype.is_floating_point for dtype in formats):
        raise InputError(f"{path} has weights in {', '.join(sorted(map(str, formats)))}, not in one floating-point format.")
    if broken := [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]:
        raise InputError(f"{path} holds weights that are not finite, in {broken[0]}; it cannot be used. Train anew.")


def _check_moments(moments: Mapping[str, Tensor], trainer: Trainer, path: Path) -> None:
    """Refuse moments that are not those of the trainer's optimizer after a step."""
    parameters = dict(trainer.model.named_parameters())
    kinds = {name: set[str]() for name in parameters}
    for name, tensor in moments.items():
        parameter, _, kind = name.rpartition("|")
        fits = parameter in parameters and tensor.shape in ((), parameters[parameter].shape)
        if not fits or not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path} is not of this training's optimizer: {name} does not fit.")
        kinds[parameter].add(kind)
    missing = [name for name, kind in kinds.items() if kind not in (set(), set(MOMENTS))]
    if missing or not any(kinds.values()):
        raise InputError(f"{path} is not of this training's optimizer: it lacks moments of {missing[0] if missing else 'all'}.")


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
