"""Llama: a static model as transformers keeps it, in a folder of config.json and safetensors files, and back.

Neither way needs transformers. What one side has and the other has not is refused, all of it at once.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.files import to_json, write_file
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.runs.checkpoint import plain_weights, tensor_file

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "mlp_width": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}
"""Our settings, and Llama's."""
_FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True}
"""What of a Llama's settings we have in one way only."""
_ABSENT = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "hidden_act": "silu"}
"""What transformers takes where a file says nothing."""


def why_no_llama(config: ModelConfig) -> list[str]:
    """What the model has that a Llama has not; empty for one that is a Llama.

    Spec: [language.not-llama][].
    """
    wanted = {"body": "static", "norm": "rms", "mlp": "swiglu", "positions": "rope", "gate": False}
    return [
        f"`{name}` must be {value!r}: got {getattr(config, name)!r}"
        for name, value in wanted.items()
        if getattr(config, name) != value
    ]


def write_llama(model: LoopLM, folder: Path, context: int) -> None:
    """Write a model as a Llama, for `AutoModelForCausalLM.from_pretrained(folder)`.

    Args:
        model: static, with RMSNorm, SwiGLU and RoPE.
        folder: a new one, or an empty one.
        context: tokens of the longest text that it was trained on.

    Raises:
        InputError: if the model is no Llama, with all that differs, or the folder holds something.

    Spec: [language.llama][], [language.converted][].
    """
    config = model.config
    if differs := why_no_llama(config):
        raise InputError(f"this model is no Llama: {'; '.join(differs)}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; give a new folder.")
    weights = llama_weights(model)
    heads, theta = (
        {"num_key_value_heads": config.kv_heads or config.heads, "head_dim": config.width // config.heads},
        config.rope_theta,
    )
    settings = _FIXED | {theirs: getattr(config, ours) for ours, theirs in _SIZES.items()} | heads
    settings |= {"rms_norm_eps": config.norm_epsilon, "max_position_embeddings": context, "architectures": ["LlamaForCausalLM"]}
    settings |= {"rope_theta": theta, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    settings |= {"dtype": str(model.embedding.weight.dtype).removeprefix("torch."), "bos_token_id": None, "eos_token_id": None}
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / WEIGHTS, tensor_file(weights, {"format": "pt"}))
    write_file(folder / CONFIG, to_json(settings))


def read_llama(folder: Path) -> LoopLM:
    """The model of a folder that `save_pretrained` or `write_llama` wrote, in the number format of its weights.

    Raises:
        InputError: if a file is missing or damaged, or the model has what ours have not, with all of that.

    Spec: [language.converted][], [language.not-llama][].
    """
    settings = _settings(folder)
    if differs := list(_foreign(settings)):
        raise InputError(f"{folder / CONFIG} is of a model that cannot be converted: {'; '.join(differs)}.")
    config = ModelConfig(
        **{ours: settings[theirs] for ours, theirs in _SIZES.items()},
        body="static",
        kv_heads=settings.get("num_key_value_heads"),
        mlp="swiglu",
        norm_epsilon=settings["rms_norm_eps"],
        rope_theta=_theta(settings),
        state_norm=False,
    )
    model = build_model(config).eval()
    found = _tensors(folder)
    found.pop("lm_head.weight", None)  # tied, and kept twice by some
    ours, wanted = {}, {name: list(tensor.shape) for name, tensor in plain_weights(model).items()}
    names = {their for parts in _layout(config.layers).values() for their in parts}
    if found.keys() != names:
        apart = sorted(found.keys() ^ names)
        raise InputError(f"the weights of {folder} are not those of its {CONFIG}: {', '.join(apart[:3])} missing, or too many.")
    for name, parts in _layout(config.layers).items():
        ours[name] = torch.cat([found[their] for their in parts]) if len(parts) > 1 else found[parts[0]]
        if list(ours[name].shape) != wanted[name]:
            raise InputError(f"{', '.join(parts)} of {folder} must be {wanted[name]} in all: got {list(ours[name].shape)}.")
    model = model.to(ours["embedding.weight"].dtype)
    model.load_state_dict(ours)
    return model


def llama_weights(model: LoopLM) -> dict[str, Tensor]:
    """The weights under Llama's names, cut where Llama has more matrices than we."""
    weights, config = plain_weights(model), model.config
    size = config.width // config.heads
    rows = {3: [config.width, *[(config.kv_heads or config.heads) * size] * 2], 2: [config.mlp_width] * 2}
    found: dict[str, Tensor] = {}
    for name, parts in _layout(config.layers).items():
        pieces = weights[name].split(rows[len(parts)]) if len(parts) > 1 else (weights[name],)
        found |= dict(zip(parts, pieces, strict=True))
    return found


def _layout(layers: int) -> dict[str, tuple[str, ...]]:
    """Of each of our weights, those of Llama's that stand in it one under another."""
    layout: dict[str, tuple[str, ...]] = {"embedding.weight": ("model.embed_tokens.weight",)}
    for i in range(layers):
        ours, theirs = f"block.layers.{i}", f"model.layers.{i}"
        layout |= {
            f"{ours}.attention_norm.weight": (f"{theirs}.input_layernorm.weight",),
            f"{ours}.attention.qkv.weight": tuple(f"{theirs}.self_attn.{x}_proj.weight" for x in "qkv"),
            f"{ours}.attention.out.weight": (f"{theirs}.self_attn.o_proj.weight",),
            f"{ours}.mlp_norm.weight": (f"{theirs}.post_attention_layernorm.weight",),
            f"{ours}.mlp.gate_and_up.weight": tuple(f"{theirs}.mlp.{x}_proj.weight" for x in ("gate", "up")),
            f"{ours}.mlp.down.weight": (f"{theirs}.mlp.down_proj.weight",),
        }
    return layout | {"head_norm.weight": ("model.norm.weight",)}


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{folder} holds no readable {CONFIG}; give a folder that transformers' `save_pretrained` wrote.")
    return settings


def _foreign(settings: Mapping[str, Any]) -> Iterator[str]:
    """What of a Llama's settings our models have not.

    Spec: [language.not-llama][].
    """
    given: dict[str, Any] = _ABSENT | dict(settings)
    for name, value in _FIXED.items():
        if given.get(name) != value:
            yield f"`{name}` must be {value!r}: got {given.get(name)!r}"
    for name in (*_SIZES.values(), "rms_norm_eps"):
        if not isinstance(given.get(name), int | float) or isinstance(given[name], bool) or given[name] <= 0:
            yield f"`{name}` must be a number above 0: got {given.get(name)!r}"
            return
    heads, width = given["num_attention_heads"], given["hidden_size"]
    if given.get("head_dim") not in (None, width // heads) or width % heads or width // heads % 2:
        yield f"a head must have {width} / {heads} coordinates, an even number: got {given.get('head_dim', width / heads)}"
    shared = given.get("num_key_value_heads") or heads
    if heads % shared:
        yield f"`num_attention_heads` must be a multiple of `num_key_value_heads`: got {heads} and {shared}"
    kinds = {(given.get(name) or {}).get("rope_type", "default") for name in ("rope_parameters", "rope_scaling")}
    if scaled := sorted(kinds - {"default"}):
        yield f"RoPE must not be scaled: got {scaled[0]!r}"


def _theta(settings: Mapping[str, Any]) -> float:
    """Transformers 5 keeps it in a table, 4 beside the other settings."""
    return float((settings.get("rope_parameters") or {}).get("rope_theta") or settings.get("rope_theta") or 10_000.0)


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Those of the one file, or of all that an index names."""
    try:
        files = [WEIGHTS]
        if (folder / INDEX).exists():
            files = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        found: dict[str, Tensor] = {}
        for file in files:
            found |= load_file(folder / Path(file).name)
    except (OSError, SafetensorError, UnicodeDecodeError, json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"the weights in {folder} cannot be read: {error}; copy the folder again.") from None
    return found
