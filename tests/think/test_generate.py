"""Decoding through the cache against re-reading the whole text."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import LONGEST, halting_rules, models, simple_rules, texts
from torch import Tensor

from looplm.loop.halting import Bounded, ByRole, Evidence, HaltingRule, parse_halting
from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM
from looplm.spec import oracle
from looplm.think.generate import generate, pad_left
from looplm.train.recipe import load_recipe

halting, architecture = oracle("halting"), oracle("architecture")

PAD, NEVER = 14, -1


@pytest.mark.spec("architecture.cache", "architecture.padding", "halting.kv-publish")
@given(models(), texts(min_rows=2, max_rows=4), halting_rules(), st.integers(1, 5), st.data())
def test_decoding_equals_rereading_each_row_alone(
    model: LoopLM, tokens: Tensor, rule: HaltingRule, count: int, data: st.DataObject
) -> None:
    longest = max(1, min(tokens.shape[1], LONGEST - count))  # learned positions end there
    rows = [row[: data.draw(st.integers(1, longest))] for row in tokens.tolist()]
    prompts, real = pad_left(rows, PAD)
    settings: dict[str, Any] = {"halting": rule, "max_new_tokens": count, "real": real}
    endless = generate(model, prompts, stop_token=NEVER, **settings)
    stop = data.draw(st.sampled_from([NEVER, *endless.tokens[0]]))  # rows that end early leave the others alone
    made = generate(model, prompts, stop_token=stop, **settings)
    for row, all_new, new, loops, work in zip(
        rows, endless.tokens, made.tokens, made.loops_taken, made.block_evaluations, strict=True
    ):
        assert new == (all_new[: all_new.index(stop) + 1] if stop in all_new else all_new)
        whole = torch.tensor([row + new[:-1]])
        answer = torch.arange(whole.shape[1])[None] >= len(row) - 1
        thoughts = model.think(whole, rule, answer=answer)
        assert thoughts.logits[0, len(row) - 1 :].argmax(-1).tolist() == new
        assert thoughts.loops_taken[0, len(row) - 1 :].tolist() == loops
        counted = halting.block_evaluations(thoughts.loops_taken[0].tolist(), model.block.kv_share)
        assert work == pytest.approx(counted)


@pytest.mark.spec("architecture.greedy", "architecture.guess", "halting.roles")
@settings(max_examples=15)
@given(models(positions="rope"), texts(max_rows=1), simple_rules(), simple_rules(), st.integers(1, 5), st.data())
def test_generating_is_greedy_by_the_spec(
    model: LoopLM, tokens: Tensor, of_answer: HaltingRule, of_prompt: HaltingRule, most: int, data: st.DataObject
) -> None:
    prompt, rules, loops = tokens[0].tolist(), ByRole(of_answer, of_prompt), []

    def read(text: list[int]) -> list[float]:
        answer = torch.tensor([halting.is_answer(len(prompt), len(text))])
        thoughts = model.think(torch.tensor([text]), rules, answer=answer)
        loops.append(int(thoughts.loops_taken[0, -1]))
        logits: list[float] = thoughts.logits[0, -1].tolist()
        return logits

    endless = architecture.greedy(prompt, most, NEVER, read)
    stop = data.draw(st.sampled_from([NEVER, *endless]))
    made = generate(model, tokens, halting=rules, max_new_tokens=most, stop_token=stop)
    loops.clear()
    assert made.tokens == [architecture.greedy(prompt, most, stop, read)]
    assert made.loops_taken == [loops]


@pytest.mark.spec("halting.roles")
def test_prompt_tokens_but_the_last_run_all_loops_unless_the_settings_say_otherwise() -> None:
    model = LoopLM(load_recipe("first-light").model)
    prompt = torch.zeros(1, 5, dtype=torch.int64)

    def work(**prompt_table: Any) -> float:
        settings: dict[str, Any] = {"rule": "state-change", "epsilon": 1e9, "max_loops": 4, **prompt_table}
        rule = parse_halting(settings, where="this halting")
        made = generate(model, prompt, halting=rule, max_new_tokens=1, stop_token=NEVER)
        assert made.loops_taken == [[1]]
        return made.block_evaluations[0]

    assert work() == 4 * 4 + 1, "the last token halts at loop 1 and is read by nobody"
    assert work(prompt={"rule": "fixed", "max_loops": 3}) == 4 * 3 + 1
    assert work(prompt={"rule": "state-change", "epsilon": 1e9, "max_loops": 4}) == 4 + 1


@pytest.mark.spec("halting.skipped-work")
def test_a_row_that_halts_early_starts_its_next_token_while_others_think() -> None:
    model = LoopLM(load_recipe("first-light").model)

    @dataclass(frozen=True)
    class FirstRowIsQuick(Bounded):
        def ready(self, seen: Evidence) -> Tensor:
            return seen.guess == self.quick

        quick: int = 0

    prompts = torch.tensor([[12, 1, 11], [12, 2, 11], [12, 3, 11]])
    quick = int(generate(model, prompts[:1], halting=Fixed(1), max_new_tokens=1, stop_token=NEVER).tokens[0][0])
    made = generate(model, prompts, halting=FirstRowIsQuick(6, quick=quick), max_new_tokens=5, stop_token=NEVER)
    in_step = 6 + sum(max(row[i] for row in made.loops_taken) for i in range(5))
    apart = 6 + max(sum(row[1:]) for row in made.loops_taken)
    assert made.calls <= apart <= in_step


def test_no_new_tokens_are_refused() -> None:
    model = LoopLM(load_recipe("first-light").model)
    with pytest.raises(ValueError, match="at least 1: got 0"):
        generate(model, torch.zeros(1, 1, dtype=torch.int64), halting=Fixed(1), max_new_tokens=0, stop_token=NEVER)
