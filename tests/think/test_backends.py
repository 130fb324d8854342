"""One loop, three backends: the same tokens, and a choice that explains itself."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from looplm_kernels.loop import loop
from looplm_kernels.state import Rule, empty
from strategies import Scattered, halting_rules, masks, models, texts
from torch import Tensor

import looplm
from looplm.errors import InputError
from looplm.loop.halting import Bounded, ByRole, HaltingRule
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.gate import Gate
from looplm.loop.halting.prefix_stability import PrefixStability
from looplm.loop.halting.state_change import StateChange
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.models.looped import LoopLM, looped
from looplm.spec import oracle
from looplm.think import backends
from looplm.think.backends import GRID_WINS, KernelThinking, begin, choose, kernel_weights
from looplm.think.batched import Thinking
from looplm.think.generate import generate, pad_left
from looplm.think.sampling import Sampling

kernels, halting = oracle("kernels"), oracle("halting")
NEVER = -1
ROOT = Path(__file__).parents[2]


@st.composite
def known_rules(draw: st.DrawFn) -> HaltingRule:
    """Rules that the kernels know, one for all tokens or one for each role."""
    least, most = sorted((draw(st.integers(1, 5)), draw(st.integers(1, 5))))
    threshold = st.floats(0.1, 1)
    kinds: list[HaltingRule] = [
        Confidence(most, least, threshold=draw(threshold)),
        TwoEqualArgmaxes(most, least),
        Fixed(most),
        StateChange(most, least, epsilon=draw(st.floats(0.05, 2))),
        PrefixStability(most, least, threshold=draw(threshold), epsilon=draw(st.floats(0.05, 2))),
    ]
    answer = draw(st.sampled_from(kinds))
    if draw(st.booleans()) and not isinstance(answer, PrefixStability):
        return answer
    prompts: list[HaltingRule] = [Fixed(draw(st.integers(1, 5)))]
    if isinstance(answer, Confidence):  # Wait-to-Think
        prompts.append(Confidence(max(least, draw(st.integers(1, 5))), least, threshold=draw(threshold)))
    return ByRole(answer, draw(st.sampled_from(prompts)))


@pytest.mark.spec("kernels.reference")
@given(models(layers=1, kv_heads=None, place_strict=False), texts(), known_rules(), st.data())
def test_the_reference_is_the_model(model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject) -> None:
    real, answer = data.draw(masks(tokens, some=True)), data.draw(masks(tokens))
    expected = model.think(tokens, rule, real=real, answer=answer & real)
    thinking = KernelThinking(model, tokens, rule, real=real, answer=answer, backend="reference")
    thinking.advance()
    state = thinking._state
    for row in range(len(tokens)):
        n, of = int(real[row].sum()), real[row]
        assert torch.equal(state.loops_taken[row, :n].long(), expected.loops_taken[row, of])
        # float64, as in tests/models: the same sums in another order
        torch.testing.assert_close(state.h[row, :n], expected.h[row, of], atol=1e-10, rtol=1e-8)
        probability, token = expected.logits[row, of].softmax(-1).max(-1)
        assert torch.equal(state.next_token[row, :n].long(), token)
        torch.testing.assert_close(state.confidence[row, :n], probability, atol=1e-10, rtol=1e-8)


@pytest.mark.spec("kernels.backends", "kernels.reference")
@given(
    models(layers=1, kv_heads=None, place_strict=False, positions="place"),
    texts(min_rows=2),
    known_rules(),
    st.integers(1, 5),
    st.data(),
)
def test_generating_gives_the_same_with_every_backend(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, count: int, data: st.DataObject
) -> None:
    prompts, real = pad_left([row[: data.draw(st.integers(1, len(row)))] for row in tokens.tolist()], 14)
    asked: dict[str, Any] = {"halting": rule, "max_new_tokens": count, "stop_token": data.draw(st.sampled_from([NEVER, 3]))}
    asked |= {"real": real, "sampling": Sampling(temperature=data.draw(st.sampled_from([0.0, 1.0]))), "log_probabilities": True}
    ours, theirs = (generate(model, prompts, backend=name, **asked) for name in ("reference", "torch"))
    assert (ours.backend, theirs.backend) == ("reference", "torch")
    assert ours.tokens == theirs.tokens
    assert ours.loops_taken == theirs.loops_taken and ours.ran_out == theirs.ran_out
    assert ours.log_probabilities is not None and theirs.log_probabilities is not None
    for mine, of_torch in zip(ours.log_probabilities, theirs.log_probabilities, strict=True):
        assert mine == pytest.approx(of_torch, abs=1e-8)
    assert ours.block_evaluations == pytest.approx(theirs.block_evaluations)


@pytest.mark.spec("kernels.backends")
@given(models(layers=1, kv_heads=None, place_strict=False), texts(), known_rules(), st.data())
def test_tables_have_the_columns_that_were_given(model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject) -> None:
    real, answer = data.draw(masks(tokens, some=True)), data.draw(masks(tokens))
    ours, theirs = (
        begin(model, tokens, rule, real=real, answer=answer & real, backend=name) for name in ("reference", "torch")
    )
    for thinking in (ours, theirs):
        while bool(thinking.running.any()):
            thinking.advance()
    width = tokens.shape[1]
    for name in ("guess", "loops_taken"):
        assert torch.equal(getattr(ours, name)[:, :width][real], getattr(theirs, name)[:, :width][real])
    assert (ours.loops_taken[~real] == 0).all()
    assert ours.block_evaluations.tolist() == pytest.approx(theirs.block_evaluations.tolist())


@pytest.mark.spec("kernels.backends")
def test_learned_positions_end_at_the_same_token_with_every_backend() -> None:
    from looplm.config import ModelConfig
    from looplm.models import build_model

    config = ModelConfig(vocab_size=15, width=4, heads=1, mlp_width=4, positions="learned", max_positions=5)
    model, prompt = build_model(config), torch.zeros(1, 3, dtype=torch.int64)
    for name in ("torch", "reference"):
        made = generate(model, prompt, halting=Fixed(1), max_new_tokens=3, stop_token=NEVER, backend=name)
        assert len(made.tokens[0]) == 3
        with pytest.raises(ValueError, match="learned positions for 5 tokens: got a text of 6"):
            generate(model, prompt, halting=Fixed(1), max_new_tokens=4, stop_token=NEVER, backend=name)


@pytest.mark.spec("kernels.choice")
def test_auto_takes_the_first_that_can_run_and_says_why_not_the_fused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from looplm.config import ModelConfig
    from looplm.models import build_model

    class Weight:
        def __init__(self, on_cuda: bool, dtype: torch.dtype) -> None:
            self.is_cuda, self.dtype = on_cuda, dtype
            self.device = "cuda:0" if on_cuda else "cpu"

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for on_cuda, one_layer, known, narrow in itertools.product((False, True), repeat=4):
        model = build_model(ModelConfig(vocab_size=15, width=4, heads=1, mlp_width=4, layers=1 if one_layer else 2))
        weight = Weight(on_cuda, torch.bfloat16 if narrow else torch.float64)
        monkeypatch.setattr(model, "embedding", type("Embedding", (torch.nn.Module,), {"weight": weight})())
        rule: HaltingRule = TwoEqualArgmaxes(3) if known else Scattered(3)
        chosen = choose("auto", model, rule)
        assert chosen.name == kernels.choice(on_cuda, one_layer, known, narrow)
        assert bool(chosen.why) == (chosen.name != "triton")
        if chosen.name == "torch":
            with pytest.raises(InputError, match=r"the backend 'triton' cannot run this: .*Use 'torch'") as error:
                choose("triton", model, rule)
            assert chosen.why in str(error.value)
        else:
            assert choose("triton", model, rule).name == "triton"
        assert choose("torch", model, rule).name == "torch"


@pytest.mark.spec("kernels.choice", "kernels.halts")
@given(halting_rules())
def test_a_rule_that_the_kernels_do_not_know_is_left_to_torch(rule: HaltingRule) -> None:
    adder = looplm.load("adder").model
    roles = (rule.answer, rule.prompt) if isinstance(rule, ByRole) else (rule,)
    strange = any(
        isinstance(role, Scattered | Gate)
        or getattr(role, "unknown_id", None) is not None
        or (isinstance(role, Bounded) and role.in_order != isinstance(role, PrefixStability))
        for role in roles
    )
    if strange:
        with pytest.raises(InputError, match="do not know this halting rule"):
            choose("reference", adder, rule)
    elif len(roles) == 1 and not isinstance(rule, PrefixStability):
        assert choose("reference", adder, rule).name == "reference"
    assert choose("auto", adder, rule).name == "torch"  # no CUDA here, or the model is not on it


@pytest.mark.spec("kernels.choice", "halting.prefix-stability")
def test_prompts_whose_tokens_wait_for_each_other_are_left_to_torch() -> None:
    """A kernel would take them for tokens of the answer."""
    adder, waits = looplm.load("adder").model, PrefixStability(4, threshold=0.9, epsilon=0.1)
    for rule in (ByRole(Fixed(4), waits), ByRole(waits, waits)):
        with pytest.raises(InputError, match="do not know this halting rule"):
            choose("reference", adder, rule)
    assert choose("reference", adder, ByRole(waits, Fixed(4))).name == "reference"


@pytest.mark.spec("kernels.backends")
def test_the_shipped_adder_runs_on_the_reference() -> None:
    adder = looplm.load("adder")
    made = looplm.solve(adder, ["978+457", "5+5"], backend="reference")
    assert [solution.answer for solution in made] == ["1435", "10"]
    assert made == looplm.solve(adder, ["978+457", "5+5"], backend="torch")


@pytest.mark.spec("kernels.refuses")
def test_a_model_of_two_layers_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from looplm.config import ModelConfig
    from looplm.models import build_model

    model = build_model(ModelConfig(vocab_size=15, width=4, heads=1, mlp_width=4, layers=2))
    with pytest.raises(InputError, match="one layer, and this model's has 2"):
        kernel_weights(model)
    tokens = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(InputError, match="one layer"):
        generate(model, tokens, halting=Fixed(1), max_new_tokens=1, stop_token=NEVER, backend="reference")
    assert type(begin(model, tokens, Fixed(1))) is Thinking


@pytest.mark.spec("kernels.bytes")
def test_bytes_of_a_loop_are_the_sizes_of_what_it_reads() -> None:
    weights = kernel_weights(looped(looplm.load("adder", dtype=torch.bfloat16).model, "this test"))
    matrices = (weights.embedding, weights.qkv, weights.out, weights.up, weights.down)
    state = empty(weights, 16, 16, 3)
    start = torch.zeros(16, dtype=torch.int32)
    with torch.no_grad():
        loop(weights, state, start, start + 16, Rule(3))
    seen = [cache[:, :, 0] for cache in (state.keys, state.values)]  # one loop's entries of 16 texts of 16 tokens
    expected = sum(t.numel() * t.itemsize for t in (*matrices, *seen))
    counted = kernels.bytes_per_loop(weights.width, len(weights.up), len(weights.embedding), False, rows=16, seen=16)
    assert counted == expected
    assert math.isfinite(counted)


@pytest.mark.spec("kernels.which")
@pytest.mark.parametrize(
    ("device", "texts", "epsilon", "expected"),
    [
        ("NVIDIA H200", 1, math.inf, "B"),
        ("NVIDIA H200", 16, math.inf, "B"),
        ("NVIDIA H200", 17, math.inf, "A"),
        ("NVIDIA H200", 1, 0.1, "A"),
        ("another GPU", 1, math.inf, "A"),
    ],
)
def test_kernel_b_reads_next_tokens_where_it_was_measured_to_be_faster(
    device: str, texts: int, epsilon: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def kernel(name: str) -> Any:
        def run(weights: Any, state: Any, start: Any, end: Any, rule: Any, *, backend: str, across: bool = False) -> None:
            ran.append(name)
            loop(weights, state, start, end, rule)

        return run

    monkeypatch.setattr(backends, "loop", kernel("A"))
    monkeypatch.setattr(backends, "loop_grid", kernel("B"))
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda of: device)
    model = looplm.load("adder").model
    assert isinstance(model, LoopLM)
    rule: HaltingRule = TwoEqualArgmaxes(3) if epsilon == math.inf else StateChange(3, epsilon=epsilon)
    thinking = KernelThinking(model, torch.ones(texts, 2, dtype=torch.int64), rule, room=1, backend="triton")
    thinking.advance()
    thinking.append([0], torch.tensor([3]))
    thinking.advance()
    assert ran == ["A", expected]


@pytest.mark.spec("kernels.which")
def test_the_committed_benchmark_says_so() -> None:
    measured = json.loads((ROOT / "docs" / "data" / "bench-gpu.json").read_text(encoding="utf-8"))
    both = [row["ratios"]["A / B"] for row in measured["rows"] if "A / B" in row.get("ratios", {})]
    assert both and not measured["machine"]["dry"]
    assert (measured["machine"]["device"] in GRID_WINS) == all(ratio["low"] > 1 for ratio in both)
