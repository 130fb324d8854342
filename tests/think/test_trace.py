"""A trace says what the model was thinking."""

import json

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import models

from looplm.errors import InputError
from looplm.loop.halting import ByRole
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM
from looplm.resources import resource
from looplm.runs.checkpoint import Trained, load
from looplm.spec import oracle
from looplm.tasks.addition import Addition
from looplm.tasks.addition.problems import SYMBOLS
from looplm.tasks.addition.solve import solve
from looplm.think.trace import Trace, trace_text

halting = oracle("halting")


def traced(trained: Trained, text: str) -> Trace:
    return trace_text(trained.model, trained.recipe.task, text, trained.recipe.halting)


def test_a_trace_follows_its_schema_and_its_model() -> None:
    adder = load("adder")
    trace = traced(adder, "978+457").as_json()
    jsonschema.validate(trace, json.loads((resource("spec") / "trace.schema.json").read_text()))
    assert trace["answer"] == "1435"
    assert trace["correct"]
    assert [t["text"] for t in trace["tokens"]] == ["<bos>", *"879+754=5341"]
    assert [t["role"] for t in trace["tokens"]] == ["prompt"] * 8 + ["answer"] * 5
    solution = solve(adder, ["978+457"])[0]
    answering = [t for t in trace["tokens"] if t["role"] == "answer"]
    assert [t["loops_taken"] for t in answering] == solution.loops_taken
    assert [t["guesses"][-1] for t in answering] == [*"5341", "<eos>"]
    rules = adder.recipe.halting
    for token in trace["tokens"]:
        for kind in ("guesses", "confidences", "entropies", "changes"):
            assert len(token[kind]) == token["loops_taken"]
        rule = getattr(rules, token["role"])
        assert (token["halt_reason"] == "max-loops") == (token["loops_taken"] == rule.max_loops)


@pytest.mark.spec("halting.trace")
@given(models(positions="place"), st.integers(0, 999), st.integers(0, 999))
def test_a_trace_says_what_the_spec_says_of_every_loop(model: LoopLM, a: int, b: int) -> None:
    states: list[torch.Tensor] = []
    rule = ByRole(Confidence(5, 2, threshold=0.6), Fixed(5))
    trace = trace_text(model, Addition(), f"{a}+{b}", rule, hook=lambda l, h: states.append(h[0]))
    for t, token in enumerate(trace.tokens):
        before = torch.zeros_like(states[0][t])
        for l in range(token.loops_taken):
            h = states[l][t]
            logits = model.logits(h[None, None])[0, 0].detach()
            assert token.entropies[l] == pytest.approx(halting.entropy(logits), abs=2e-6)
            assert token.changes[l] == pytest.approx(halting.change(h, before), abs=2e-6)
            assert token.guesses[l] == SYMBOLS[int(logits.argmax())]
            assert token.confidences[l] == pytest.approx(float(logits.softmax(0).max()), abs=2e-6)
            before = h
        expected = "max-loops" if token.loops_taken == 5 else "confidence"
        assert token.halt_reason == expected


def test_a_text_too_long_to_show_is_refused() -> None:
    with pytest.raises(InputError, match="at most 64 tokens: got 83"):
        traced(load("adder"), "9" * 40 + "+" + "9" * 40)
