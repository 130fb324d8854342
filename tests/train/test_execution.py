"""Running as a profile says changes how a run is computed, and nothing that is learned from."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import VOCABULARY, models
from torch import Tensor

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.hardware.profile import Profile, load_profile
from looplm.hardware.setting import Setting, choose, training_peak
from looplm.hardware.workload import Workload
from looplm.models import build_model
from looplm.models.looped import LoopLM, looped
from looplm.runs.run import run_recipe
from looplm.spec import oracle
from looplm.task import Batch
from looplm.train.config import TrainingConfig
from looplm.train.execution import Execution, limit_memory, plan_execution, refuse_generation, with_products
from looplm.train.loops import LoopPlan
from looplm.train.objective import make_objective
from looplm.train.recipe import load_recipe
from looplm.train.trainer import Trainer, add_gradient, run_steps
from looplm.train.workloads import find_workload, workload_of

spec = oracle("hardware")
CPU = torch.device("cpu")


def with_memory(profile: Profile, needed: int) -> Profile:
    """The same machine with room for exactly so many bytes."""
    return replace(profile, memory_gib=needed / 2**30, use=replace(profile.use, memory_share=1.0))


def gradients(model: LoopLM, tokens: Tensor, scored: Tensor, execution: Execution | None = None) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    batch, plan, config = Batch(tokens, tokens, scored, torch.ones_like(scored)), LoopPlan(2, 1), TrainingConfig()
    objective, rows = make_objective(batch, plan, config, None), range(len(tokens))
    passed = (model, batch, objective, plan, config, execution or Execution())
    loss = add_gradient(*passed, draw=partial(Draw, 0), rows=rows)
    return loss, [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.spec("hardware.parts")
@given(models(), st.integers(1, 7), st.integers(1, 8), st.integers(0, 99), st.booleans())
def test_a_batch_in_parts_has_the_gradient_of_the_whole(model: LoopLM, rows: int, parts: int, seed: int, again: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (rows, 6), generator=generator)
    scored = torch.rand((rows, 6), generator=generator) < 0.3
    scored[0, 0] = True
    loss, whole = gradients(model, tokens, scored)
    size = -(-rows // parts)
    pieces = [(t, s) for t, s in zip(tokens.split(size), scored.split(size), strict=True) if s.any()]
    weights = spec.part_weights([int(s.sum()) for _, s in pieces])
    assert sum(w * gradients(model, t, s)[0] for w, (t, s) in zip(weights, pieces, strict=True)) == pytest.approx(
        loss, rel=1e-9
    )
    execution = Execution(parts=parts, recompute=again)
    in_parts, cut = gradients(looped(execution.prepare(model), "this test"), tokens, scored, execution)
    assert in_parts == pytest.approx(loss, rel=1e-9)
    for ours, theirs in zip(cut, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


@pytest.mark.spec("hardware.obeyed")
def test_parts_and_recomputing_learn_the_same() -> None:
    preset = load_recipe("first-light", {"training": {"steps": 3}})

    def learned(execution: Execution | None) -> tuple[list[int], dict[str, Tensor]]:
        trainer = Trainer(preset, 3, CPU, execution)
        return [step.loops for step in run_steps(trainer)], trainer.model.state_dict()

    loops, plain = learned(None)
    for execution in (Execution(parts=5), Execution(parts=2, recompute=True)):
        same_loops, weights = learned(execution)
        assert same_loops == loops
        assert list(weights) == list(plain)
        for name in plain:
            torch.testing.assert_close(weights[name], plain[name], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(learned(Execution())[1][name], plain[name]) for name in plain), "the default, bit for bit"


@pytest.mark.spec("hardware.obeyed")
def test_a_profile_sets_everything_that_it_names() -> None:
    adder, profile = workload_of(load_recipe("first-light")), load_profile("rtx4090")
    execution = plan_execution(adder, profile, recompute=True)
    assert (execution.parts, execution.dtype, execution.compile, execution.recompute) == (1, "bfloat16", True, True)
    assert execution.profile == "rtx4090"
    cut = plan_execution(adder, replace(profile, use=replace(profile.use, batch_size=40)))
    assert cut.parts == 3
    assert "hardware.parts" in cut.clauses()
    with Execution(dtype="bfloat16").products(CPU):
        assert build_model(adder.model)(torch.tensor([[1, 2]]), 1).dtype == torch.bfloat16
    model = looped(
        with_products(build_model(adder.model), replace(profile, use=replace(profile.use, compile=False))), "this test"
    )
    assert model.embedding.weight.dtype == torch.bfloat16


@pytest.mark.spec("hardware.obeyed")
def test_compilation_and_memory_are_asked_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    model = build_model(load_recipe("first-light").model)
    monkeypatch.setattr(type(model.block), "compile", lambda self: asked.append("compile"))
    Execution(compile=True).prepare(model)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: asked.append((share, device.type)))
    limit_memory(load_profile("rtx4090"), torch.device("cuda"))
    limit_memory(load_profile("cpu"), CPU)
    assert asked == ["compile", (0.9, "cuda")]


@pytest.mark.spec("hardware.refusal")
@given(st.integers(1, 96), st.booleans())
def test_a_run_is_cut_to_the_memory_and_refused_below_one_row(rows: int, recompute: bool) -> None:
    adder, roomy = workload_of(load_recipe("first-light")), load_profile("cpu")
    parts = -(-96 // rows)
    needed = training_peak(adder, Setting(rows=rows, parts=parts, recompute=recompute))
    setting = choose(adder, with_memory(roomy, needed), recompute=recompute)
    assert setting is not None
    assert setting.parts == parts
    least = training_peak(adder, Setting(rows=1, parts=96, recompute=recompute))
    small = with_memory(roomy, least - 1)
    assert choose(adder, small, recompute=recompute) is None
    with pytest.raises(InputError, match=r"a training step of 1 row of 16 tokens needs .* What fits: .* `--force` tries"):
        plan_execution(adder, small, recompute=recompute)
    assert plan_execution(adder, small, recompute=recompute, force=True).parts == 96


@pytest.mark.spec("hardware.refusal")
def test_a_refusal_names_the_nearest_setting_that_fits() -> None:
    def why(size: Workload, needed: int) -> str:
        with pytest.raises(InputError) as caught:
            plan_execution(size, with_memory(load_profile("cpu"), needed))
        return str(caught.value)

    medium, one = replace(find_workload("medium"), context_tokens=2**15), Setting(rows=1, parts=64)
    recomputed = training_peak(medium, replace(one, recompute=True))
    assert "What fits: 1 row at a time, 64 parts a step, with --recompute" in why(medium, recomputed)
    smallest = min(recomputed, training_peak(medium, replace(one, recompute=True, dtype="bfloat16")))
    assert "What fits: a context of 16,384 tokens, with --recompute; or another profile" in why(medium, smallest - 2**20)
    assert "What fits: another profile: h200, mi300x." in why(medium, 2**20), "nothing else does"


@pytest.mark.spec("hardware.refusal")
def test_generation_that_does_not_fit_is_refused() -> None:
    model, profile = build_model(load_recipe("first-light").model), load_profile("tiny")
    refuse_generation(model, 8, 30, 6, profile)
    with pytest.raises(InputError, match=r"8 texts of 300 tokens need .* What fits: at most 1 at a time"):
        refuse_generation(model, 8, 300, 6, profile)
    with pytest.raises(InputError, match="What fits: shorter texts"):
        refuse_generation(model, 1, 9000, 6, profile)


@pytest.mark.spec("hardware.obeyed")
def test_a_run_logs_how_it_was_computed(tmp_path: Path) -> None:
    import json

    small = {"training": {"steps": 2, "batch_size": 4}, "evaluation": {"sizes": [4], "problems_per_cell": 2}}
    recipe = load_recipe("first-light", small)
    run_recipe(recipe, 0, tmp_path / "run", CPU, execution=Execution(parts=2, dtype="bfloat16", profile="mine"))
    header = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    assert (header["execution"]["parts"], header["execution"]["profile"]) == (2, "mine")
    assert header["dtype"] == header["execution"]["dtype"] == "bfloat16"
    assert any(citation.startswith("hardware.parts@") for citation in header["clauses"])
