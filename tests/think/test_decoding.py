"""Texts that go on, one token a row, against thinking about each whole text alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import halting_rules, models, texts
from torch import Tensor

from looplm.loop.halting import HaltingRule
from looplm.loop.work import block_evaluations
from looplm.models.looped import LoopLM
from looplm.think.batched import Thinking
from looplm.think.generate import pad_left

PAD = 14


@pytest.mark.spec("architecture.cache", "architecture.padding", "halting.kv-publish", "halting.kv-pass", "halting.in-order")
@given(models(), texts(max_rows=4), halting_rules(), st.data())
def test_tokens_that_come_one_by_one_think_what_they_think_in_the_whole_text(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject
) -> None:
    lengths = [data.draw(st.integers(1, tokens.shape[1])) for _ in tokens]
    rows = [row[: data.draw(st.integers(length, len(row)))] for row, length in zip(tokens.tolist(), lengths, strict=True)]
    prompts, real = pad_left([row[:length] for row, length in zip(rows, lengths, strict=True)], PAD)
    answer = torch.zeros_like(real)
    answer[:, -1] = True
    rest = [row[length:] for row, length in zip(rows, lengths, strict=True)]
    thinking = Thinking(model, prompts, rule, real=real, answer=answer, room=max(map(len, rest)))
    while bool(thinking.running.any()):
        thinking.advance()
    logits: list[list[Tensor]] = [[] for _ in rows]
    loops: list[list[int]] = [[] for _ in rows]
    ready = list(range(len(rows)))
    while ready:
        for row, scores_now, (guess, taken) in zip(ready, thinking.logits(ready), thinking.newest(ready), strict=True):
            logits[row].append(scores_now)
            loops[row].append(taken)
            assert guess == int(scores_now.argmax())
        going_on = [row for row in ready if rest[row]]
        thinking.append(going_on, torch.tensor([rest[row].pop(0) for row in going_on], dtype=torch.int64))
        ready = []
        if bool(thinking.running.any()):
            thinking.advance()
            ready = thinking.halted
    for text, length, scores, of_row, work in zip(rows, lengths, logits, loops, thinking.block_evaluations, strict=True):
        whole = torch.tensor([text])
        thoughts = model.think(whole, rule, answer=torch.arange(len(text))[None] >= length - 1)
        assert thoughts.loops_taken[0, length - 1 :].tolist() == of_row
        torch.testing.assert_close(torch.stack(scores), thoughts.logits[0, length - 1 :], atol=1e-9, rtol=1e-9)
        assert work == block_evaluations(thoughts.loops_taken, model.block.kv_share)[0]
