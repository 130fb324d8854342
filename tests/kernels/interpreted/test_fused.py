"""The fused kernels in Triton's interpreter, on a CPU: only in a process of their own, see tests/kernels/test_interpreter.py.

The interpreter runs a kernel's programs one after another, and each operation on whole tiles with numpy.
"""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    OUTPUTS,
    SIMPLE,
    Case,
    alone,
    cases,
    decided_by_rounding,
    drawn_weights,
    fresh,
    read,
    stopped_by_its_limit,
    written,
)

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1 before Triton is imported", allow_module_level=True)

from looplm_kernels.halt_update import halt_update
from looplm_kernels.loop import fused, loop
from looplm_kernels.loop_grid import loop_grid
from looplm_kernels.state import Rule, State, empty
from triton.runtime.interpreter import GridExecutor

EVERYTHING = (*OUTPUTS, "keys", "values")
FEW = settings(max_examples=int(os.environ.get("LOOPLM_INTERPRETED_EXAMPLES", "6")))

# float32: some hundred products of numbers near 1 in another order than the reference's, over at most 4 loops
TOLERANCE: dict[str, Any] = {"atol": 5e-5, "rtol": 1e-4}
MARGIN = 1e-4


def assert_same(state: State, expected: State, case: Case) -> None:
    """Every token that no rounding decided, and nothing else but what was not written."""
    if decided_by_rounding(case, expected, MARGIN):
        return
    for b, n in enumerate(case.lengths):
        for name in ("loops_taken", "next_token"):
            assert torch.equal(written(state, name, b, n), written(expected, name, b, n)), name
        for name in ("h", "confidence", "keys", "values"):
            # what no loop offered is still NaN in both
            torch.testing.assert_close(written(state, name, b, n), written(expected, name, b, n), equal_nan=True, **TOLERANCE)
        for name in EVERYTHING:
            room = getattr(state, name)[b, :, :, n:] if name in ("keys", "values") else getattr(state, name)[b, n:]
            untouched = room.isnan() if room.is_floating_point() else room == -1
            assert bool(untouched.all()), f"{name} was written beyond the text"


def assert_bitwise(one: State, other: State, case: Case) -> None:
    for b, n in enumerate(case.lengths):
        for name in EVERYTHING:
            a, c = written(one, name, b, n), written(other, name, b, n)
            assert torch.equal(a.nan_to_num(7), c.nan_to_num(7)) and torch.equal(a.isnan(), c.isnan()), name


@pytest.mark.spec("kernels.same-as-reference", "kernels.only-what-was-written", "kernels.halts", "halting.kv-publish")
@given(cases())
@FEW
def test_a_tile_of_positions_matches_the_reference(case: Case) -> None:
    assert_same(read(case, backend="triton"), read(case), case)


@pytest.mark.spec("kernels.same-as-reference", "kernels.only-what-was-written", "kernels.halts", "halting.kv-publish")
@given(cases(batch=3, longest=5))
@FEW
def test_a_tile_across_texts_matches_the_reference(case: Case) -> None:
    one_by_one = list(range(1, max(case.lengths)))
    assert_same(read(case, one_by_one, backend="triton", across=True), read(case), case)


@pytest.mark.spec("kernels.prefill-is-decode")
@given(cases(batch=1, max_loops=3), st.data())
@FEW
def test_prefill_is_decode_bitwise(case: Case, data: st.DataObject) -> None:
    n = case.lengths[0]
    start = data.draw(st.integers(0, n))
    cuts = [cut for cut in range(start, n) if cut > 0]  # some at once, then one at a time
    assert_bitwise(read(case, cuts, backend="triton"), read(case, backend="triton"), case)


@pytest.mark.spec("kernels.prefill-is-decode", "halting.prefix-stability")
@pytest.mark.parametrize(("cuts", "across"), [([], False), ([1], False), ([1], True)])
def test_a_token_stopped_by_its_limit_is_no_longer_waited_for(cuts: list[int], across: bool) -> None:
    case, expected = stopped_by_its_limit()
    assert read(case, cuts, backend="triton", across=across).loops_taken[0, :2].tolist() == expected


@pytest.mark.spec("kernels.batch-invariant")
@given(cases(batch=2, longest=18, max_loops=3), st.booleans())
@settings(max_examples=4)
def test_a_text_alone_is_the_text_in_a_batch_bitwise(case: Case, across: bool) -> None:
    case = replace(case, lengths=[min(n, 3) for n in case.lengths]) if across else case
    cuts = list(range(1, max(case.lengths))) if across else None
    together = read(case, cuts, backend="triton", across=across)
    for b, n in enumerate(case.lengths):
        single = read(alone(case, b), cuts, backend="triton", across=across)
        for name in EVERYTHING:
            assert torch.equal(written(single, name, 0, n).nan_to_num(7), written(together, name, b, n).nan_to_num(7)), name


@pytest.mark.spec("kernels.batch-invariant")
def test_more_room_and_another_place_in_the_tile_change_nothing_bitwise() -> None:
    weights = drawn_weights(positions="rope", swiglu=True)
    tokens, rule = torch.randint(0, 15, (1, 3), dtype=torch.int32), Rule(2, agree=True)

    def run(batch: int, room: int, at: int, across: bool) -> State:
        state = empty(weights, batch, room, 2)
        state.tokens[:, :3] = torch.randint(0, 15, (batch, 3))
        state.tokens[at, :3] = tokens[0]
        state.ask(0.0)
        for t in range(3):
            start = torch.full((batch,), t, dtype=torch.int32)
            loop(weights, state, start, start + 1, rule, backend="triton", across=across)
        return state

    for across in (False, True):
        batch = 18 if across else 2  # in the second tile, or the second program
        small, large = run(1, 3, 0, across), run(batch, 40, batch - 1, across)
        for name in OUTPUTS:
            assert torch.equal(getattr(small, name)[0, :3], getattr(large, name)[batch - 1, :3]), name


def last_tokens(case: Case) -> tuple[State, torch.Tensor]:
    """All but the last token of every text has been read; where that one stands."""
    at = torch.tensor(case.lengths, dtype=torch.int32) - 1
    state = fresh(case)
    loop(case.weights, state, at * 0, at, case.rule)
    return state, at


@pytest.mark.spec("kernels.same-as-reference", "kernels.halts", "halting.kv-publish", "kernels.only-what-was-written")
@given(st.integers(1, 4).flatmap(lambda n: cases(batch=n, longest=5, max_loops=3, kinds=SIMPLE)), st.sampled_from([4, 8]))
@settings(max_examples=6)
def test_the_grids_phases_match_the_reference(case: Case, programs: int) -> None:
    state, at = last_tokens(case)
    loop_grid(case.weights, state, at, at + 1, case.rule, backend="triton", programs=programs, by_phases=True)
    assert_same(state, read(case), case)


@pytest.mark.spec("kernels.same-as-reference", "kernels.only-what-was-written")
def test_a_grid_of_more_programs_than_heads_and_texts_without_a_new_token_matches_the_reference() -> None:
    weights = drawn_weights(width=36, heads=3, positions="place", swiglu=True)
    lengths = [3 + b % 3 for b in range(16)]
    case = Case(weights, torch.randint(0, 15, (16, 5)).int(), lengths, Rule(3, agree=True), torch.zeros(16, 5))
    state, at = last_tokens(case)
    end = at + 1
    end[[0, 7]] = at[[0, 7]]
    loop_grid(case.weights, state, at, end, case.rule, backend="triton", programs=16, by_phases=True)
    assert state.h[0, 2].isnan().all() and state.loops_taken[7, 3] == -1
    assert_same(state, read(replace(case, lengths=end.tolist())), replace(case, lengths=end.tolist()))


@pytest.mark.spec("kernels.same-as-reference", "kernels.halts", "halting.kv-publish", "kernels.one-launch")
@pytest.mark.parametrize("positions", ["none", "rope", "learned", "place"])
@pytest.mark.parametrize("agree", [False, True])
def test_the_persistent_grid_of_one_program_matches_the_reference(positions: str, agree: bool) -> None:
    weights = drawn_weights(heads=1, width=24, positions=positions, swiglu=agree, layer_norm=not agree)
    tokens = torch.randint(0, 15, (1, 19), dtype=torch.int32)
    threshold = torch.full((1, 19), 0.0 if agree else 0.6)
    case = Case(weights, tokens, [19], Rule(4, min_loops=2, agree=agree), threshold)
    state = fresh(case)
    at = torch.tensor([15], dtype=torch.int32)
    loop(weights, state, at * 0, at, case.rule)
    for t in range(15, 19):
        loop_grid(weights, state, at * 0 + t, at * 0 + t + 1, case.rule, backend="triton", programs=1)
    assert_same(state, read(case), case)


@pytest.mark.spec("kernels.same-as-reference", "kernels.confidence", "halting.freeze", "halting.loops-taken")
@given(st.integers(1, 40), st.integers(1, 200), st.integers(1, 70), st.booleans(), st.integers(0, 99))
@FEW
def test_halt_update_matches_the_reference(n: int, vocabulary: int, width: int, agree: bool, seed: int) -> None:
    torch.manual_seed(seed)
    rule = Rule(4, min_loops=2, agree=agree)
    buffers: dict[str, Any] = {
        "h": torch.zeros(n, width),
        "active": (torch.rand(n) < 0.8).int(),
        "loops_taken": torch.zeros(n, dtype=torch.int32),
        "threshold": torch.rand(n) * 0.4,
        "confidence": torch.zeros(n),
        "next_token": torch.full((n,), -1, dtype=torch.int32),
    }
    ours, theirs = ({name: value.clone() for name, value in buffers.items()} for _ in range(2))
    for _ in range(4):
        logits, new_h = torch.randn(n, vocabulary) * 2, torch.randn(n, width)
        logits = torch.where(torch.rand(n, 1) < 0.5, logits, logits.round())  # with ties in half of the rows
        halt_update(logits, new_h, rule=rule, backend="triton", **ours)
        halt_update(logits, new_h, rule=rule, **theirs)
        for name in buffers:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5)


@pytest.mark.spec("kernels.one-launch")
def test_all_loops_of_a_call_are_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []

    class Counted:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            launches.append(grid)
            return kernel[grid]

    kernel = fused.loop_fwd_kernel
    monkeypatch.setattr(fused, "loop_fwd_kernel", Counted())
    case = Case(drawn_weights(), torch.zeros(2, 20, dtype=torch.int32), [20, 3], Rule(3), torch.full((2, 20), math.inf))
    read(case, backend="triton")
    assert launches == [(2,)]


@pytest.mark.spec("kernels.backends")
def test_the_shipped_adder_runs_on_the_fused_kernels() -> None:
    import looplm

    adder = looplm.load("adder")
    ours, theirs = (looplm.solve(adder, ["97+8", "5+5"], backend=name) for name in ("triton", "torch"))
    assert [solution.answer for solution in ours] == ["105", "10"]
    assert ours == theirs  # tokens, loops taken and work


@pytest.mark.slow
@pytest.mark.spec("kernels.same-as-reference")
def test_twelve_loops_of_a_wider_model_stay_near_the_reference() -> None:
    weights = drawn_weights(width=64, heads=2, hidden=192, vocabulary=64, positions="rope", swiglu=True)
    tokens = torch.randint(0, 64, (1, 40), dtype=torch.int32)
    case = Case(weights, tokens, [40], Rule(12), torch.full((1, 40), math.inf))
    state, expected = read(case, backend="triton"), read(case)
    torch.testing.assert_close(state.h[:, :40], expected.h[:, :40], atol=2e-3, rtol=1e-3)  # rounding grows a little each loop


@pytest.mark.slow
@given(cases(batch=2, dtype=torch.bfloat16))
@FEW
def test_bf16_weights_stay_near_the_reference(case: Case) -> None:
    """Loosely, because the interpreter truncates where a GPU rounds; properly in the GPU tests."""
    case = replace(case, threshold=torch.full_like(case.threshold, math.inf))
    state, expected = read(case, backend="triton"), read(case)
    for b, n in enumerate(case.lengths):
        far = (written(state, "h", b, n) - written(expected, "h", b, n)).abs().max()
        assert far <= 0.25 * max(1.0, float(written(expected, "h", b, n).abs().max()))


# Faults of an earlier kernel, kept as tests.


@pytest.mark.spec("kernels.confidence")
@pytest.mark.parametrize("vocabulary", [15, 17, 63, 65, 70])
def test_padding_of_the_vocabulary_adds_nothing_to_the_softmax(vocabulary: int) -> None:
    """Padded logits of 0 would add exp(0) each: seen best where all real logits are far below 0."""
    weights = drawn_weights(vocabulary=vocabulary, layer_norm=True)
    assert weights.shifts is not None
    weights.shifts[3, 0], weights.embedding[:, 0] = 60.0, -1.0
    tokens = torch.randint(0, vocabulary, (1, 2), dtype=torch.int32)
    case = Case(weights, tokens, [2], Rule(1), torch.full((1, 2), math.inf))
    state, expected = read(case, backend="triton"), read(case)
    logits = torch.nn.functional.layer_norm(expected.h[0, :2], (32,), weights.gains[3], weights.shifts[3]) @ weights.embedding.T
    assert logits.max() < -10
    torch.testing.assert_close(state.confidence[0, :2], expected.confidence[0, :2], **TOLERANCE)
    assert torch.equal(state.next_token[0, :2], expected.next_token[0, :2])
    assert state.next_token[0, :2].max() < vocabulary


@pytest.mark.spec("kernels.same-as-reference")
@pytest.mark.parametrize("kernel", ["positions", "across", "grid"])
def test_keys_that_a_window_hides_altogether_leave_no_nan(kernel: str) -> None:
    """A long run of digits: from its 17th on, nothing of the first tile of keys is seen, and its maximum is -inf."""
    weights = drawn_weights(positions="place", window=0)
    case = Case(weights, torch.zeros(1, 18, dtype=torch.int32), [18], Rule(2), torch.full((1, 18), math.inf))
    state, expected, at = fresh(case), read(case), torch.tensor([17], dtype=torch.int32)
    loop(weights, state, at * 0, at, case.rule)
    if kernel == "grid":
        loop_grid(weights, state, at, at + 1, case.rule, backend="triton", programs=4, by_phases=True)
    else:
        loop(weights, state, at, at + 1, case.rule, backend="triton", across=kernel == "across")
    assert_same(state, expected, case)


@pytest.mark.spec("kernels.halts")
@pytest.mark.parametrize("across", [False, True])
def test_a_nan_threshold_that_slips_through_halts_nothing_early(across: bool) -> None:
    case = Case(drawn_weights(), torch.zeros(1, 1, dtype=torch.int32), [1], Rule(3), torch.zeros(1, 1))
    state = fresh(case)
    state.threshold.fill_(math.nan)  # `ask` refuses it
    loop(case.weights, state, torch.tensor([0]).int(), torch.tensor([1]).int(), case.rule, backend="triton", across=across)
    assert int(state.loops_taken[0, 0]) == 3
    assert not state.h[0, 0].isnan().any()


@pytest.mark.spec("halting.at-least-one-loop")
@pytest.mark.parametrize("across", [False, True])
def test_a_token_takes_at_least_one_loop_however_low_its_threshold(across: bool) -> None:
    case = Case(drawn_weights(), torch.zeros(2, 1, dtype=torch.int32), [1, 1], Rule(3), torch.full((2, 1), -1.0))
    state = read(case, backend="triton", across=across)
    assert state.loops_taken[:, 0].tolist() == [1, 1]
    assert torch.equal(state.h[0, 0], read(case, backend="triton", across=across).h[1, 0])


@pytest.mark.spec("kernels.only-what-was-written")
def test_every_tile_writes_its_own_rows() -> None:
    """A tile index that is multiplied twice leaves rows unwritten, from the second tile or the second program on."""
    weights = drawn_weights(width=18, heads=3, vocabulary=19)
    lengths = [33, 1, 17]
    case = Case(weights, torch.randint(0, 19, (3, 33), dtype=torch.int32), lengths, Rule(2), torch.full((3, 33), math.inf))
    assert_same(read(case, backend="triton"), read(case), case)
    many = Case(weights, torch.randint(0, 19, (35, 1), dtype=torch.int32), [1] * 35, Rule(2), torch.full((35, 1), math.inf))
    assert_same(read(many, backend="triton", across=True), read(many), many)


def with_holes(case: Case, room: int, batch: int, folder: Path) -> State:
    """A state in files with holes, whose last text is the case's: what nobody touches takes neither memory nor disk."""
    small = empty(case.weights, batch, 1, case.rule.max_loops)
    vast: dict[str, Any] = {}
    for name, value in vars(small).items():
        if isinstance(value, torch.Tensor) and value.numel():
            shape = list(value.shape)
            shape[3 if name in ("keys", "values") else 1] = room
            file = torch.from_file(str(folder / name), shared=True, size=math.prod(shape), dtype=value.dtype)
            vast[name] = file.view(shape)
    state, n = replace(small, **vast), case.lengths[0]
    state.tokens[-1, :n], state.threshold[-1, :n], state.limit[-1, :n] = case.tokens[0], case.threshold[0], case.rule.max_loops
    return state


@pytest.mark.spec("kernels.same-as-reference", "kernels.only-what-was-written")
@pytest.mark.parametrize("across", [False, True])
def test_offsets_beyond_two_to_the_31_reach_their_element(
    across: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 32 bits the offset of a state, key or value would be negative there, and some other memory written."""
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)  # it copies each buffer onto itself, holes and all
    weights = drawn_weights(width=64, positions="place")
    case = Case(weights, torch.randint(0, 15, (1, 3), dtype=torch.int32), [3], Rule(2), torch.full((1, 3), math.inf))
    state, expected = with_holes(case, 2**25, 2, tmp_path), read(case)
    assert min(state.h[0].numel(), state.keys[0].numel()) >= 2**31
    step = 1 if across else 3
    for t in range(0, 3, step):
        start, end = (torch.tensor([0, at], dtype=torch.int32) for at in (t, t + step))
        loop(weights, state, start, end, case.rule, backend="triton", across=across)
    for name in EVERYTHING:
        torch.testing.assert_close(written(state, name, -1, 3), written(expected, name, 0, 3), **TOLERANCE)


@pytest.mark.spec("kernels.refuses")
def test_kernel_b_refuses_what_it_cannot_count(tmp_path: Path) -> None:
    case = Case(drawn_weights(width=64), torch.zeros(1, 1).int(), [1], Rule(2), torch.full((1, 1), math.inf))
    state, start = with_holes(case, 2**24 + 16, 1, tmp_path), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"counts in 32 bits: got 2,147,485,696 of at most 2,147,483,648; use"):
        loop_grid(case.weights, state, start, start + 1, case.rule, backend="triton", programs=4, by_phases=True)


@pytest.mark.spec("kernels.only-what-was-written")
@pytest.mark.parametrize("across", [False, True])
def test_a_call_without_new_tokens_writes_nothing(across: bool) -> None:
    case = Case(drawn_weights(), torch.zeros(2, 1, dtype=torch.int32), [1, 0], Rule(2), torch.full((2, 1), math.inf))
    state = fresh(case)
    nothing = torch.zeros(2, dtype=torch.int32)
    loop(case.weights, state, nothing, nothing, case.rule, backend="triton", across=across)
    assert state.h.isnan().all() and state.keys.isnan().all() and (state.loops_taken == -1).all()


def test_the_fused_kernels_refuse_float64() -> None:
    case = Case(drawn_weights(dtype=torch.float64), torch.zeros(1, 1, dtype=torch.int32), [1], Rule(1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"float32: got weights of torch\.float64"):
        read(case, backend="triton")


@pytest.mark.spec("kernels.refuses")
def test_kernel_b_refuses_more_texts_than_a_tile_has_rows() -> None:
    case = Case(drawn_weights(), torch.zeros(17, 1).int(), [1] * 17, Rule(2), torch.full((17, 1), math.inf))
    start = torch.zeros(17, dtype=torch.int32)
    with pytest.raises(ValueError, match="at most 16 texts: got a state of 17"):
        loop_grid(case.weights, fresh(case), start, start + 1, case.rule, backend="triton", programs=4)
