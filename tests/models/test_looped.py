"""The model against the spec's own functions, and the ways of running it against each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle_model import OracleModel
from strategies import Scattered, halting_rules, masks, model_configs, models, texts
from torch import Tensor

from looplm.config import ModelConfig
from looplm.loop.cache import KVCache
from looplm.loop.halting import HaltingRule
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.loop.work import Offer
from looplm.models import build_model
from looplm.models.body import Thoughts
from looplm.models.looped import LoopLM
from looplm.think.batched import Thinking


# float64: sums of at most a few hundred products of numbers near 1, over at most 5 loops of 3 layers (architecture, Questions)
def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


def assert_same(one: Thoughts, other: Thoughts, where: Tensor | None = None) -> None:
    where = torch.ones_like(one.loops_taken, dtype=torch.bool) if where is None else where
    assert torch.equal(one.loops_taken[where], other.loops_taken[where])
    assert_close(one.h[where], other.h[where])
    assert_close(one.logits[where], other.logits[where])


def token_by_token(model: LoopLM, tokens: Tensor, rule: HaltingRule, chunks: list[int]) -> Thoughts:
    cache, parts = KVCache(rule.max_loops, model.config.layers), []
    for part in tokens.split(chunks, dim=1):
        parts.append(model.think(part, rule, cache=cache))
    return Thoughts(
        torch.cat([p.h for p in parts], 1),
        torch.cat([p.logits for p in parts], 1),
        torch.cat([p.loops_taken for p in parts], 1),
        None,
    )


@pytest.mark.spec(
    "architecture.embedding",
    "architecture.loop",
    "architecture.loop-signal",
    "architecture.learned-loop-signal",
    "architecture.tied-head",
    "architecture.seen",
    "architecture.causal",
    "architecture.layer",
    "architecture.projections",
    "architecture.positions",
    "architecture.rms-norm",
    "architecture.layer-norm",
    "architecture.attention",
    "architecture.grouped-queries",
    "architecture.gelu",
    "architecture.swiglu",
    "architecture.rope",
    "architecture.learned-positions",
    "architecture.place",
    "architecture.place-bias",
    "architecture.place-window",
    "architecture.place-strict",
    "injection.every-loop",
    "injection.first-loop",
)
@given(models(), texts(max_rows=2), st.integers(1, 4))
def test_training_pass_matches_the_spec(model: LoopLM, tokens: Tensor, num_loops: int) -> None:
    logits = model(tokens, num_loops)
    for row, ids in enumerate(tokens.tolist()):
        for t, token in enumerate(OracleModel(model).read(ids, Fixed(num_loops))):
            assert_close(logits[:, row, t], torch.stack(token.logits))


@pytest.mark.spec(
    "halting.kv-publish",
    "halting.kv-pass",
    "halting.roles",
    "halting.fixed",
    "halting.confidence",
    "halting.two-equal-argmaxes",
    "halting.state-change",
    "halting.prefix-stability",
    "halting.bounds",
    "halting.loops-taken",
    "halting.at-least-one-loop",
    "halting.gate",
    "halting.gate-probability",
    "halting.in-order",
    "halting.not-known-yet",
    "architecture.loop",
)
@given(models(), texts(max_rows=2), halting_rules(), st.data())
def test_thinking_matches_the_spec(model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject) -> None:
    answer = data.draw(masks(tokens))
    thoughts = model.think(tokens, rule, answer=answer)
    for row, ids in enumerate(tokens.tolist()):
        for t, token in enumerate(OracleModel(model).read(ids, rule, answer[row].tolist())):
            assert thoughts.loops_taken[row, t] == token.loops_taken
            assert 1 <= token.loops_taken <= rule.max_loops
            assert_close(thoughts.h[row, t], token.states[-1])
            assert_close(thoughts.logits[row, t], token.logits[-1])


@pytest.mark.spec("halting.kv-alternatives")
@pytest.mark.parametrize("offer", ["carry", "recompute", "no-freeze"])
@given(models(), texts(max_rows=1), halting_rules())
def test_what_else_a_halted_token_may_offer_matches_the_spec(
    offer: Offer, model: LoopLM, tokens: Tensor, rule: HaltingRule
) -> None:
    thoughts = model.think(tokens, rule, offer=offer)
    for t, token in enumerate(OracleModel(model, offer).read(tokens[0].tolist(), rule)):
        assert thoughts.loops_taken[0, t] == token.loops_taken
        assert_close(thoughts.h[0, t], token.states[-1])


@pytest.mark.spec("halting.kv-alternatives")
def test_only_kv_publish_works_with_a_cache() -> None:
    model = build_model(ModelConfig(vocab_size=15, width=4, heads=1, mlp_width=4))
    with pytest.raises(ValueError, match="must be 'publish' with a cache: got 'carry'"):
        model.think(torch.zeros(1, 1, dtype=torch.int64), Fixed(2), cache=KVCache(2, 1), offer="carry")


@pytest.mark.spec("halting.probe")
@given(models(), texts(), halting_rules(), st.data())
def test_a_hook_sees_every_loop_and_patches_active_tokens_only(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject
) -> None:
    seen: list[tuple[int, Tensor]] = []
    plain = model.think(tokens, rule, keep_every_loop=True, hook=lambda l, h: seen.append((l, h)))
    assert plain.h_per_loop is not None
    assert [l for l, _ in seen] == list(range(1, len(plain.h_per_loop) + 1))
    for l, (_, h) in enumerate(seen, 1):
        active = plain.loops_taken >= l
        assert torch.equal(h[active], plain.h_per_loop[l - 1][active])
    at, added = data.draw(st.integers(1, len(seen))), torch.randn(model.config.width).double()
    patched = model.think(tokens, rule, keep_every_loop=True, hook=lambda l, h: h + added if l == at else None)
    assert patched.h_per_loop is not None
    assert_close(patched.h_per_loop[: at - 1], plain.h_per_loop[: at - 1])
    active = (plain.loops_taken >= at)[..., None]
    assert_close(patched.h_per_loop[at - 1], plain.h_per_loop[at - 1] + added * active)


@pytest.mark.spec("architecture.cache", "halting.kv-publish")
@given(models(), texts(min_length=2), halting_rules(), st.data())
def test_token_by_token_equals_reading_at_once(model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject) -> None:
    length = tokens.shape[1]
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1))))
    chunks = [end - start for start, end in zip([0, *cuts], [*cuts, length], strict=True)]
    assert_same(token_by_token(model, tokens, rule, chunks), model.think(tokens, rule))
    assert_same(token_by_token(model, tokens, rule, [1] * length), model.think(tokens, rule))


@pytest.mark.spec("halting.kv-publish", "halting.kv-pass")
@given(models(body="looped", loop_signal="learned", loop_signal_loops=6), texts(min_length=8), st.integers(2, 6))
def test_what_a_chunk_publishes_at_its_end_is_what_it_would_have_offered(model: LoopLM, tokens: Tensor, cut: int) -> None:
    rule = Scattered(6)
    in_two = token_by_token(model, tokens, rule, [cut, tokens.shape[1] - cut])
    assert_same(in_two, model.think(tokens, rule))


@pytest.mark.spec("architecture.padding")
@given(models(), texts(min_rows=2), halting_rules(), st.data())
def test_a_row_alone_equals_the_row_in_any_batch(model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject) -> None:
    real = data.draw(masks(tokens, some=True))  # padding may stand anywhere, and be any token
    together = model.think(tokens, rule, real=real)
    assert (together.loops_taken[~real] == 0).all()
    for row, length in enumerate(real.sum(1).tolist()):
        alone = model.think(tokens[row][real[row]][None], rule)
        where = real[row]
        in_batch = Thoughts(
            together.h[row][where][None], together.logits[row][where][None], together.loops_taken[row][where][None], None
        )
        assert in_batch.h.shape[1] == length
        assert_same(in_batch, alone)


@pytest.mark.spec("halting.kv-publish")
@given(models(), texts(max_rows=1, min_length=2), st.integers(1, 2), st.integers(3, 5))
def test_a_reader_with_more_loops_reads_the_published_entry(model: LoopLM, tokens: Tensor, few: int, more: int) -> None:
    cache = KVCache(more, model.config.layers)
    first, last = tokens[:, :-1], tokens[:, -1:]
    model.think(first, Fixed(few), cache=cache)
    read = model.think(last, Fixed(more), cache=cache)
    oracle = OracleModel(model)
    earlier = oracle.read(first[0].tolist(), Fixed(few))
    token = oracle.read_next(tokens[0].tolist(), earlier, Fixed(more))
    assert_close(read.h[0, 0], token.states[-1])


@pytest.mark.spec("architecture.causal")
@given(models(), texts(max_rows=1, min_length=2), halting_rules(), st.data())
def test_a_token_never_depends_on_a_later_one(model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, tokens.shape[1] - 1))
    changed = tokens.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % model.config.vocab_size
    before, after = model.think(tokens, rule), model.think(changed, rule)
    where = (torch.arange(tokens.shape[1]) < cut)[None]
    assert_same(before, after, where)
    assert_close(model(tokens, 2)[:, :, :cut], model(changed, 2)[:, :, :cut])


@pytest.mark.spec("halting.freeze", "halting.loops-taken")
@given(models(), texts(), halting_rules())
def test_a_halted_token_never_changes(model: LoopLM, tokens: Tensor, rule: HaltingRule) -> None:
    thoughts = model.think(tokens, rule, keep_every_loop=True)
    per_loop = thoughts.logits_per_loop
    assert per_loop is not None
    assert len(per_loop) == thoughts.loops_taken.max()
    for l in range(1, len(per_loop)):
        frozen = thoughts.loops_taken <= l
        assert torch.equal(per_loop[l][frozen], per_loop[l - 1][frozen])
    assert torch.equal(per_loop[-1], thoughts.logits)


@pytest.mark.spec("halting.loops-taken")
@pytest.mark.parametrize("fast", [False, True])
def test_a_loop_counts_also_if_it_leaves_the_state_as_it_was(fast: bool) -> None:
    model = build_model(
        ModelConfig(vocab_size=15, width=4, heads=1, mlp_width=4, injection="first", state_norm=False, positions="none")
    )
    for parameter in model.block.parameters():
        torch.nn.init.zeros_(parameter)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.settle(tokens, 1).h, model.settle(tokens, 4).h)
    made = Thinking(model, tokens, Fixed(4)) if fast else model.think(tokens, Fixed(4))
    while isinstance(made, Thinking) and made.running.any():
        made.advance()
    assert made.loops_taken[0, :3].tolist() == [4, 4, 4]


@pytest.mark.spec("architecture.any-loops")
@given(models(), texts(), st.integers(1, 5), st.integers(1, 5))
def test_first_loops_do_not_depend_on_how_many_follow(model: LoopLM, tokens: Tensor, few: int, more: int) -> None:
    assert_close(model(tokens, few), model(tokens, few + more)[:few])
    last = model(tokens, few + more, first_read=few + more)
    assert_close(last, model(tokens, few + more)[-1:])


@pytest.mark.spec("architecture.shared-block", "architecture.tied-head")
@given(model_configs(body="looped"))
def test_parameters_do_not_depend_on_loops_and_are_stored_once(config: ModelConfig) -> None:
    model = build_model(config)
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    assert len(set(before.values())) == len(before)
    model(torch.zeros(1, 3, dtype=torch.int64), 7).sum().backward()
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before
    assert model.embedding.weight.grad is not None, "the head's gradient reaches the embedding"
    layer_weights = sum(p.numel() for name, p in model.named_parameters() if name.startswith("block.layers.0."))
    block_weights = sum(p.numel() for name, p in model.named_parameters() if name.startswith("block."))
    assert block_weights == config.layers * layer_weights


@pytest.mark.spec("architecture.static")
@given(models(body="static"), texts())
def test_static_model_is_one_pass_through_unshared_layers(model: LoopLM, tokens: Tensor) -> None:
    assert not model.config.state_norm
    x, view = model.embed(tokens, torch.ones_like(tokens, dtype=torch.bool))
    for layer in model.block.layers:
        x = layer(x, view, lambda keys, values: (keys, values))
    assert_close(model(tokens, 1)[0], model.logits(x))


def test_a_cache_with_too_few_loops_is_refused() -> None:
    model = build_model(ModelConfig(vocab_size=15, width=4, heads=1, mlp_width=4))
    with pytest.raises(ValueError, match="keeps 2 loops"):
        model.think(torch.zeros(1, 1, dtype=torch.int64), Fixed(3), cache=KVCache(2, 1))


@pytest.mark.parametrize("positions", ["none", "rope", "place"])
def test_bfloat16_stays_near_float32(positions: str) -> None:
    digits = tuple(range(10)) if positions == "place" else ()
    config = ModelConfig(vocab_size=15, width=32, heads=2, mlp_width=64, positions=positions, place_ids=digits)  # type: ignore[arg-type]
    model, tokens = build_model(config), torch.randint(0, 15, (2, 9))
    exact = model(tokens, 3)
    rounded = model.bfloat16()(tokens, 3)
    assert rounded.dtype == torch.bfloat16
    # bf16 keeps 8 bits: 2**-8 of the logits' size, a few times over three loops
    torch.testing.assert_close(rounded.float(), exact, atol=0.06 * exact.detach().abs().max().item(), rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu() -> None:
    model = build_model(ModelConfig(vocab_size=15, width=32, heads=2, mlp_width=64)).double()
    tokens = torch.randint(0, 15, (3, 9))
    here = model.think(tokens, TwoEqualArgmaxes(6))
    there = model.cuda().think(tokens.cuda(), TwoEqualArgmaxes(6))
    assert torch.equal(here.loops_taken, there.loops_taken.cpu())
    assert_close(here.logits, there.logits.cpu())
