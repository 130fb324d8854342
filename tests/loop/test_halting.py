"""Halting rules on drawn logits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.config import HaltingConfig
from looplm.loop.halting import Evidence, HaltingRule, make_halting
from looplm.spec import oracle

halting = oracle("halting")

histories = st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5)


def loops_taken(rule: HaltingRule, argmaxes: list[list[int]]) -> list[int]:
    """Ask the rule after each loop, as the model does; argmaxes[token][l - 1]."""
    logits = torch.nn.functional.one_hot(torch.tensor(argmaxes), 4).float().transpose(0, 1)[:, None]  # [L, 1, T, V]
    active, taken = torch.ones(1, len(argmaxes), dtype=torch.bool), torch.zeros(1, len(argmaxes), dtype=torch.int64)
    for l in range(1, rule.max_loops + 1):
        taken += active
        active &= ~rule(Evidence(l, logits[l - 1], logits[l - 2] if l > 1 else None))
    assert not active.any(), "every token has halted after the last loop"
    return [int(count) for count in taken[0]]


@pytest.mark.spec("halting.fixed", "halting.at-least-one-loop")
@given(histories, st.integers(1, 6))
def test_fixed_matches_the_spec(argmaxes: list[list[int]], max_loops: int) -> None:
    rule = make_halting(HaltingConfig(rule="fixed", max_loops=max_loops))
    assert loops_taken(rule, argmaxes) == [halting.fixed(row, max_loops) for row in argmaxes]


@pytest.mark.spec("halting.two-equal-argmaxes", "halting.at-least-one-loop")
@given(histories, st.integers(1, 6))
def test_two_equal_argmaxes_matches_the_spec(argmaxes: list[list[int]], max_loops: int) -> None:
    rule = make_halting(HaltingConfig(rule="two-equal-argmaxes", max_loops=max_loops))
    assert loops_taken(rule, argmaxes) == [halting.two_equal_argmaxes(row, max_loops) for row in argmaxes]
