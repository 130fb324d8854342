"""A flow lists every tensor of a pass, of any body, and changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import looplm
from looplm.cli import main
from looplm.errors import InputError
from looplm.evaluate.flow_figure import MOST_STEPS, flow_figure
from looplm.loop.halting import HaltingRule
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.body import Body
from looplm.models.connection import ConnectionConfig
from looplm.think.flow import GIVEN, Flow, Step, flow_of_text, record
from looplm.train.recipe import read_recipe

SMALL = {
    "first-light": {},
    "first-light-static": {},
    "grammar": {"width": 16, "heads": 2, "layers": 1, "mlp_width": 16},
    "parallel": {},
}
SLOTS = ConnectionConfig(vocab_size=12, pad_id=0, end_ids=(1, 2), width=16, slots=4, max_words=4, max_facts=5)
STORY = torch.tensor([[3, 4, 5, 1, 6, 7, 1, 8, 9, 2]])
"""Two facts and a question, for the body whose task has no file here."""


def body_of(name: str) -> tuple[Body, torch.Tensor, HaltingRule]:
    torch.manual_seed(0)
    if name == "connection":
        return build_model(SLOTS).eval(), STORY, Fixed(2)
    recipe = read_recipe(name, {"model": SMALL[name]})
    task = recipe.task
    return build_model(recipe.model).eval(), torch.tensor([task.prompt(task.example).tokens]), recipe.halting


@pytest.mark.spec("architecture.flow")
@pytest.mark.parametrize("name", [*SMALL, "connection"])
def test_every_tensor_is_made_of_earlier_ones_and_nothing_changes(name: str) -> None:
    model, tokens, halting = body_of(name)
    plain, seen = model.think(tokens, halting), list[torch.Tensor]()
    made = record(model, tokens, lambda: seen.append(model.think(tokens, halting).logits))
    assert torch.equal(seen[0], plain.logits)
    assert [each.number for each in made] == list(range(1, len(made) + 1))
    for each in made:
        assert all(number < each.number for number in each.inputs)
        assert each.bytes == torch.Size(each.shape).numel() * getattr(torch, each.dtype).itemsize
        assert (each.operation in GIVEN) <= (not each.inputs and not each.call)
    names = {each.name for each in made if each.operation == "parameter"}
    assert names <= set(dict(model.named_parameters()))
    assert names
    assert sum(each.operation == "tokens" for each in made) == 1
    assert list(plain.logits.shape) in [list(each.shape) for each in made]


@pytest.mark.spec("architecture.flow")
@given(st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_what_a_layer_makes_is_counted_by_hand(rows: int, width: int, twice: bool) -> None:
    """Two products, a sum in place, a view: their number, memory and origin are known."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(width, 3, bias=False), nn.Linear(3, width, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.second(self.first(x))
            return (self.second(self.first(y)) if twice else y).add_(1).view(-1)

    model, x = Pair(), torch.zeros(rows, width)
    with torch.no_grad():
        made = record(model, x, lambda: model(x))
    products = [each for each in made if each.operation == "mm"]
    calls = [("first",), ("second",), *([("first#2",), ("second#2",)] if twice else [])]
    assert [each.call for each in products] == calls
    assert [each.bytes for each in products] == [4 * rows * n for _ in range(len(calls) // 2) for n in (3, width)]
    ended, flat = made[-2:]
    assert (ended.operation, ended.view, ended.call) == ("add", True, ())
    assert (flat.operation, flat.view, flat.shape) == ("view", True, (rows * width,))
    by_number = {each.number: each for each in made}
    assert by_number[products[0].inputs[0]].name == "tokens"


@pytest.mark.spec("architecture.flow")
def test_the_calls_say_what_they_read() -> None:
    """In a looped model every block reads x0 and the state of the block before it; a static one has no such arcs."""
    adder = looplm.load("adder")
    flow = flow_of_text(adder.model, adder.recipe.task, "12+34", adder.recipe.halting)
    steps = {step.call: step for step in flow.steps()}
    assert "embedding" in steps["block"].reads
    assert {"embedding", "state_norm"} <= set(steps["block#2"].reads)
    assert steps["block"].parameters == sum(
        weights.numel() for name, weights in adder.model.named_parameters() if name.startswith("block.")
    )
    assert flow.answer == "46"
    assert {steps[call].output for call in ("embedding", "block", "block#2", "head_norm")} == {(1, len(flow.tokens), 64)}
    assert {step.call.split("#")[0] for step in flow.steps(2)} >= {"block.layers.0", "embedding"}


@pytest.mark.spec("architecture.flow")
def test_a_call_gives_what_others_read_of_it() -> None:
    """PyTorch's layer norm makes two more tensors behind its result; nobody reads them."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.norm(x) + 1
            return y

    model, x = Normed(), torch.zeros(2, 3, 4)
    with torch.no_grad():
        made = record(model, x, lambda: model(x))
    (step,) = Flow("", "", "", (), made).steps()
    assert (step.tensors, step.output) == (3, (2, 3, 4))


@pytest.mark.spec("architecture.flow")
@given(st.integers(1, 4))
def test_a_call_is_shown_or_its_parts_are(depth: int) -> None:
    """Layers in a stack of stacks: a sum between two parts belongs to neither, and hides nothing that it was made of."""

    class Sums(nn.Module):
        def __init__(self, parts: nn.Module) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.parts(x)
            return x + y

    model = nn.Sequential(Sums(Sums(nn.Linear(2, 2))), nn.Linear(2, 2))
    with torch.no_grad():
        x = torch.zeros(1, 2)
        made = record(model, x, lambda: model(x))
    steps = {step.call: step.reads for step in Flow("", "", "", (), made).steps(depth)}
    first = ["0", "0.parts", "0.parts.parts"][min(depth, 3) - 1]
    assert steps == {first: ("tokens",), "1": tuple(sorted((first, "tokens"))) if depth > 1 else (first,)}


def test_a_text_that_is_too_long_is_refused() -> None:
    adder = looplm.load("adder")
    with pytest.raises(InputError, match="a flow is recorded of at most 64 tokens: got"):
        flow_of_text(adder.model, adder.recipe.task, f"{'9' * 40}+1", adder.recipe.halting)


def test_the_command_prints_calls_tensors_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "12+34", "--figure", str(tmp_path / "flow.svg")]) == 0
    said = capsys.readouterr().out
    assert "12+34 → 46: 9 tokens through LoopLM" in said
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    assert main(["flow", "12+34", "--all"]) == 0
    assert "/ mm " in capsys.readouterr().out
    assert main(["flow", "12+34", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {"schema", "text", "answer", "body", "tokens", "made"} == set(table)
    assert main(["flow", "I love you"]) == 2
    assert "The model is adder; `--model` takes another: ask," in capsys.readouterr().err
    assert main(["flow", "12+34", "--depth", "0"]) == 2
    assert "`--depth` must be from 1 to 9: got 0." in capsys.readouterr().err


def test_a_long_flow_is_drawn_in_part() -> None:
    steps = [Step(f"call{n}", ("tokens",) if n == 0 else (f"call{n - 1}",), (1, 2), 1, 8, 0) for n in range(MOST_STEPS + 50)]
    low, high = flow_figure(steps, 3).axes[0].get_ylim()
    assert high - low < MOST_STEPS + 2
