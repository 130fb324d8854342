"""The planner's numbers are those of the models that are built, and of PyTorch's own counters."""

import json
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import VOCABULARY, in_form, model_configs
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from typeguard import suppress_type_checks

from looplm.bench import hardware
from looplm.config import ModelConfig
from looplm.hardware.live import LiveBytes
from looplm.hardware.plan import decode_speed, make_plan, prefill_speed, training_speed, with_loops
from looplm.hardware.profile import load_profile, profile_names
from looplm.hardware.setting import (
    Setting,
    choose,
    generation_bytes,
    largest_generation_batch,
    largest_training_batch,
    training_peak,
)
from looplm.hardware.workload import Workload, size_names
from looplm.loop.cache import KVCache
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.resources import resource
from looplm.spec import clauses, oracle
from looplm.think.batched import Thinking
from looplm.think.generate import generate
from looplm.train.workloads import find_workload

spec = oracle("hardware")


def measured_peak(drawn: Workload, setting: Setting) -> int:
    """As users measure: checked signatures would keep tensors alive."""
    with suppress_type_checks():
        return hardware.measured_peak(drawn, setting)


def workload(model: ModelConfig, **more: Any) -> Workload:
    loops = 1 if model.body == "static" else more.pop("num_loops", 3)
    more = {"context_tokens": 9, "num_loops": loops, "first_read": loops // 2 + 1, "batch_size": 2} | more
    return Workload(name="drawn", title="drawn", model=model, **more)


@pytest.mark.spec("hardware.parameters")
@given(model_configs())
def test_parameters_are_the_built_models(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = build_model(config)
    parts = spec.parameters(config)
    assert sum(parts.values()) == sum(parameter.numel() for parameter in model.parameters())
    built = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():
        kinds = {
            "positions": "positions",
            "loop_signal": "loop signal",
            "norm": "norms",
            "attention": "attention",
            "mlp": "mlp",
        }
        part = next((part for word, part in kinds.items() if word in name), "embedding")
        built[part] += parameter.numel()
    assert built == parts


@pytest.mark.spec("hardware.forward-flops", "hardware.training-flops")
@given(model_configs(), st.integers(1, 3), st.integers(2, 8), st.integers(1, 4), st.booleans())
def test_flops_are_those_that_pytorch_counts(config: ModelConfig, rows: int, tokens: int, loops: int, recompute: bool) -> None:
    from looplm.train.execution import Execution

    loops = 1 if config.body == "static" else loops
    first = loops // 2 + 1
    if config.layers > 1 and config.body != "static" and recompute:
        recompute = False  # the counter sees a recomputed layer's forward only up to what is needed
    model = Execution(recompute=recompute).prepare(in_form(build_model(config), sparse=False))
    text = torch.randint(0, VOCABULARY, (rows, tokens))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(text, loops, first_read=first)
    reads = loops - first + 1
    assert counter.get_total_flops() == rows * spec.forward_flops(config, tokens, tokens, loops, reads)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        cross_entropy(logits.flatten(0, 2), text.expand(len(logits), -1, -1).flatten()).backward()
    step = counter.get_total_flops() + backward.get_total_flops()
    expected = rows * spec.training_flops(config, tokens, loops, reads, recompute)
    if recompute:  # PyTorch stops recomputing once it has what it needs: before the layer's last product
        last = 2 * tokens * config.width * config.mlp_width * config.layers * loops
        expected -= rows * last
    assert step == expected


@pytest.mark.spec("hardware.forward-flops", "hardware.cache-bytes")
@given(model_configs(), st.integers(1, 3), st.integers(2, 8), st.integers(1, 4))
def test_decoding_counts_one_token_against_all_that_are_cached(config: ModelConfig, rows: int, tokens: int, loops: int) -> None:
    model = in_form(build_model(config), sparse=False).eval().requires_grad_(False)
    text = torch.randint(0, VOCABULARY, (rows, tokens + 1))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as prefill:
        rule = Confidence(loops, min_loops=loops, threshold=1.0)  # looks at the logits of every loop
        thinking = Thinking(model, text[:, :tokens], rule, room=1)
        for _ in range(loops):
            thinking.advance()
    assert prefill.get_total_flops() == rows * spec.forward_flops(config, tokens, tokens, loops, loops)
    assert thinking.nbytes == rows * spec.cache_bytes(config, tokens + 1 + 1, loops, 4), (
        "room for one, and one column that is nowhere"
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as decode:
        thinking.append(list(range(rows)), text[:, tokens])
        thinking.advance()
    assert not thinking.running.any()
    assert decode.get_total_flops() == rows * spec.forward_flops(config, 1, tokens + 1, loops, loops)
    cache = KVCache(loops, config.layers)
    for part in text.split([tokens, 1], dim=1):
        model.think(part, Fixed(loops), cache=cache)
    assert cache.nbytes == rows * spec.cache_bytes(config, 2 * tokens, loops, 4), "it grew to twice the tokens"


# Sizes whose activations and weights both matter; every branch of the formula is among them.
@st.composite
def trainings(draw: st.DrawFn) -> tuple[Workload, Setting]:
    heads = draw(st.sampled_from([1, 2, 4]))
    width = heads * draw(st.sampled_from([8, 16]))
    tokens, loops = draw(st.sampled_from([8, 16, 32, 48])), draw(st.sampled_from([1, 2, 3, 6]))
    config = draw(
        model_configs(
            body="looped",
            vocab_size=draw(st.sampled_from([VOCABULARY, 60, 300])),
            width=width,
            heads=heads,
            kv_heads=draw(st.sampled_from([None, 1])),
            mlp_width=draw(st.sampled_from([2, 4])) * width,
        )
    )
    if config.positions == "learned":
        config = replace(config, max_positions=48)
    share = draw(st.sampled_from([0.25, 1.0]))
    made = workload(
        config, context_tokens=tokens, num_loops=loops, first_read=loops // 2 + 1, scored_share=share, batch_size=16
    )
    return made, Setting(rows=draw(st.sampled_from([2, 4, 16])), parts=draw(st.sampled_from([1, 3])))


@pytest.mark.spec("hardware.training-peak", "hardware.kept-bytes", "hardware.state-bytes")
@given(trainings())
def test_the_peak_of_a_training_step_is_predicted_within_a_tenth(drawn: tuple[Workload, Setting]) -> None:
    assert training_peak(*drawn) == pytest.approx(measured_peak(*drawn), rel=0.1)


@pytest.mark.slow
@pytest.mark.spec("hardware.training-peak", "hardware.kept-bytes")
@given(trainings(), st.sampled_from([("float32", True), ("bfloat16", False), ("bfloat16", True)]))
@settings(max_examples=25)
def test_other_ways_to_train_are_predicted_within_a_quarter(drawn: tuple[Workload, Setting], way: tuple[Any, bool]) -> None:
    setting = replace(drawn[1], dtype=way[0], recompute=way[1])
    assert training_peak(drawn[0], setting) == pytest.approx(measured_peak(drawn[0], setting), rel=0.25)


@pytest.mark.spec("hardware.training-peak")
def test_the_trainer_itself_peaks_where_it_is_predicted() -> None:
    from looplm.train.recipe import load_recipe
    from looplm.train.trainer import Trainer

    trainer = Trainer(load_recipe("first-light", {"training": {"steps": 4, "min_loops": 6}}), 0)
    model = trainer.model
    trainer.step()
    gradients = (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    with suppress_type_checks(), LiveBytes(chain(model.parameters(), gradients)) as live:
        trainer.step()
    moments = 8 * sum(parameter.numel() for parameter in model.parameters())
    assert training_peak(find_workload("first-light"), Setting(rows=96)) == pytest.approx(live.peak + moments, rel=0.1)


@pytest.mark.spec("hardware.generation-bytes")
@given(
    model_configs(body="looped"), st.integers(1, 3), st.sampled_from([16, 48]), st.sampled_from([1, 2, 12]), st.integers(1, 4)
)
def test_generation_is_predicted_to_a_factor_of_two(config: ModelConfig, rows: int, prompt: int, more: int, loops: int) -> None:
    config = replace(config, width=config.heads * 16, mlp_width=config.heads * 64)
    if config.positions == "learned":
        config = replace(config, max_positions=60)
    model = build_model(config).eval()
    text = torch.randint(0, VOCABULARY, (rows, prompt))
    with suppress_type_checks(), LiveBytes(model.parameters()) as live:
        generate(model, text, halting=Fixed(loops), max_new_tokens=more, stop_token=-1)
    predicted = spec.generation_bytes(config, rows, prompt, prompt + more - 1, loops, 4)
    assert 0.8 * live.peak <= predicted <= 2.5 * live.peak


@pytest.mark.spec("hardware.largest-batch")
@given(st.integers(0, 5000), st.integers(1, 4000))
def test_the_largest_batch_fits_and_one_more_does_not(most: int, limit: int) -> None:
    assert spec.largest_batch(lambda rows: rows <= most, limit) == min(most, limit)


@pytest.mark.spec("hardware.largest-batch")
@pytest.mark.parametrize("name", ["medium", "looplm-384", "first-light"])
def test_one_row_more_than_the_largest_batch_does_not_fit(name: str) -> None:
    size = find_workload(name)
    for profile in map(load_profile, ("rtx5070", "tiny")):
        most = largest_training_batch(size, profile, "float32", recompute=False)
        for rows in (most, most + 1):
            setting = Setting(rows=rows, parts=-(-size.batch_size // max(1, rows)))
            assert (rows == 0) or (training_peak(size, setting) <= profile.usable_bytes) == (rows == most)
        most = largest_generation_batch(size, profile, "float32")
        assert most == 0 or generation_bytes(size, most, "float32") <= profile.usable_bytes
        assert generation_bytes(size, most + 1, "float32") > profile.usable_bytes


@pytest.mark.spec("hardware.roofline", "hardware.traffic")
def test_the_roofline_of_a_small_machine_can_be_checked_by_hand() -> None:
    profile = load_profile("tiny")  # 1 GFLOP/s, 1 GB/s, 1 MiB of cache at 10 GB/s
    config = ModelConfig(vocab_size=16, width=256, heads=4, mlp_width=1024, positions="none")
    size = workload(config, context_tokens=100, num_loops=4, first_read=3)
    block, head = 256 * 256 * 4 + 2 * 256 * 1024, 16 * 256
    cache = 2 * 4 * 100 * 256 * 4
    speed = decode_speed(size, profile, rows=1)
    assert speed.flops == 4 * (2 * block + 4 * 100 * 256 + 2 * head)
    weights = 4 * (block + head)
    assert speed.from_memory == (weights + cache - 2**20) + 3 * (weights - 2**20), "3 MiB of weights stream at every loop"
    assert (speed.wall, speed.seconds) == ("memory", speed.from_memory / 1e9)
    assert prefill_speed(size, profile, rows=1).wall == "compute"
    assert training_speed(size, profile, Setting(rows=2)).wall == "compute"
    wide = replace(profile, cache_mib=16.0)
    assert decode_speed(size, wide, rows=1).from_memory == 0, "weights and cache stay where they are"
    assert decode_speed(size, wide, rows=1).wall == "compute"


@pytest.mark.spec("hardware.roofline")
def test_more_loops_never_make_a_model_faster() -> None:
    for profile in map(load_profile, profile_names()):
        for name in ("looplm-384", "looplm-128"):
            speeds = [decode_speed(with_loops(find_workload(name), loops), profile, 1).tokens_per_s for loops in (1, 2, 8, 24)]
            assert speeds == sorted(speeds, reverse=True)


@pytest.mark.spec("hardware.never-faster")
def test_nothing_was_measured_faster_than_the_roofline() -> None:
    found = json.loads((resource("docs/data") / "hardware.json").read_text(encoding="utf-8"))
    assert len(found["speed"]) >= 30
    for line in found["speed"]:
        assert line["measured_s"] >= line["roofline_s"], line


@pytest.mark.spec("hardware.training-peak")
def test_committed_memory_measurements_agree_with_the_planner() -> None:
    found = json.loads((resource("docs/data") / "hardware.json").read_text(encoding="utf-8"))
    for line in found["memory"]:
        assert line["predicted_bytes"] == training_peak(find_workload(line["size"]), Setting(rows=line["rows"])), (
            "make hardware"
        )
        assert line["predicted_bytes"] == pytest.approx(line["measured_bytes"], rel=0.1)
    process = found["process"]
    assert process["predicted_bytes"] >= 2**30
    assert process["predicted_bytes"] == pytest.approx(process["measured_bytes"], rel=0.1)


@pytest.mark.spec("hardware.run-cost")
def test_days_and_energy_follow_from_speed_and_power() -> None:
    plan = make_plan(find_workload("medium"), load_profile("m4max"), utilization=0.5)
    lines = {line.what: line for line in plan.lines}
    seconds = 26_214_400_000 / (lines["speed, at most"].value * 0.5)
    assert lines["the whole run"].value == pytest.approx(seconds / 86_400)
    assert lines["energy"].value == pytest.approx(seconds * 145 / 3_600_000)


def test_every_line_of_a_plan_names_a_clause() -> None:
    for name in [*size_names(), "first-light", "first-light-static"]:
        for profile in map(load_profile, profile_names()):
            plan = make_plan(find_workload(name), profile)
            assert {line.clause for line in plan.lines} <= set(clauses())
            assert all(line.value >= 0 for line in plan.lines)
            assert bool(plan.refusal) != plan.fits
            assert json.loads(json.dumps(plan.as_json()))["fits"] == plan.fits


@pytest.mark.spec("hardware.obeyed")
@given(st.sampled_from([*size_names(), "first-light"]), st.sampled_from(profile_names()), st.booleans())
def test_a_chosen_setting_fits_and_covers_the_batch(size: str, name: str, recompute: bool) -> None:
    work, profile = find_workload(size), load_profile(name)
    setting = choose(work, profile, recompute=recompute)
    if setting is None:
        one = Setting(rows=1, parts=work.batch_size, dtype=profile.use.training_dtype, recompute=recompute)
        assert training_peak(work, one) > profile.usable_bytes
        return
    assert training_peak(work, setting) <= profile.usable_bytes
    assert setting.rows <= profile.use.batch_size
    assert (setting.parts - 1) * setting.rows < work.batch_size <= setting.parts * setting.rows


@pytest.mark.spec("hardware.obeyed")
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_the_fewest_parts_that_fit_are_chosen(batch_size: int, rows_at_once: int, data: st.DataObject) -> None:
    """Found by looking at each cut; among others where a whole batch fits, and no smaller part of a cut one does."""
    config = ModelConfig(vocab_size=16, width=64, heads=4, mlp_width=256, positions="none")
    work, tiny = workload(config, batch_size=batch_size), load_profile("tiny")

    def needed(parts: int) -> int:
        return training_peak(work, Setting(rows=-(-batch_size // parts), parts=parts))

    room = data.draw(st.sampled_from([needed(parts) + more for parts in range(1, batch_size + 1) for more in (-1, 0, 1)]))
    profile = replace(tiny, memory_gib=(room + 0.5) / 2**30, use=replace(tiny.use, memory_share=1.0, batch_size=rows_at_once))
    assert profile.usable_bytes == room
    cuts = range(-(-batch_size // rows_at_once), batch_size + 1)
    fewest = next((parts for parts in cuts if needed(parts) <= room), None)
    setting = choose(work, profile, dtype="float32")
    assert (setting.parts if setting else None) == fewest
