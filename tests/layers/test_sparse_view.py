"""A view that lists what is seen, and one that hides what is not, are the same attention."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import in_form, masks, models, simple_rules, texts
from torch import Tensor

from looplm.layers.attention import attention_view
from looplm.loop.halting import HaltingRule
from looplm.models.looped import LoopLM, columns
from looplm.think.generate import generate

windowed = st.sampled_from([0, 1, 2]).flatmap(lambda window: models(positions="place", place_window=window))


@pytest.mark.spec("architecture.sparse-view")
@given(windowed, texts(), st.integers(1, 3))
def test_outputs_and_gradients_are_those_of_the_dense_view(model: LoopLM, tokens: Tensor, loops: int) -> None:
    loops = 1 if model.config.body == "static" else loops
    found: list[list[Tensor]] = []
    for sparse in (False, True):
        logits = in_form(model, sparse)(tokens, loops)
        wanted = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(logits.square().sum(), wanted, allow_unused=True)
        found.append([logits, *(g for g in gradients if g is not None)])
    for dense, sparse_one in zip(*found, strict=True):
        torch.testing.assert_close(sparse_one, dense, rtol=1e-9, atol=1e-10)


@pytest.mark.spec("architecture.sparse-view", "architecture.place-window", "architecture.causal", "architecture.padding")
@given(windowed, texts(), st.data())
def test_a_sparse_view_lists_what_the_dense_one_shows(model: LoopLM, tokens: Tensor, data: st.DataObject) -> None:
    real = data.draw(masks(tokens, some=True))
    at = columns(tokens)
    _, dense = attention_view(in_form(model, False).positions, tokens, real, at, torch.float64)
    _, sparse = attention_view(in_form(model, True).positions, tokens, real, at, torch.float64)
    assert dense.columns is None
    assert sparse.columns is not None
    spread = torch.full_like(dense.scores, -torch.inf)
    heads = dense.scores.shape[1]
    where = sparse.columns[:, None].expand(-1, heads, -1, -1)
    shown = sparse.scores.expand_as(where)
    spread.scatter_reduce_(-1, where, shown, "amax")
    torch.testing.assert_close(spread, dense.scores)


@pytest.mark.spec("architecture.sparse-view")
@given(windowed, texts(min_length=2), simple_rules(), st.data())
def test_generation_is_the_same_in_both_forms(model: LoopLM, tokens: Tensor, rule: HaltingRule, data: st.DataObject) -> None:
    settings: dict[str, Any] = {"halting": rule, "max_new_tokens": 3, "stop_token": -1}
    dense, sparse = (generate(in_form(model, form), tokens, **settings) for form in (False, True))
    assert sparse == dense
