"""A static model is a Llama: by the spec's own code, and by transformers where it is installed."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import looplm
from looplm.cli import main
from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.interop.llama import llama_weights, read_llama, write_llama
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.runs.checkpoint import Trained, save
from looplm.spec import oracle
from looplm.think.generate import generate
from looplm.train.recipe import load_recipe

language = oracle("language")
HF = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")


@st.composite
def llamas(draw: st.DrawFn) -> LoopLM:
    """Heads of any sharing, several layers, odd sizes."""
    kv_heads, shared, size = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.sampled_from([2, 4, 6]))
    config = ModelConfig(
        body="static",
        vocab_size=draw(st.integers(5, 20)),
        width=kv_heads * shared * size,
        heads=kv_heads * shared,
        kv_heads=draw(st.sampled_from([kv_heads, None])),
        layers=draw(st.integers(1, 3)),
        mlp="swiglu",
        mlp_width=draw(st.integers(1, 12)),
        state_norm=False,
        norm_epsilon=draw(st.sampled_from([1e-6, 1e-5])),
        rope_theta=draw(st.sampled_from([10_000.0, 500_000.0])),
        embedding_std=0.5,
    )
    torch.manual_seed(draw(st.integers(0, 2**16)))
    model = build_model(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.normal_(1, 0.3)
    return model


def logits(model: LoopLM, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens, 1)[0]


@pytest.mark.spec("language.llama")
@given(llamas(), st.lists(st.integers(0, 4), min_size=1, max_size=7))
def test_a_static_model_is_a_llama_by_the_spec(model: LoopLM, tokens: list[int]) -> None:
    model, config = model.double(), model.config
    weights = {name.removeprefix("model.").removesuffix(".weight"): w for name, w in llama_weights(model).items()}
    heads = config.heads, config.kv_heads or config.heads
    expected = language.llama(tokens, weights, *heads, config.norm_epsilon, config.rope_theta)
    torch.testing.assert_close(logits(model, torch.tensor([tokens]))[0], expected, atol=1e-10, rtol=1e-10)


@HF
@pytest.mark.slow
@pytest.mark.spec("language.llama")
@given(llamas(), st.integers(1, 7))
@settings(max_examples=10)
def test_a_static_model_is_a_llama_by_transformers(
    tmp_path_factory: pytest.TempPathFactory, model: LoopLM, length: int
) -> None:
    import transformers

    folder = tmp_path_factory.mktemp("llama") / "out"
    write_llama(model, folder, 32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.randint(0, model.config.vocab_size, (2, length))
    with torch.no_grad():
        torch.testing.assert_close(logits(model, tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)


@HF
@pytest.mark.slow
@pytest.mark.spec("language.converted")
@pytest.mark.parametrize("shards", ["10MB", "2KB"])
def test_a_llama_of_transformers_goes_on_with_the_same_text_here(tmp_path: Path, shards: str) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=257,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.5,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shards)
    assert main(["convert", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")]) == 0
    model = looplm.load(tmp_path / "ours").model
    prompt = torch.randint(0, 256, (1, 5))
    expected = theirs.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 5:].tolist()
    assert generate(model, prompt, halting=Fixed(1), max_new_tokens=12, stop_token=-1).tokens == [expected]


@pytest.mark.spec("language.converted")
@given(llamas(), st.sampled_from([torch.float32, torch.bfloat16]), st.booleans())
@settings(max_examples=10)
def test_there_and_back_is_the_same_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, model: LoopLM, dtype: torch.dtype, cut: bool
) -> None:
    model, folder = model.to(dtype), tmp_path_factory.mktemp("llama") / "out"
    write_llama(model, folder, 32)
    if cut:  # as large models are kept
        whole = load_file(folder / "model.safetensors")
        files = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(whole)}
        for file in set(files.values()):
            save_file({name: w for name, w in whole.items() if files[name] == file}, folder / file)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    back = read_llama(folder)
    settled = ModelConfig(
        **(vars(model.config) | {"kv_heads": model.config.kv_heads or model.config.heads, "embedding_std": 0.02})
    )
    assert back.config == settled
    for (name, ours), theirs in zip(model.state_dict().items(), back.state_dict().values(), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name


@pytest.mark.spec("language.not-llama")
def test_what_is_no_llama_is_refused_with_all_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "adder", "--out", str(tmp_path / "new")]) == 2
    told = capsys.readouterr().err
    assert all(f"`{name}` must be" in told for name in ("body", "mlp", "positions")) and told.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.spec("language.not-llama")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"model_type": "gpt2", "attention_bias": True},
            r"`model_type` must be 'llama': got 'gpt2'; `attention_bias` must be False",
        ),
        ({"tie_word_embeddings": None}, "`tie_word_embeddings` must be True: got False"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "RoPE must not be scaled: got 'llama3'"),
        ({"head_dim": 3}, "a head must have 8 / 2 coordinates"),
        ({"hidden_size": "8"}, "`hidden_size` must be a number above 0: got '8'"),
        ({"num_key_value_heads": 3}, "multiple of `num_key_value_heads`: got 2 and 3"),
        ({"intermediate_size": 7}, r"must be \[14, 8\] in all: got \[16, 8\]"),
        ({"num_hidden_layers": 2}, "missing, or too many"),
    ],
)
def test_a_llama_that_we_have_not_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    config = ModelConfig(body="static", vocab_size=9, width=8, heads=2, mlp="swiglu", mlp_width=8, state_norm=False)
    write_llama(build_model(config), tmp_path / "llama", 16)
    path = tmp_path / "llama" / "config.json"
    told = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))
    with pytest.raises(InputError, match=says):
        read_llama(tmp_path / "llama")


@pytest.mark.spec("language.converted")
def test_damaged_folders_are_refused_and_nothing_is_overwritten(tmp_path: Path) -> None:
    config = ModelConfig(body="static", vocab_size=9, width=8, heads=2, mlp="swiglu", mlp_width=8, state_norm=False)
    model, folder = build_model(config), tmp_path / "llama"
    write_llama(model, folder, 16)
    with pytest.raises(InputError, match="is there already"):
        write_llama(model, folder, 16)
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read"):
        read_llama(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"holds no readable config\.json"):
        read_llama(folder)


@pytest.mark.spec("language.converted")
def test_a_run_becomes_a_llama_and_a_model_again_on_the_command_line(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a text that is long enough to be trained on. " * 40)
    static = {"body": "static", "state_norm": False, "layers": 2}
    one = {"min_loops": 1, "max_loops": 1}
    changes = {"task": {"path": str(text), "context": 16}, "model": static, "training": one, "evaluation": {"sizes": [8]}}
    recipe = load_recipe("text", changes | {"halting": {"rule": "fixed", "max_loops": 1}})
    save(Trained(build_model(recipe.model), recipe), tmp_path / "run")
    assert main(["convert", str(tmp_path / "run"), "--out", str(tmp_path / "llama")]) == 0
    assert json.loads((tmp_path / "llama" / "config.json").read_text())["max_position_embeddings"] == 16
    assert main(["convert", str(tmp_path / "llama"), "--out", str(tmp_path / "back")]) == 0
    before, after = (looplm.load(tmp_path / name).model for name in ("run", "back"))
    tokens = torch.randint(0, 257, (1, 9))
    assert torch.equal(logits(before, tokens), logits(after, tokens))  # type: ignore[arg-type]
