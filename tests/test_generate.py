"""Decoding through the cache against re-reading the whole text."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import halting_rules, models, texts
from torch import Tensor

from looplm.config import load_preset
from looplm.generate import generate, pad_left
from looplm.loop.halting import Fixed, HaltingRule
from looplm.models.looped import LoopLM, Thoughts

PAD, NEVER = 14, -1


@pytest.mark.spec("architecture.cache", "architecture.padding", "halting.kv-publish")
@given(models(positions="digit-place"), texts(min_rows=2), halting_rules(), st.integers(1, 4), st.data())
def test_decoding_equals_rereading_each_row_alone(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, count: int, data: st.DataObject
) -> None:
    rows = [row[: data.draw(st.integers(1, len(row)))] for row in tokens.tolist()]
    prompts, real = pad_left(rows, PAD)
    made = generate(model, prompts, halting=rule, max_new_tokens=count, stop_token=NEVER, real=real)
    for row, new, loops in zip(rows, made.tokens, made.loops_taken, strict=True):
        assert len(new) == count
        whole = torch.tensor([row + new[:-1]])
        may_halt = torch.arange(whole.shape[1])[None] >= len(row) - 1
        thoughts = model.think(whole, rule, may_halt=may_halt)
        assert thoughts.logits[0, len(row) - 1 :].argmax(-1).tolist() == new
        assert thoughts.loops_taken[0, len(row) - 1 :].tolist() == loops


@pytest.mark.spec("architecture.cache")
@given(models(positions="digit-place"), texts(min_rows=3), st.integers(3, 6), st.data())
def test_a_stop_token_cuts_its_row_and_changes_no_other(model: LoopLM, tokens: Tensor, count: int, data: st.DataObject) -> None:
    endless = generate(model, tokens, halting=Fixed(2), max_new_tokens=count, stop_token=NEVER)
    stop = data.draw(st.sampled_from([token for row in endless.tokens for token in row[1:]]))
    stopped = generate(model, tokens, halting=Fixed(2), max_new_tokens=count, stop_token=stop)
    for whole, row, loops in zip(endless.tokens, stopped.tokens, stopped.loops_taken, strict=True):
        assert row == (whole[: whole.index(stop) + 1] if stop in whole else whole)
        assert len(loops) == len(row)


@pytest.mark.spec("architecture.cache")
def test_prompt_tokens_but_the_last_run_all_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LoopLM(load_preset("first-light").model)
    asked: list[list[list[bool]] | None] = []
    think = model.think

    def spy(*arguments: Any, **more: Any) -> Thoughts:
        asked.append(more["may_halt"].tolist() if "may_halt" in more else None)
        return think(*arguments, **more)

    monkeypatch.setattr(model, "think", spy)
    generate(model, torch.zeros(2, 3, dtype=torch.int64), halting=Fixed(2), max_new_tokens=3, stop_token=NEVER)
    assert asked == [[[False, False, True]] * 2, None, None], "and every new token may halt"


def test_no_new_tokens_are_refused() -> None:
    model = LoopLM(load_preset("first-light").model)
    with pytest.raises(ValueError, match="at least 1: got 0"):
        generate(model, torch.zeros(1, 1, dtype=torch.int64), halting=Fixed(1), max_new_tokens=0, stop_token=NEVER)
