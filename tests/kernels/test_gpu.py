"""What only a GPU can show of the kernels; all of it is skipped without one. `make gpu` runs it before the benchmark."""

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from kernel_cases import OUTPUTS, Case, alone, cases, drawn_weights, fresh, on, read, written
from looplm_kernels.loop import loop
from looplm_kernels.loop_grid import loop_grid
from looplm_kernels.state import Rule, State

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

MANY = settings(max_examples=15)


def exact(case: Case) -> Case:
    """The same case with weights rounded to bf16, as the kernel multiplies them, but in float32."""
    return replace(case, weights=replace(case.weights, **{n: v.float() for n, v in floats(case).items()}))


def floats(case: Case) -> dict[str, Any]:
    return {n: v for n, v in vars(case.weights).items() if isinstance(v, torch.Tensor) and v.is_floating_point()}


def assert_near(state: State, expected: State, case: Case, share: float) -> None:
    for b, n in enumerate(case.lengths):
        ours, theirs = written(state, "h", b, n).float(), written(expected, "h", b, n).float()
        assert not ours.isnan().any()
        assert float((ours - theirs).abs().max()) <= share * max(1.0, float(theirs.abs().max()))


@pytest.mark.spec("kernels.same-as-reference")
@given(cases())
@MANY
def test_float32_matches_the_reference_on_the_gpu(case: Case) -> None:
    case = on(replace(case, threshold=torch.full_like(case.threshold, math.inf)), "cuda")
    # float32 with input_precision="ieee": as in the interpreter, with other sums
    assert_near(read(case, backend="triton"), read(case), case, 1e-3)


@pytest.mark.spec("kernels.same-as-reference")
@given(cases(dtype=torch.bfloat16))
@MANY
def test_bf16_matches_the_reference_on_the_gpu(case: Case) -> None:
    # how often tokens halt is fixed, so that only rounding differs: 8 bits in each product's inputs, at most 4 loops
    case = on(replace(case, threshold=torch.full_like(case.threshold, math.inf)), "cuda")
    if case.weights.places is not None:
        return  # its table is rounded once more in the reference's copy
    expected = read(exact(case))
    assert_near(read(case, backend="triton"), expected, case, 0.06)
    one_by_one = list(range(1, max(case.lengths)))
    assert_near(read(case, one_by_one, backend="triton", across=True), expected, case, 0.06)


@pytest.mark.spec("kernels.prefill-is-decode", "kernels.batch-invariant")
@given(cases(batch=3, longest=20, dtype=torch.bfloat16))
@MANY
def test_bitwise_properties_hold_on_the_gpu(case: Case) -> None:
    case = on(case, "cuda")
    whole = read(case, backend="triton")
    cut = read(case, list(range(5, max(case.lengths))), backend="triton")
    for b, n in enumerate(case.lengths):
        single = read(alone(case, b), backend="triton")
        for name in OUTPUTS:
            assert torch.equal(written(whole, name, b, n), written(cut, name, b, n)), name
            assert torch.equal(written(whole, name, b, n), written(single, name, 0, n)), name


def one_token(width: int, texts: int = 1) -> tuple[Case, State, torch.Tensor]:
    """Texts of 17 tokens of which 16 have been read, each with a limit of its own."""
    weights = drawn_weights(width=width, heads=width // 32, hidden=2 * width, positions="rope", dtype=torch.bfloat16)
    tokens = torch.randint(0, 15, (texts, 17), dtype=torch.int32)
    limit = torch.randint(1, 13, (texts, 17), dtype=torch.int32)
    case = on(Case(weights, tokens, [17] * texts, Rule(12), torch.full((texts, 17), math.inf), limit), "cuda")
    state, at = fresh(case), torch.full((texts,), 16, dtype=torch.int32, device="cuda")
    loop(case.weights, state, at * 0, at, case.rule)
    return case, state, at


@pytest.mark.spec("kernels.same-as-reference", "kernels.one-launch")
@pytest.mark.parametrize("texts", [1, 5, 16])
@pytest.mark.parametrize("width", [64, 128, 256])
def test_the_grid_matches_kernel_a_on_the_gpu(width: int, texts: int) -> None:
    case, state, at = one_token(width, texts)
    loop(case.weights, state, at, at + 1, case.rule, backend="triton", across=texts > 1)
    expected, loops = state.h[:, 16].clone(), state.loops_taken[:, 16].clone()
    loop_grid(case.weights, state, at, at + 1, case.rule, backend="triton")
    far = (state.h[:, 16] - expected).abs().max()
    assert far <= 0.06 * expected.abs().max()  # of one text float32 products, bf16 inputs in the others
    assert torch.equal(state.loops_taken[:, 16], loops)


@pytest.mark.spec("kernels.one-launch")
@pytest.mark.parametrize("texts", [1, 16])
def test_the_barrier_holds_over_ten_thousand_launches(texts: int) -> None:
    case, state, at = one_token(128, texts)
    rule = Rule(4)
    loop_grid(case.weights, state, at, at + 1, rule, backend="triton")
    first = state.h[:, 16].clone()
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(10_000):
        loop_grid(case.weights, state, at, at + 1, rule, backend="triton")
        different += (state.h[:, 16] != first).any()
    assert int(different) == 0
    assert state.workspace["barrier"].tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import torch; from kernel_cases import *\n"
        "case = on(Case(drawn_weights(positions='place'), torch.zeros(2, 20, dtype=torch.int32), [20, 3], Rule(2),"
        " torch.full((2, 20), .9)), 'cuda')\n"
        "read(case, backend='triton'); torch.cuda.synchronize()"
    )
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
