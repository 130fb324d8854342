"""A learned gate learns when to halt, and nothing else changes."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.errors import InputError
from looplm.models import build_model
from looplm.settings import as_table
from looplm.spec import oracle
from looplm.train.config import GateConfig
from looplm.train.gate import gate_loss, halting_weights, train_gate
from looplm.train.recipe import Recipe, load_recipe, parse_recipe

spec = oracle("training")


def gated(name: str = "first-light", **gate: Any) -> Recipe:
    table = as_table(load_recipe(name))
    table["model"]["gate"], table["gate"] = True, {"steps": 3, "max_loops": 4} | gate
    table["training"] |= {"batch_size": 8}
    return parse_recipe(table, where="test")


@pytest.mark.spec("training.gate")
@pytest.mark.parametrize("objective", ["right", "ponder"])
def test_training_the_gate_changes_the_gate_alone(objective: str) -> None:
    preset = gated(objective=objective)
    model = build_model(preset.model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = list(train_gate(model, preset, seed=0))
    assert len(losses) == 3
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"gate.weight", "gate.bias"}


@pytest.mark.spec("training.gate")
def test_a_gate_changes_no_other_weight_of_a_fresh_model() -> None:
    torch.manual_seed(5)
    plain = build_model(load_recipe("first-light").model).state_dict()
    torch.manual_seed(5)
    with_gate = build_model(gated().model).state_dict()
    assert with_gate.keys() - plain.keys() == {"gate.weight", "gate.bias"}
    assert all(torch.equal(value, with_gate[name]) for name, value in plain.items())


@pytest.mark.spec("training.gate")
def test_a_gate_learns_which_loops_are_right() -> None:
    preset = gated("first-light", steps=60, learning_rate=0.05)
    losses = list(train_gate(build_model(preset.model), preset, seed=0))
    assert losses[-1] < 0.3 < losses[0], "an untrained model is nearly always wrong, which is easy to learn"


@pytest.mark.spec("training.gate-ponder")
@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6))
def test_halting_weights_match_the_spec(halt_probs: list[float]) -> None:
    weights = halting_weights(torch.tensor(halt_probs, dtype=torch.float64)[:, None])[:, 0]
    assert weights.tolist() == pytest.approx(spec.halting_weights(halt_probs))
    assert float(weights.sum()) == pytest.approx(1)


def drawn(loops: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    halt_prob = torch.rand(loops, 2, 3, generator=generator).double().clamp(0.01, 0.99)
    logits = torch.randn(loops, 2, 3, 5, generator=generator).double()
    targets = torch.randint(0, 5, (2, 3), generator=generator)
    return halt_prob, logits, targets, torch.tensor([[True, False, True], [False, True, True]])


@pytest.mark.spec("training.gate-ponder")
@given(st.integers(1, 5), st.integers(0, 99), st.floats(0.05, 0.9), st.floats(0, 1))
def test_the_ponder_loss_matches_the_spec(loops: int, seed: int, prior: float, prior_weight: float) -> None:
    halt_prob, logits, targets, scored = drawn(loops, seed)
    config = GateConfig(objective="ponder", prior=prior, prior_weight=prior_weight)
    losses = -logits.log_softmax(-1).gather(-1, targets.expand(loops, -1, -1)[..., None])[..., 0]
    expected = [
        spec.ponder_loss(losses[:, b, t].tolist(), halt_prob[:, b, t].tolist(), prior, prior_weight)
        for b, t in scored.nonzero().tolist()
    ]
    assert gate_loss(halt_prob, logits, targets, scored, config).item() == pytest.approx(sum(expected) / len(expected))


@pytest.mark.spec("training.gate-right")
@given(st.integers(1, 5), st.integers(0, 99))
def test_the_binary_loss_asks_whether_the_guess_is_right_now(loops: int, seed: int) -> None:
    halt_prob, logits, targets, scored = drawn(loops, seed)
    right = logits.argmax(-1) == targets
    said = torch.where(right, halt_prob, 1 - halt_prob)[:, scored]
    expected = -said.log().mean()
    found = gate_loss(halt_prob, logits, targets, scored, GateConfig(objective="right"))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"gate": True}}, "`model.gate = true` and the table `gate` go together"),
        ({"gate": {}}, "`model.gate = true` and the table `gate` go together"),
        ({"halting": {"rule": "gate", "threshold": 0.5}}, "the halting rule 'gate' needs a model with a gate"),
    ],
)
def test_a_gate_that_is_only_half_there_is_refused(change: dict[str, Any], message: str) -> None:
    table = as_table(load_recipe("first-light"))
    for name, settings in change.items():
        table[name] = {**table.get(name, {}), **settings} if name != "halting" else settings
    with pytest.raises(InputError, match=message):
        parse_recipe(table, where="test")
