"""What counting and formulas say of the plan on the Transformer: docs/data/transformer-plan.toml names these tests."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.flop_counter import FlopCounterMode

from looplm.config import ModelConfig
from looplm.layers.cross_attention import CrossAttention
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.models.seq2seq import FeedForward, Layer, Seq2Seq, Seq2SeqConfig
from looplm.spec import oracle
from looplm.think.beam import Beam
from looplm.think.generate import generate

V, D = 37_000, 512
LOGITS = torch.tensor([3.2, 2.1, 1.8, -0.5, 1.2, -5.0], dtype=torch.float64)
"""Of 사랑한다 and five others, as the plan gives them."""


def make(**settings: Any) -> Seq2Seq:
    sizes: dict[str, Any] = {
        "vocab_size": 12,
        "pad_id": 0,
        "end_ids": (1,),
        "width": 12,
        "heads": 2,
        "layers": 2,
        "mlp_width": 20,
    }
    return Seq2Seq(Seq2SeqConfig(**sizes | settings)).double()


def everything(size: int) -> Tensor:
    return torch.ones(1, size, size, dtype=torch.bool)


def encoded(model: Seq2Seq, x: Tensor) -> Tensor:
    return model.encode(x, torch.ones(x.shape[:2], dtype=torch.bool))


def entropy(weights: Tensor) -> float:
    return float(torch.special.entr(weights).sum())


def steps_that_wait(result: Tensor) -> int:
    """The longest way through the graph of what was computed: each step waits for the one before."""
    depth: dict[Any, int] = {}
    waiting = [result.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [each for each, _ in node.next_functions if each is not None]  # type: ignore[union-attr]
        if missing := [each for each in before if each not in depth]:
            waiting += missing
        else:
            depth[node] = 1 + max((depth[each] for each in before), default=0)
            waiting.pop()
    return depth[result.grad_fn]


def test_looking_a_token_up_is_its_one_hot_row_times_the_table() -> None:
    table, tokens = nn.Embedding(50, 8), torch.tensor([15, 42, 3])
    assert torch.equal(table(tokens), one_hot(tokens, 50).float() @ table.weight)


@pytest.mark.spec("seq2seq.layer")
def test_shapes_at_the_base_size() -> None:
    with torch.device("meta"):
        model = Seq2Seq(Seq2SeqConfig(vocab_size=V, pad_id=0, end_ids=(1,)))
        x, mask, real = model.embed(torch.zeros(1, 3, dtype=torch.long)), everything(3), torch.ones(1, 3, dtype=torch.bool)
        layer = model.encoder[0]
        assert isinstance(layer, Layer)
        (h,) = model.decode(x, model.encode(x, real), real, 1)
        for each in (x, layer.attention(x, x, mask), layer(x, mask), model.encode(x, real), h):
            assert each.shape == (1, 3, D)
        assert model.logits(h).shape == (1, 3, V)
    assert len(model.encoder) == len(model.decoder) == 6
    assert (layer.mlp.up.weight.shape, layer.mlp.down.weight.shape) == ((2048, D), (D, 2048))
    assert (layer.attention.heads, layer.attention.query.weight.shape) == (8, (8 * 64, D))


def test_every_position_has_a_distribution_over_the_vocabulary() -> None:
    p = make()(torch.tensor([[5, 6, 1, 8, 9]]), 1)[-1].softmax(-1)
    torch.testing.assert_close(p.sum(-1), torch.ones(1, 5).double())
    assert bool((p > 0).all())


def test_a_rnns_context_has_one_size_and_a_memory_grows() -> None:
    rnn, model = nn.GRU(12, 12, batch_first=True).double(), make()
    for size in (3, 50):
        x = torch.randn(1, size, 12).double()
        assert rnn(x)[1].numel() == 12
        assert encoded(model, x).numel() == 12 * size


@pytest.mark.spec("seq2seq.source-mask")
def test_every_position_of_the_memory_depends_on_every_token() -> None:
    x = torch.randn(1, 5, 12, dtype=torch.float64, requires_grad=True)
    memory = encoded(make(), x)
    for at in range(5):
        (seen,) = torch.autograd.grad(memory[0, at].sin().sum(), x, retain_graph=True)
        assert bool((seen[0].abs().sum(-1) > 0).all())


def test_a_pass_waits_no_longer_for_long_rows_and_a_rnn_does() -> None:
    model, cell = make(), nn.GRUCell(12, 12).double()

    def attention(size: int) -> int:
        return steps_that_wait(encoded(model, torch.randn(1, size, 12).double()))

    def rnn(size: int) -> tuple[int, int]:
        h, kept = torch.zeros(1, 12).double(), 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() if tensor.shape[0] == 1 else 0  # not the weights
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            for x in torch.randn(size, 1, 12).double():
                h = cell(x, h)
        return steps_that_wait(h), kept

    assert attention(5) == attention(50)
    (a, one), (b, two), (c, three) = rnn(10), rnn(20), rnn(30)
    assert c - b == b - a > 0
    assert three - two == two - one > 0


def test_twice_the_length_has_four_times_the_weights_of_attention() -> None:
    attention = CrossAttention(12, 2)

    def count(size: int) -> int:
        x = torch.randn(1, size, 12)
        return attention.weights(x, x, everything(size)).numel()

    assert (count(8), count(16)) == (2 * 8**2, 2 * 16**2)


@pytest.mark.spec("seq2seq.parameters")
def test_each_layer_costs_the_same() -> None:
    flops, sizes = [], []
    for layers in (2, 3, 4):
        model = make(layers=layers)
        with FlopCounterMode(display=False) as counter:
            model(torch.tensor([[5, 6, 1, 8, 9]]), 1)
        flops.append(counter.get_total_flops())
        sizes.append(sum(p.numel() for p in model.parameters()))
    for counted in (flops, sizes):
        assert counted[2] - counted[1] == counted[1] - counted[0] > 0


def test_a_head_gives_one_set_of_weights_for_each_query() -> None:
    x = torch.randn(1, 5, 12)
    for heads in (1, 2, 3):
        assert CrossAttention(12, heads).weights(x, x, everything(5)).shape == (1, heads, 5, 5)


@pytest.mark.spec("seq2seq.layer")
def test_a_feed_forward_network_sees_one_position() -> None:
    mlp, x = FeedForward(12, 20), torch.randn(1, 5, 12)
    other = x.clone()
    other[0, 2] += 1
    changed = (mlp(x) != mlp(other)).any(-1)[0]
    assert changed.tolist() == [False, False, True, False, False]


def test_without_attention_no_position_depends_on_another() -> None:
    model = make()
    for layer in model.encoder:
        nn.init.zeros_(layer.attention.out.weight)  # type: ignore[union-attr, arg-type]
    x = torch.randn(1, 5, 12, dtype=torch.float64, requires_grad=True)
    (seen,) = torch.autograd.grad(encoded(model, x)[0, 2].sin().sum(), x)
    assert (seen[0].abs().sum(-1) > 0).tolist() == [False, False, True, False, False]


def test_projections_start_by_xaviers_rule_whose_deviation_is_not_a_tenth() -> None:
    one, other = CrossAttention(D, 8), CrossAttention(D, 8)
    for name in ("query", "key", "value", "out"):
        weight = getattr(one, name).weight.detach()
        assert float(weight.abs().max()) <= math.sqrt(6 / (D + D))
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / (D + D)), rel=0.01)
        assert not torch.equal(weight, getattr(other, name).weight)
    for rows in (64, D):
        assert math.sqrt(2 / (D + rows)) != pytest.approx(0.1, rel=0.1)


def test_the_log_of_the_vocabulary_is_about_10_5() -> None:
    assert round(math.log(V), 1) == 10.5


def test_the_plans_own_weights_are_not_what_it_calls_them() -> None:
    assert entropy(torch.tensor([0.2, 0.6, 0.2])) < 0.95 * math.log(3)
    words, weights = ("I", "love", "you"), [0.8, 0.15, 0.05]
    assert words[weights.index(max(weights))] != "love"


ROW = torch.tensor([[5, 6, 7, 1, 8, 9, 4]])


def loss_of(model: Seq2Seq) -> Tensor:
    return cross_entropy(model(ROW, 1)[-1, 0, 3:-1], ROW[0, 4:])


@pytest.mark.parametrize("norm_place", ["post", "pre"])
def test_every_weight_has_a_gradient(norm_place: str) -> None:
    model = make(norm_place=norm_place)
    loss_of(model).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_the_encoder_has_its_gradients_from_cross_attention_alone() -> None:
    model = make()
    for layer in model.decoder:
        nn.init.zeros_(layer.cross.out.weight)  # type: ignore[union-attr, arg-type]
    loss_of(model).backward()
    for parameter in model.encoder.parameters():
        assert parameter.grad is None or not bool(parameter.grad.any())


def test_the_gradients_of_attention_are_those_of_the_formulas() -> None:
    attention = CrossAttention(4, 1).double()
    nn.init.eye_(attention.out.weight)
    x, d_out = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, 4).double()
    attention(x, x, everything(5)).backward(d_out[None])
    flat = x.detach()[0]
    wq, wk, wv = (each.weight.detach() for each in (attention.query, attention.key, attention.value))
    q, k, v = flat @ wq.T, flat @ wk.T, flat @ wv.T
    a = (q @ k.T / 2).softmax(-1)
    d_a = d_out @ v.T
    d_s = a * (d_a - (a * d_a).sum(-1, keepdim=True))
    d_q, d_k, d_v = d_s @ k / 2, d_s.T @ q / 2, a.T @ d_out
    for linear, of in ((attention.query, d_q), (attention.key, d_k), (attention.value, d_v)):
        torch.testing.assert_close(linear.weight.grad, of.T @ flat)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], d_q @ wq + d_k @ wk + d_v @ wv)


@pytest.mark.parametrize("norm_place", ["post", "pre"])
def test_a_gradient_reaches_the_input_through_the_sums_alone(norm_place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    around = Layer._around
    monkeypatch.setattr(Layer, "_around", lambda self, name, x, of: around(self, name, x, lambda y: of(y).detach()))
    x = torch.randn(1, 5, 12, dtype=torch.float64, requires_grad=True)
    (seen,) = torch.autograd.grad(encoded(make(norm_place=norm_place), x).sin().sum(), x)
    assert bool((seen[0].abs().sum(-1) > 0).all())


@pytest.mark.spec("seq2seq.post-norm", "seq2seq.pre-norm")
def test_with_idle_sublayers_only_norms_in_front_leave_the_input_as_it_is() -> None:
    x = torch.randn(1, 5, 12).double()
    for norm_place in ("post", "pre"):
        (layer, *_) = make(norm_place=norm_place).encoder
        for linear in (layer.attention.out, layer.mlp.down):  # type: ignore[union-attr]
            nn.init.zeros_(linear.weight)  # type: ignore[union-attr, arg-type]
        assert torch.equal(layer(x, everything(5)), x) == (norm_place == "pre")


def test_a_temperature_of_a_tenth_leaves_one_token_and_two_spreads() -> None:
    cold, plain, hot = ((LOGITS / temperature).softmax(-1) for temperature in (0.1, 1.0, 2.0))
    assert float(cold[0]) >= 0.999
    assert math.exp(entropy(hot)) >= math.exp(entropy(plain)) + 1


@pytest.mark.spec("generation.beam-search")
def test_greedy_is_not_always_the_best_of_all_texts() -> None:
    generation = oracle("generation")

    def after(new: list[int]) -> list[float]:
        shares = {(): [0.6, 0.4], (0,): [0.55, 0.45], (1,): [0.99, 0.01]}[tuple(new)]
        return [math.log(share) for share in shares]

    greedy, best = (generation.beam_search(after, lambda new: len(new) == 2, width, 2, 0.0)[0] for width in (1, 4))
    assert (greedy, best) == ([0, 0], [1, 0])


@pytest.mark.spec("generation.beam-memory")
def test_a_beam_of_three_costs_more_than_greedy() -> None:
    model = build_model(ModelConfig(vocab_size=16, width=8, heads=2, mlp_width=8))
    assert isinstance(model, LoopLM)
    settings: dict[str, Any] = {"halting": Fixed(max_loops=2), "max_new_tokens": 6, "stop_token": 15}
    greedy, beam = (generate(model, [[3, 4]], beam=beam, **settings) for beam in (None, Beam(width=3)))
    assert beam.block_evaluations[0] > greedy.block_evaluations[0]


def test_the_entropy_of_weights_tells_how_concentrated_they_are() -> None:
    scores = torch.tensor([3.0, 1.0, 0.5, -1.0]).double()
    found = [entropy((sharper * scores).softmax(-1)) for sharper in (0.0, 0.5, 1.0, 2.0, 1e4)]
    assert found[0] == pytest.approx(math.log(4))
    assert found[-1] == 0
    assert found == sorted(found, reverse=True)
