"""Decoding through the cache against re-reading the whole text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import halting_rules, models, texts
from torch import Tensor

from looplm.config import load_preset
from looplm.generate import generate, pad_left
from looplm.loop.halting import Fixed, HaltingRule
from looplm.models.looped import LoopLM

PAD, STOP = 14, 13


@pytest.mark.spec("architecture.cache", "architecture.padding", "halting.kv-publish")
@given(models(positions="digit-place"), texts(min_rows=2), halting_rules(), st.integers(1, 4), st.data())
def test_decoding_equals_rereading_each_row_alone(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, count: int, data: st.DataObject
) -> None:
    rows = [row[: data.draw(st.integers(1, len(row)))] for row in tokens.tolist()]
    prompts, real = pad_left(rows, PAD)
    made = generate(model, prompts, halting=rule, max_new_tokens=count, stop_token=STOP, real=real)
    for row, new, loops in zip(rows, made.tokens, made.loops_taken, strict=True):
        assert 1 <= len(new) <= count
        assert STOP not in new[:-1]
        whole = torch.tensor([row + new[:-1]])
        may_halt = torch.arange(whole.shape[1])[None] >= len(row) - 1
        thoughts = model.think(whole, rule, may_halt=may_halt)
        assert thoughts.logits[0, len(row) - 1 :].argmax(-1).tolist() == new
        assert thoughts.loops_taken[0, len(row) - 1 :].tolist() == loops


def test_no_new_tokens_are_refused() -> None:
    model = LoopLM(load_preset("first-light").model)
    with pytest.raises(ValueError, match="at least 1: got 0"):
        generate(model, torch.zeros(1, 1, dtype=torch.int64), halting=Fixed(1), max_new_tokens=0, stop_token=STOP)
