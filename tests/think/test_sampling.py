"""Choosing tokens: each filter against its clause and against transformers, and what a sample may depend on."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import halting_rules, models, texts
from torch import Tensor
from typeguard import suppress_type_checks

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.loop.halting import HaltingRule, loops_that_run_out
from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM
from looplm.spec import oracle
from looplm.think import sampling as ours
from looplm.think.generate import generate, stream
from looplm.think.sampling import Sampling

generation = oracle("generation")
NEVER = -1
shares = st.floats(0.01, 1)


@st.composite
def scores(draw: st.DrawFn) -> Tensor:
    """Rows of scores, of many sizes, with equals among them."""
    rows, vocabulary = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    made = torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.1, 1.0, 10.0]))
    return made.round(decimals=draw(st.sampled_from([0, 6])))


@st.composite
def settings_of_sampling(draw: st.DrawFn) -> Sampling:
    """Every filter, set or not."""
    return Sampling(
        temperature=draw(st.sampled_from([0.0, 0.3, 1.0, 2.0])),
        top_k=draw(st.none() | st.integers(1, 20)),
        top_p=draw(st.none() | shares),
        min_p=draw(st.none() | shares),
        typical_p=draw(st.none() | shares),
        repetition_penalty=draw(st.sampled_from([0.5, 1.0, 1.3])),
        no_repeated_ngram=draw(st.sampled_from([None, 3])),
        seed=draw(st.integers(0, 9)),
    )


@pytest.mark.spec("generation.top-k", "generation.top-p", "generation.min-p", "generation.typical-p")
@given(scores(), st.integers(1, 10), shares)
def test_filters_keep_what_their_clauses_keep(drawn: Tensor, k: int, share: float) -> None:
    for name, setting in (("top_k", k), ("top_p", share), ("min_p", share), ("typical_p", share)):
        kept = getattr(ours, name)(drawn, setting)
        for row, of_row in zip(drawn.tolist(), kept.tolist(), strict=True):
            assert of_row == getattr(generation, name)(row, setting), name


@pytest.mark.spec("generation.repetition-penalty", "generation.no-repeated-ngram")
@given(scores(), st.lists(st.integers(0, 8), min_size=1, max_size=12), st.floats(0.1, 3), st.integers(1, 4))
def test_what_stands_in_the_text_is_scored_by_its_clauses(drawn: Tensor, text: list[int], penalty: float, n: int) -> None:
    text = [token % drawn.shape[1] for token in text]
    penalized, banned = (
        ours.repetition_penalty(drawn, [text] * len(drawn), penalty),
        ours.no_repeated_ngram(drawn, [text] * len(drawn), n),
    )
    for i, row in enumerate(drawn.tolist()):
        assert penalized[i].tolist() == generation.repetition_penalty(row, text, penalty)
        assert banned[i].tolist() == generation.no_repeated_ngram(row, text, n)


@given(st.integers(0, 2**16), st.integers(1, 10), shares, st.floats(0.1, 3), st.integers(1, 3))
def test_filters_keep_what_those_of_transformers_keep(seed: int, k: int, share: float, number: float, n: int) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    text = torch.randint(0, 12, (2, 8), generator=generator)
    rows = text.tolist()
    pairs: list[tuple[Any, Tensor]] = [
        (process.TopKLogitsWarper(k), ours.top_k(drawn, k)),
        (process.TopPLogitsWarper(share), ours.top_p(drawn, share)),
        (process.MinPLogitsWarper(share), ours.min_p(drawn, share)),
        (process.RepetitionPenaltyLogitsProcessor(number), ours.repetition_penalty(drawn, rows, number)),
        (process.NoRepeatNGramLogitsProcessor(n), ours.no_repeated_ngram(drawn, rows, n)),
    ]
    if share < 1:
        pairs.append((process.TypicalLogitsWarper(share), ours.typical_p(drawn, share)))
    for theirs, kept in pairs:
        assert torch.equal(theirs(text, drawn.clone()), kept), type(theirs).__name__


@pytest.mark.spec("generation.filters", "generation.temperature", "generation.drawn")
@given(scores(), settings_of_sampling(), st.lists(st.integers(0, 8), min_size=1, max_size=6), st.integers(0, 99))
def test_a_token_is_chosen_by_the_clauses_in_their_order(
    logits: Tensor, settings: Sampling, text: list[int], step: int
) -> None:
    text = [token % logits.shape[1] for token in text]
    draw = Draw(settings.seed, "sample", step)
    row: list[float] = logits[0].tolist()
    for name, given_text in (("repetition_penalty", True), ("no_repeated_ngram", True), ("temperature", False)):
        value = getattr(settings, name)
        if value not in (None, 0):
            row = getattr(generation, name)(row, text, value) if given_text else getattr(generation, name)(row, value)
    if max(row) == -math.inf:
        with pytest.raises(InputError, match="leaves no token"):
            settings.choose(logits[:1], [text], [draw])
        return
    if settings.temperature > 0:
        for name in ("top_k", "top_p", "min_p", "typical_p"):
            if (value := getattr(settings, name)) is not None:
                row = getattr(generation, name)(row, value)
        expected = generation.drawn(row, draw.one())
    else:
        expected = row.index(max(row))
    assert settings.choose(logits[:1], [text], [draw]).tolist() == [expected]


@pytest.mark.spec("generation.seeds", "generation.stream", "generation.log-probabilities", "halting.ran-out")
@given(models(positions="rope"), texts(min_rows=2), halting_rules(), settings_of_sampling(), st.data())
def test_a_rows_sample_is_its_own_and_says_what_it_took(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, settings: Sampling, data: st.DataObject
) -> None:
    rows = [row[: data.draw(st.integers(1, len(row)))] for row in tokens.tolist()]
    seeds = [data.draw(st.integers(0, 5)) for _ in rows]
    asked: dict[str, Any] = {"halting": rule, "max_new_tokens": 4, "sampling": settings, "log_probabilities": True}
    made = generate(model, rows, stop_token={0, 1}, seeds=seeds, **asked)
    assert made.log_probabilities is not None
    for row, seed, new, loops, out, found in zip(
        rows, seeds, made.tokens, made.loops_taken, made.ran_out, made.log_probabilities, strict=True
    ):
        alone = list(stream(model, [row], stop_token=[1, 0], seeds=[seed], **asked))
        assert [each.token for each in alone] == new and [each.loops_taken for each in alone] == loops
        assert out == [taken >= loops_that_run_out(rule) for taken in loops] == [each.ran_out for each in alone]
        whole = torch.tensor([row + new[:-1]])
        thoughts = model.think(whole, rule, answer=torch.arange(whole.shape[1])[None] >= len(row) - 1)
        said = thoughts.logits[0, len(row) - 1 :].log_softmax(-1)
        assert found == pytest.approx([float(said[i, token]) for i, token in enumerate(new)], abs=1e-9)
        assert [each.log_probability for each in alone] == pytest.approx(found, abs=1e-9)


def test_rows_without_seeds_of_their_own_draw_apart() -> None:
    drawn = generate(
        small(),
        [[1, 2]] * 4,
        halting=Fixed(1),
        max_new_tokens=12,
        stop_token=NEVER,
        sampling=Sampling(temperature=1.0),
    ).tokens
    assert len({tuple(row) for row in drawn}) == 4


def small() -> LoopLM:
    from looplm.config import ModelConfig
    from looplm.models import build_model

    config = ModelConfig(vocab_size=9, width=8, heads=2, mlp_width=8, positions="learned", max_positions=20)
    return build_model(config).eval()


_IDS = torch.tensor([[1, 2, 3]])
_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompts": torch.tensor([1, 2])}, "`prompts` must be"),
    ({"prompts": _IDS.int()}, "`prompts` must be"),
    ({"prompts": _IDS[:, :0]}, "`prompts` must be"),
    ({"prompts": torch.tensor([[1, 9]])}, "from 0 to 8: got 9"),
    ({"prompts": torch.tensor([[1, -1]])}, "from 0 to 8: got -1"),
    ({"prompts": []}, "at least one token"),
    ({"prompts": [[2, 9]]}, "from 0 to 8: got 9"),
    ({"prompts": [[1, 2**70]]}, "from 0 to 8: got "),
    ({"prompts": [1, 2]}, "`prompts` must be"),
    ({"prompts": "ab"}, "`prompts` must be"),
    ({"prompts": None}, "`prompts` must be"),
    ({"prompts": [[1.5]]}, "`prompts` must be"),
    ({"stop_token": None}, "`stop_token` must be"),
    ({"stop_token": "3"}, "`stop_token` must be"),
    ({"max_new_tokens": 2.5}, "`max_new_tokens` must be"),
    ({"max_new_tokens": None}, "`max_new_tokens` must be"),
    ({"max_seconds": 0}, "`max_seconds` must be"),
    ({"max_seconds": math.nan}, "`max_seconds` must be"),
    ({"max_seconds": "1"}, "`max_seconds` must be"),
    ({"stop_strings": ["a", ""], "decode": str}, "`stop_strings` must be"),
    ({"stop_strings": "", "decode": str}, "`stop_strings` must be"),
    ({"stop_strings": [1], "decode": str}, "`stop_strings` must be"),
    ({"stop_strings": ["a"]}, "give `decode` too"),
    ({"seeds": ["x"]}, "`seeds` must be"),
    ({"seeds": 5}, "`seeds` must be"),
    ({"sampling": {"temperature": 1}}, "`sampling` must be"),
    ({"prompts": [[1], []]}, "at least one token"),
    ({"real": torch.tensor([[True, True]])}, "`real` must be Bool of the shape"),
    ({"real": torch.tensor([[True, True, False]])}, "pad prompts on the left"),
    ({"real": torch.tensor([[True, False, True]])}, "pad prompts on the left"),
    ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1"),
    ({"max_new_tokens": 19}, "learned positions for 20 tokens"),
    ({"seeds": [1, 2]}, "`seeds` must be one for each"),
]


@pytest.mark.spec("generation.refused")
@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize(("wrong", "message"), _REFUSED)
def test_what_cannot_be_is_refused_before_anything_runs(wrong: dict[str, Any], message: str, backend: str) -> None:
    asked: dict[str, Any] = {"prompts": _IDS, "halting": Fixed(1), "max_new_tokens": 2, "stop_token": NEVER, "backend": backend}
    model = small()
    model.block.forward = None  # type: ignore[method-assign, assignment]
    for door in (generate, stream):  # a stream refuses at once, not with its first token
        with pytest.raises(InputError, match=message), suppress_type_checks():
            door(model, **asked | wrong)


def test_whole_numbers_of_any_kind_are_taken() -> None:
    asked: dict[str, Any] = {"halting": Fixed(1), "max_new_tokens": 3}
    expected = generate(small_again := small(), [[1, 2]], stop_token=NEVER, **asked).tokens
    for prompts in (np.array([[1, 2]]), [np.array([1, 2])], [torch.tensor([1, 2])], ((1, 2),)):
        for stop in (np.int64(NEVER), torch.tensor(NEVER), [np.int64(NEVER)], torch.tensor([NEVER]), ()):
            with suppress_type_checks():
                assert generate(small_again, prompts, stop_token=stop, **asked).tokens == expected  # type: ignore[arg-type]


def test_between_two_tokens_of_a_stream_torch_is_as_it_was() -> None:
    model = small()
    tokens = stream(model, [[1, 2]], halting=Fixed(1), max_new_tokens=3, stop_token=NEVER)
    next(tokens)
    assert not torch.is_inference_mode_enabled()
    model(torch.tensor([[1, 2]]), 2).sum().backward()
    assert len(list(tokens)) == 2 and list(tokens) == []


@given(st.data())
def test_settings_out_of_range_are_refused_by_name(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["temperature", "top_k", "top_p", "min_p", "typical_p", "no_repeated_ngram", "seed"]))
    wrong = data.draw(st.sampled_from([-1, -0.5, 5e-324, math.nan, math.inf, "x"]))
    if name.endswith("_p") and wrong == 5e-324:
        return  # a share may be as small as one likes: the most likely token stays
    with pytest.raises(ValidationError, match=name):
        Sampling(**dict[str, Any]({name: wrong}))
