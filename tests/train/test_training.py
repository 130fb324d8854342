"""What is drawn and scored, and that training does what it should."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import models, texts
from torch import Tensor, nn

from looplm.draws import Draw
from looplm.layers.dropout import Dropout, dropping
from looplm.models import build_model
from looplm.models.looped import LoopLM, looped
from looplm.settings import merge
from looplm.spec import oracle
from looplm.task import Batch
from looplm.tasks.addition.problems import SLOT
from looplm.train.config import TrainingConfig
from looplm.train.execution import Execution
from looplm.train.loops import LoopPlan, draw_plan, first_scored_loop, starting_state, state_noise
from looplm.train.objective import NOT_SCORED, first_due_loop, make_objective
from looplm.train.optimizer import make_optimizer
from looplm.train.recipe import Recipe, load_recipe, parse_recipe
from looplm.train.schedules import SCHEDULES
from looplm.train.schedules.constant import Constant
from looplm.train.schedules.cosine import Cosine
from looplm.train.schedules.noam import Noam
from looplm.train.schedules.wsd import WarmupStableDecay
from looplm.train.trainer import Trainer, run_steps

spec = oracle("training")
TINY: dict[str, Any] = {
    "name": "tiny",
    "title": "for tests",
    "task": {"name": "addition"},
    "model": {"width": 8, "heads": 2, "mlp_width": 16, "positions": "place"},
    "training": {"steps": 8, "batch_size": 4, "schedule": {"rule": "cosine", "warmup_steps": 2}},
    "evaluation": {"sizes": [4], "problems_per_cell": 2},
}


def tiny(**training: Any) -> Recipe:
    return parse_recipe(merge(TINY, {"training": training}), where="test")


def tiny_parallel(**training: Any) -> Recipe:
    changes = {"task": {"mode": "parallel"}, "model": {"place_window": 1}, "training": training}
    return parse_recipe(merge(TINY, changes), where="test")


@pytest.mark.spec("training.cosine", "training.warm-up")
@given(st.integers(1, 500), st.integers(0, 50), st.floats(0, 1), st.data())
def test_cosine_matches_the_spec(steps: int, warmup: int, floor: float, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps))
    made = Cosine(peak=0.5, warmup_steps=warmup, floor=floor)(step, steps)
    assert made == pytest.approx(spec.cosine(step, steps, warmup, 0.5, floor), rel=1e-12)


@pytest.mark.spec("training.constant", "training.warm-up")
@given(st.integers(1, 500), st.integers(0, 50), st.integers(0, 500))
def test_constant_matches_the_spec(steps: int, warmup: int, step: int) -> None:
    made = Constant(peak=0.5, warmup_steps=warmup)(step, steps)
    assert made == pytest.approx(spec.constant(step, warmup, 0.5), rel=1e-12)


@pytest.mark.spec("training.noam")
@given(st.integers(1, 2048), st.integers(1, 5000), st.floats(0.1, 3), st.integers(0, 20_000))
def test_noam_matches_the_spec(width: int, warmup: int, factor: float, step: int) -> None:
    made = Noam(width=width, warmup_steps=warmup, factor=factor)(step, 1)
    assert made == pytest.approx(spec.noam(step, width, warmup, factor), rel=1e-12)


@pytest.mark.spec("training.warmup-stable-decay", "training.warm-up")
@given(st.integers(1, 500), st.integers(0, 50), st.floats(0.01, 1), st.floats(0, 1), st.data())
def test_warmup_stable_decay_matches_the_spec(steps: int, warmup: int, decay: float, floor: float, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps))
    made = WarmupStableDecay(peak=0.5, warmup_steps=warmup, decay_share=decay, floor=floor)(step, steps)
    assert made == pytest.approx(spec.warmup_stable_decay(step, steps, warmup, 0.5, decay, floor), rel=1e-12)


def test_every_schedule_is_named_in_a_recipe_and_cites_its_clause() -> None:
    for name in SCHEDULES.names():
        recipe = tiny(schedule={"rule": name} | ({"width": 8} if name == "noam" else {}))
        assert any(clause in recipe.clauses() for clause in ("training." + name, "training.warmup-stable-decay"))
        assert next(run_steps(Trainer(recipe, 0))).learning_rate == recipe.training.schedule(0, 8)


@pytest.mark.spec("training.second-half")
@given(st.integers(1, 40))
def test_scored_loops_match_the_spec(num_loops: int) -> None:
    assert list(range(first_scored_loop(num_loops), num_loops + 1)) == spec.scored_loops(num_loops)


@pytest.mark.spec("training.loop-count")
@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 9))
def test_loop_counts_are_uniform_over_their_range(fewest: int, more: int, seed: int) -> None:
    config = TrainingConfig(min_loops=fewest, max_loops=fewest + more)
    drawn = [draw_plan(config, Draw(seed, "loops", step)).num_loops for step in range(600)]
    assert set(drawn) == set(range(fewest, fewest + more + 1))
    for count in set(drawn):  # 600 draws: 0.1 is five standard deviations at the widest
        assert drawn.count(count) / 600 == pytest.approx(1 / (more + 1), abs=0.1)


@pytest.mark.spec("training.restarts", "training.second-half")
def test_restarts_are_drawn_as_the_spec_says() -> None:
    config = TrainingConfig(min_loops=2, max_loops=8, restart_share=0.6, restart_loops=12, stale_share=0.6, resumed_loops=3)
    plans = [draw_plan(config, Draw(0, "loops", step)) for step in range(3000)]
    fresh = [plan for plan in plans if plan.before == 0]
    stale, own = ([p for p in plans if p.before and p.stale == kind] for kind in (True, False))
    assert all(not plan.stale for plan in fresh)
    # 3,000 draws: 0.04 is more than four standard deviations of a share
    assert len(fresh) / 3000 == pytest.approx(0.4, abs=0.04)
    assert len(stale) / 3000 == pytest.approx(0.36, abs=0.04)
    assert {p.before for p in stale} == {p.before for p in own} == set(range(1, 13))
    assert {p.num_loops for p in fresh} == {p.num_loops for p in stale} == set(range(2, 9))
    assert all(p.first_scored == first_scored_loop(p.num_loops) for p in [*fresh, *stale])
    assert {p.num_loops for p in own} == {2, 3}
    assert {p.first_scored for p in own} == {1}


@pytest.mark.spec("training.restarts")
@given(models(body="looped"), texts(min_rows=2), st.integers(1, 4), st.integers(1, 3))
def test_a_restart_goes_on_from_the_loops_before_it(model: LoopLM, tokens: Tensor, before: int, after: int) -> None:
    start = starting_state(model, tokens, LoopPlan(after, 1, before), TrainingConfig(), Draw(0, "restart"))
    assert start is not None
    assert not start.h.requires_grad
    torch.testing.assert_close(model(tokens, after, 1, start), model(tokens, before + after)[before:])


@pytest.mark.spec("training.restarts", "training.keyed-randomness")
@given(models(body="looped"), texts(min_rows=3), st.integers(1, 4), st.integers(0, 99))
def test_a_stale_state_is_that_of_other_rows(model: LoopLM, tokens: Tensor, before: int, seed: int) -> None:
    draw, plan = Draw(seed, "restart"), LoopPlan(1, 1, before, stale=True)
    start = starting_state(model, tokens, plan, TrainingConfig(), draw)
    rows = draw.of("others").order(len(tokens))
    assert start is not None
    torch.testing.assert_close(start.h, model.settle(tokens, before).h[rows])
    some = starting_state(model, tokens, plan, TrainingConfig(), draw, slice(1, 3))
    assert some is not None
    torch.testing.assert_close(some.h, start.h[1:3])


@pytest.mark.spec("training.state-noise")
def test_noise_has_the_spread_that_the_settings_name_and_is_there_in_training_alone() -> None:
    model, tokens = build_model(tiny().model), torch.randint(0, 15, (40, 50), generator=torch.Generator().manual_seed(0))
    noise = state_noise(0.1, Draw(0, "noise"), list(range(40)))
    quiet, noisy = model.settle(tokens, 1).h, model.settle(tokens, 1, noise).h
    difference = (noisy - quiet).flatten()  # 16,000 draws
    assert difference.std().item() == pytest.approx(0.1, rel=0.03)
    assert difference.mean().item() == pytest.approx(0, abs=0.005)
    assert not torch.equal(noisy[0], model.settle(tokens, 1, state_noise(0.1, Draw(1, "noise"), list(range(40)))).h[0])
    torch.testing.assert_close(model(tokens, 2), model(tokens, 2), atol=0, rtol=0)
    assert state_noise(0.0, Draw(0, "noise"), [0]) is None
    assert first_loss(tiny()) != first_loss(tiny(state_noise=0.5))


def first_loss(recipe: Recipe) -> float:
    return Trainer(recipe, 0).step().loss


@pytest.mark.spec("training.dropout")
def test_dropout_drops_its_share_in_training_and_nothing_after_it() -> None:
    layer, x = Dropout(), torch.ones(20, 30, 40)
    layer.site = "here"
    assert torch.equal(layer(x), x)
    with dropping(0.25, Draw(0, "dropout"), range(20)):
        dropped = layer(x)
        layer.site = "there"
        assert not torch.equal(layer(x), dropped), "masks differ by place"
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)  # 24,000 draws
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert first_loss(tiny()) != first_loss(tiny(dropout=0.5))
    trained = Trainer(tiny(dropout=0.5), 0).model
    tokens = torch.tensor([[12, 1, 10, 2, 11]])
    torch.testing.assert_close(trained(tokens, 2), trained(tokens, 2), atol=0, rtol=0)


def test_without_restarts_every_batch_starts_from_zero() -> None:
    config = TrainingConfig()
    assert {draw_plan(config, Draw(0, "loops", step)).before for step in range(100)} == {0}
    model = build_model(tiny().model)
    assert starting_state(model, torch.zeros(1, 2, dtype=torch.int64), LoopPlan(2, 1), config, Draw(0, "r")) is None


def batch_of(tokens: Tensor, targets: Tensor, scored: Tensor, distance: Tensor | None = None) -> Batch:
    return Batch(tokens, targets, scored, torch.ones_like(scored), distance)


def loss_of(logits: Tensor, batch: Batch, plan: LoopPlan, config: TrainingConfig, **more: Any) -> Tensor:
    """The mean loss of logits [L, B, T, V], as the trainer adds it up."""
    objective = make_objective(batch, plan, config, more.pop("reach", 1), more.pop("unknown", None))
    head = nn.Identity()
    losses = [objective.loss(l, at_loop, slice(None), head) for l, at_loop in enumerate(logits)]
    return torch.stack(losses).sum()


@pytest.mark.spec("training.answer-loss", "training.second-half", "training.label-smoothing")
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.5]))
def test_loss_is_the_mean_over_loops_and_answer_tokens_alone(
    loops: int, rows: int, tokens: int, seed: int, smoothing: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(loops, rows, tokens, 7, generator=generator).double().requires_grad_()
    targets = torch.randint(0, 7, (rows, tokens), generator=generator)
    scored = torch.rand(rows, tokens, generator=generator) < 0.5
    scored[0, 0] = True
    config = TrainingConfig(label_smoothing=smoothing)
    loss = loss_of(logits, batch_of(targets, targets, scored), LoopPlan(loops, 1), config)
    one_by_one = [
        spec.smoothed_loss(logits[l, b, t].detach().log_softmax(0).tolist(), int(targets[b, t]), smoothing)
        for l in range(loops)
        for b in range(rows)
        for t in range(tokens)
        if scored[b, t]
    ]
    assert loss.item() == pytest.approx(sum(one_by_one) / len(one_by_one), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[:, ~scored].any(), "nothing else is scored"


@pytest.mark.spec("training.all-loops")
@given(st.integers(1, 40))
def test_all_loops_are_scored_where_the_settings_say_so(num_loops: int) -> None:
    assert first_scored_loop(num_loops, "all") == 1
    config = TrainingConfig(min_loops=num_loops, max_loops=num_loops, score="all", restart_share=0.5)
    assert {draw_plan(config, Draw(num_loops, "loops", step)).first_scored for step in range(30)} == {1}


@pytest.mark.spec("training.due")
@given(st.lists(st.integers(0, 40), min_size=1), st.integers(1, 5))
def test_the_loop_by_which_news_can_have_come_matches_the_spec(distances: list[int], reach: int) -> None:
    made = first_due_loop(torch.tensor(distances), reach)
    assert made.tolist() == [spec.first_due_loop(distance, reach) for distance in distances]
    assert first_due_loop(torch.tensor(distances), None).tolist() == [1] * len(distances), "news comes from anywhere"


@pytest.mark.spec("training.not-known-yet", "training.due")
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 5),
    st.sampled_from(["scored", "skipped", "unknown"]),
    st.booleans(),
)
def test_what_is_wanted_before_it_is_due_is_what_the_settings_say(
    distances: list[int], reach: int, first: int, more: int, before: int, before_due: str, stale: bool
) -> None:
    right, distance = torch.arange(1, len(distances) + 1)[None], torch.tensor([distances])
    config = TrainingConfig(score="all", before_due=before_due)  # type: ignore[arg-type]
    plan = LoopPlan(first + more, first, before, stale)
    made = make_objective(batch_of(right, right, right > 0, distance), plan, config, reach, unknown=99).targets[:, 0]
    for row, l in enumerate(range(first, first + more + 1)):
        for t, d in enumerate(distances):
            names = {"right": t + 1, "<unknown>": 99, None: NOT_SCORED}
            since = l if stale else before + l
            assert made[row, t] == names[spec.target("right", d, reach, since, before_due, stale)]


@pytest.mark.spec("training.answer-loss", "training.not-known-yet")
def test_what_is_not_scored_does_not_count() -> None:
    logits = torch.randn(2, 1, 3, 5).double().requires_grad_()
    targets, scored = torch.tensor([[1, 2, 0]]), torch.tensor([[True, True, False]])
    batch = batch_of(targets, targets, scored, distance=torch.tensor([[0, 1, 0]]))
    loss = loss_of(logits, batch, LoopPlan(2, 1), TrainingConfig(before_due="skipped"))
    logs = logits.log_softmax(-1)
    torch.testing.assert_close(loss, -(logs[0, 0, 0, 1] + logs[1, 0, 0, 1] + logs[1, 0, 1, 2]) / 3)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert [bool(row.any()) for row in gradient.flatten(0, 2)] == [True, False, False, True, True, False]


@pytest.mark.spec("training.not-known-yet")
def test_training_asks_for_not_known_yet_by_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, Tensor]] = []

    def spy(batch: Batch, plan: LoopPlan, *more: Any) -> Any:
        made = make_objective(batch, plan, *more)
        seen.append((plan.stale, made.targets[:, batch.scored]))
        return made

    monkeypatch.setattr("looplm.train.trainer.make_objective", spy)
    changes = {"training": {"steps": 12, "batch_size": 4, "min_loops": 3, "restart_loops": 1}}
    list(run_steps(Trainer(load_recipe("parallel-known", changes), 0)))
    assert all(len(targets) <= 8 for _, targets in seen)
    assert any((targets == SLOT).any() for stale, targets in seen if not stale)
    assert any((targets == NOT_SCORED).any() for stale, targets in seen if stale)
    assert not any((targets == NOT_SCORED).any() for stale, targets in seen if not stale)
    assert not any((targets == SLOT).any() for stale, targets in seen if stale)


@pytest.mark.spec("training.weight-decay")
def test_weight_decay_applies_to_matrices_only() -> None:
    learned = {"loop_signal": "learned", "norm": "layer", "positions": "learned", "max_positions": 99, "place_ids": ()}
    model = build_model(replace(load_recipe("first-light").model, **learned))
    groups = {group["weight_decay"]: group["params"] for group in make_optimizer(model, TrainingConfig()).param_groups}
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, free = ({names[id(p)] for p in groups[decay]} for decay in (0.1, 0.0))
    assert decayed | free == set(names.values())
    assert decayed == {"embedding.weight"} | {
        f"block.layers.0.{part}.weight" for part in ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    }


def weights_after(recipe: Recipe, seed: int = 0, execution: Execution | None = None) -> dict[str, Tensor]:
    trainer = Trainer(recipe, seed, execution=execution)
    list(run_steps(trainer))
    return trainer.model.state_dict()


@pytest.mark.spec("training.deterministic")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(threads: int) -> None:
    torch.set_num_threads(threads)
    recipe = load_recipe("first-light", {"training": {"steps": 12}})
    first, again, other = (weights_after(recipe, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


LIVELY = {"restart_share": 0.7, "state_noise": 0.3, "dropout": 0.2, "batch_size": 6, "max_loops": 4}
"""Everything that draws."""


@pytest.mark.spec("training.keyed-randomness", "tasks.rows")
@given(st.integers(0, 99), st.integers(0, 5), st.integers(1, 5))
def test_slices_of_a_batch_add_up_to_its_gradient(seed: int, step: int, cut: int) -> None:
    trainer = Trainer(tiny_parallel(**LIVELY), seed)
    trainer.model.double()
    trainer.steps_done = step
    batch = trainer._next_batch()
    plan = draw_plan(trainer.config, trainer.draw("loops"))

    def gradient(*slices: range) -> tuple[float, list[Tensor]]:
        trainer.model.zero_grad()
        loss = sum(trainer.backward(batch, plan, rows) for rows in slices)
        return loss, [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]

    whole_loss, whole = gradient(range(6))
    cut_loss, parts = gradient(range(cut), range(cut, 6))
    assert cut_loss == pytest.approx(whole_loss, rel=1e-12)
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.spec("training.keyed-randomness", "hardware.parts")
@pytest.mark.parametrize(
    "execution",
    [
        Execution(parts=2),
        Execution(parts=3),
        Execution(recompute=True),
        Execution(recompute_loops=True),
        Execution(parts=2, recompute=True, recompute_loops=True),
        Execution(workers=1),
    ],
    ids=str,
)
def test_how_a_step_is_computed_changes_nothing_that_is_drawn(execution: Execution) -> None:
    recipe = tiny_parallel(**LIVELY, steps=3)
    plain, other = weights_after(recipe), weights_after(recipe, execution=execution)
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.spec("training.keyed-randomness")
def test_recipes_that_differ_in_a_setting_see_the_same_problems_and_weights() -> None:
    plain, lively = Trainer(tiny_parallel(batch_size=6), 3), Trainer(tiny_parallel(**LIVELY), 3)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), lively.model.parameters(), strict=True))
    for _ in range(3):
        assert torch.equal(plain._next_batch().tokens, lively._next_batch().tokens)
        plain.step(), lively.step()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_in_half_precision_train_too(dtype: Any) -> None:
    recipe = tiny(steps=60, schedule={"rule": "constant", "peak": 0.01, "warmup_steps": 2})
    trainer = Trainer(recipe, 0, execution=Execution(dtype=dtype))
    losses = [step.loss for step in run_steps(trainer)]
    assert sum(losses[-10:]) < sum(losses[:10])
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_validation_asks_held_out_problems_when_it_is_due() -> None:
    steps = list(run_steps(Trainer(tiny(validate_every=3), 0)))
    judged = {step.step: step.validation_loss for step in steps if step.validation_loss is not None}
    assert list(judged) == [3, 6]
    assert all(loss is not None and 0 < loss < 10 for loss in judged.values())


@pytest.mark.spec("training.loop-count", "training.log")
def test_steps_report_what_was_done() -> None:
    recipe = tiny(min_loops=2, max_loops=4, steps=40)
    done = list(run_steps(Trainer(recipe, 0)))
    assert [step.step for step in done] == list(range(1, 41))
    assert {step.loops for step in done} == {2, 3, 4}
    assert all(math.isfinite(step.loss) and (step.grad_norm or 0) > 0 for step in done)
    assert [step.learning_rate for step in done] == [recipe.training.schedule(n, 40) for n in range(40)]


def test_a_gradient_that_is_not_finite_stops_training_before_the_step() -> None:
    trainer = Trainer(tiny(), 0)
    trainer.step()
    model = looped(trainer.model, "this test")
    nn.init.constant_(model.embedding.weight, math.nan)
    before = {name: value.clone() for name, value in model.block.state_dict().items()}
    with pytest.raises(FloatingPointError, match="step 2: the gradient is nan"):
        trainer.step()
    assert all(torch.equal(before[name], value) for name, value in model.block.state_dict().items())


@pytest.mark.spec("training.resume")
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_trainer_goes_on_from_its_state_bit_for_bit(stop: int) -> None:
    recipe = tiny_parallel(**LIVELY)
    whole = weights_after(recipe)
    first = Trainer(recipe, 0)
    for _ in range(stop):
        first.step()
    second = Trainer(recipe, 0)
    second.load_state_dict(first.state_dict())
    losses = [step.loss for step in run_steps(second)]
    assert losses == [step.loss for step in run_steps(first)]
    assert all(torch.equal(whole[name], value) for name, value in second.model.state_dict().items())


@pytest.mark.slow
def test_a_short_training_learns_to_add() -> None:
    # Seed 0 was seen to reach 0.41 on average over the last 20 steps; before training it is near ln 15 = 2.7.
    recipe = load_recipe("first-light", {"training": {"steps": 800}})
    losses = [step.loss for step in run_steps(Trainer(recipe, 0))]
    assert sum(losses[:5]) / 5 > 2
    assert sum(losses[-20:]) / 20 < 0.8
