"""What can be said of the benchmarks without timing anything."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import SIMPLE, Case, cases, fresh, read
from looplm_kernels.loop import loop

from looplm.bench.kernels import PROMPT, Setting, contenders, draw, measure, measure_adder, report, work
from looplm.bench.timing import Spread, ratio, rounds
from looplm.bench.torch_loop import TorchLoop
from looplm.cli import main
from looplm.cli.bench import _line
from looplm.errors import InputError
from looplm.spec import oracle


@given(cases(batch=3, longest=8, dtype=torch.float64, kinds=SIMPLE))
def test_the_torch_loop_that_kernels_are_measured_against_is_the_reference(case: Case) -> None:
    if case.weights.places is not None:
        return
    n = min(case.lengths)
    case = replace(case, tokens=case.tokens[:, :n], lengths=[n] * 3, threshold=case.threshold[:, :n])
    case = replace(case, limit=None if case.limit is None else case.limit[:, :n])
    state, expected = fresh(case), read(case)
    start = torch.zeros(3, dtype=torch.int32)
    loop(case.weights, state, start, start + n - 1, case.rule)
    torch_loop = TorchLoop(case.weights, state, n - 1, case.rule)
    for _ in range(2):  # the second run finds nothing of the first
        for first in range(0, case.rule.max_loops, 2):
            torch_loop.loops(first, min(first + 2, case.rule.max_loops))
        assert torch.equal(torch_loop.taken, expected.loops_taken[:, n - 1])
        assert torch.equal(torch_loop.guess, expected.next_token[:, n - 1])
        torch.testing.assert_close(torch_loop.h, expected.h[:, n - 1], atol=1e-10, rtol=1e-8)


def test_rounds_take_turns_and_ratios_are_those_of_the_rounds() -> None:
    called: list[str] = []
    clock = iter([9.0, 9.0, 1.0, 2.0, 2.0, 3.0, 4.0, 2.0])

    def fake(run: object, calls: int) -> float:
        run()  # type: ignore[operator]
        return next(clock)

    seconds = rounds({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3, 10, fake)
    assert called == ["a", "b"] * 4
    assert seconds == {"a": [1.0, 2.0, 4.0], "b": [2.0, 3.0, 2.0]}
    spread = ratio(seconds, slow="b", fast="a")
    assert spread == Spread(1.5, 0.5, 2.0) and not spread.decided
    assert Spread(1.5, 1.01, 2.0).decided and Spread(0.5, 0.4, 0.9).decided


def test_the_table_of_loops_has_a_mean_near_five_of_twelve() -> None:
    _, state = draw(Setting(32, 512, halting=True), "cpu", torch.float32)
    table = state.limit[:, PROMPT].float()
    assert table.min() >= 1 and table.max() <= 12
    assert 4.5 < float(table.mean()) < 5.5


def test_a_row_on_a_cpu_times_the_eager_loop_and_counts_its_work() -> None:
    calls: list[int] = []

    def fake(run: object, count: int) -> float:
        calls.append(count)
        return 0.5

    row = measure(Setting(32, 2, halting=True), "cpu", torch.float32, fake, count=3, calls=7)
    assert row["agreement"] == {"eager": 1.0} and row["ratios"] == {}
    assert row["microseconds_per_token"]["eager"] == 250_000
    assert calls == [1, 7, 7, 7]
    assert row["tflop_per_s"]["eager"] > 0
    assert "d=32 batch=2" in _line(row)


def test_the_adders_row_solves_the_same_sums_on_both_backends() -> None:
    row = measure_adder("cpu", ("torch", "reference"), lambda run, calls: 0.5, count=1, calls=1, sums=3)
    assert row["agreement"] == 1.0 and 2 <= row["mean_loops"] < 6
    assert row["ratios"]["torch / reference"]["median"] == 1.0
    assert "adder, 3 sums loops=2." in _line(row)


@pytest.mark.spec("kernels.flops", "kernels.bytes")
def test_a_tile_reads_its_weights_until_its_slowest_row_has_halted() -> None:
    weights, _ = draw(Setting(32, 1, halting=False), "cpu", torch.float32)
    per_row, per_tile = 4 * 2 * 32 * (PROMPT + 1), 4 * (4 * 32 * 32 + 3 * 32 * 64 + 64 * 32)
    flop, moved = work(weights, torch.tensor([2] * 16 + [1, 3]))
    assert moved == 2 * (per_tile + 16 * per_row) + 3 * (per_tile + 2 * per_row)
    assert flop == (2 * 16 + 4) * (2 * per_tile / 4 + 4 * 32 * (PROMPT + 1))


@pytest.mark.spec("kernels.flops", "kernels.bytes")
@given(
    st.sampled_from([24, 32, 64]),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.lists(st.integers(1, 12), min_size=1, max_size=40),
)
def test_work_is_counted_as_in_the_spec(width: int, gated: bool, dtype: torch.dtype, loops: list[int]) -> None:
    weights, _ = draw(Setting(width, 1, halting=False), "cpu", dtype, loops=1)
    weights = weights if gated else replace(weights, gate=None)
    rules, sizes = oracle("kernels"), (width, len(weights.up), len(weights.embedding), gated)
    tiles = [loops[start : start + 16] for start in range(0, len(loops), 16)]
    read = [max(tile) * rules.bytes_per_loop(*sizes, rows=len(tile), seen=PROMPT + 1, size=dtype.itemsize) for tile in tiles]
    assert work(weights, torch.tensor(loops)) == (sum(loops) * rules.flops_per_loop(*sizes, seen=PROMPT + 1), sum(read))


def test_what_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looplm.bench.kernels.AGREEMENT", 1.01)
    row = measure(Setting(32, 2, halting=False), "cpu", torch.float32, lambda run, calls: 1.0, count=1, calls=1)
    assert row["seconds"] == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        next(iter(report((128,), (1,))))
    assert main(["bench", "kernels"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "make aot" in error


def test_contenders_on_a_cpu_are_the_eager_loop_and_the_reference() -> None:
    setting = Setting(32, 1, halting=False)
    weights, state = draw(setting, "cpu", torch.float32, loops=2)
    assert list(contenders(weights, state, setting, loops=2)) == ["eager", "reference"]
