"""Leaving work out must change nothing: the fast way against the plain one."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import Scattered, halting_rules, masks, model_configs, models, texts
from torch import Tensor

from looplm.config import ModelConfig
from looplm.loop.halting import ByRole, HaltingRule
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.spec import oracle
from looplm.think.batched import Thinking

halting = oracle("halting")


def run(thinking: Thinking) -> Thinking:
    while thinking.running.any():
        thinking.advance()
    return thinking


@pytest.mark.spec("halting.skipped-work", "halting.kv-publish", "halting.block-evaluations", "architecture.padding")
@given(models(), texts(), halting_rules(), st.booleans(), st.data())
def test_leaving_work_out_gives_the_same_thoughts(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, has_room: bool, data: st.DataObject
) -> None:
    real, answer = data.draw(masks(tokens, some=True)), data.draw(masks(tokens))
    plain = model.think(tokens, rule, real=real, answer=answer)
    thinking = run(Thinking(model, tokens, rule, real=real, answer=answer, room=3 * has_room))
    width = tokens.shape[1]
    assert torch.equal(thinking.loops_taken[:, :width], plain.loops_taken)
    torch.testing.assert_close(thinking.states[:, :width][real], plain.h[real], atol=1e-10, rtol=1e-8)
    assert torch.equal(thinking.guess[:, :width][real], plain.logits.argmax(-1)[real])
    assert thinking.calls == plain.loops_taken.max()
    for row, work in enumerate(thinking.block_evaluations.tolist()):
        taken = plain.loops_taken[row][real[row]].tolist()
        assert work == pytest.approx(halting.block_evaluations(taken, model.block.kv_share))


@pytest.mark.spec("halting.block-evaluations")
@given(model_configs())
def test_a_kv_only_pass_counts_its_share_of_the_weights(config: ModelConfig) -> None:
    share, head_dim = build_model(config).block.kv_share, config.width // config.heads
    kv = 2 * (config.kv_heads or config.heads) * head_dim * config.width
    others = 2 * config.width**2 + {"gelu": 2, "swiglu": 3}[config.mlp] * config.width * config.mlp_width
    assert share == pytest.approx(1 if config.layers > 1 else kv / (kv + others))


@pytest.mark.spec("halting.freeze", "halting.skipped-work")
@given(models(), texts(), halting_rules())
def test_active_tokens_only_become_fewer_and_frozen_states_stay(model: LoopLM, tokens: Tensor, rule: HaltingRule) -> None:
    thinking = Thinking(model, tokens, rule)
    while thinking.running.any():
        active, states, taken = thinking.active.clone(), thinking.states.clone(), thinking.loops_taken.clone()
        thinking.advance()
        assert not (thinking.active & ~active).any()
        frozen = ~active[:, : tokens.shape[1]]
        assert torch.equal(thinking.states[:, : tokens.shape[1]][frozen], states[:, : tokens.shape[1]][frozen]), "bit for bit"
        assert torch.equal(thinking.loops_taken, taken + active)


@pytest.mark.spec("halting.skipped-work")
@given(models(), texts(min_rows=2, max_rows=2), st.data())
def test_leaving_the_loop_early_equals_running_it_out(model: LoopLM, tokens: Tensor, data: st.DataObject) -> None:
    early = ByRole(Scattered(5), Fixed(9))
    answer = torch.tensor([[True], [False]]).expand_as(tokens)  # the second row keeps the first one's loop going
    alone = model.think(tokens[:1], early)
    beside = model.think(tokens, early, answer=answer)
    assert torch.equal(alone.loops_taken[0], beside.loops_taken[0])
    torch.testing.assert_close(alone.h[0], beside.h[0], atol=1e-10, rtol=1e-8)


@pytest.mark.spec("halting.skipped-work")
def test_float32_takes_the_same_loops_away_from_the_threshold(record_property: Callable[[str, object], None]) -> None:
    near = total = 0
    for seed in range(30):
        torch.manual_seed(seed)
        model = models_at(seed)
        tokens, rule = torch.randint(0, 15, (4, 10)), Confidence(6, threshold=0.7)
        exact = model.think(tokens, rule, keep_every_loop=True)
        assert exact.logits_per_loop is not None
        margin = (exact.logits_per_loop.softmax(-1).amax(-1) - rule.threshold).abs()  # [L, B, T]
        # a token within 1e-4 of the threshold at any loop may rightly halt elsewhere, and then all after it may
        unsure = (margin < 1e-4).any(0).long().cummax(1).values.bool()
        near, total = near + int(unsure.sum()), total + unsure.numel()
        model = model.float()
        for taken in (model.think(tokens, rule).loops_taken, run(Thinking(model, tokens, rule)).loops_taken[:, :-1]):
            assert torch.equal(taken[~unsure], exact.loops_taken[~unsure])
    record_property("share of tokens too near the threshold", near / total)
    assert near / total < 0.02


def models_at(seed: int) -> LoopLM:
    model = build_model(ModelConfig(vocab_size=15, width=24, heads=2, layers=1 + seed % 2, mlp_width=40)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model.eval()
