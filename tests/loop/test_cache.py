"""What the cache hands to readers, loop by loop, against the spec's own rule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from looplm.loop.cache import KVCache
from looplm.spec import oracle

halting = oracle("halting")
chunks = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4)
"""Loops that each token of each chunk takes."""


def numbered(entries: list[tuple[int, int, int]]) -> Tensor:
    """Keys [1, 1, T, 3] that show whose they are: token, loop, layer."""
    return torch.tensor(entries).float()[None, None]


@pytest.mark.spec("halting.kv-publish", "architecture.cache")
@given(chunks, st.integers(1, 6), st.integers(1, 3))
def test_a_token_offers_the_entry_that_the_spec_names(taken: list[list[int]], num_loops: int, layers: int) -> None:
    cache = KVCache(num_loops, layers)
    halted_after: list[int] = []
    for chunk in ([min(s, num_loops) for s in row] for row in taken):
        halted_after += chunk
        s, first = torch.tensor([chunk]), len(cache)
        last_loop = min(max(chunk) + 1, num_loops)
        for l in range(1, last_loop + 1):
            for layer, remember in enumerate(cache.at(l, s < l - 1)):
                new = numbered([(first + t, l, layer) for t in range(len(chunk))])
                expected = numbered([(t, halting.entry(l, loops), layer) for t, loops in enumerate(halted_after)])
                keys, values = remember(new, -new)
                assert torch.equal(keys, expected)
                assert torch.equal(values, -expected)
        cache.commit(torch.zeros_like(s), torch.ones_like(s, dtype=torch.bool), s, last_loop)
        assert cache.waited_for is not None
        assert cache.waited_for.tolist() == [[max(halted_after)]]
