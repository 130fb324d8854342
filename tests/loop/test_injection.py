"""What enters the block."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typeguard import suppress_type_checks

from looplm.loop.injection import inject, sinusoidal_signal
from looplm.spec import oracle

injection, architecture = oracle("injection"), oracle("architecture")


@pytest.mark.spec("injection.every-loop", "injection.first-loop")
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_injection_matches_the_spec(l: int, rows: int, tokens: int, dtype: torch.dtype) -> None:
    h, x0 = torch.randn(2, rows, tokens, 4).to(dtype)
    assert torch.equal(inject(h, x0, l, "every"), injection.every(h, x0, l))
    assert torch.equal(inject(h, x0, l, "first"), injection.first(h, x0, l))


@pytest.mark.spec("injection.same-shape")
def test_different_shapes_are_refused_and_shown() -> None:
    with suppress_type_checks(), pytest.raises(ValueError, match=r"x0 \[2, 1, 4\], h \[2, 3, 4\]"):
        inject(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4), 1, "every")


@pytest.mark.spec("architecture.loop-signal")
@given(st.integers(1, 120), st.integers(1, 100), st.integers(1, 9))
def test_loop_signal_matches_the_spec(l: int, loops: int, width: int) -> None:
    table = sinusoidal_signal(loops, width)
    torch.testing.assert_close(table[min(l, loops) - 1], torch.tensor(architecture.sinusoidal_signal(l, loops, width)))
