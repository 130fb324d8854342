"""The Connection Transformer against the spec's own functions, and what must not change what it gives."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import layer_norm

from looplm.errors import InputError
from looplm.layers.slots import bounded, collapsed
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.connection import ABLATIONS, Connection, ConnectionConfig
from looplm.settings import parse
from looplm.spec import oracle

spec = oracle("connection")
PAD, ENDS, VOCABULARY = 0, (1, 2), 12


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


@st.composite
def models(draw: st.DrawFn, /, **fixed: Any) -> Connection:
    drawn: dict[str, Any] = {
        "heads": draw(st.sampled_from([1, 2, 3])),
        "answer_heads": draw(st.sampled_from([1, 2])),
        "slots": draw(st.integers(1, 5)),
        "variant": draw(st.sampled_from(["pure", "reread"])),
        "connection": draw(st.sampled_from(["learned", "frozen", "zero"])),
        "norm": draw(st.sampled_from(["layer", "none"])),
        "avoid": draw(st.sampled_from([0.0, 3.0])),
        "step_signals": draw(st.integers(1, 3)),
        "centred": draw(st.booleans()),
        "connection_std": draw(st.sampled_from([0.02, 1.0])),
    }
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "pad_id": PAD,
        "end_ids": ENDS,
        "width": 12,
        "max_words": 4,
        "max_facts": 5,
    }
    torch.manual_seed(draw(st.integers(0, 99)))
    model = Connection(ConnectionConfig(**sizes | drawn | fixed)).double().eval()
    for norm in model.norms.values():
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter)
    return model


sentences = st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=4)
stories = st.lists(sentences, min_size=2, max_size=5)


def tokens_of(rows: list[list[list[int]]]) -> Tensor:
    flat = [[id for sentence in row[:-1] for id in (*sentence, 1)] + [*row[-1], 2] for row in rows]
    width = max(map(len, flat))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in flat])


class Oracle:
    """One row, by the spec's functions; it takes only the weights."""

    def __init__(self, model: Connection) -> None:
        self.config, self.w = model.config, {name: value.detach() for name, value in model.state_dict().items()}

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.w[f"norms.{name}.weight"], self.w[f"norms.{name}.bias"])

    def read(self, name: str, asking: Tensor, asked: Tensor, heads: int, added: Tensor) -> Any:
        weights = {part: self.w[f"{name}.{part}.weight"] for part in ("query", "key", "value", "out")}
        return spec.read(asking, asked, weights, heads, added)

    def answers(self, ids: list[int], steps: int) -> tuple[list[Tensor], list[Tensor]]:
        """The states and the logits after each step."""
        config, w, H = self.config, self.w, self.w["slots"]
        *told, asked = spec.sentences(ids, PAD, set(ENDS))
        said = [spec.sentence(words, w["words.weight"], w["places"][0]) for words in told]
        f = spec.facts(said, w["times"], config.centred)
        q = spec.sentence(asked, w["words.weight"], w["places"][1]) + w["asking"]
        none = torch.zeros(len(H), len(f), dtype=f.dtype)
        q_normed = self.norm("question", q)
        read, seen = self.read("read", self.norm("asked", H + q_normed), self.norm("facts", f), config.heads, none)
        X = q + read
        X = self.norm("first", X) if config.norm == "layer" else X
        C = w["connection"]
        states, logits = [X], []
        for t in range(steps):
            Z = spec.step(H, X, C)
            if config.variant == "reread":
                asking = self.norm("again", H + X + w["signals"][min(t, config.step_signals - 1)])
                avoided = spec.avoided(seen, config.avoid)
                read, share = self.read("reread", asking, self.norm("facts_again", f), config.heads, avoided)
                Z, seen = Z + read, seen + share
            X = self.norm("step", Z) if config.norm == "layer" else Z
            here = torch.zeros(1, len(H), dtype=f.dtype)
            read, _ = self.read("read_answer", q_normed[None], self.norm("answered", H + X), config.answer_heads, here)
            states.append(X)
            logits.append(self.norm("out", q_normed + read[0]) @ w["out.weight"].T + w["out.bias"])
        return states, logits


@pytest.mark.spec(
    "connection.sentences",
    "connection.facts",
    "connection.reading",
    "connection.first-reading",
    "connection.step",
    "connection.norm",
    "connection.reread",
    "connection.avoid",
    "connection.answer",
    "connection.independent",
)
@given(models(connection="zero") | models(connection="frozen"), st.lists(stories, min_size=1, max_size=3), st.integers(1, 4))
def test_states_and_answers_are_the_specs_row_by_row(model: Connection, rows: list[Any], steps: int) -> None:
    tokens = tokens_of(rows)
    states = list(model.steps(model.story(tokens), steps))
    read = [model.logits(h) for h in model.states(tokens, steps)]
    for row, ids in enumerate(tokens.tolist()):
        wanted_states, wanted = Oracle(model).answers(ids, steps)
        for given_state, state in zip(states, wanted_states, strict=True):
            assert_close(given_state.x[row], state)
        for given_logits, logits in zip(read, wanted, strict=True):
            assert_close(given_logits[row], logits.expand(tokens.shape[1], -1))


@pytest.mark.spec("connection.independent", "connection.sentences")
@given(models(), stories, st.integers(1, 3), st.data())
def test_padding_changes_nothing_wherever_it_stands(model: Connection, story: Any, steps: int, data: st.DataObject) -> None:
    plain = tokens_of([story])[0].tolist()
    padded = list(plain)
    for _ in range(data.draw(st.integers(1, 4))):
        padded.insert(data.draw(st.integers(0, len(padded))), PAD)
    one, other = (list(model.states(torch.tensor([ids]), steps))[-1][0, 0] for ids in (plain, padded))
    assert_close(one, other)


@pytest.mark.spec("connection.slots")
@given(models(), stories, st.integers(1, 3), st.integers(0, 9))
def test_slots_in_another_order_give_the_same_answer(model: Connection, story: Any, steps: int, seed: int) -> None:
    assert "slots" not in dict(model.named_parameters())
    order = torch.randperm(model.config.slots, generator=torch.Generator().manual_seed(seed))
    other = Connection(model.config).double().eval()
    weights = dict(model.state_dict())
    other.load_state_dict(weights | {"slots": weights["slots"][order], "connection": weights["connection"][order][:, order]})
    tokens = tokens_of([story])
    for one, permuted in zip(model.steps(model.story(tokens), steps), other.steps(other.story(tokens), steps), strict=True):
        assert_close(one.x[:, order], permuted.x)
    assert_close(*(list(m.states(tokens, steps))[-1] for m in (model, other)))


@pytest.mark.spec("connection.bound")
@given(st.integers(1, 24), st.sampled_from([0.0, 0.01, 0.3, 5.0]), st.integers(0, 99))
@example(2, 0.0, 0)
def test_the_bound_holds_and_a_matrix_within_it_stays(n: int, std: float, seed: int) -> None:
    c = std * torch.randn(n, n, generator=torch.Generator().manual_seed(seed)).double()
    torch.testing.assert_close(bounded(c), spec.bounded(c), atol=1e-12, rtol=0.01)
    assert float(torch.linalg.matrix_norm(bounded(c), 2)) <= 1.01
    if float(torch.linalg.matrix_norm(c, 2)) <= 1:
        assert torch.equal(bounded(c), c)


@pytest.mark.spec("connection.bound")
def test_two_equal_singular_values_are_bounded_too() -> None:
    torch.testing.assert_close(bounded(3 * torch.eye(4)), torch.eye(4))


@pytest.mark.spec("connection.bound")
@given(st.integers(2, 12), st.integers(0, 99))
def test_at_the_bound_only_the_direction_counts(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    c = (2 * torch.randn(n, n, generator=generator).double() + 2 * torch.eye(n)).requires_grad_()
    weight = torch.randn(n, n, generator=generator).double()
    (gradient,) = torch.autograd.grad((bounded(c) * weight).sum(), c)
    assert abs(float((gradient * c.detach()).sum())) <= 1e-9 * float(gradient.norm() * c.detach().norm())
    y = torch.randn(n, 3, generator=generator).double()
    assert float((y + bounded(c.detach()) @ y).norm()) <= 2.01 * float(y.norm())


@pytest.mark.spec("connection.collapses")
@given(models(variant="pure", norm="none"), stories, st.integers(1, 6))
def test_any_number_of_steps_is_one_step_with_another_matrix(model: Connection, story: Any, steps: int) -> None:
    held = model.held().detach()
    other = collapsed(held, steps)
    assert_close(other, spec.collapsed(held, steps))
    first, *_, last = model.steps(model.story(tokens_of([story])), steps)
    assert_close(model.slots + last.x, model.slots + spec.step(model.slots, first.x, other))


@pytest.mark.spec("connection.ablations")
@given(models(variant="reread"), stories, st.integers(1, 3))
def test_ablations_take_one_part_away_and_nothing_else(model: Connection, story: Any, steps: int) -> None:
    tokens, before = tokens_of([story]), {name: value.clone() for name, value in model.state_dict().items()}
    plain = list(model.states(tokens, steps))[-1]
    for name, ablate in ABLATIONS.items():
        copy = ablate(model)
        changed = {key for key, value in copy.state_dict().items() if not torch.equal(value, before[key])}
        assert changed <= ({"connection", "reread.out.weight"} if name == "no-rereading" else {"connection"})
        list(copy.states(tokens, steps))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    zero, drawn = (ABLATIONS[name](model).connection for name in ("no-connection", "random-connection"))
    assert not zero.any()
    assert float(torch.linalg.matrix_norm(drawn, 2)) == pytest.approx(1)
    shuffled, held = ABLATIONS["shuffled-connection"](model).connection, model.held().detach()
    assert_close(shuffled.flatten().sort().values, held.flatten().sort().values)
    weights = model.state_dict() | {"connection": held}
    pure = Connection(replace(model.config, variant="pure", connection="frozen")).double().eval()
    pure.load_state_dict({name: weights[name] for name in pure.state_dict()})
    assert_close(list(ABLATIONS["no-rereading"](model).states(tokens, steps))[-1], list(pure.states(tokens, steps))[-1])
    assert_close(list(model.states(tokens, steps))[-1], plain)


@given(models(), st.lists(stories, min_size=1, max_size=3), st.integers(1, 3))
def test_thinking_gives_what_training_gives_and_counts_its_steps(model: Connection, rows: list[Any], steps: int) -> None:
    tokens = tokens_of(rows)
    answer = tokens == 2
    thoughts = model.think(tokens, Fixed(steps), answer=answer, keep_every_loop=True)
    assert thoughts.h_per_loop is not None
    for one, other in zip(thoughts.h_per_loop, model.states(tokens, steps), strict=True):
        assert_close(one, other)
    assert_close(thoughts.logits, model.logits(thoughts.h))
    assert torch.equal(thoughts.loops_taken, steps * answer.long())


@pytest.mark.parametrize("variant", ["pure", "reread"])
def test_every_parameter_is_used(variant: Any) -> None:
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_id": PAD, "end_ids": ENDS, "width": 12}
    model = Connection(ConnectionConfig(**sizes, variant=variant))
    model.logits(list(model.states(tokens_of([[[3, 4], [4], [5]]]), 2))[-1]).square().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.spec("training.rates", "training.weight-decay")
def test_what_compares_learns_at_its_own_rate() -> None:
    from looplm.train.config import TrainingConfig
    from looplm.train.optimizer import make_optimizer

    model = build_model(ConnectionConfig(vocab_size=9, pad_id=0, end_ids=(1,), width=12, answer_heads=2, compare_rate=0.25))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    share, decay = {}, {}
    for group in make_optimizer(model, TrainingConfig()).param_groups:
        for parameter in group["params"]:
            share[names[id(parameter)]], decay[names[id(parameter)]] = group["share"], group["weight_decay"]
    slow = {f"{reading}.{part}.weight" for reading in ("read", "reread") for part in ("query", "key")}
    assert {name: value for name, value in share.items() if value != 1} == dict.fromkeys(slow, 0.25)
    free = {"places", "times", "asking", "signals", "out.bias"}
    assert {name for name, value in decay.items() if value == 0} == free | {name for name in decay if "norms" in name}
    assert "connection" in decay


@pytest.mark.parametrize(
    ("story", "message"),
    [
        ([[[3]]], "at least one fact and a question"),
        ([[[3]] * 7], "`model.max_facts` is 5, but a story has 6 facts; set it to 6 or more"),
        ([[[3] * 5, [3]]], "`model.max_words` is 4, but a sentence has 5 words; set it to 5 or more"),
    ],
)
def test_rows_that_are_no_stories_are_refused(story: Any, message: str) -> None:
    config = ConnectionConfig(vocab_size=9, pad_id=PAD, end_ids=ENDS, width=12, max_words=4, max_facts=5)
    for ask in (config.check, Connection(config).story):
        with pytest.raises(InputError, match=message):
            ask(tokens_of(story))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10, "heads": 3}, "`width` must be a multiple of `heads`: got 10 and 3"),
        ({"vocab_size": 70}, "needs a `width` of at least the 70 tokens: got 64"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(ConnectionConfig, {"vocab_size": 9, "pad_id": 0, "end_ids": (1,)} | settings, where="test")
