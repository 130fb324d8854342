"""The looped block over sentences against the spec's own functions, and what must not change what it gives."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from looplm.errors import InputError
from looplm.loop.halting.fixed import Fixed
from looplm.models.sentences import LoopedSentences, SentencesConfig
from looplm.settings import parse
from looplm.spec import oracle

spec = oracle("sentences")
PAD, ENDS, VOCABULARY, WIDTH = 0, (1, 2), 12, 12


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


@st.composite
def models(draw: st.DrawFn, /, **fixed: Any) -> LoopedSentences:
    drawn: dict[str, Any] = {
        "heads": draw(st.sampled_from([1, 2, 3])),
        "layers": draw(st.sampled_from([1, 2])),
        "centred": draw(st.booleans()),
        "orthogonal_words": draw(st.booleans()),
        "written_gain": draw(st.sampled_from([0.0, 1.0, 2.0])),
        "loop_signal_loops": draw(st.integers(1, 3)),
    }
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_id": PAD, "end_ids": ENDS}
    sizes |= {"width": WIDTH, "mlp_width": 8, "max_words": 4, "max_facts": 5}
    torch.manual_seed(draw(st.integers(0, 99)))
    model = LoopedSentences(SentencesConfig(**sizes | drawn | fixed)).double().eval()
    for norm in model.norms.values():
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter)
    return model


sentences = st.lists(st.integers(3, VOCABULARY - 1), max_size=4)
asked = st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=4)
stories = st.tuples(st.lists(sentences, min_size=1, max_size=5), asked)


def tokens_of(rows: list[Any]) -> Tensor:
    flat = [[id for fact in facts for id in (*fact, 1)] + [*question, 2] for facts, question in rows]
    width = max(map(len, flat))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in flat])


class Oracle:
    """One row, by the spec's function for its input and LoopLM's clauses for the block; it takes only the weights."""

    def __init__(self, model: LoopedSentences) -> None:
        self.config, self.w = model.config, {name: value.detach() for name, value in model.state_dict().items()}

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], self.config.block.norm_epsilon)

    def looks(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each sentence reads, [S, D], and the share of each, [S, S], the mean over heads."""
        q, k, v = (x @ self.w[f"{layer}.attention.qkv.weight"].T).chunk(3, -1)
        size = WIDTH // self.config.heads
        itself = torch.eye(len(x), dtype=torch.bool)
        shares, read = [], []
        for head in range(self.config.heads):
            cut = slice(head * size, (head + 1) * size)
            share = (q[:, cut] @ k[:, cut].T / size**0.5).masked_fill(itself, -torch.inf).softmax(-1)
            shares.append(share)
            read.append(share @ v[:, cut])
        return torch.cat(read, -1) @ self.w[f"{layer}.attention.out.weight"].T, torch.stack(shares).mean(0)

    def answers(self, facts: list[list[int]], question: list[int], loops: int) -> tuple[list[Tensor], list[Tensor]]:
        """The logits after each loop, and how much the question read of each fact in it."""
        w, config = self.w, self.config
        said = spec.inputs(facts, question, w["words.weight"], w["places"], w["times"], w["asking"])
        if config.centred:
            said = torch.cat((said[:1], said[1:] - said[1:].mean(0)))
        x0 = layer_norm(said, said.shape[-1:], w["norms.input.weight"], w["norms.input.bias"])
        h, logits, looks = torch.zeros_like(x0), [], []
        for l in range(loops):
            x = h + x0 + w["loop_signal.table"][min(l, config.loop_signal_loops - 1)]
            for number in range(config.layers):
                layer = f"block.layers.{number}"
                read, share = self.looks(layer, self.norm(f"{layer}.attention_norm", x))
                looks += [share[0, 1:]] if number == 0 else []
                x = x + read
                inner = gelu(self.norm(f"{layer}.mlp_norm", x) @ w[f"{layer}.mlp.up.weight"].T)
                x = x + inner @ w[f"{layer}.mlp.down.weight"].T
            h = layer_norm(x, x.shape[-1:], w["norms.state.weight"], w["norms.state.bias"])
            out = layer_norm(h[0], h[0].shape, w["norms.out.weight"], w["norms.out.bias"])
            logits.append(out @ w["out.weight"].T + w["out.bias"])
        return logits, looks


@pytest.mark.spec("sentences.input", "sentences.seen", "sentences.loop", "sentences.answer", "sentences.looks")
@pytest.mark.spec("sentences.independent", "connection.sentences")
@given(models(), st.lists(stories, min_size=1, max_size=3), st.integers(1, 4))
def test_answers_and_looks_are_the_specs_row_by_row(model: LoopedSentences, rows: list[Any], loops: int) -> None:
    tokens = tokens_of(rows)
    read = [model.logits(h) for h in model.states(tokens, loops)]
    looks = model.looks(tokens, loops)
    for row, (facts, question) in enumerate(rows):
        wanted, wanted_looks = Oracle(model).answers(facts, question, loops)
        for l in range(loops):
            torch.testing.assert_close(read[l][row], wanted[l].expand(tokens.shape[1], -1), atol=1e-8, rtol=1e-6)
            assert_close(looks[l, row, : len(facts)], wanted_looks[l])


@pytest.mark.spec("sentences.independent")
@given(models(), stories, st.integers(1, 3), st.data())
def test_padding_changes_nothing_wherever_it_stands(
    model: LoopedSentences, story: Any, loops: int, data: st.DataObject
) -> None:
    plain = tokens_of([story])[0].tolist()
    padded = list(plain)
    for _ in range(data.draw(st.integers(1, 4))):
        padded.insert(data.draw(st.integers(0, len(padded))), PAD)
    one, other = (list(model.states(torch.tensor([ids]), loops))[-1][0, 0] for ids in (plain, padded))
    assert_close(one, other)


@pytest.mark.spec("sentences.start")
@given(models())
def test_queries_and_keys_start_alike_and_orthogonal(model: LoopedSentences) -> None:
    for layer in model.block.layers:
        queries, keys, values = layer.attention.qkv.weight.chunk(3)  # type: ignore[union-attr, operator]
        assert torch.equal(queries, keys)
        gain = model.config.compare_gain
        torch.testing.assert_close(queries @ queries.T, gain**2 * torch.eye(WIDTH).double(), atol=1e-5, rtol=0)
        if written := model.config.written_gain:
            through = layer.attention.out.weight @ values  # type: ignore[union-attr, operator]
            torch.testing.assert_close(through, written * torch.eye(WIDTH).double(), atol=1e-5, rtol=0)


@pytest.mark.spec("sentences.start")
@given(models(orthogonal_words=True, vocab_size=30))
def test_words_start_orthogonal_as_many_as_there_is_room_for(model: LoopedSentences) -> None:
    for part in model.words.weight.split(WIDTH):
        torch.testing.assert_close(part @ part.T, WIDTH * torch.eye(len(part)).double(), atol=1e-4, rtol=0)


@given(models(layers=1), st.lists(stories, min_size=1, max_size=3), st.integers(1, 3))
def test_thinking_takes_all_steps_and_gives_what_training_sees(model: LoopedSentences, rows: list[Any], loops: int) -> None:
    tokens = tokens_of(rows)
    *_, h = model.states(tokens, loops)
    thought = model.think(tokens, Fixed(max_loops=loops))
    assert_close(thought.logits, model.logits(h))
    assert torch.equal(thought.loops_taken, torch.where(tokens != PAD, loops, 0))


def test_what_does_not_fit_is_refused() -> None:
    model = LoopedSentences(SentencesConfig(vocab_size=9, pad_id=0, end_ids=ENDS, width=12, max_words=2, max_facts=2))
    for row, message in (
        ([[3, 1, 3, 1, 3, 1, 4, 2]], r"`model.max_facts` is 2, but a story has 3 facts"),
        ([[3, 3, 3, 1, 4, 2]], r"`model.max_words` is 2, but a sentence has 3 words"),
        ([[4, 2]], "at least one fact and a question"),
    ):
        for body in (model.config.check, lambda tokens: next(model.states(tokens, 1))):
            with pytest.raises(InputError, match=message):
                body(torch.tensor(row))
    with pytest.raises(InputError, match="`width` must be a multiple of `heads`"):
        parse(SentencesConfig, {"vocab_size": 9, "pad_id": 0, "end_ids": [1], "width": 10}, where="test")
    assert replace(model.config, centred=False).clauses() == model.config.clauses()
