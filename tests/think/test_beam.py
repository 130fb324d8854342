"""Beam search against its clauses, every text thought about whole and alone; and against all texts that there are."""

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import VOCABULARY, halting_rules, models, texts
from torch import Tensor
from typeguard import suppress_type_checks

from looplm.errors import InputError
from looplm.loop.halting import HaltingRule
from looplm.loop.halting.fixed import Fixed
from looplm.loop.work import block_evaluations
from looplm.models.looped import LoopLM
from looplm.spec import oracle
from looplm.think.batched import Thinking
from looplm.think.beam import Beam
from looplm.think.generate import generate
from looplm.think.sampling import Sampling

generation = oracle("generation")
penalties = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])
NEVER = -1


def log_probabilities_of(model: LoopLM, prompt: list[int], rule: HaltingRule) -> Callable[[list[int]], list[float]]:
    """By whole texts, each thought about from its beginning."""
    known: dict[tuple[int, ...], list[float]] = {}

    def find(new: list[int]) -> list[float]:
        if tuple(new) not in known:
            whole = torch.tensor([prompt + new])
            thoughts = model.think(whole, rule, answer=torch.arange(whole.shape[1])[None] >= len(prompt) - 1)
            known[tuple(new)] = thoughts.logits[0, -1].log_softmax(-1).tolist()
        return known[tuple(new)]

    return find


def shaken(find: Callable[[list[int]], list[float]]) -> Callable[[list[int]], list[float]]:
    """The same up to rounding: where that changes what is found, the clause does not say what floats do."""
    return lambda new: [p + 1e-8 * random.Random(f"{new} {i}").random() for i, p in enumerate(find(new))]


@pytest.mark.spec(
    "generation.beam-search", "generation.length-penalty", "generation.beam-memory", "generation.log-probabilities"
)
@given(
    models(),
    texts(max_rows=2),
    halting_rules(),
    st.integers(1, 4),
    penalties,
    st.sets(st.integers(0, VOCABULARY - 1), max_size=8),
    st.data(),
)
def test_a_beam_is_what_its_clauses_say_with_loops_of_its_own(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, width: int, penalty: float, stops: set[int], data: st.DataObject
) -> None:
    rows = [row[: data.draw(st.integers(1, min(len(row), 7)))] for row in tokens.tolist()]
    most = data.draw(st.integers(1, 5))
    made = generate(
        model,
        rows,
        halting=rule,
        max_new_tokens=most,
        stop_token=stops,
        log_probabilities=True,
        beam=Beam(width=width, length_penalty=penalty),
    )
    assert made.log_probabilities is not None

    def ended(new: list[int]) -> bool:
        return bool(generation.ended(new, stops, most))

    for i, row in enumerate(rows):
        find = log_probabilities_of(model, row, rule)
        expected, _ = generation.beam_search(find, ended, width, most, penalty)
        assume(expected == generation.beam_search(shaken(find), ended, width, most, penalty)[0])
        new = made.tokens[i]
        assert new == expected
        assert made.finish_reason[i] == ("stop" if new[-1] in stops else "length")
        whole = torch.tensor([row + new[:-1]])
        thoughts = model.think(whole, rule, answer=torch.arange(whole.shape[1])[None] >= len(row) - 1)
        assert made.loops_taken[i] == thoughts.loops_taken[0, len(row) - 1 :].tolist()
        said = thoughts.logits[0, len(row) - 1 :].log_softmax(-1)
        assert made.log_probabilities[i] == pytest.approx([float(said[n, token]) for n, token in enumerate(new)], abs=1e-9)
        least = float(block_evaluations(thoughts.loops_taken, model.block.kv_share)[0])
        assert made.block_evaluations[i] >= least - 1e-9


@pytest.mark.spec("generation.beam-search", "generation.length-penalty")
@given(
    models(vocab_size=4, positions="rope"),
    texts(max_rows=2),
    halting_rules(3),
    penalties,
    st.sets(st.integers(0, 3), max_size=2),
    st.integers(1, 4),
)
def test_a_beam_that_is_wide_enough_finds_the_best_of_all_texts(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, penalty: float, stops: set[int], most: int
) -> None:
    tokens = tokens % 4
    found = generate(
        model,
        tokens,
        halting=rule,
        max_new_tokens=most,
        stop_token=stops,
        log_probabilities=True,
        beam=Beam(width=4**most, length_penalty=penalty),
    )
    assert found.log_probabilities is not None
    everything = torch.tensor(list(product(range(4), repeat=most)))
    for row, said in zip(tokens, found.log_probabilities, strict=True):
        whole = torch.cat((row.expand(len(everything), -1), everything), 1)
        thoughts = model.think(whole, rule, answer=(torch.arange(whole.shape[1]) >= len(row) - 1).expand_as(whole))
        p = thoughts.logits[:, len(row) - 1 : -1].log_softmax(-1).gather(-1, everything[..., None])[..., 0]
        scores = []
        for new, each in zip(everything.tolist(), p.tolist(), strict=True):
            length = next(n for n in range(1, most + 1) if generation.ended(new[:n], stops, most))
            scores.append(generation.beam_score(sum(each[:length]), length, penalty))
        assert generation.beam_score(sum(said), len(said), penalty) == pytest.approx(max(scores), abs=1e-9)


@pytest.mark.spec("generation.beam-search", "generation.beam-memory")
@given(models(positions="place"), texts(max_rows=2), halting_rules(), penalties, st.sampled_from([1.0, 1.3]))
def test_one_beam_is_greedy(model: LoopLM, tokens: Tensor, rule: HaltingRule, penalty: float, repetition: float) -> None:
    asked: dict[str, Any] = {"halting": rule, "max_new_tokens": 5, "stop_token": {0, 1}, "log_probabilities": True}
    asked |= {"sampling": Sampling(repetition_penalty=repetition, no_repeated_ngram=3 if repetition > 1 else None)}
    greedy = generate(model, tokens, **asked)
    beam = generate(model, tokens, beam=Beam(width=1, length_penalty=penalty), **asked)
    assert (beam.tokens, beam.loops_taken, beam.ran_out) == (greedy.tokens, greedy.loops_taken, greedy.ran_out)
    assert beam.finish_reason == greedy.finish_reason
    assert beam.block_evaluations == pytest.approx(greedy.block_evaluations)


@pytest.mark.spec("generation.beam-end")
@given(models(positions="none"), texts(max_rows=1), st.sets(st.integers(0, VOCABULARY - 1), min_size=1), penalties)
def test_a_search_ends_as_soon_as_no_open_beam_can_win(model: LoopLM, tokens: Tensor, stops: set[int], penalty: float) -> None:
    (row,) = tokens.tolist()
    find = log_probabilities_of(model, row, Fixed(2))
    searches = [
        generation.beam_search(each, lambda new: generation.ended(new, stops, 5), 3, 5, penalty)
        for each in (find, shaken(find))
    ]
    assume(searches[0] == searches[1])
    appended: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        append = Thinking.append

        def counted(self: Thinking, rows: list[int], tokens: Tensor) -> None:
            appended.append(1)
            append(self, rows, tokens)

        patch.setattr(Thinking, "append", counted)
        made = generate(
            model,
            tokens,
            halting=Fixed(2),
            max_new_tokens=5,
            stop_token=stops,
            beam=Beam(width=3, length_penalty=penalty),
        )
    assert (made.tokens[0], len(appended) + 1) == searches[0]


@pytest.mark.spec("generation.beam-refused")
@given(models(layers=1, kv_heads=None, place_strict=False))
def test_what_a_search_cannot_be_is_refused_before_anything_runs(model: LoopLM) -> None:
    asked: dict[str, Any] = {"halting": Fixed(1), "max_new_tokens": 2, "stop_token": NEVER}
    assert generate(model, [[1]], beam=Beam(), **asked).backend == "torch"
    model.block.forward = None  # type: ignore[method-assign, assignment]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"beam": Beam(), "backend": "reference"}, "cannot reorder the beams"),
        ({"beam": Beam(), "sampling": Sampling(temperature=1.0)}, "draws nothing"),
        ({"beam": 4}, "must be a looplm.Beam"),
    ]
    for settings, message in wrong:
        with pytest.raises(InputError, match=message), suppress_type_checks():
            generate(model, [[1]], **asked | settings)
