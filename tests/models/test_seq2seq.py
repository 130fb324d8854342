"""The encoder-decoder against the spec's own functions and PyTorch's, and what must not change what it gives."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from looplm.errors import InputError
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.seq2seq import Seq2Seq, Seq2SeqConfig, Side, sides_of, sinusoidal
from looplm.spec import oracle
from looplm.think.beam import Beam
from looplm.think.generate import generate

spec = oracle("seq2seq")
PAD, ENDS, VOCABULARY = 0, (1, 2), 12
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_id": PAD, "end_ids": ENDS, "width": 12, "mlp_width": 20, "heads": 2}


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


def make_model(seed: int = 0, **settings: Any) -> Seq2Seq:
    """One whose norms and biases are drawn too."""
    torch.manual_seed(seed)
    model = Seq2Seq(Seq2SeqConfig(**SIZES | {"layers": 2} | settings)).double().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.normal_(parameter)
    return model


@st.composite
def models(draw: st.DrawFn, /, **fixed: Any) -> Seq2Seq:
    drawn = {
        "heads": draw(st.sampled_from([1, 2, 3])),
        "layers": draw(st.integers(1, 2)),
        "norm_place": draw(st.sampled_from(["post", "pre"])),
        "encoder_loops": draw(st.integers(1, 2)),
        "norm_epsilon": draw(st.sampled_from([1e-5, 1e-2])),
    }
    return make_model(draw(st.integers(0, 99)), **drawn | fixed)


words = st.lists(st.integers(3, VOCABULARY - 1), max_size=5)
rows = st.builds(lambda source, end, target: [*source, end, *target], words, st.sampled_from(ENDS), words)


def pad(row: list[int], left: int, inside: int, right: int) -> list[int]:
    """The row with padding around it and after its first token."""
    return [*[PAD] * left, *row[:1], *[PAD] * inside, *row[1:], *[PAD] * right]


def oracle_states(model: Seq2Seq, row: list[int], loops: int) -> tuple[Tensor, list[Tensor]]:
    """The memory, and the target's states after each loop with their norm; it takes only the weights."""
    config, w = model.config, {name: value.detach() for name, value in model.state_dict().items()}
    order = spec.post_norm if config.norm_place == "post" else spec.pre_norm

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.weight" not in w:
            return x
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], config.norm_epsilon)

    def attend(name: str, asked: Tensor | None, visible: Tensor, x: Tensor) -> Tensor:
        weights = {part: w[f"{name}.{part}.weight"] for part in ("query", "key", "value", "out")}
        read: Tensor = spec.attend(x, x if asked is None else asked, weights, config.heads, visible)
        return read

    def mlp(name: str, x: Tensor) -> Tensor:
        y: Tensor = spec.feed_forward(
            x, *(w[f"{name}.{part}"] for part in ("up.weight", "up.bias", "down.weight", "down.bias"))
        )
        return y

    source, target = spec.sides(row, PAD, set(ENDS))
    whole, before = (
        torch.ones(len(source), len(source), dtype=torch.bool),
        torch.tensor([[spec.sees(query, key) for key in range(len(target))] for query in range(len(target))]),
    )
    x = spec.embed(source, w["embedding.weight"])
    for layer in list(range(config.layers)) * config.encoder_loops:
        at = f"encoder.{layer}"
        x = order(x, partial(attend, f"{at}.attention", None, whole), partial(norm, f"{at}.norms.attention"))
        x = order(x, partial(mlp, f"{at}.mlp"), partial(norm, f"{at}.norms.mlp"))
    memory, x, states = norm("memory_norm", x), spec.embed(target, w["embedding.weight"]), []
    for _ in range(loops):
        for layer in range(config.layers):
            at, all_of_it = f"decoder.{layer}", torch.ones(len(target), len(source), dtype=torch.bool)
            x = order(x, partial(attend, f"{at}.attention", None, before), partial(norm, f"{at}.norms.attention"))
            x = order(x, partial(attend, f"{at}.cross", memory, all_of_it), partial(norm, f"{at}.norms.cross"))
            x = order(x, partial(mlp, f"{at}.mlp"), partial(norm, f"{at}.norms.mlp"))
        states.append(norm("head_norm", x))
    return memory, [h @ w["embedding.weight"].T for h in states]


@pytest.mark.spec(
    "seq2seq.row", "seq2seq.embedding", "seq2seq.attention", "seq2seq.source-mask", "seq2seq.target-mask", "seq2seq.layer"
)
@pytest.mark.spec("seq2seq.post-norm", "seq2seq.pre-norm", "seq2seq.loops", "seq2seq.tied-head", "seq2seq.independent")
@given(models(), rows, rows, st.integers(0, 2), st.integers(0, 2), st.integers(1, 2))
def test_every_loop_gives_what_the_spec_gives(
    model: Seq2Seq, row: list[int], mate: list[int], left: int, inside: int, loops: int
) -> None:
    wide = max(len(row), len(mate)) + left + inside
    tokens = torch.tensor([pad(row, left, inside, wide - len(row) - left - inside), pad(mate, 0, 0, wide - len(mate))])
    logits = model(tokens, loops)[:, 0]
    memory, wanted = oracle_states(model, row, loops)
    source, _ = spec.sides(row, PAD, set(ENDS))
    real = [column for column, token in enumerate(tokens[0].tolist()) if token != PAD]
    for l in range(loops):
        assert_close(logits[l, real[len(source) - 1 :]], wanted[l])
    read = next(iter(model.states(tokens, 1)))[0]
    assert_close(read[real[: len(source) - 1]], memory[:-1])


@pytest.mark.spec("seq2seq.row")
@given(st.lists(st.sampled_from([PAD, 1, 2, 5, 6]), min_size=1, max_size=8).filter(lambda row: set(row) & set(ENDS)))
@example([1])
@example([0, 5, 1, 0, 6, 1])
def test_the_first_end_mark_divides_a_row(row: list[int]) -> None:
    tokens = torch.tensor([row])
    sides = sides_of(tokens, Seq2SeqConfig(**SIZES))
    source, target = spec.sides(row, PAD, set(ENDS))
    assert tokens[sides.source].tolist() == source
    assert tokens[sides.target].tolist() == target
    side = Side.of(sides.target)
    assert tokens.gather(1, side.columns)[side.real].tolist() == target
    back = side.back(torch.arange(float(len(target)))[None, :, None])
    assert back[0, sides.target[0], 0].tolist() == list(range(len(target)))


@pytest.mark.spec("seq2seq.row")
def test_a_row_without_an_end_mark_is_refused() -> None:
    model = make_model()
    with pytest.raises(InputError, match=r"closed by an end mark, one of the ids \[1, 2\]: row 1 has none"):
        model(torch.tensor([[5, 1, 6], [5, 6, 7]]), 1)
    with pytest.raises(InputError, match="row 0 has none"):
        model.config.check(torch.tensor([[PAD, 5]]))


@pytest.mark.spec("seq2seq.positions")
@given(st.integers(1, 40), st.integers(1, 8))
def test_positions_are_sines_and_cosines(length: int, pairs: int) -> None:
    made = sinusoidal(length, 2 * pairs, torch.zeros((), dtype=torch.float64))
    wanted = [[spec.position(p, j, 2 * pairs) for j in range(2 * pairs)] for p in range(length)]
    assert_close(made, torch.tensor(wanted, dtype=torch.float64))


def as_torch(model: Seq2Seq) -> nn.Transformer:
    """PyTorch's own, with the model's weights, and no biases in its attention."""
    config, pre = model.config, model.config.norm_place == "pre"
    theirs = nn.Transformer(
        config.width,
        config.heads,
        config.layers,
        config.layers,
        config.mlp_width,
        dropout=0.0,
        layer_norm_eps=config.norm_epsilon,
        batch_first=True,
        norm_first=pre,
        dtype=torch.float64,
    ).eval()
    if not pre:
        theirs.encoder.norm = theirs.decoder.norm = None
    else:
        theirs.encoder.norm.load_state_dict(model.memory_norm.state_dict())
        theirs.decoder.norm.load_state_dict(model.head_norm.state_dict())
    names = {"attention": "self_attn", "cross": "multihead_attn"}
    for ours, layer in zip(model.blocks(), [*theirs.encoder.layers, *theirs.decoder.layers], strict=True):
        for number, (name, norm) in enumerate(ours.norms.items(), 1):  # type: ignore[union-attr, operator]
            getattr(layer, f"norm{number}").load_state_dict(norm.state_dict())
            if name in names:
                attention, other = getattr(ours, name), getattr(layer, names[name])
                weights = [part.weight for part in (attention.query, attention.key, attention.value)]
                other.in_proj_weight.data = torch.cat(weights).detach()
                other.out_proj.weight.data = attention.out.weight.detach()
                nn.init.zeros_(other.in_proj_bias)
                nn.init.zeros_(other.out_proj.bias)
        layer.linear1.load_state_dict(ours.mlp.up.state_dict())  # type: ignore[union-attr]
        layer.linear2.load_state_dict(ours.mlp.down.state_dict())  # type: ignore[union-attr]
    return theirs


@pytest.mark.spec("seq2seq.attention", "seq2seq.layer", "seq2seq.post-norm", "seq2seq.pre-norm")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("norm_place", ["post", "pre"])
def test_it_equals_pytorchs_transformer_on_the_same_weights(norm_place: str) -> None:
    model = make_model(3, layers=3, norm_place=norm_place)
    theirs = as_torch(model)
    tokens = torch.tensor([[5, 6, 7, 1, 8, 9, 4], [3, 2, 4, 4, 5, 6, PAD]])
    source, target = (Side.of(of) for of in (sides_of(tokens, model.config).source, sides_of(tokens, model.config).target))
    causal = nn.Transformer.generate_square_subsequent_mask(target.columns.shape[1], dtype=torch.float64)
    wanted = theirs(
        model.embed(tokens.gather(1, source.columns)),
        model.embed(tokens.gather(1, target.columns)),
        tgt_mask=causal,
        src_key_padding_mask=~source.real,
        memory_key_padding_mask=~source.real,
    )
    memory = model.encode(model.embed(tokens.gather(1, source.columns)), source.real)
    (h,) = model.decode(model.embed(tokens.gather(1, target.columns)), memory, source.real, 1)
    torch.testing.assert_close(model.head_norm(h)[target.real], wanted[target.real], atol=1e-10, rtol=0)


@pytest.mark.spec("seq2seq.loops")
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["post", "pre"]))
def test_a_shared_layer_looped_is_a_stack_of_copies(encoder: int, decoder: int, norm_place: str) -> None:
    looped = make_model(1, layers=1, encoder_loops=encoder, norm_place=norm_place)
    deepest = max(encoder, decoder)
    stacked = make_model(2, layers=deepest, norm_place=norm_place)
    for number in range(deepest):
        stacked.encoder[number].load_state_dict(looped.encoder[0].state_dict())
        stacked.decoder[number].load_state_dict(looped.decoder[0].state_dict())
    for name in ("embedding", "memory_norm", "head_norm"):
        getattr(stacked, name).load_state_dict(getattr(looped, name).state_dict())
    stacked.encoder, stacked.decoder = stacked.encoder[:encoder], stacked.decoder[:decoder]
    tokens = torch.tensor([[5, 6, 1, 8, 9]])
    assert_close(looped(tokens, decoder)[-1], stacked(tokens, 1)[0])
    assert_close(looped(tokens, decoder), looped(tokens, decoder + 1)[:decoder])


@pytest.mark.spec("seq2seq.target-mask", "seq2seq.source-mask")
@given(models(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_no_gradient_flows_from_what_is_not_seen(model: Seq2Seq, size: int, written: int, loops: int) -> None:
    real = torch.tensor([[True] * size + [False] * 2])
    source, target = (torch.randn(1, n, 12, dtype=torch.float64, requires_grad=True) for n in (size + 2, written))
    *_, h = model.decode(target, model.encode(source, real), real, loops)
    for at in range(written):
        seen = torch.autograd.grad((h[0, at] * torch.randn(12).double()).sum(), (source, target), retain_graph=True)
        assert not bool(seen[1][0, at + 1 :].any())
        assert not bool(seen[0][0, size:].any())
        assert bool((seen[1][0, : at + 1].abs().sum(-1) > 0).all())
        assert bool((seen[0][0, :size].abs().sum(-1) > 0).all())


@pytest.mark.spec("seq2seq.source-mask", "seq2seq.embedding")
@given(models(), st.permutations(range(5)))
def test_without_positions_the_order_of_the_source_is_that_of_its_memory(model: Seq2Seq, order: list[int]) -> None:
    x, real = torch.randn(2, 5, 12, dtype=torch.float64), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    assert_close(model.encode(x, real)[:, order], model.encode(x[:, order], real[:, order]))
    placed = model.embed(torch.tensor([[5, 6, 7]]))
    assert not torch.allclose(model.embed(torch.tensor([[7, 6, 5]]))[:, [2, 1, 0]], placed)


@pytest.mark.spec("seq2seq.attention")
@given(models(), st.integers(1, 4))
def test_weights_are_what_is_read(model: Seq2Seq, size: int) -> None:
    attention = model.blocks()[0].attention
    asking, asked = torch.randn(2, 3, 12).double(), torch.randn(2, size + 1, 12).double()
    visible = torch.tensor([[[True] * size + [False]], [[True] * (size + 1)]])
    weights = attention.weights(asking, asked, visible)  # type: ignore[union-attr, operator]
    values = attention.value(asked).unflatten(-1, (model.config.heads, -1)).transpose(1, 2)  # type: ignore[union-attr, operator]
    read = attention.out((weights @ values).transpose(1, 2).flatten(2))  # type: ignore[union-attr, operator]
    assert_close(read, attention(asking, asked, visible))  # type: ignore[operator]
    assert not bool(weights[0, ..., size:].any())


@pytest.mark.spec("seq2seq.parameters")
@given(models())
def test_parameters_are_counted(model: Seq2Seq) -> None:
    config = model.config
    wanted = spec.parameters(VOCABULARY, config.width, config.layers, config.mlp_width, config.norm_place == "pre")
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted


@pytest.mark.spec("seq2seq.parameters")
def test_the_base_size_has_two_million_fewer_than_the_paper_says() -> None:
    with torch.device("meta"):
        model = Seq2Seq(Seq2SeqConfig(vocab_size=37_000, pad_id=0, end_ids=(1,)))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == spec.parameters(37_000, 512, 6, 2048, False) == 63_045_632
    assert round(spec.parameters(40_800, 512, 6, 2048, False) / 1e6, 1) == 65.0


@pytest.mark.spec("seq2seq.independent")
def test_thinking_is_the_training_pass_read_at_answers() -> None:
    model = make_model(norm_place="pre")
    tokens = torch.tensor([[5, 6, 1, 8, 9, 7], [7, 5, 1, 3, 4, 4]])
    real = torch.tensor([[True] * 6, [False] + [True] * 4 + [False]])
    answer = torch.tensor([[False] * 2 + [True] * 4] * 2)
    thoughts = model.think(tokens, Fixed(max_loops=2), real=real, answer=answer, keep_every_loop=True)
    assert_close(thoughts.logits, model(tokens.where(real, PAD), 2)[-1])
    assert thoughts.loops_taken.tolist() == [[0, 0, 2, 2, 2, 2], [0, 0, 2, 2, 2, 0]]
    assert thoughts.logits_per_loop is not None and thoughts.h_per_loop is not None
    assert_close(thoughts.logits_per_loop[-1], thoughts.logits)
    patched = model.think(tokens, Fixed(max_loops=2), hook=lambda l, h: h * 0 if l == 2 else None)
    assert not bool(patched.h.any())
    assert model.think(tokens[:1], Fixed(max_loops=1)).loops_taken.tolist() == [[1] * 6]


@pytest.mark.spec("seq2seq.writing")
@given(models(), st.lists(rows, min_size=1, max_size=3), st.integers(1, 2), st.booleans())
def test_a_written_target_is_what_one_pass_reads(model: Seq2Seq, prompts: list[list[int]], loops: int, scores: bool) -> None:
    rule, stop = Fixed(max_loops=loops), 4
    settings: dict[str, Any] = {"halting": rule, "max_new_tokens": 4, "stop_token": stop, "log_probabilities": scores}
    made = generate(model, prompts, **settings)
    for row, (prompt, new) in enumerate(zip(prompts, made.tokens, strict=True)):
        logits = model(torch.tensor([prompt + new[:-1]]), loops)[-1, 0, len(prompt) - 1 :]
        assert logits.argmax(-1).tolist() == new
        assert len(new) == 4 or new[-1] == stop
        assert made.loops_taken[row] == [loops] * len(new)
        assert made.block_evaluations[row] == loops * len(new)
        if scores and made.log_probabilities is not None:
            wanted = logits.log_softmax(-1).amax(-1)
            assert_close(torch.tensor(made.log_probabilities[row], dtype=torch.float64), wanted.detach())


@pytest.mark.spec("generation.beam-search", "generation.beam-memory")
@given(models(), st.lists(rows, min_size=1, max_size=3), st.integers(1, 2), st.integers(1, 3))
def test_a_search_finds_what_the_clause_finds_of_whole_rows(
    model: Seq2Seq, prompts: list[list[int]], loops: int, width: int
) -> None:
    rule, stop, most = Fixed(max_loops=loops), 4, 4
    made = generate(model, prompts, halting=rule, max_new_tokens=most, stop_token=stop, beam=Beam(width=width))
    for prompt, new in zip(prompts, made.tokens, strict=True):

        def find(new: list[int], prompt: list[int] = prompt) -> list[float]:
            logits = model(torch.tensor([prompt + new]), loops)[-1, 0, -1]
            found: list[float] = logits.log_softmax(-1).tolist()
            return found

        expected, _ = oracle("generation").beam_search(
            find, lambda new: bool(oracle("generation").ended(new, {stop}, most)), width, most, 1.0
        )
        assert new == expected


def test_weight_decay_is_for_matrices_and_its_layers_are_named() -> None:
    model = make_model()
    assert isinstance(build_model(model.config), Seq2Seq)
    decayed = {id(parameter) for parameter in model.decayed()}
    assert {name for name, of in model.named_parameters() if of.dim() == 2} == {
        name for name, of in model.named_parameters() if id(of) in decayed
    }
    assert len(model.blocks()) == 4
    assert model.device == torch.device("cpu")
    assert "seq2seq.post-norm" in model.config.clauses()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"heads": 5}, "`width` must be a multiple of `heads`: got 12 and 5"), ({"width": 9, "heads": 3}, "even")],
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Seq2SeqConfig(**SIZES | settings)
