"""Devices and sizes as data: what is shipped is right and sourced, what is wrong is named, all of it at once."""

import re
from pathlib import Path

import pytest

from looplm.errors import InputError
from looplm.hardware import detect
from looplm.hardware.profile import KernelBudget, Profile, Use, load_profile, profile_names
from looplm.hardware.workload import size_names
from looplm.models import build_model
from looplm.settings import as_table
from looplm.train.workloads import find_workload

MINE = """
title = "my card"
kind = "cuda"
source = "its data sheet"
memory_gib = 16
memory_gb_per_s = 448
float32_tflop_per_s = 22
"""


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def numbers(profile: Profile) -> list[str]:
    table = as_table(profile)
    nested = [f"{part}.{key}" for part in ("use", "kernels") for key in table.get(part, {})]
    return [key for key in table if isinstance(table[key], int | float)] + nested


@pytest.mark.spec("hardware.sources")
@pytest.mark.parametrize("name", profile_names())
def test_every_number_of_a_shipped_profile_has_a_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    for key in numbers(profile):
        assert profile.source_of(key).strip()
    if profile.kind in ("cuda", "rocm"):  # a sheet is not where these come from
        assert profile.kernels is not None
        assert all(key in profile.sources for key in ("kernels.shared_memory_bytes", "kernels.spill_bytes", "use"))
        assert profile.cache_gb_per_s is not None
        assert "cache_gb_per_s" in profile.sources


@pytest.mark.spec("hardware.units")
def test_every_number_with_a_unit_says_it_at_the_end_of_its_key() -> None:
    counts = {"processors", "registers", "warps", "stages", "threads", "batch_size", "num_loops", "memory_share"}
    units = ("_gib", "_mib", "_bytes", "_gb_per_s", "_tflop_per_s", "_w")
    for kind in (Profile, Use, KernelBudget):
        for name, field in kind.__dataclass_fields__.items():
            if re.search(r"\b(int|float)\b|_Positive|_Count", str(field.type)):
                assert name in counts or name.endswith(units), f"{kind.__name__}.{name}"


def test_the_limits_that_kernels_are_built_for_are_the_devices_own() -> None:
    limits = {name: load_profile(name).kernels for name in ("rtx4090", "rtx5070", "a100", "h200", "mi300x")}
    found = {name: (k.target, k.shared_memory_bytes) for name, k in limits.items() if k}
    assert found == {
        "rtx4090": ("cuda:89", 99 * 1024),
        "rtx5070": ("cuda:120", 99 * 1024),
        "a100": ("cuda:80", 163 * 1024),
        "h200": ("cuda:90", 227 * 1024),
        "mi300x": ("hip:gfx942", 64 * 1024),
    }


def test_a_profile_of_ones_own_takes_ten_lines(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, MINE))
    assert (profile.name, profile.memory_bytes, profile.device) == ("mine", 16 * 2**30, "cuda")
    assert profile.usable_bytes == int(0.9 * 16 * 2**30)
    assert profile.flop_per_s("bfloat16") == 22e12, "no faster than float32 unless it says so"
    assert profile.source_of("memory_gib") == "its data sheet"


@pytest.mark.spec("hardware.profile-checked")
def test_all_mistakes_of_a_profile_are_named_at_once(tmp_path: Path) -> None:
    text = MINE.replace("memory_gib = 16", "memory = 16").replace("448", "-448").replace('"cuda"', '"gpu"')
    path = written(tmp_path, text + 'colour = 3\n[use]\nbatch = 4\nmemory_share = 1.5\n[sources]\nfan = "x"\n')
    with pytest.raises(InputError) as caught:
        load_profile(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not valid: ")
    for part in (
        "`memory_gib`: Field required",
        "`memory`: unknown (got 16); did you mean memory_gib or memory_gb_per_s?",
        "`memory_gb_per_s`: Input should be greater than 0 (got -448)",
        "`kind`: Input should be 'cpu', 'cuda', 'rocm' or 'mps' (got 'gpu')",
        "`colour`: unknown (got 3); allowed: name, title,",
        "`use.batch`: unknown (got 4); did you mean batch_size?",
        "`use.memory_share`: Input should be less than or equal to 1 (got 1.5)",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.spec("hardware.profile-checked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[sources]\nfan = 'x'", "`sources` names what is no key of a profile: fan"),
        ("cache_gb_per_s = 3", "`cache_gb_per_s` is given without `cache_mib`"),
        ("memory_gib = 3", "is not valid TOML"),
        ("[kernels]\ntarget = 'sm_90'", "String should match pattern"),
        ("float64_tflop_per_s = 1", "did you mean "),
        ("power_w = inf", "finite number"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_profile(written(tmp_path, MINE + change))
    assert message in str(caught.value)


def test_an_unknown_profile_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(InputError, match=r"no profile 'rtx9090'; there are: a100, cpu, h200, .*, auto, or a \.toml file"):
        load_profile("rtx9090")
    with pytest.raises(InputError, match="does not exist; give a TOML file"):
        load_profile("nosuch.toml")


@pytest.mark.spec("hardware.profile-checked")
def test_all_mistakes_of_a_size_are_named_at_once(tmp_path: Path) -> None:
    head = 'title = "x"\ncontext_tokens = 8\nbatch_size = 0\n[model]\nvocab_size = 15\nmlp_width = 8\n'
    with pytest.raises(InputError) as caught:
        find_workload(written(tmp_path, head + "width = 10\nheads = 4\n"))
    assert "`batch_size`: Input should be greater than or equal to 1 (got 0)" in str(caught.value)
    assert "`model`: `width` must be a multiple of `heads`: got 10 and 4" in str(caught.value)
    with pytest.raises(InputError, match="`heads` must be a multiple of `kv_heads`: got 4 and 3"):
        find_workload(written(tmp_path, head.replace("= 0", "= 1") + "width = 16\nheads = 4\nkv_heads = 3\n"))
    with pytest.raises(InputError, match=r"no size or recipe 'huge'; there are: large, looplm-128, .*, first-light"):
        find_workload("huge")


@pytest.mark.parametrize(
    ("name", "width", "layers", "heads", "kv_heads", "mlp_width", "parameters"),
    [
        ("small", 768, 12, 12, 4, 2048, 100_092_672),
        ("medium", 1024, 24, 16, 4, 4096, 397_722_624),
        ("large", 1536, 24, 24, 6, 6144, 870_262_272),
    ],
)
def test_the_korean_sizes_are_the_plans(
    name: str, width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, parameters: int
) -> None:
    import torch

    model = find_workload(name).model
    assert (model.width, model.layers, model.heads, model.kv_heads, model.mlp_width) == (
        width,
        layers,
        heads,
        kv_heads,
        mlp_width,
    )
    assert (model.vocab_size, model.mlp, model.norm, model.positions) == (32_000, "swiglu", "rms", "rope")
    with torch.device("meta"):
        built = build_model(model)
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters


def test_every_size_is_valid_and_its_name_is_free() -> None:
    from looplm.train.recipe import recipe_names

    assert not set(size_names()) & set(recipe_names())
    for name in size_names():
        assert find_workload(name).name == name
    looped = {name: find_workload(name) for name in size_names() if name.startswith("looplm")}
    assert {(w.model.width, w.model.heads, w.num_loops) for w in looped.values()} == {
        (384, 6, 12),
        (256, 8, 12),
        (256, 4, 12),
        (128, 4, 12),
    }


def test_an_experiment_is_as_long_as_its_longest_texts() -> None:
    adder = find_workload("first-light")
    assert adder.context_tokens == len("^9999+9999=19998$") - 1
    assert (adder.num_loops, adder.first_read, adder.batch_size) == (6, 4, 96)
    assert adder.scored_share == 6 / 16


@pytest.mark.spec("hardware.detect")
def test_auto_takes_the_profile_that_knows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, title, name in (
        ("cuda", "NVIDIA GeForce RTX 4090", "rtx4090"),
        ("cuda", "NVIDIA H200", "h200"),
        ("mps", "Apple M4 Max", "m4max"),
        ("rocm", "AMD Instinct MI300X", "mi300x"),
    ):
        monkeypatch.setattr(detect, "device_kind", lambda kind=kind: kind)
        monkeypatch.setattr(detect, "device_title", lambda kind, title=title: title)
        assert detect.find_profile("auto").name == name


@pytest.mark.spec("hardware.detect")
def test_auto_on_a_cpu_has_this_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "device_kind", lambda: "cpu")
    monkeypatch.setattr(detect, "memory_bytes", lambda kind: 5 * 2**30)
    profile = detect.find_profile("auto")
    assert (profile.kind, profile.memory_gib) == ("cpu", 5)


@pytest.mark.spec("hardware.detect")
def test_what_is_detected_is_a_valid_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import tomli_w

    monkeypatch.setattr(detect, "_SECONDS", 0)
    monkeypatch.setattr(detect, "device_kind", lambda: "cpu")
    found = detect.detect(threads=1)
    assert found.memory_gb_per_s > 0
    assert found.float32_tflop_per_s > 0
    table = {key: value for key, value in as_table(found).items() if key != "name"}
    again = load_profile(written(tmp_path, tomli_w.dumps(table), "detected.toml"))
    assert again == found
