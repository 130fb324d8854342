"""The planner's formulas are the spec's, though they were derived apart; and what they count is what PyTorch keeps."""

import ast
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import VOCABULARY, in_form, model_configs
from typeguard import suppress_type_checks

from looplm.config import ModelConfig
from looplm.hardware import formulas, memory
from looplm.hardware.profile import SIZES
from looplm.models import build_model
from looplm.spec import oracle

ROOT = Path(__file__).parents[2]
spec = oracle("hardware")

counts = st.integers(1, 4096)
loop_counts = st.integers(1, 64)
sizes = st.sampled_from(sorted(SIZES.values()))
positive = st.floats(1e-3, 1e15)


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    """Small models of every kind and wide ones, with a gate or without."""
    config = draw(model_configs(gate=draw(st.booleans()), vocab_size=draw(st.integers(VOCABULARY, 70_000))))
    wider = draw(st.sampled_from([1, 1, 64]))
    return replace(config, width=wider * config.width, mlp_width=draw(st.integers(1, 64) | st.integers(1, 9000)))


@st.composite
def passes(draw: st.DrawFn) -> tuple[ModelConfig, int, int, int]:
    """A model, tokens of a row, loops, and how many of the loops are read."""
    loops = draw(loop_counts)
    return draw(models()), draw(counts), loops, draw(st.integers(1, loops))


@st.composite
def steps(draw: st.DrawFn) -> memory.Step:
    """A training step of any size; each of its moments is the worst of some."""
    model, tokens, loops, reads = draw(passes())
    return memory.Step(
        model=model,
        rows=draw(st.integers(1, 512)),
        tokens=draw(st.sampled_from([1, 7, tokens])),
        loops=loops,
        reads=reads,
        scored_share=draw(st.sampled_from([0.3, 1.0]) | st.floats(1e-3, 1)),
        size=draw(sizes),
        recompute=draw(st.booleans()),
        parts=draw(st.integers(1, 3)),
    )


shares = st.sampled_from([1.0, 0.25, 0.3])


@pytest.mark.spec("hardware.parameters")
@given(models())
def test_parameters_are_the_specs_and_in_its_order(model: ModelConfig) -> None:
    assert list(formulas.parameters(model).items()) == list(spec.parameters(model).items())
    assert formulas.kv_width(model) == spec.kv_width(model)


@pytest.mark.spec("hardware.parameters")
@given(model_configs(gate=True))
def test_a_gate_has_the_parameters_of_the_one_that_is_built(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = build_model(config)
    assert model.gate is not None
    assert formulas.parameters(config)["gate"] == sum(parameter.numel() for parameter in model.gate.parameters())
    assert sum(formulas.parameters(config).values()) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.spec("hardware.forward-flops")
@given(passes(), counts)
def test_the_operations_of_a_forward_pass_are_the_specs(drawn: tuple[ModelConfig, int, int, int], readable: int) -> None:
    model, tokens, loops, reads = drawn
    for read in (0, reads):
        counted = formulas.forward_flops(model, tokens, readable, loops, read)
        assert counted == spec.forward_flops(model, tokens, readable, loops, read)


@pytest.mark.spec("hardware.training-flops")
@given(passes(), st.booleans(), shares)
def test_the_operations_of_a_training_step_are_the_specs(
    drawn: tuple[ModelConfig, int, int, int], recompute: bool, share: float
) -> None:
    counted = formulas.training_flops(*drawn, recompute, share)
    assert counted == pytest.approx(spec.training_flops(*drawn, recompute, share), rel=1e-12)


@pytest.mark.spec("hardware.state-bytes")
@given(models())
def test_weights_gradients_and_moments_are_the_specs(model: ModelConfig) -> None:
    assert list(formulas.state_bytes(model).items()) == list(spec.state_bytes(model).items())


@pytest.mark.spec("hardware.cache-bytes")
@given(passes(), sizes)
def test_the_cache_of_a_row_is_the_specs(drawn: tuple[ModelConfig, int, int, int], size: int) -> None:
    model, tokens, loops, _ = drawn
    assert formulas.cache_bytes(model, tokens, loops, size) == spec.cache_bytes(model, tokens, loops, size)


@pytest.mark.spec("hardware.kept-bytes")
@given(models(), counts, sizes, st.booleans())
def test_what_a_token_keeps_is_the_specs(model: ModelConfig, tokens: int, size: int, recompute: bool) -> None:
    assert formulas.attention_kept(model, tokens, size) == spec.attention_kept(model, tokens, size)
    assert formulas.layer_kept(model, tokens, size) == spec.layer_kept(model, tokens, size)
    assert formulas.loop_kept(model, tokens, size, recompute) == spec.loop_kept(model, tokens, size, recompute)
    assert formulas.head_kept(model, size) == spec.head_kept(model, size)


@pytest.mark.spec("hardware.kept-bytes")
@given(model_configs(body="looped"), st.integers(2, 3), st.integers(2, 12), st.sampled_from(["float32", "bfloat16"]))
def test_a_loop_and_a_reading_keep_what_pytorch_saves(config: ModelConfig, rows: int, tokens: int, dtype: Any) -> None:
    config = replace(config, width=config.heads * 8)  # heads of two numbers, or one row, need fewer copies
    model, text = in_form(build_model(config), sparse=False), torch.randint(0, VOCABULARY, (rows, tokens))
    one, two, two_read = (saved_bytes(model, text, loops, reads, dtype) for loops, reads in ((1, 1), (2, 1), (2, 2)))
    loop = formulas.loop_kept(config, tokens, SIZES[dtype], False)
    of_the_loss = 2 * 8 + 4 * config.vocab_size  # where a token stands, and its log-probabilities
    head = formulas.head_kept(config, SIZES[dtype]) - of_the_loss
    assert two - one == rows * tokens * loop
    assert two_read - two == rows * tokens * head


def saved_bytes(model: torch.nn.Module, text: torch.Tensor, loops: int, reads: int, dtype: str) -> int:
    """Of all storages that a forward pass saves for the backward pass, each once; the model's own are left out."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    with (
        suppress_type_checks(),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        logits = model(text, loops, first_read=loops - reads + 1)
        total = sum(storage.nbytes() for storage in saved.values())
    del logits
    return total


@pytest.mark.spec("hardware.training-peak")
@given(steps())
def test_every_moment_of_a_training_step_is_the_specs(step: memory.Step) -> None:
    shape = (step.model, step.rows, step.tokens, step.loops, step.reads)
    way = (step.scored_share, step.size, step.recompute, step.parts)
    theirs = spec.step_moments(*shape, *way)
    assert list(step.moments()) == list(theirs)
    for moment, held in step.moments().items():  # whole bytes, cut off from sums in another order
        assert held == pytest.approx(theirs[moment], rel=1e-12, abs=1)
    assert step.peak() == pytest.approx(spec.training_peak(*shape, *way), rel=1e-12, abs=1)


@pytest.mark.spec("hardware.training-peak")
def test_a_step_is_whole_and_in_float32_unless_it_says_otherwise() -> None:
    model = ModelConfig(vocab_size=16, width=8, heads=2, mlp_width=16)
    assert astuple(memory.Step(model=model, rows=2, tokens=3, loops=4, reads=1))[1:] == (2, 3, 4, 1, 1.0, 4, False, 1)


@pytest.mark.spec("hardware.generation-bytes")
@given(models(), st.integers(1, 512), counts, st.integers(0, 4096), loop_counts, sizes)
@example(ModelConfig(vocab_size=16, width=8, heads=2, mlp_width=16), 1, 1, 0, 12, 4)
@example(ModelConfig(vocab_size=16, width=8, heads=2, mlp_width=16), 1, 3, 1, 12, 4)
@example(ModelConfig(vocab_size=16, width=8, heads=2, mlp_width=16), 1, 3, 5, 12, 4)
def test_what_generation_needs_is_the_specs(
    model: ModelConfig, rows: int, prompt: int, more: int, loops: int, size: int
) -> None:
    drawn = (model, rows, prompt, prompt + more, loops, size)
    assert memory.generation_bytes(*drawn) == spec.generation_bytes(*drawn)


@pytest.mark.spec("hardware.largest-batch")
@given(st.integers(0, 5000), st.integers(0, 4000))
@example(0, 1)
@example(1, 1)
@example(4095, 4096)
@example(4096, 4096)
def test_the_largest_batch_is_the_specs(most: int, limit: int) -> None:
    found = memory.largest_batch(lambda rows: rows <= most, limit)
    assert found == spec.largest_batch(lambda rows: rows <= most, limit) == min(most, limit)


@pytest.mark.spec("hardware.traffic")
@given(passes(), st.integers(1, 512), sizes, st.integers(0, 2**16) | st.integers(0, 2**36))
@example((ModelConfig(vocab_size=16, width=8, heads=2, mlp_width=16), 1, 1, 1), 1, 4, 2**36)
def test_what_a_pass_and_a_step_move_is_the_specs(
    drawn: tuple[ModelConfig, int, int, int], rows: int, size: int, cache: int
) -> None:
    model, tokens, loops, reads = drawn
    moved = formulas.pass_traffic(model, rows, tokens, loops, size, cache)
    assert moved == spec.pass_traffic(model, rows, tokens, loops, size, cache)
    shape = (model, rows, tokens, loops, reads, size, cache, 0.25)
    assert formulas.step_traffic(*shape) == pytest.approx(spec.step_traffic(*shape), rel=1e-12)


@pytest.mark.spec("hardware.roofline")
@given(st.floats(0, 1e18), st.tuples(st.floats(0, 1e15), st.floats(0, 1e15)), positive, positive, st.none() | positive)
@example(6.0, (6.0, 6.0), 2.0, 2.0, 2.0)
@example(4.0, (6.0, 6.0), 2.0, 2.0, 2.0)
@example(4.0, (6.0, 8.0), 2.0, 2.0, 2.0)
@example(4.0, (6.0, 8.0), 2.0, 2.0, None)
def test_the_roofline_is_the_specs(
    flops: float, traffic: tuple[float, float], rate: float, bandwidth: float, cache_bandwidth: float | None
) -> None:
    seconds, wall = formulas.roofline(flops, traffic, rate, bandwidth, cache_bandwidth)
    expected, expected_wall = spec.roofline(flops, traffic, rate, bandwidth, cache_bandwidth)
    assert seconds == pytest.approx(expected, rel=1e-12, abs=0)
    assert wall == expected_wall


@pytest.mark.spec("hardware.run-cost")
@given(positive, positive, st.floats(0, 1e5))
def test_days_and_energy_are_the_specs(tokens: float, tokens_per_s: float, power_w: float) -> None:
    expected = spec.run_cost(tokens, tokens_per_s, power_w)
    assert formulas.run_cost(tokens, tokens_per_s, power_w) == pytest.approx(expected, rel=1e-12, abs=0)


def lines_that_run_the_spec(source: str) -> list[int]:
    """Where code names `oracle`, or imports a module that is made of a spec file's fences."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name == "oracle":
                found.append(node.lineno)
            case ast.ImportFrom(module=module, names=names):
                if (module or "").split(".")[0] == "spec" or any(alias.name == "oracle" for alias in names):
                    found.append(node.lineno)
            case ast.Import(names=names) if any(alias.name.split(".")[0] == "spec" for alias in names):
                found.append(node.lineno)
    return found


def test_the_package_has_formulas_of_its_own_and_leaves_the_specs_to_tests() -> None:
    for path in sorted((ROOT / "looplm").rglob("*.py")):
        place = path.relative_to(ROOT / "looplm").as_posix()
        if not place.startswith("spec") and place != "cli/spec.py":
            for line in lines_that_run_the_spec(path.read_text(encoding="utf-8")):
                raise AssertionError(f"{path}:{line}: derive it anew here, and let a test compare it with the spec's oracle")


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        ("from looplm.spec import citation, oracle as rules", True),
        ("from looplm import spec\nspec.oracle('hardware')", True),
        ("from spec.hardware import parameters", True),
        ("import spec.hardware", True),
        ("from looplm import spec\nspec.citation('hardware.parameters')", False),
        ("from looplm.spec import citation\nimport looplm.spec", False),
    ],
)
def test_running_the_spec_is_seen_however_it_is_written(source: str, runs: bool) -> None:
    assert bool(lines_that_run_the_spec(source)) == runs
