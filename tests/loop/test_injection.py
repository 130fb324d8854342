"""What enters the block."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typeguard import suppress_type_checks

from looplm.config import ModelConfig
from looplm.loop.injection import LoopSignal, inject
from looplm.spec import oracle

injection, architecture = oracle("injection"), oracle("architecture")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def config(width: int, **more: object) -> ModelConfig:
    return ModelConfig(vocab_size=15, width=width, heads=1, mlp_width=4, positions="none", **more)  # type: ignore[arg-type]


@pytest.mark.spec("injection.every-loop", "injection.first-loop")
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.sampled_from(DTYPES))
def test_injection_matches_the_spec(l: int, rows: int, tokens: int, dtype: torch.dtype) -> None:
    h, x0 = torch.randn(2, rows, tokens, 4).to(dtype)
    assert torch.equal(inject(h, x0, l, "every"), injection.every(h, x0, l))
    assert torch.equal(inject(h, x0, l, "first"), injection.first(h, x0, l))


@pytest.mark.spec("injection.same-shape")
def test_different_shapes_are_refused_and_shown() -> None:
    with suppress_type_checks(), pytest.raises(ValueError, match=r"x0 \[2, 1, 4\], h \[2, 3, 4\]"):
        inject(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4), 1, "every")


@pytest.mark.spec("architecture.loop-signal")
@given(st.integers(1, 120), st.integers(1, 100), st.integers(2, 9), st.lists(st.sampled_from(DTYPES), max_size=3))
def test_loop_signal_matches_the_spec_in_every_dtype(l: int, loops: int, width: int, dtypes: list[torch.dtype]) -> None:
    signal = LoopSignal(config(width, loop_signal="sinusoidal", loop_signal_loops=loops))
    for dtype in dtypes:  # one after another: what an earlier one has rounded must not stay so
        signal.to(dtype)
    found = signal(l)
    assert found.dtype == (dtypes[-1] if dtypes else torch.float32)
    exact = torch.tensor(architecture.sinusoidal_signal(l, loops, width), dtype=torch.float64)
    torch.testing.assert_close(found, exact.to(found.dtype), atol=torch.finfo(found.dtype).eps, rtol=0)


@pytest.mark.spec("architecture.learned-loop-signal", "architecture.loop-signal")
@given(st.integers(1, 9), st.integers(1, 6))
def test_a_learned_loop_signal_is_a_row_of_its_table_and_none_is_nothing(l: int, loops: int) -> None:
    signal = LoopSignal(config(4, loop_signal="learned", loop_signal_loops=loops))
    table = signal.table
    assert table is not None
    assert table.shape == (loops, 4)
    expected = architecture.learned_signal(l, table)
    assert torch.equal(signal(l), expected)
    assert torch.equal(signal(torch.tensor([l, 1]))[:, 0], torch.stack([expected, table[0]]))
    assert LoopSignal(config(4))(l) == 0
