"""Halting rules on drawn histories, and what a config may say."""

from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import halting_rules, simple_rules
from torch import Tensor

from looplm.errors import InputError
from looplm.loop.halting import EVIDENCE, Bounded, ByRole, Evidence, HaltingRule, observe, parse_halting, what_it_looks_at
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.gate import Gate
from looplm.settings import as_table, parse
from looplm.spec import oracle
from looplm.train.recipe import Recipe, load_recipe

halting, architecture = oracle("halting"), oracle("architecture")

LOOPS = 6
guesses = st.lists(st.integers(0, 3), min_size=LOOPS, max_size=LOOPS)
confidences = st.lists(st.floats(0, 1), min_size=LOOPS, max_size=LOOPS)


def loops_taken(rule: HaltingRule, history: list[Evidence]) -> list[int]:
    """Ask the rule after each loop, as the model does."""
    active = history[0].active
    taken = torch.zeros_like(active, dtype=torch.int64)
    for seen in history[: rule.max_loops]:
        taken += active
        active = active & ~rule(Evidence(**vars(seen) | {"active": active}))
    assert not active.any(), "every token has halted after the last loop"
    return [int(count) for count in taken[0]]


def history_of(*tokens: tuple[list[int], list[float], list[float]]) -> list[Evidence]:
    """Guesses, confidences and changes of each token, as evidence after each loop."""
    width = len(tokens)
    columns = [
        torch.tensor([list(values) for values in zip(*kind, strict=True)], dtype=torch.float64)
        for kind in zip(*tokens, strict=True)
    ]
    guess, confidence, change = columns[0].long(), columns[1], columns[2]  # each [L, T]
    yes = torch.ones(1, width, dtype=torch.bool)
    before: tuple[Tensor, Tensor] = (torch.full((1, width), -1), torch.zeros(1, width))
    made = []
    for l in range(1, LOOPS + 1):
        now = (guess[l - 1][None], confidence[l - 1][None].double())
        made.append(
            Evidence(
                l=torch.tensor([[l]]),
                h=torch.zeros(1, width, 1),
                change=change[l - 1][None].double(),
                guess=now[0],
                confidence=now[1],
                previous_guess=before[0],
                previous_confidence=before[1].double(),
                answer=yes,
                active=yes,
                waited_for=torch.zeros(1, 1, dtype=torch.int64),
            )
        )
        before = now
    return made


def named(rule: str, most: int, least: int, **more: Any) -> ByRole:
    """The rule that a recipe makes of these settings."""
    return parse_halting(
        {"rule": rule, "max_loops": max(most, least), "min_loops": min(most, least), **more}, where="this halting"
    )


bounds = st.tuples(st.integers(1, LOOPS), st.integers(1, LOOPS))


@pytest.mark.spec("halting.fixed", "halting.at-least-one-loop")
@given(guesses, bounds)
def test_fixed_halts_at_the_last_loop(row: list[int], most_and_least: tuple[int, int]) -> None:
    rule = named("fixed", *most_and_least)
    assert loops_taken(rule, history_of((row, [0.5] * LOOPS, [1.0] * LOOPS))) == [max(most_and_least)]
    assert halting.loops_taken(halting.fixed(LOOPS), min(most_and_least), max(most_and_least)) == max(most_and_least)


@pytest.mark.spec("halting.two-equal-argmaxes", "halting.bounds", "halting.at-least-one-loop")
@given(guesses, bounds)
def test_two_equal_argmaxes_matches_the_spec(row: list[int], most_and_least: tuple[int, int]) -> None:
    rule = named("two-equal-argmaxes", *most_and_least)
    expected = halting.loops_taken(halting.two_equal_argmaxes(row), min(most_and_least), max(most_and_least))
    assert loops_taken(rule, history_of((row, [0.5] * LOOPS, [1.0] * LOOPS))) == [expected]


@pytest.mark.spec("halting.confidence", "halting.bounds")
@given(confidences, st.floats(0.01, 1), bounds)
def test_confidence_matches_the_spec(row: list[float], threshold: float, most_and_least: tuple[int, int]) -> None:
    rule = named("confidence", *most_and_least, threshold=threshold)
    expected = halting.loops_taken(halting.confidence(row, threshold), min(most_and_least), max(most_and_least))
    assert loops_taken(rule, history_of(([0] * LOOPS, row, [1.0] * LOOPS))) == [expected]


@pytest.mark.spec("halting.state-change", "halting.bounds")
@given(st.lists(st.floats(0, 3), min_size=LOOPS, max_size=LOOPS), st.floats(0.01, 2), bounds)
@example([0.5] * LOOPS, 0.5, (LOOPS, 1))
def test_state_change_matches_the_spec(row: list[float], epsilon: float, most_and_least: tuple[int, int]) -> None:
    rule = named("state-change", *most_and_least, epsilon=epsilon)
    expected = halting.loops_taken(halting.state_change(row, epsilon), min(most_and_least), max(most_and_least))
    assert loops_taken(rule, history_of(([0] * LOOPS, [0.5] * LOOPS, row))) == [expected]


@pytest.mark.spec("halting.state-change")
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.lists(st.floats(-3, 3).filter(bool), min_size=3, max_size=3))
def test_the_change_of_a_state_matches_the_spec(before: list[float], after: list[float]) -> None:
    h, old, nothing = (torch.tensor([[row]]).double() for row in (after, before, [0.0]))
    zeros, yes = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    seen = observe(1, h, old, nothing, zeros, nothing[..., 0], yes, yes)
    assert seen.change.item() == pytest.approx(halting.change(h[0, 0], old[0, 0]))


@pytest.mark.spec("architecture.guess")
@given(st.lists(st.integers(-2, 2), min_size=1, max_size=6), st.sampled_from([torch.float32, torch.float64]))
def test_the_guess_is_the_lowest_of_the_most_likely_ids(logits: list[int], dtype: torch.dtype) -> None:
    drawn, nothing = torch.tensor([[logits]], dtype=dtype), torch.zeros(1, 1, 1, dtype=dtype)
    zeros, yes = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    seen = observe(1, nothing, nothing, drawn, zeros, nothing[..., 0], yes, yes)
    assert seen.guess.item() == architecture.guess(logits)
    assert seen.confidence.item() == pytest.approx(architecture.confidence(logits), rel=1e-6)


@pytest.mark.spec("halting.prefix-stability", "halting.bounds")
@given(
    st.lists(
        st.tuples(guesses, confidences, st.lists(st.floats(0, 1), min_size=LOOPS, max_size=LOOPS)), min_size=1, max_size=4
    ),
    st.floats(0.1, 1),
    st.floats(0.1, 1),
    bounds,
)
@example([([0] * LOOPS, [0.5] * LOOPS, [0.5] * LOOPS)], 0.5, 0.25, (LOOPS, 1))
@example([([0] * LOOPS, [0.5] * LOOPS, [0.5] * LOOPS)], 0.75, 0.5, (LOOPS, 1))
@example([([0] * LOOPS, [0.25, 0.75] * (LOOPS // 2), [0.5] * LOOPS)], 0.5, 0.25, (LOOPS, 1))
def test_prefix_stability_matches_the_spec(
    tokens: list[tuple[list[int], list[float], list[float]]], threshold: float, epsilon: float, most_and_least: tuple[int, int]
) -> None:
    rule = named("prefix-stability", *most_and_least, threshold=threshold, epsilon=epsilon)
    expected: list[int] = []
    for token in tokens:
        ready = halting.prefix_stability(*token, threshold, epsilon, max(expected, default=0))
        expected.append(halting.loops_taken(ready, min(most_and_least), max(most_and_least)))
    assert loops_taken(rule, history_of(*tokens)) == expected
    assert expected == sorted(expected)


@pytest.mark.spec("halting.gate")
@given(confidences, st.floats(0.01, 1), bounds)
def test_the_gate_halts_at_its_threshold(row: list[float], threshold: float, most_and_least: tuple[int, int]) -> None:
    rule = named("gate", *most_and_least, threshold=threshold)
    history = [
        Evidence(**vars(seen) | {"halt_prob": torch.tensor([[probability]], dtype=torch.float64)})
        for seen, probability in zip(history_of(([0] * LOOPS, [0.5] * LOOPS, [1.0] * LOOPS)), row, strict=True)
    ]
    expected = halting.loops_taken(halting.gate(row, threshold), min(most_and_least), max(most_and_least))
    assert loops_taken(rule, history) == [expected]


@pytest.mark.spec("halting.gate")
def test_a_gate_that_is_not_there_is_asked_for_in_vain() -> None:
    with pytest.raises(InputError, match="needs a model with a trained gate"):
        Gate(threshold=0.5)(history_of(([0] * LOOPS, [0.5] * LOOPS, [1.0] * LOOPS))[0])


@pytest.mark.spec("halting.not-known-yet", "halting.confidence")
@given(guesses, confidences, st.floats(0.01, 1), bounds)
def test_a_token_that_says_it_does_not_know_goes_on(
    said: list[int], sure: list[float], threshold: float, most_and_least: tuple[int, int]
) -> None:
    rule = named("confidence", *most_and_least, threshold=threshold, unknown_id=2)
    expected = halting.loops_taken(halting.known(said, sure, threshold, 2), min(most_and_least), max(most_and_least))
    assert loops_taken(rule, history_of((said, sure, [1.0] * LOOPS))) == [expected]


@pytest.mark.spec("halting.in-order", "halting.bounds")
@given(st.lists(confidences, min_size=1, max_size=4), st.floats(0.1, 1), bounds)
def test_in_order_no_answer_token_halts_before_an_earlier_one(
    rows: list[list[float]], threshold: float, most_and_least: tuple[int, int]
) -> None:
    rule = named("confidence", *most_and_least, threshold=threshold, in_order=True)
    expected: list[int] = []
    for row in rows:
        ready = halting.in_order(halting.confidence(row, threshold), max(expected, default=0))
        expected.append(halting.loops_taken(ready, min(most_and_least), max(most_and_least)))
    assert loops_taken(rule, history_of(*(([0] * LOOPS, row, [1.0] * LOOPS) for row in rows))) == expected
    assert expected == sorted(expected)


@pytest.mark.spec("halting.in-order")
@given(st.integers(1, LOOPS), st.integers(0, LOOPS))
def test_in_order_an_answer_token_waits_for_answer_tokens_only(l: int, waited_for: int) -> None:
    sure = ([0] * LOOPS, [1.0] * LOOPS, [1.0] * LOOPS)
    unsure = ([0] * LOOPS, [0.0] * LOOPS, [1.0] * LOOPS)
    seen = history_of(unsure, sure)[l - 1]
    prompt_first = {"answer": torch.tensor([[False, True]]), "waited_for": torch.tensor([[waited_for]])}
    rule = named("confidence", LOOPS + 1, 1, threshold=0.5, in_order=True)
    assert rule(Evidence(**vars(seen) | prompt_first)).tolist() == [[False, halting.in_order([True] * l, waited_for)[-1]]]


@pytest.mark.spec("halting.threshold-monotone")
@given(confidences, st.floats(0.01, 1), st.floats(0.01, 1), bounds)
def test_a_higher_threshold_never_gives_fewer_loops(
    row: list[float], one: float, other: float, most_and_least: tuple[int, int]
) -> None:
    history = history_of(([0] * LOOPS, row, [1.0] * LOOPS))
    low, high = (Confidence(max(most_and_least), min(most_and_least), threshold=t) for t in sorted((one, other)))
    assert loops_taken(low, history) <= loops_taken(high, history)


@pytest.mark.spec("halting.wait-to-think", "halting.roles")
@given(st.lists(confidences, min_size=1, max_size=5), st.integers(0, 5), st.floats(0.1, 0.5), st.floats(0.5, 1))
def test_wait_to_think_gives_each_token_the_threshold_of_its_role(
    rows: list[list[float]], prompt: int, low: float, high: float
) -> None:
    settings: dict[str, Any] = {"rule": "confidence", "max_loops": LOOPS}
    rule = parse_halting({**settings, "threshold": high, "prompt": {**settings, "threshold": low}}, where="this halting")
    answer = [t >= prompt for t in range(len(rows))]
    history = [
        Evidence(**vars(seen) | {"answer": torch.tensor([answer])})
        for seen in history_of(*(([0] * LOOPS, row, [1.0] * LOOPS) for row in rows))
    ]
    thresholds = halting.thresholds(answer, low, high)
    expected = [
        halting.loops_taken(halting.confidence(row, threshold), 1, LOOPS)
        for row, threshold in zip(rows, thresholds, strict=True)
    ]
    assert loops_taken(rule, history) == expected


@given(simple_rules(), simple_rules())
def test_two_roles_may_take_as_many_loops_as_the_more_patient_one(answer: HaltingRule, prompt: HaltingRule) -> None:
    assert ByRole(answer, prompt).max_loops == max(answer.max_loops, prompt.max_loops)


@pytest.mark.spec("halting.roles")
def test_the_prompt_runs_all_loops_unless_a_rule_is_named() -> None:
    assert parse_halting({"max_loops": 4}, where="this halting").prompt == Fixed(4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "confidence", "threshold": 1.5}, "`threshold`: .*less than or equal to 1.*got 1.5"),
        ({"rule": "confidence", "threshold": 0}, "`threshold`: .*greater than 0.*got 0"),
        ({"rule": "confidence", "threshold": float("nan")}, "`threshold`"),
        ({"rule": "confidence"}, "`threshold`: must be given for the halting rule 'confidence'"),
        (
            {"rule": "fixed", "threshold": 0.5},
            "`threshold`: has no meaning for the halting rule 'fixed'.*its settings are: max_loops, min_loops",
        ),
        ({"rule": "state-change", "epsilon": -1}, "`epsilon`: .*greater than 0.*got -1"),
        ({"rule": "state-change", "epsilon": float("inf")}, "`epsilon`: .*finite number.*got inf"),
        ({"rule": "prefix-stability", "threshold": 0.9, "epsilon": float("inf")}, "`epsilon`: .*finite number.*got inf"),
        ({"rule": "fixed", "max_loops": 0}, "`max_loops`: .*greater than or equal to 1.*got 0"),
        ({"rule": "two-equal-argmaxes", "min_loops": 7}, r"`min_loops` \(7\) must not exceed `max_loops` \(6\)"),
        ({"rule": "fixed", "unknown_id": 15}, "`unknown_id`: has no meaning for the halting rule 'fixed'"),
        (
            {"rule": "prefix-stability", "threshold": 0.9, "epsilon": 0.1, "in_order": True},
            "`in_order`: has no meaning for the halting rule 'prefix-stability'",
        ),
        ({"rule": "slow"}, "`rule`: there is no halting rule 'slow'; there are: .*prefix-stability"),
        ({"prompt": {"rule": "confidence", "threshold": 2}}, "`prompt.threshold`: .*got 2"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_halting(settings, where="this halting")


def test_restarts_need_the_input_at_every_loop() -> None:
    table = as_table(load_recipe("first-light"))
    table["model"]["injection"], table["training"]["restart_share"] = "first", 0.5
    with pytest.raises(InputError, match=r"restart_share`.* must be 0 with `model\.injection = 'first'`"):
        parse(Recipe, table, where="this recipe")


@pytest.mark.spec("halting.skipped-work")
@given(halting_rules(LOOPS), st.lists(st.tuples(guesses, confidences, confidences), min_size=1, max_size=3))
def test_a_rule_decides_by_nothing_but_what_it_says_it_looks_at(
    rule: HaltingRule, drawn: list[tuple[list[int], list[float], list[float]]]
) -> None:
    unread = EVIDENCE - what_it_looks_at(rule)
    unread |= {f"previous_{name}" for name in unread & {"guess", "confidence"}}
    for step in history_of(*drawn):
        seen = Evidence(**vars(step) | {"halt_prob": step.confidence})
        poisoned = {name: torch.full_like(getattr(seen, name), -7) for name in unread}
        assert torch.equal(rule(seen), rule(Evidence(**vars(seen) | poisoned)))


def test_a_decision_of_ones_own_is_given_all_unless_its_class_says_less() -> None:
    class Own(Fixed):
        def ready(self, seen: Evidence) -> Tensor:
            return seen.confidence > 0.5

    class Modest(Bounded):
        looks_at = frozenset({"change"})

        def ready(self, seen: Evidence) -> Tensor:
            return seen.change < 0.5

    assert what_it_looks_at(Own(3)) == EVIDENCE
    assert what_it_looks_at(Modest(3)) == what_it_looks_at(ByRole(Modest(3), Fixed(3))) == {"change"}
    assert what_it_looks_at(ByRole(Modest(3), Own(3))) == EVIDENCE
