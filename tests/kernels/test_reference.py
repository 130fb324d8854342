"""The kernels' plain reference against the model and the spec, and what every kernel refuses."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_cases import OUTPUTS, SIMPLE, Case, alone, cases, drawn_weights, fresh, read, stopped_by_its_limit, written
from looplm_kernels.halt_update import halt_update
from looplm_kernels.loop import loop
from looplm_kernels.loop_grid import loop_grid
from looplm_kernels.state import Rule, empty
from looplm_kernels.weights import padded
from torch import Tensor

from looplm.spec import oracle

kernels, halting, architecture = oracle("kernels"), oracle("halting"), oracle("architecture")


@pytest.mark.spec("kernels.prefill-is-decode")
@given(cases(dtype=torch.float64), st.data())
def test_reference_gives_the_same_however_a_text_is_cut(case: Case, data: st.DataObject) -> None:
    whole = read(case)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(case.lengths)))))
    for pieces in (cuts, list(range(1, max(case.lengths)))):
        state = read(case, pieces)
        for b, n in enumerate(case.lengths):
            assert torch.equal(written(state, "loops_taken", b, n), written(whole, "loops_taken", b, n))
            # float64: matrix products depend on their number of rows in the last bits
            torch.testing.assert_close(written(state, "h", b, n), written(whole, "h", b, n), atol=1e-10, rtol=1e-8)


@pytest.mark.spec("kernels.prefill-is-decode", "halting.prefix-stability")
@pytest.mark.parametrize("cuts", [[], [1]])
def test_a_token_stopped_by_its_limit_is_no_longer_waited_for(cuts: list[int]) -> None:
    case, expected = stopped_by_its_limit()
    assert read(case, cuts).loops_taken[0, :2].tolist() == expected


@pytest.mark.spec("kernels.batch-invariant")
@given(cases(dtype=torch.float64))
def test_reference_gives_a_text_the_same_alone_and_in_a_batch(case: Case) -> None:
    together = read(case)
    for b, n in enumerate(case.lengths):
        single = read(alone(case, b))
        for name in (*OUTPUTS, "keys", "values"):
            assert torch.equal(written(single, name, 0, n).nan_to_num(7), written(together, name, b, n).nan_to_num(7)), name


@pytest.mark.spec("halting.kv-publish", "kernels.only-what-was-written")
@given(cases(dtype=torch.float64))
def test_the_cache_holds_a_tokens_loops_and_one_entry_more(case: Case) -> None:
    state = read(case)
    for b, n in enumerate(case.lengths):
        taken = written(state, "loops_taken", b, n)
        for t in range(n):
            entries = [not bool(state.keys[b, :, l, t].isnan().any()) for l in range(state.num_loops)]
            last = halting.entry(state.num_loops, int(taken[t]))
            assert entries == [l < last for l in range(state.num_loops)]
        assert not written(state, "h", b, n).isnan().any()


@pytest.mark.spec("kernels.halts")
@given(cases(batch=1, dtype=torch.float64, kinds=SIMPLE))
def test_a_token_halts_by_the_rule(case: Case) -> None:
    """Each token's confidences loop by loop are those of runs with more and more loops: its context is kept."""
    state = read(case)
    n = case.lengths[0]
    for t in range(n):
        guesses, confidences = [], []
        for loops in range(1, case.rule.max_loops + 1):
            again = fresh(case)
            for name in ("tokens", "loops_taken", "keys", "values", "place", "run"):
                getattr(again, name).copy_(getattr(state, name))
            again.ask(math.inf)
            again.limit.fill_(2**31 - 1)
            start = torch.tensor([t], dtype=torch.int32)
            loop(case.weights, again, start, start + 1, Rule(loops))
            guesses.append(int(again.next_token[0, t]))
            confidences.append(float(again.confidence[0, t]))
        most = min(case.rule.max_loops, int(state.limit[0, t]))
        expected = kernels.loops_taken(
            guesses, confidences, float(case.threshold[0, t]), case.rule.min_loops, most, case.rule.agree
        )
        assert int(state.loops_taken[0, t]) == expected


@pytest.mark.spec("kernels.confidence", "architecture.guess")
@given(st.lists(st.floats(-30, 30) | st.integers(-1, 1).map(float), min_size=1, max_size=40), st.integers(1, 50))
@example([0.0, 2.0, 2.0], 1)
def test_one_pass_over_the_vocabulary_is_softmax(logits: list[float], chunk: int) -> None:
    p, token = kernels.confidence(logits, chunk)
    assert p == pytest.approx(architecture.confidence(logits), rel=1e-12)
    assert token == architecture.guess(logits), "of equals the lowest id"


@pytest.mark.spec("kernels.flops")
@given(cases(batch=1, longest=6))
def test_flops_of_a_token_are_those_that_torch_counts(case: Case) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    state = fresh(case)
    state.ask(math.inf)
    state.limit.fill_(2**31 - 1)
    t = case.lengths[0] - 1
    at = lambda n: torch.tensor([n], dtype=torch.int32)  # noqa: E731
    loop(case.weights, state, at(0), at(t), case.rule)
    with FlopCounterMode(display=False) as counter:
        loop(case.weights, state, at(t), at(t + 1), case.rule)
    w = case.weights
    per_loop = kernels.flops_per_loop(w.width, len(w.up), len(w.embedding), w.gate is not None, seen=t + 1)
    assert counter.get_total_flops() == per_loop * case.rule.max_loops


@pytest.mark.spec("kernels.refuses")
def test_what_a_call_cannot_do_is_refused_in_one_line() -> None:
    weights = drawn_weights()
    state = empty(weights, 2, 20, 4)
    start, end = torch.zeros(2, dtype=torch.int32), torch.ones(2, dtype=torch.int32)

    def refused(match: str, **changes: object) -> None:
        given = {"weights": weights, "state": state, "start": start, "end": end, "rule": Rule(4)} | changes
        with pytest.raises(ValueError, match=match) as error:
            loop(**given)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    from dataclasses import replace

    refused("keeps keys and values of 4 loops, but the rule may ask for 5", rule=Rule(5))
    refused(r"`start` must be int32 \[2\]", start=start.long())
    refused(r"`end` must be int32 \[2\]", end=end[:1])
    refused(r"`state.h` must be .*float32.*\[2, 32, 32\].*got torch.float64", state=replace(state, h=state.h.double()))
    refused(r"`state.keys` must be .*bfloat16", weights=drawn_weights(dtype=torch.bfloat16))
    turned = replace(state, tokens=state.tokens.t().contiguous().t())
    refused("`state.tokens` must be contiguous", state=turned)
    refused(r"on cpu: got .* on meta", state=replace(state, threshold=state.threshold.to("meta")))
    refused("'reference' or 'triton': got 'cuda'", backend="cuda")
    many = empty(weights, 17, 20, 4)
    with pytest.raises(ValueError, match="at most 16 texts: got a state of 17"):
        loop_grid(weights, many, start.repeat(9)[:17], end.repeat(9)[:17], Rule(4))
    with pytest.raises(ValueError, match="power of two and at least the 2 heads: got 3"):
        loop_grid(weights, empty(weights, 1, 20, 4), start[:1], end[:1], Rule(4), programs=3)
    with pytest.raises(ValueError, match="got NaN"):
        state.ask(math.nan)
    with pytest.raises(ValueError, match=r"a number or \[2, 32\]"):
        state.ask(torch.zeros(2))
    for rule in (Rule(4, prefix=True), Rule(4, epsilon=0.1)):
        with pytest.raises(ValueError, match=r"use looplm_kernels\.loop"):
            loop_grid(weights, empty(weights, 1, 20, 4), start[:1], end[:1], rule)
    with pytest.raises(ValueError, match="`epsilon` must be a number"):
        Rule(2, epsilon=math.nan)
    with pytest.raises(ValueError, match="`min_loops` <= `max_loops`"):
        Rule(2, min_loops=3)
    with pytest.raises(ValueError, match="must be at least 1"):
        empty(weights, 1, 0, 4)
    with pytest.raises(ValueError, match="learned positions for 64 tokens: got 65"):
        empty(drawn_weights(positions="learned"), 1, 65, 4)


@pytest.mark.spec("kernels.refuses")
def test_weights_that_do_not_fit_together_are_refused_with_all_mistakes() -> None:
    from dataclasses import replace

    weights = drawn_weights()
    with pytest.raises(ValueError, match=r"`qkv` must be \[96, 32\], got \[95, 32\]; .*multiple of `heads`: got 32 and 3"):
        replace(weights, qkv=weights.qkv[:-1], heads=3)
    with pytest.raises(ValueError, match=r"one dtype: got torch\.bfloat16, torch\.float32"):
        replace(weights, up=weights.up.bfloat16())
    with pytest.raises(ValueError, match="RoPE rotates pairs"):
        drawn_weights(width=9, heads=3, positions="rope")


@pytest.mark.spec("kernels.refuses")
def test_halt_update_refuses_buffers_that_do_not_fit() -> None:
    n, logits, h = 3, torch.zeros(3, 5), torch.zeros(3, 4)
    whole, exact = torch.ones(n, dtype=torch.int32), torch.zeros(n)
    with pytest.raises(
        ValueError, match=r"`active` must be .*int32 \[3\].*`threshold` must be .*\[3\].*got torch.float32 \[2\]"
    ):
        halt_update(logits, h, h.clone(), whole.bool(), whole, exact[:2], exact, whole, Rule(3))


@pytest.mark.spec("kernels.no-gradient")
def test_a_call_that_would_need_a_gradient_is_refused() -> None:
    weights = drawn_weights()
    weights.embedding.requires_grad_()
    state = empty(weights, 1, 3, 2)
    start, end = torch.tensor([0], dtype=torch.int32), torch.tensor([3], dtype=torch.int32)
    with pytest.raises(ValueError, match="no gradient"):
        loop(weights, state, start, end, Rule(2))
    with torch.no_grad():
        loop(weights, state, start, end, Rule(2))
    assert not state.h[:, :3].isnan().any()


@given(st.integers(1, 3000))
def test_padded_sizes_are_powers_of_two(size: int) -> None:
    assert padded(size) >= max(16, size)
    assert padded(size).bit_count() == 1
    assert padded(size) < max(17, 2 * size)


def test_halt_update_freezes_counts_and_never_wakes_a_token() -> None:
    torch.manual_seed(0)
    n, rule = 9, Rule(4)
    h, active = torch.zeros(n, 6), torch.ones(n, dtype=torch.int32)
    active[0] = 0
    taken, guess = torch.zeros(n, dtype=torch.int32), torch.full((n,), -1, dtype=torch.int32)
    confidence, threshold = torch.zeros(n), torch.full((n,), 0.5)
    kept: dict[int, Tensor] = {}
    for _ in range(6):
        before, old_active, old_taken = h.clone(), active.clone(), taken.clone()
        logits, new_h = torch.randn(n, 5) * 2, torch.randn(n, 6)
        halt_update(logits, new_h, h, active, taken, threshold, confidence, guess, rule)
        on = old_active > 0
        assert torch.equal(h[~on], before[~on])
        assert torch.equal(h[on], new_h[on])
        assert torch.equal(taken, old_taken + old_active)
        assert (active <= old_active).all()
        kept |= {row: confidence[row].clone() for row in (on & (active == 0)).nonzero()[:, 0].tolist()}
    assert int(taken[0]) == 0 and not active.any() and taken[1:].min() >= 1 and taken.max() <= 4
    assert all(torch.equal(confidence[row], value) for row, value in kept.items())
